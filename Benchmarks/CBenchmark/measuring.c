// SPDX-License-Identifier: Apache-2.0
//
// What the kernel counts of a process, and where a thread runs.
#define _GNU_SOURCE
#include <linux/perf_event.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <time.h>

#include "internal.h"

int cbench_open_counter(uint64_t tracepoint, pid_t process)
{
	struct perf_event_attr attributes = {
		.type = PERF_TYPE_TRACEPOINT,
		.size = sizeof(attributes),
		.config = tracepoint,
		.disabled = 1,
		.inherit = 1,
	};
	int descriptor = syscall(SYS_perf_event_open, &attributes, process, -1, -1, PERF_FLAG_FD_CLOEXEC);

	return descriptor < 0 ? -errno : descriptor;
}

int cbench_start_counter(int descriptor)
{
	return ioctl(descriptor, PERF_EVENT_IOC_ENABLE, 0) < 0 ? -errno : 0;
}

int cbench_stop_counter(int descriptor)
{
	return ioctl(descriptor, PERF_EVENT_IOC_DISABLE, 0) < 0 ? -errno : 0;
}

int cbench_read_counter(int descriptor, uint64_t *value)
{
	ssize_t got = read(descriptor, value, sizeof(*value));

	if (got < 0)
		return -errno;
	return got == sizeof(*value) ? 0 : -EIO;
}

int cbench_tsc_khz(int vcpu)
{
	int frequency = ioctl(vcpu, KVM_GET_TSC_KHZ, 0);

	return frequency < 0 ? -errno : frequency;
}

uint64_t cbench_cpu_time(pid_t process)
{
	struct timespec time = { 0 };
	clockid_t clock = CLOCK_PROCESS_CPUTIME_ID;

	if (process && clock_getcpuclockid(process, &clock) != 0)
		return 0;
	clock_gettime(clock, &time);
	return (uint64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

uint64_t cbench_kernel_time(void)
{
	struct rusage usage = { 0 };

	getrusage(RUSAGE_SELF, &usage);
	return (uint64_t)usage.ru_stime.tv_sec * 1000000000 + usage.ru_stime.tv_usec * 1000;
}

int cbench_pin(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	return sched_setaffinity(0, sizeof(set), &set) < 0 ? -errno : 0;
}

// SPDX-License-Identifier: Apache-2.0
//
// <linux/kvm.h> as Swift can import it: ioctl numbers as constants, structures with flexible arrays behind functions
// that do the whole call, and the union of struct kvm_run behind accessors that read each field once.
#ifndef CKVM_H
#define CKVM_H

#include <linux/kvm.h>
#include <stdint.h>
#include <string.h>
#include <sys/types.h>

// /dev/kvm
static const unsigned long CKVM_GET_API_VERSION = KVM_GET_API_VERSION;
static const unsigned long CKVM_CREATE_VM = KVM_CREATE_VM;
static const unsigned long CKVM_CHECK_EXTENSION = KVM_CHECK_EXTENSION;
static const unsigned long CKVM_GET_VCPU_MMAP_SIZE = KVM_GET_VCPU_MMAP_SIZE;

// VM
static const unsigned long CKVM_CREATE_VCPU = KVM_CREATE_VCPU;
static const unsigned long CKVM_SET_USER_MEMORY_REGION = KVM_SET_USER_MEMORY_REGION;
static const unsigned long CKVM_SET_TSS_ADDR = KVM_SET_TSS_ADDR;
static const unsigned long CKVM_SET_IDENTITY_MAP_ADDR = KVM_SET_IDENTITY_MAP_ADDR;
static const unsigned long CKVM_CREATE_IRQCHIP = KVM_CREATE_IRQCHIP;
static const unsigned long CKVM_CREATE_PIT2 = KVM_CREATE_PIT2;
static const unsigned long CKVM_CREATE_DEVICE = KVM_CREATE_DEVICE;
static const unsigned long CKVM_IRQFD = KVM_IRQFD;
static const unsigned long CKVM_IOEVENTFD = KVM_IOEVENTFD;
static const unsigned long CKVM_SIGNAL_MSI = KVM_SIGNAL_MSI;

// vCPU
static const unsigned long CKVM_RUN = KVM_RUN;
static const unsigned long CKVM_GET_REGS = KVM_GET_REGS;
static const unsigned long CKVM_SET_REGS = KVM_SET_REGS;
static const unsigned long CKVM_GET_SREGS = KVM_GET_SREGS;
static const unsigned long CKVM_SET_SREGS = KVM_SET_SREGS;
static const unsigned long CKVM_GET_MP_STATE = KVM_GET_MP_STATE;
static const unsigned long CKVM_SET_MP_STATE = KVM_SET_MP_STATE;
static const unsigned long CKVM_INTERRUPT = KVM_INTERRUPT;

// Flags
static const uint32_t CKVM_MEM_LOG_DIRTY_PAGES = KVM_MEM_LOG_DIRTY_PAGES;
static const uint32_t CKVM_MEM_READONLY = KVM_MEM_READONLY;
static const uint32_t CKVM_IRQFD_FLAG_DEASSIGN = KVM_IRQFD_FLAG_DEASSIGN;
static const uint32_t CKVM_IRQFD_FLAG_RESAMPLE = KVM_IRQFD_FLAG_RESAMPLE;
static const uint32_t CKVM_IOEVENTFD_FLAG_DATAMATCH = KVM_IOEVENTFD_FLAG_DATAMATCH;
static const uint32_t CKVM_IOEVENTFD_FLAG_PIO = KVM_IOEVENTFD_FLAG_PIO;
static const uint32_t CKVM_IOEVENTFD_FLAG_DEASSIGN = KVM_IOEVENTFD_FLAG_DEASSIGN;
static const uint32_t CKVM_CPUID_FLAG_SIGNIFICANT_INDEX = KVM_CPUID_FLAG_SIGNIFCANT_INDEX;

/// KVM_GET_SUPPORTED_CPUID into `entries`, which has room for *count. -1 with errno (E2BIG: more room), or 0 and the
/// number of entries in *count.
int ckvm_supported_cpuid(int kvm, struct kvm_cpuid_entry2 *_Nonnull entries, uint32_t *_Nonnull count);

/// KVM_SET_CPUID2. -1 with errno, or 0.
int ckvm_set_cpuid(int vcpu, const struct kvm_cpuid_entry2 *_Nullable entries, uint32_t count);

/// KVM_GET_CPUID2 into `entries`, which has room for *count. -1 with errno (E2BIG: more room), or 0 and the number of
/// entries in *count.
int ckvm_get_cpuid(int vcpu, struct kvm_cpuid_entry2 *_Nonnull entries, uint32_t *_Nonnull count);

/// KVM_GET_MSRS and KVM_SET_MSRS for one register. -1 with errno (EINVAL for a register that KVM does not know), or 0.
int ckvm_get_msr(int vcpu, uint32_t index, uint64_t *_Nonnull value);
int ckvm_set_msr(int vcpu, uint32_t index, uint64_t value);

/// KVM_IRQ_LINE. -1 with errno, or 0.
int ckvm_irq_line(int vm, uint32_t gsi, uint32_t level);

/// KVM_REGISTER_COALESCED_MMIO and KVM_UNREGISTER_COALESCED_MMIO for guest physical memory. -1 with errno, or 0.
int ckvm_register_coalesced(int vm, uint64_t address, uint32_t size);
int ckvm_unregister_coalesced(int vm, uint64_t address, uint32_t size);

/// KVM_SET_GSI_ROUTING. -1 with errno, or 0.
int ckvm_set_gsi_routing(int vm, const struct kvm_irq_routing_entry *_Nullable entries, uint32_t count);

/// Entries for ckvm_set_gsi_routing: a pin of an in-kernel interrupt controller, or a message.
struct kvm_irq_routing_entry ckvm_route_to_irqchip(uint32_t gsi, uint32_t irqchip, uint32_t pin);
struct kvm_irq_routing_entry ckvm_route_to_msi(uint32_t gsi, uint64_t address, uint32_t data);

/// The calling thread's kernel id, from gettid the first time and remembered after that.
pid_t ckvm_thread_id(void);

/// The signal that interrupts KVM_RUN, SIGRTMIN.
int ckvm_kick_signal(void);

/// Gives that signal a handler that does nothing. -1 with errno, or 0.
int ckvm_install_kick_handler(void);

/// Lets that signal reach the calling thread. Threads of libdispatch block all signals, and those that they make
/// inherit that.
void ckvm_unblock_kick_signal(void);

/// Sends that signal to a thread of this process. -1 with errno (ESRCH: no such thread), or 0.
int ckvm_kick(pid_t thread);

// struct kvm_run: what the kernel wrote before KVM_RUN returned, and what it reads when it is called.

static inline void ckvm_run_add_immediate_exit(struct kvm_run *_Nonnull run, uint8_t bits)
{
	__atomic_fetch_or(&run->immediate_exit, bits, __ATOMIC_SEQ_CST);
}

static inline void ckvm_run_remove_immediate_exit(struct kvm_run *_Nonnull run, uint8_t bits)
{
	__atomic_fetch_and(&run->immediate_exit, ~bits, __ATOMIC_SEQ_CST);
}

static inline void ckvm_run_set_request_interrupt_window(struct kvm_run *_Nonnull run, uint8_t value)
{
	run->request_interrupt_window = value;
}

static inline uint8_t ckvm_run_ready_for_interrupt(const struct kvm_run *_Nonnull run)
{
	return run->ready_for_interrupt_injection;
}

static inline uint32_t ckvm_run_exit_reason(const struct kvm_run *_Nonnull run)
{
	return run->exit_reason;
}

static inline uint64_t ckvm_run_mmio_address(const struct kvm_run *_Nonnull run)
{
	return run->mmio.phys_addr;
}

static inline uint32_t ckvm_run_mmio_length(const struct kvm_run *_Nonnull run)
{
	return run->mmio.len;
}

static inline uint8_t ckvm_run_mmio_is_write(const struct kvm_run *_Nonnull run)
{
	return run->mmio.is_write;
}

/// All 8 bytes, of which the access has the first ones.
static inline uint64_t ckvm_run_mmio_data(const struct kvm_run *_Nonnull run)
{
	uint64_t data;

	memcpy(&data, run->mmio.data, sizeof(data));
	return data;
}

static inline void ckvm_run_set_mmio_data(struct kvm_run *_Nonnull run, uint64_t data)
{
	memcpy(run->mmio.data, &data, sizeof(data));
}

static inline uint8_t ckvm_run_io_is_out(const struct kvm_run *_Nonnull run)
{
	return run->io.direction == KVM_EXIT_IO_OUT;
}

static inline uint8_t ckvm_run_io_size(const struct kvm_run *_Nonnull run)
{
	return run->io.size;
}

static inline uint16_t ckvm_run_io_port(const struct kvm_run *_Nonnull run)
{
	return run->io.port;
}

static inline uint32_t ckvm_run_io_count(const struct kvm_run *_Nonnull run)
{
	return run->io.count;
}

static inline uint64_t ckvm_run_io_data_offset(const struct kvm_run *_Nonnull run)
{
	return run->io.data_offset;
}

static inline uint64_t ckvm_run_hardware_exit_reason(const struct kvm_run *_Nonnull run)
{
	return run->hw.hardware_exit_reason;
}

static inline uint64_t ckvm_run_entry_failure_reason(const struct kvm_run *_Nonnull run)
{
	return run->fail_entry.hardware_entry_failure_reason;
}

static inline uint32_t ckvm_run_internal_suberror(const struct kvm_run *_Nonnull run)
{
	return run->internal.suberror;
}

static inline uint32_t ckvm_run_system_event_type(const struct kvm_run *_Nonnull run)
{
	return run->system_event.type;
}

/// Takes the oldest entry out of the ring of coalesced stores, a page of 4096 bytes. 0 if it is empty, else 1.
static inline int ckvm_coalesced_take(void *_Nonnull page, struct kvm_coalesced_mmio *_Nonnull store)
{
	struct kvm_coalesced_mmio_ring *ring = page;
	uint32_t capacity = (4096 - sizeof(*ring)) / sizeof(ring->coalesced_mmio[0]);
	uint32_t first = ring->first;

	if (first >= capacity || first == __atomic_load_n(&ring->last, __ATOMIC_ACQUIRE))
		return 0;
	*store = ring->coalesced_mmio[first];
	__atomic_store_n(&ring->first, (first + 1) % capacity, __ATOMIC_RELEASE);
	return 1;
}

// Words that a guest and this process share: one access each, ordered as the names say.

static inline uint32_t ckvm_load_acquire_32(const void *_Nonnull address)
{
	return __atomic_load_n((const uint32_t *)address, __ATOMIC_ACQUIRE);
}

static inline uint64_t ckvm_load_acquire_64(const void *_Nonnull address)
{
	return __atomic_load_n((const uint64_t *)address, __ATOMIC_ACQUIRE);
}

static inline void ckvm_store_release_32(void *_Nonnull address, uint32_t value)
{
	__atomic_store_n((uint32_t *)address, value, __ATOMIC_RELEASE);
}

static inline void ckvm_store_release_64(void *_Nonnull address, uint64_t value)
{
	__atomic_store_n((uint64_t *)address, value, __ATOMIC_RELEASE);
}

#endif

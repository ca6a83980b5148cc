/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Tracepoints: where each request is on its way.
 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM kvm_user

#if !defined(KVM_USER_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define KVM_USER_TRACE_H

#include <linux/kvm_user.h>
#include <linux/tracepoint.h>

#include "scoreboard.h"

#define kvm_user_show_type(type)					\
	__print_symbolic(type, { KVM_USER_LOAD, "load" }, { KVM_USER_STORE, "store" })

TRACE_DEFINE_ENUM(KVM_USER_SPACE);
TRACE_DEFINE_ENUM(KVM_USER_REPLY);
TRACE_DEFINE_ENUM(KVM_USER_STORES);
TRACE_DEFINE_ENUM(KVM_USER_SHADOW);

#define kvm_user_show_wait(wait)					\
	__print_symbolic(wait, { KVM_USER_SPACE, "space" },		\
			 { KVM_USER_REPLY, "reply" },			\
			 { KVM_USER_STORES, "stores" },			\
			 { KVM_USER_SHADOW, "shadow" })

DECLARE_EVENT_CLASS(kvm_user_request,
	TP_PROTO(u32 dev, const struct kvm_user_request *request),
	TP_ARGS(dev, request),

	TP_STRUCT__entry(
		__field(u32, dev)
		__field(u32, cpu)
		__field(u64, seq)
		__field(u64, offset)
		__field(u64, data)
		__field(u32, range_id)
		__field(u32, flags)
		__field(u16, type)
		__field(u16, len)
	),

	TP_fast_assign(
		__entry->dev = dev;
		__entry->cpu = request->cpu;
		__entry->seq = request->seq;
		__entry->offset = request->offset;
		__entry->data = request->data;
		__entry->range_id = request->range_id;
		__entry->flags = request->flags;
		__entry->type = request->type;
		__entry->len = request->len;
	),

	TP_printk("dev=%u cpu=%u seq=%llu %s range=%u offset=0x%llx len=%u data=0x%llx flags=0x%x",
		  __entry->dev, __entry->cpu, __entry->seq,
		  kvm_user_show_type(__entry->type), __entry->range_id,
		  __entry->offset, __entry->len, __entry->data, __entry->flags)
);

/* KVM's handler put it into the pending queue. */
DEFINE_EVENT(kvm_user_request, kvm_user_queued,
	TP_PROTO(u32 dev, const struct kvm_user_request *request),
	TP_ARGS(dev, request)
);

/* The emulation process has it. */
DEFINE_EVENT(kvm_user_request, kvm_user_read,
	TP_PROTO(u32 dev, const struct kvm_user_request *request),
	TP_ARGS(dev, request)
);

/* The emulation process wrote a reply; @ret says whether it was accepted. */
TRACE_EVENT(kvm_user_replied,
	TP_PROTO(u32 dev, const struct kvm_user_request *reply, int ret),
	TP_ARGS(dev, reply, ret),

	TP_STRUCT__entry(
		__field(u32, dev)
		__field(int, ret)
		__field(u64, seq)
		__field(u64, data)
		__field(u16, type)
	),

	TP_fast_assign(
		__entry->dev = dev;
		__entry->ret = ret;
		__entry->seq = reply->seq;
		__entry->data = reply->data;
		__entry->type = reply->type;
	),

	TP_printk("dev=%u seq=%llu %s data=0x%llx ret=%d", __entry->dev, __entry->seq,
		  kvm_user_show_type(__entry->type), __entry->data, __entry->ret)
);

/* A wait is over: @ret is 0, -ETIME, -EINTR, or of a parked access what RESUME says. */
TRACE_EVENT(kvm_user_resumed,
	TP_PROTO(u32 dev, u32 cpu, int ret),
	TP_ARGS(dev, cpu, ret),

	TP_STRUCT__entry(
		__field(u32, dev)
		__field(u32, cpu)
		__field(int, ret)
	),

	TP_fast_assign(
		__entry->dev = dev;
		__entry->cpu = cpu;
		__entry->ret = ret;
	),

	TP_printk("dev=%u cpu=%u ret=%d", __entry->dev, __entry->cpu, __entry->ret)
);

/* What a vCPU waits for; seq 0 where that is no request. */
DECLARE_EVENT_CLASS(kvm_user_access,
	TP_PROTO(u32 dev, u32 cpu, const struct kvm_user_access *access, int reason),
	TP_ARGS(dev, cpu, access, reason),

	TP_STRUCT__entry(
		__field(u32, dev)
		__field(u32, cpu)
		__field(u64, seq)
		__field(u32, wait_for)
		__field(int, reason)
	),

	TP_fast_assign(
		__entry->dev = dev;
		__entry->cpu = cpu;
		__entry->seq = access->entry ? access->entry->request.seq : 0;
		__entry->wait_for = access->wait_for;
		__entry->reason = reason;
	),

	TP_printk("dev=%u cpu=%u seq=%llu %s reason=%d", __entry->dev, __entry->cpu,
		  __entry->seq, kvm_user_show_wait(__entry->wait_for), __entry->reason)
);

/* It is given up. */
DEFINE_EVENT(kvm_user_access, kvm_user_retired,
	TP_PROTO(u32 dev, u32 cpu, const struct kvm_user_access *access, int reason),
	TP_ARGS(dev, cpu, access, reason)
);

/* A signal took the vCPU out of KVM_RUN (B4). */
DEFINE_EVENT(kvm_user_access, kvm_user_parked,
	TP_PROTO(u32 dev, u32 cpu, const struct kvm_user_access *access, int reason),
	TP_ARGS(dev, cpu, access, reason)
);

/* The shadow image answered a load (O4). */
TRACE_EVENT(kvm_user_shadow_load,
	TP_PROTO(u32 dev, u32 cpu, u32 range_id, u64 offset, int len, u64 data),
	TP_ARGS(dev, cpu, range_id, offset, len, data),

	TP_STRUCT__entry(
		__field(u32, dev)
		__field(u32, cpu)
		__field(u64, offset)
		__field(u64, data)
		__field(u32, range_id)
		__field(int, len)
	),

	TP_fast_assign(
		__entry->dev = dev;
		__entry->cpu = cpu;
		__entry->offset = offset;
		__entry->data = data;
		__entry->range_id = range_id;
		__entry->len = len;
	),

	TP_printk("dev=%u cpu=%u range=%u offset=0x%llx len=%d data=0x%llx", __entry->dev,
		  __entry->cpu, __entry->range_id, __entry->offset, __entry->len,
		  __entry->data)
);

/* The last close of the emulation descriptor, and what becomes of its requests. */
TRACE_EVENT(kvm_user_closed,
	TP_PROTO(u32 dev, u32 on_close, u32 redelivered, u32 aborted),
	TP_ARGS(dev, on_close, redelivered, aborted),

	TP_STRUCT__entry(
		__field(u32, dev)
		__field(u32, on_close)
		__field(u32, redelivered)
		__field(u32, aborted)
	),

	TP_fast_assign(
		__entry->dev = dev;
		__entry->on_close = on_close;
		__entry->redelivered = redelivered;
		__entry->aborted = aborted;
	),

	TP_printk("dev=%u %s redelivered=%u aborted=%u", __entry->dev,
		  __print_symbolic(__entry->on_close,
				   { KVM_USER_ON_CLOSE_ABORT, "abort" },
				   { KVM_USER_ON_CLOSE_HOLD, "hold" },
				   { KVM_USER_ON_CLOSE_EXIT, "exit" }),
		  __entry->redelivered, __entry->aborted)
);

/* A range was placed, moved, or removed (len 0). */
TRACE_EVENT(kvm_user_range,
	TP_PROTO(u32 dev, const struct kvm_dev_user_pa_range *range),
	TP_ARGS(dev, range),

	TP_STRUCT__entry(
		__field(u32, dev)
		__field(u32, id)
		__field(u64, addr)
		__field(u64, len)
		__field(u32, bus)
	),

	TP_fast_assign(
		__entry->dev = dev;
		__entry->id = range->id;
		__entry->addr = range->addr;
		__entry->len = range->len;
		__entry->bus = range->bus;
	),

	TP_printk("dev=%u range=%u %s addr=0x%llx len=0x%llx", __entry->dev, __entry->id,
		  __print_symbolic(__entry->bus, { KVM_USER_BUS_MMIO, "mmio" },
				   { KVM_USER_BUS_PIO, "pio" }),
		  __entry->addr, __entry->len)
);

#endif /* KVM_USER_TRACE_H */

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE trace
#include <trace/define_trace.h>

// SPDX-License-Identifier: GPL-2.0
/*
 * How this kernel's KVM is reached: see glue.h.
 *
 * A kernel with KVM_DEV_TYPE_USER exports the four functions that are needed.
 * Stock kernels do not: there a kprobe, registered for a moment, tells where
 * each of them is, and the device goes by a type number that x86 leaves unused.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/kprobes.h>
#include <linux/module.h>
#include <linux/rcupdate.h>
#include <linux/static_call.h>

#include "glue.h"

/*
 * A reference to an export of kvm.ko makes that module load before this one and
 * stay.  With modversions its checksum covers struct kvm and all that this
 * contains, so a kvm.ko of another layout is refused.
 */
static void (*const kvm_user_needs_kvm)(struct kvm *kvm) __used = kvm_put_kvm;

#ifdef KVM_DEV_TYPE_USER

#define kvm_user_call(function)	function

static unsigned int device_type = KVM_DEV_TYPE_USER;
module_param(device_type, uint, 0444);

static int kvm_user_resolve(void)
{
	return 0;
}

#else

/*
 * Static calls are direct calls: they reach functions that the kernel sealed
 * against indirect ones (IBT).  The probe's address may be past the ENDBR at
 * the function's entry, which is as good a place to call.
 */
DEFINE_STATIC_CALL_NULL(kvm_user_kvm_register_device_ops, kvm_register_device_ops);
DEFINE_STATIC_CALL_NULL(kvm_user_kvm_unregister_device_ops, kvm_unregister_device_ops);
DEFINE_STATIC_CALL_NULL(kvm_user_kvm_io_bus_register_dev, kvm_io_bus_register_dev);
DEFINE_STATIC_CALL_NULL(kvm_user_kvm_io_bus_unregister_dev, kvm_io_bus_unregister_dev);

#define kvm_user_call(function)	static_call(kvm_user_##function)

static unsigned int device_type = KVM_DEV_TYPE_ARM_PV_TIME;
module_param(device_type, uint, 0444);
MODULE_PARM_DESC(device_type, "number for KVM_CREATE_DEVICE; one that x86 leaves unused");

#ifdef KVM_USER_TEST
static char *lacks;
module_param(lacks, charp, 0444);
MODULE_PARM_DESC(lacks, "behave as on a kernel that does not have this function");
#else
static const char *const lacks;
#endif

static int kvm_user_probe(struct kprobe *probe)
{
	return lacks && !strcmp(probe->symbol_name, lacks) ? -ENOENT : register_kprobe(probe);
}

static void *kvm_user_find(const char *symbol)
{
	/* Disabled: no code is patched, the address is all that is wanted. */
	struct kprobe probe = { .symbol_name = symbol, .flags = KPROBE_FLAG_DISABLED };
	int ret = kvm_user_probe(&probe);

	if (ret) {
		pr_err("cannot attach to this kernel's KVM: no %s (%d)\n", symbol, ret);
		return NULL;
	}
	unregister_kprobe(&probe);
	return probe.addr;
}

#define kvm_user_resolve_one(function) ({				\
	void *address = kvm_user_find(#function);			\
									\
	if (address)							\
		static_call_update(kvm_user_##function, address);	\
	address;							\
})

static int kvm_user_resolve(void)
{
	if (!kvm_user_resolve_one(kvm_register_device_ops) ||
	    !kvm_user_resolve_one(kvm_unregister_device_ops) ||
	    !kvm_user_resolve_one(kvm_io_bus_register_dev) ||
	    !kvm_user_resolve_one(kvm_io_bus_unregister_dev))
		return -EOPNOTSUPP;
	return 0;
}

#endif /* KVM_DEV_TYPE_USER */

/**
 * kvm_user_glue_init - find KVM and register the device type with it
 * @ops: what KVM_CREATE_DEVICE makes
 *
 * Return: 0; -EOPNOTSUPP if this kernel cannot be attached to; -EEXIST if the
 * type number is taken; -ENOSPC if it is too large.
 */
int kvm_user_glue_init(const struct kvm_device_ops *ops)
{
	int ret = kvm_user_resolve();

	if (ret)
		return ret;
	ret = kvm_user_call(kvm_register_device_ops)(ops, device_type);
	if (ret)
		pr_err("device_type=%u: %s\n", device_type,
		       ret == -EEXIST ? "this kernel uses it" : "not a type of this kernel's");
	return ret;
}

/**
 * kvm_user_glue_exit - unregister the device type
 *
 * KVM takes no reference on a module whose type it is about to create: a task
 * that is in such a create without sleeping, or on the last instructions of a
 * destroy, is waited for here.  What remains is a KVM_CREATE_DEVICE that read
 * the type just before and then slept for memory or for kvm->lock.
 */
void kvm_user_glue_exit(void)
{
	kvm_user_call(kvm_unregister_device_ops)(device_type);
	synchronize_rcu_tasks();
}

/**
 * kvm_user_bus_add - have a kvm_io_device answer at an address
 * @kvm: the VM, with slots_lock held
 * @bus: memory or ports
 * @addr: first address
 * @len: bytes
 * @io: who answers
 *
 * Return: 0, or -ENOSPC or -ENOMEM.
 */
int kvm_user_bus_add(struct kvm *kvm, enum kvm_bus bus, gpa_t addr, int len,
		     struct kvm_io_device *io)
{
	lockdep_assert_held(&kvm->slots_lock);

	return kvm_user_call(kvm_io_bus_register_dev)(kvm, bus, addr, len, io);
}

/**
 * kvm_user_bus_remove - have a kvm_io_device answer no more
 * @kvm: the VM, with slots_lock held
 * @bus: memory or ports
 * @io: who answered
 *
 * On return no access is in @io's handlers but those that sleep outside of
 * kvm->srcu.  KVM may have run @io's destructor; later kernels do, earlier ones
 * do not.
 *
 * Return: 0, or -ENOMEM if KVM had no memory for the smaller bus: the bus and
 * all that was on it are gone.
 */
int kvm_user_bus_remove(struct kvm *kvm, enum kvm_bus bus, struct kvm_io_device *io)
{
	lockdep_assert_held(&kvm->slots_lock);

	return kvm_user_call(kvm_io_bus_unregister_dev)(kvm, bus, io);
}

#ifdef KVM_USER_TEST
static bool hold_srcu;
module_param(hold_srcu, bool, 0444);
MODULE_PARM_DESC(hold_srcu, "break rule B1: sleep inside kvm->srcu");
#else
#define hold_srcu	false
#endif

/**
 * kvm_user_leave_srcu - leave the section in which KVM calls a bus handler
 * @vcpu: the current vCPU
 *
 * What the bus points to may be gone from here on (B1).
 */
void kvm_user_leave_srcu(struct kvm_vcpu *vcpu) __releases(&vcpu->kvm->srcu)
{
	if (!hold_srcu)
		kvm_vcpu_srcu_read_unlock(vcpu);
}

/**
 * kvm_user_enter_srcu - enter it again, as KVM expects at the handler's return
 * @vcpu: the current vCPU
 */
void kvm_user_enter_srcu(struct kvm_vcpu *vcpu) __acquires(&vcpu->kvm->srcu)
{
	if (!hold_srcu)
		kvm_vcpu_srcu_read_lock(vcpu);
}

/* Later kernels have another name for what user space may change at any time. */
#ifndef HINT_UNSAFE_IN_KVM
#define HINT_UNSAFE_IN_KVM(symbol)	symbol
#endif

/**
 * kvm_user_exit_wanted - shall the vCPU's thread return to the VMM at once?
 * @vcpu: any of the VM's
 *
 * Return: whether the VMM has set immediate_exit, as KVM_RUN would see it.
 */
bool kvm_user_exit_wanted(const struct kvm_vcpu *vcpu)
{
	return READ_ONCE(vcpu->run->HINT_UNSAFE_IN_KVM(immediate_exit));
}

/*
 * KVM's emulator makes accesses of up to so many bytes, in pieces of up to 8: loads
 * for vector registers, and stores for REP INS, which reads that much ahead.
 */
#define KVM_USER_LONGEST_LOAD	32
#define KVM_USER_LONGEST_STORE	1024

/**
 * kvm_user_first_piece - is nothing of this instruction parked or left to the VMM?
 * @vcpu: the current vCPU, in a memory access
 *
 * KVM counts fragments of one access; an instruction may store several times, and
 * an exit is then needed for one that went before.
 *
 * Return: false for what follows such a piece in the same instruction.
 */
bool kvm_user_first_piece(const struct kvm_vcpu *vcpu)
{
	return !vcpu->mmio_nr_fragments && !vcpu->mmio_needed;
}

/**
 * kvm_user_may_park - can KVM make an exit of this piece of an access (B4)?
 * @vcpu: the current vCPU, in a memory access
 * @addr: guest physical address
 * @len: bytes
 * @store: not a load
 *
 * KVM has room for two fragments.  What follows this piece may need one for the
 * rest of its page and one for the next page: both only if the access is of more
 * than 8 bytes and crosses, which a shorter piece, or one up to the page's end,
 * is not the start of.  A guest with encrypted state exits in another way.
 *
 * Return: true if kvm_user_park() may be called.
 */
bool kvm_user_may_park(const struct kvm_vcpu *vcpu, gpa_t addr, int len, bool store)
{
	u32 longest = store ? KVM_USER_LONGEST_STORE : KVM_USER_LONGEST_LOAD;
	u32 left = PAGE_SIZE - offset_in_page(addr);

	BUILD_BUG_ON(KVM_MAX_MMIO_FRAGMENTS < 2);

	return kvm_user_first_piece(vcpu) && !vcpu->arch.guest_state_protected &&
	       (len < 8 || left == len || left >= longest);
}

/**
 * kvm_user_park - have this access exit to the VMM once the handler returns
 * @vcpu: the current vCPU, for which kvm_user_may_park() is true
 * @addr: guest physical address
 * @len: bytes
 * @val: KVM's buffer: the VMM's value of a load goes there, a store's is there
 *
 * KVM's emulator makes an exit, and completes it at the next KVM_RUN, of what it
 * finds in the fragments after the bus handlers have run.
 */
void kvm_user_park(struct kvm_vcpu *vcpu, gpa_t addr, int len, void *val)
{
	struct kvm_mmio_fragment *frag;

	if (WARN_ON_ONCE(vcpu->mmio_nr_fragments >= KVM_MAX_MMIO_FRAGMENTS))
		return;
	frag = &vcpu->mmio_fragments[vcpu->mmio_nr_fragments++];
	frag->gpa = addr;
	frag->data = val;
	frag->len = len;
}

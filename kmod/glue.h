/* SPDX-License-Identifier: GPL-2.0 */
/*
 * How this kernel's KVM is reached: functions that it may not export, the type
 * number, the vCPU's SRCU section and its MMIO fragments.
 */
#ifndef KVM_USER_GLUE_H
#define KVM_USER_GLUE_H

#include <kvm/iodev.h>
#include <linux/kvm_host.h>

int kvm_user_glue_init(const struct kvm_device_ops *ops);
void kvm_user_glue_exit(void);

int kvm_user_bus_add(struct kvm *kvm, enum kvm_bus bus, gpa_t addr, int len,
		     struct kvm_io_device *io);
int kvm_user_bus_remove(struct kvm *kvm, enum kvm_bus bus, struct kvm_io_device *io);

bool kvm_user_exit_wanted(const struct kvm_vcpu *vcpu);
bool kvm_user_first_piece(const struct kvm_vcpu *vcpu);
bool kvm_user_may_park(const struct kvm_vcpu *vcpu, gpa_t addr, int len, bool store);
void kvm_user_park(struct kvm_vcpu *vcpu, gpa_t addr, int len, void *val);

void kvm_user_leave_srcu(struct kvm_vcpu *vcpu) __releases(&vcpu->kvm->srcu);
void kvm_user_enter_srcu(struct kvm_vcpu *vcpu) __acquires(&vcpu->kvm->srcu);

#endif /* KVM_USER_GLUE_H */

// SPDX-License-Identifier: Apache-2.0
//
// The module's ABI as Swift can import it: the UAPI header itself, and what Swift cannot read of it, the
// ioctl numbers, as constants.
#ifndef CKVMUSER_H
#define CKVMUSER_H

#include "kvm_user.h"

static const unsigned long CKVMUSER_INFO = KVM_DEV_USER_INFO;
static const unsigned long CKVMUSER_EMULATION_FD = KVM_DEV_USER_EMULATION_FD;
static const unsigned long CKVMUSER_PA_RANGE = KVM_DEV_USER_PA_RANGE;
static const unsigned long CKVMUSER_TIMEOUT = KVM_DEV_USER_TIMEOUT;

_Static_assert(sizeof(struct kvm_dev_user_info) == 32, "kvm_dev_user_info");
_Static_assert(sizeof(struct kvm_dev_user_emulation_fd) == 8, "kvm_dev_user_emulation_fd");
_Static_assert(sizeof(struct kvm_dev_user_pa_range) == 32, "kvm_dev_user_pa_range");
_Static_assert(sizeof(struct kvm_user_request) == 40, "kvm_user_request");

#endif

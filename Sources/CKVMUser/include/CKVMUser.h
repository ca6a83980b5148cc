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
static const unsigned long CKVMUSER_ON_CLOSE = KVM_DEV_USER_ON_CLOSE;
static const unsigned long CKVMUSER_PARK = KVM_DEV_USER_PARK;
static const unsigned long CKVMUSER_RESUME = KVM_DEV_USER_RESUME;
static const unsigned long CKVMUSER_EXCHANGE = KVM_DEV_USER_EXCHANGE;
static const unsigned long CKVMUSER_SHADOW_SIZE = KVM_DEV_USER_SHADOW_SIZE;
static const unsigned long CKVMUSER_SHADOW_CTRL = KVM_DEV_USER_SHADOW_CTRL;
static const unsigned long CKVMUSER_COALESCE = KVM_DEV_USER_COALESCE;
static const unsigned long CKVMUSER_RING = KVM_DEV_USER_RING;
static const unsigned long CKVMUSER_RING_ENTER = KVM_DEV_USER_RING_ENTER;

// Swift imports no constant whose type a suffix gives.
static const unsigned long long CKVMUSER_FEATURE_ON_CLOSE = KVM_USER_FEATURE_ON_CLOSE;
static const unsigned long long CKVMUSER_FEATURE_PARK = KVM_USER_FEATURE_PARK;
static const unsigned long long CKVMUSER_FEATURE_EXCHANGE = KVM_USER_FEATURE_EXCHANGE;
static const unsigned long long CKVMUSER_FEATURE_SHADOW = KVM_USER_FEATURE_SHADOW;
static const unsigned long long CKVMUSER_FEATURE_CUMULATIVE = KVM_USER_FEATURE_CUMULATIVE;
static const unsigned long long CKVMUSER_FEATURE_COALESCE = KVM_USER_FEATURE_COALESCE;
static const unsigned long long CKVMUSER_FEATURE_RING = KVM_USER_FEATURE_RING;
static const unsigned long long CKVMUSER_RING_OFFSET = KVM_USER_RING_OFFSET;
static const unsigned int CKVMUSER_REPLY_FLAGS = KVM_USER_REPLY_FLAGS;
static const unsigned long long CKVMUSER_MAX_COALESCE_NS = KVM_USER_MAX_COALESCE_NS;

_Static_assert(sizeof(struct kvm_dev_user_info) == 40, "kvm_dev_user_info");
_Static_assert(sizeof(struct kvm_dev_user_emulation_fd) == 8, "kvm_dev_user_emulation_fd");
_Static_assert(sizeof(struct kvm_dev_user_pa_range) == 32, "kvm_dev_user_pa_range");
_Static_assert(sizeof(struct kvm_dev_user_on_close) == 8, "kvm_dev_user_on_close");
_Static_assert(sizeof(struct kvm_dev_user_park) == 8, "kvm_dev_user_park");
_Static_assert(sizeof(struct kvm_dev_user_resume) == 24, "kvm_dev_user_resume");
_Static_assert(sizeof(struct kvm_dev_user_exchange) == 32, "kvm_dev_user_exchange");
_Static_assert(sizeof(struct kvm_user_shadow_entry) == 32, "kvm_user_shadow_entry");
_Static_assert(sizeof(struct kvm_dev_user_shadow_ctrl) == 16, "kvm_dev_user_shadow_ctrl");
_Static_assert(sizeof(struct kvm_dev_user_coalesce) == 16, "kvm_dev_user_coalesce");
_Static_assert(sizeof(struct kvm_dev_user_ring) == 24, "kvm_dev_user_ring");
_Static_assert(sizeof(struct kvm_dev_user_ring_enter) == 8, "kvm_dev_user_ring_enter");
_Static_assert(sizeof(struct kvm_user_ring) == 128, "kvm_user_ring");
_Static_assert(sizeof(struct kvm_user_request) == 40, "kvm_user_request");

#endif

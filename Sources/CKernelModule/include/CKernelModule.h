// SPDX-License-Identifier: Apache-2.0
//
// What a look at /dev/kvm needs from <linux/kvm.h>: its structures, and its ioctl numbers as constants that Swift
// can import. And one C library call that Swift's Glibc module leaves out.
#ifndef CKERNELMODULE_H
#define CKERNELMODULE_H

#include <linux/kvm.h>
#include <stdbool.h>
#include <stddef.h>

static const unsigned long CKERNELMODULE_GET_API_VERSION = KVM_GET_API_VERSION;
static const unsigned long CKERNELMODULE_CREATE_VM = KVM_CREATE_VM;
static const unsigned long CKERNELMODULE_CREATE_DEVICE = KVM_CREATE_DEVICE;
static const unsigned int CKERNELMODULE_CREATE_DEVICE_TEST = KVM_CREATE_DEVICE_TEST;

/// Whether the `pattern_count` bytes of `pattern` are somewhere in the `count` bytes (memmem).
bool ckernelmodule_contains(const void *_Nonnull bytes, size_t count, const void *_Nonnull pattern,
			    size_t pattern_count);

#endif

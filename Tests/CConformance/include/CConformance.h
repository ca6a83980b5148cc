// SPDX-License-Identifier: Apache-2.0
//
// System calls that Swift cannot make, for the tests of the ABI: as a 32-bit program makes them, and a variadic one.
#ifndef CCONFORMANCE_H
#define CCONFORMANCE_H

#include <stddef.h>
#include "KillableEmulation.h"

#include <stdint.h>

/// ioctl, read and write through the kernel's 32-bit entry. Addresses must be below 4 GiB. The result, or -errno.
int32_t cconformance_ioctl32(int descriptor, uint32_t command, uint32_t argument);
int32_t cconformance_read32(int descriptor, uint32_t buffer, uint32_t count);
int32_t cconformance_write32(int descriptor, uint32_t buffer, uint32_t count);

/// mremap of a mapping to more bytes, wherever there is room (MREMAP_MAYMOVE). NULL if that cannot be.
void *_Nullable cconformance_grow(void *_Nullable mapping, size_t old, size_t count);

/// Has whoever touches fresh pages wait, the kernel on a caller's behalf too, until cconformance_give() gives them their
/// contents. The result polls as readable once somebody waits, and its close ends it all; or -1, with errno.
int32_t cconformance_hold_back(void *_Nonnull memory, size_t count);
int32_t cconformance_give(int descriptor, void *_Nonnull memory, const void *_Nonnull contents, size_t count);

#endif

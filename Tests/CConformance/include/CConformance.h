// SPDX-License-Identifier: Apache-2.0
//
// System calls as a 32-bit program makes them, for the tests of the ABI.
#ifndef CCONFORMANCE_H
#define CCONFORMANCE_H

#include "KillableEmulation.h"

#include <stdint.h>

/// ioctl, read and write through the kernel's 32-bit entry. Addresses must be below 4 GiB. The result, or -errno.
int32_t cconformance_ioctl32(int descriptor, uint32_t command, uint32_t argument);
int32_t cconformance_read32(int descriptor, uint32_t buffer, uint32_t count);
int32_t cconformance_write32(int descriptor, uint32_t buffer, uint32_t count);

#endif

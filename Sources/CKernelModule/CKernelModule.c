// SPDX-License-Identifier: Apache-2.0
//
// The functions of CKernelModule.h.
#define _GNU_SOURCE
#include "CKernelModule.h"

#include <string.h>

bool ckernelmodule_contains(const void *bytes, size_t count, const void *pattern, size_t pattern_count)
{
	return memmem(bytes, count, pattern, pattern_count) != NULL;
}

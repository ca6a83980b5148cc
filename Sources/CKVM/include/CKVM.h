// SPDX-License-Identifier: Apache-2.0
#ifndef CKVM_H
#define CKVM_H

#include <linux/kvm.h>

#endif

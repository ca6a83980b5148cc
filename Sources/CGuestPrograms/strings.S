/* SPDX-License-Identifier: Apache-2.0 */
/* String instructions on memory: one access for each element, at rising addresses. */
#include "guest.h"

/* rsi elements of the seed's low bytes, to rdi and up. */
.irp width, 1, 2, 4, 8
PROGRAM rep_stos_\width
	mov	%rcx, %rax
	mov	%rsi, %rcx
	REPEAT	stos, \width
END_PROGRAM rep_stos_\width
.endr

/* rsi elements, of seed, seed + 1 and so on, from RAM to rdi and up. */
.irp width, 1, 2, 4, 8
PROGRAM rep_movs_out_\width
	FILL_SCRATCH \width
	mov	%rsi, %rcx
	mov	%r9, %rsi
	REPEAT	movs, \width
END_PROGRAM rep_movs_out_\width
.endr

/* rsi elements from rdi and up to RAM. */
.irp width, 1, 2, 4, 8
PROGRAM rep_movs_in_\width
	mov	%rsi, %r12
	mov	%rsi, %rcx
	mov	%rdi, %rsi
	mov	%r9, %rdi
	REPEAT	movs, \width
	RECORD_SCRATCH \width
END_PROGRAM rep_movs_in_\width
.endr

	.section .note.GNU-stack, "", @progbits

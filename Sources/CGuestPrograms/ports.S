/* SPDX-License-Identifier: Apache-2.0 */
/* Port I/O: single accesses and strings, to the port in rdi but for the last programs. */
#include "guest.h"

/* rsi times OUT, of seed, seed + 1 and so on. */
.irp width, 1, 2, 4
PROGRAM out_\width
	mov	%rcx, %rax
	mov	%edi, %edx
	test	%rsi, %rsi
	jz	2f
1:	OUT	\width
	inc	%rax
	dec	%rsi
	jnz	1b
2:
END_PROGRAM out_\width
.endr

/* rsi times IN. */
.irp width, 1, 2, 4
PROGRAM in_\width
	mov	%edi, %edx
	test	%rsi, %rsi
	jz	2f
1:	IN	\width
	RECORD
	dec	%rsi
	jnz	1b
2:
END_PROGRAM in_\width
.endr

/* OUTS of rsi elements, of seed, seed + 1 and so on. */
.irp width, 1, 2, 4
PROGRAM rep_outs_\width
	FILL_SCRATCH \width
	mov	%edi, %edx
	mov	%rsi, %rcx
	mov	%r9, %rsi
	REPEAT	outs, \width
END_PROGRAM rep_outs_\width
.endr

/* INS of rsi elements. */
.irp width, 1, 2, 4
PROGRAM rep_ins_\width
	mov	%rsi, %r12
	mov	%rsi, %rcx
	mov	%edi, %edx
	mov	%r9, %rdi
	REPEAT	ins, \width
	RECORD_SCRATCH \width
END_PROGRAM rep_ins_\width
.endr

/* INS of rsi elements from GUEST_INPUT_PORT to rdi and up, which is memory. */
.irp width, 1, 2, 4
PROGRAM rep_ins_out_\width
	mov	%rsi, %rcx
	mov	$GUEST_INPUT_PORT, %edx
	REPEAT	ins, \width
END_PROGRAM rep_ins_out_\width
.endr

	.section .note.GNU-stack, "", @progbits

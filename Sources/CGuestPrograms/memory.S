/* SPDX-License-Identifier: Apache-2.0 */
/* Loads and stores of general registers. */
#include "guest.h"

/* rsi stores to rdi, of seed, seed + 1 and so on. */
.irp width, 1, 2, 4, 8
PROGRAM store_\width
	mov	%rcx, %rax
	test	%rsi, %rsi
	jz	2f
1:	STORE	\width, (%rdi)
	inc	%rax
	dec	%rsi
	jnz	1b
2:
END_PROGRAM store_\width
.endr

/* rsi loads from rdi. */
.irp width, 1, 2, 4, 8
PROGRAM load_\width
	test	%rsi, %rsi
	jz	2f
1:	LOAD	\width, (%rdi)
	RECORD
	dec	%rsi
	jnz	1b
2:
END_PROGRAM load_\width
.endr

/* rsi times a store to rdi, of seed, seed + 1 and so on, and a load from there. */
.irp width, 1, 2, 4, 8
PROGRAM pair_\width
	test	%rsi, %rsi
	jz	2f
1:	mov	%rcx, %rax
	STORE	\width, (%rdi)
	LOAD	\width, (%rdi)
	RECORD
	inc	%rcx
	dec	%rsi
	jnz	1b
2:
END_PROGRAM pair_\width
.endr

/*
 * rsi accesses within [rdi, rdi + r8), r8 at least 8.  A xorshift generator, begun with the seed (or with r14's first
 * value if the seed is 0), is stepped before each access, x ^= x << 13, x ^= x >> 7, x ^= x << 17; of its state x
 *	bits 0-1	are the binary logarithm of the width
 *	bit 2		set: a store
 *	bits 32-63	modulo (r8 - width + 1) are the offset, which mixed_aligned rounds down to a multiple of the width
 * and a store's value is the low bytes of x times 0x2545f4914f6cdd1d.
 */
.irp name, mixed, mixed_aligned
PROGRAM \name
	movabs	$0x9e3779b97f4a7c15, %r14
	mov	%rcx, %r12
	test	%r12, %r12
	cmovz	%r14, %r12
	movabs	$0x2545f4914f6cdd1d, %r14
	test	%rsi, %rsi
	jz	20f
10:	mov	%r12, %rax
	shl	$13, %rax
	xor	%rax, %r12
	mov	%r12, %rax
	shr	$7, %rax
	xor	%rax, %r12
	mov	%r12, %rax
	shl	$17, %rax
	xor	%rax, %r12

	/* r13: width, r10: offset */
	mov	%r12d, %ecx
	and	$3, %ecx
	mov	$1, %r13d
	shl	%cl, %r13
	mov	%r8, %r10
	sub	%r13, %r10
	inc	%r10
	mov	%r12, %rax
	shr	$32, %rax
	xor	%edx, %edx
	div	%r10
	mov	%rdx, %r10
	.ifc	\name, mixed_aligned
	neg	%r13
	and	%r13, %r10
	.endif

	mov	%r12, %rax
	imul	%r14, %rax
	mov	%r12d, %ecx
	and	$7, %ecx
	.irp	case, 0, 1, 2, 3
	cmp	$\case, %ecx
	jne	1f
	LOAD	(1 << \case), (%rdi, %r10)
	RECORD
	jmp	9f
1:
	.endr
	.irp	case, 4, 5, 6, 7
	cmp	$\case, %ecx
	jne	1f
	STORE	(1 << (\case - 4)), (%rdi, %r10)
	jmp	9f
1:
	.endr
9:	dec	%rsi
	jnz	10b
20:
END_PROGRAM \name
.endr

/*
 * rsi rounds of a store and a load for each width of 2, 4 and 8 bytes and each way in which such an access can begin
 * before rdi and end after it.  The values are n times 0x9e3779b97f4a7c15, n counting up from the seed.
 */
.macro STRADDLE width, before
	mov	%rcx, %rax
	imul	%r14, %rax
	STORE	\width, -\before(%rdi)
	LOAD	\width, -\before(%rdi)
	RECORD
	inc	%rcx
.endm

PROGRAM straddle
	movabs	$0x9e3779b97f4a7c15, %r14
	test	%rsi, %rsi
	jz	2f
1:	STRADDLE 2, 1
	.irp	before, 1, 2, 3
	STRADDLE 4, \before
	.endr
	.irp	before, 1, 2, 3, 4, 5, 6, 7
	STRADDLE 8, \before
	.endr
	dec	%rsi
	jnz	1b
2:
END_PROGRAM straddle

/*
 * rsi rounds of a 16-byte store and a 16-byte load at rdi, with MOVDQU, and the same with MOVUPS.  The low half of the
 * value is n times 0x9e3779b97f4a7c15, n counting up from the seed, the high half its complement.
 */
.macro SIXTEEN instruction
	mov	%rcx, %rax
	imul	%r14, %rax
	movq	%rax, %xmm0
	not	%rax
	movq	%rax, %xmm1
	punpcklqdq %xmm1, %xmm0
	\instruction %xmm0, (%rdi)
	pxor	%xmm2, %xmm2
	\instruction (%rdi), %xmm2
	movq	%xmm2, %rax
	RECORD
	psrldq	$8, %xmm2
	movq	%xmm2, %rax
	RECORD
	inc	%rcx
.endm

PROGRAM sixteen
	movabs	$0x9e3779b97f4a7c15, %r14
	test	%rsi, %rsi
	jz	2f
1:	SIXTEEN movdqu
	SIXTEEN movups
	dec	%rsi
	jnz	1b
2:
END_PROGRAM sixteen

	.section .note.GNU-stack, "", @progbits

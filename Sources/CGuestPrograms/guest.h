/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What all guest programs have in common.  64-bit, position-independent, no stack, no absolute address.
 *
 * At entry:
 *	rdi	first address or port of the device
 *	rsi	how many accesses or rounds
 *	rdx	results, in guest RAM, a multiple of 64
 *	rcx	seed
 *	r8	size of the window in bytes, where the program says so
 *	r9	scratch, in guest RAM: rsi elements
 *
 * Results:
 *	+0	how many values were loaded
 *	+8	checksum: for each value, rotate left by one bit, then add the value
 *	+16	1 at the end
 *	+64	the values loaded, zero-extended to 64 bits, in order
 *
 * At the end: a byte to port 0xf4, which works with and without interrupt controllers in the kernel, where HLT does
 * not exit with them.
 */

#define GUEST_END_PORT	0xf4
/* Where string instructions read what they store to a device. */
#define GUEST_INPUT_PORT	0xf6

.macro PROGRAM name
	.section .rodata.guest_programs, "a", @progbits
	.balign	16
	.globl	cguest_\name\()_start
	.hidden	cguest_\name\()_start
cguest_\name\()_start:
	/* r15: results, rbx: next value, rbp: checksum */
	mov	%rdx, %r15
	lea	64(%rdx), %rbx
	xor	%ebp, %ebp
	cld
.endm

.macro END_PROGRAM name
	mov	%rbx, %rax
	sub	%r15, %rax
	sub	$64, %rax
	shr	$3, %rax
	mov	%rax, 0(%r15)
	mov	%rbp, 8(%r15)
	movq	$1, 16(%r15)
0:	out	%al, $GUEST_END_PORT
	hlt
	jmp	0b
	.globl	cguest_\name\()_end
	.hidden	cguest_\name\()_end
cguest_\name\()_end:
.endm

/* Keeps the value in rax. */
.macro RECORD
	mov	%rax, (%rbx)
	add	$8, %rbx
	rol	$1, %rbp
	add	%rax, %rbp
.endm

/* rax to memory, memory to rax zero-extended: one instruction each. */
.macro STORE width, memory:vararg
	.if	\width == 1
	movb	%al, \memory
	.elseif	\width == 2
	movw	%ax, \memory
	.elseif	\width == 4
	movl	%eax, \memory
	.else
	movq	%rax, \memory
	.endif
.endm

.macro LOAD width, memory:vararg
	.if	\width == 1
	movzbl	\memory, %eax
	.elseif	\width == 2
	movzwl	\memory, %eax
	.elseif	\width == 4
	movl	\memory, %eax
	.else
	movq	\memory, %rax
	.endif
.endm

/* al, ax or eax to port dx; port dx to rax zero-extended. */
.macro OUT width
	.if	\width == 1
	out	%al, %dx
	.elseif	\width == 2
	out	%ax, %dx
	.else
	out	%eax, %dx
	.endif
.endm

.macro IN width
	xor	%eax, %eax
	.if	\width == 1
	in	%dx, %al
	.elseif	\width == 2
	in	%dx, %ax
	.else
	in	%dx, %eax
	.endif
.endm

/* String instruction \name of the width, repeated rcx times. */
.macro REPEAT name, width
	.if	\width == 1
	rep \name\()b
	.elseif	\width == 2
	rep \name\()w
	.elseif	\width == 4
	rep \name\()l
	.else
	rep \name\()q
	.endif
.endm

/* rsi elements at scratch: the low bytes of seed, seed + 1 and so on.  Leaves rsi alone. */
.macro FILL_SCRATCH width
	mov	%rcx, %rax
	mov	%r9, %r10
	mov	%rsi, %r11
	test	%r11, %r11
	jz	2f
1:	STORE	\width, (%r10)
	add	$\width, %r10
	inc	%rax
	dec	%r11
	jnz	1b
2:
.endm

/* Records r12 elements at scratch. */
.macro RECORD_SCRATCH width
	mov	%r9, %r10
	test	%r12, %r12
	jz	2f
1:	LOAD	\width, (%r10)
	add	$\width, %r10
	RECORD
	dec	%r12
	jnz	1b
2:
.endm

/* SPDX-License-Identifier: Apache-2.0 */
/* For the load generator: stores with fences, and accesses one by one by the clock. */
#include "guest.h"

/* A fence is a load of 4 bytes from this far beyond the device's first address or port. */
#define FENCE_ADDRESS	0x1000
#define FENCE_PORT	8

.macro FENCE bus
	.ifc	\bus, memory
	movl	FENCE_ADDRESS(%rdi), %eax
	.else
	lea	FENCE_PORT(%edi), %edx
	in	%dx, %eax
	.endif
.endm

/* rsi rounds of r8 stores to rdi, of seed, seed + 1 and so on, and a fence. */
.macro BURST bus, width
	test	%rsi, %rsi
	jz	20f
10:	mov	%edi, %edx
	mov	%rcx, %rax
	mov	%r8, %r10
	test	%r10, %r10
	jz	12f
11:
	.ifc	\bus, memory
	STORE	\width, (%rdi)
	.else
	OUT	\width
	.endif
	inc	%rax
	dec	%r10
	jnz	11b
12:	mov	%rax, %rcx
	FENCE	\bus
	dec	%rsi
	jnz	10b
20:
.endm

.irp width, 1, 2, 4, 8
PROGRAM burst_\width
	BURST	memory, \width
END_PROGRAM burst_\width
.endr

.irp width, 1, 2, 4
PROGRAM burst_out_\width
	BURST	port, \width
END_PROGRAM burst_out_\width
.endr

.macro CLOCK
	rdtsc
	shl	$32, %rdx
	or	%rdx, %rax
.endm

/*
 * rsi accesses, each r8 ticks of the TSC after the one before, or at once if r8 is 0 or that time has passed.  Recorded is
 * from when each was due, or with r8 0 was begun, to when it was complete.  At the end a fence.
 */
.macro TIMED bus, kind, width
	CLOCK
	mov	%rax, %r12
	test	%rsi, %rsi
	jz	20f
10:	add	%r8, %r12
11:	CLOCK
	test	%r8, %r8
	cmovz	%rax, %r12
	cmp	%r12, %rax
	jb	11b
	mov	%edi, %edx
	mov	%rcx, %rax
	.ifc	\kind, load
	.ifc	\bus, memory
	LOAD	\width, (%rdi)
	.else
	IN	\width
	.endif
	.else
	.ifc	\bus, memory
	STORE	\width, (%rdi)
	.else
	OUT	\width
	.endif
	.endif
	inc	%rcx
	CLOCK
	sub	%r12, %rax
	RECORD
	dec	%rsi
	jnz	10b
20:	FENCE	\bus
.endm

.irp width, 1, 2, 4, 8
PROGRAM timed_load_\width
	TIMED	memory, load, \width
END_PROGRAM timed_load_\width
PROGRAM timed_store_\width
	TIMED	memory, store, \width
END_PROGRAM timed_store_\width
.endr

.irp width, 1, 2, 4
PROGRAM timed_in_\width
	TIMED	port, load, \width
END_PROGRAM timed_in_\width
PROGRAM timed_out_\width
	TIMED	port, store, \width
END_PROGRAM timed_out_\width
.endr

	.section .note.GNU-stack, "", @progbits

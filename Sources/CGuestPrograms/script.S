/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A list of accesses that the host goes on writing while the guest works on it.  The scratch begins with
 *	+0	how many entries the host has completed
 *	+64	how many of them the guest has done
 * and entry n is at 128 + 64 * (n mod rsi):
 *	+0	command: 0 end, else as commands.h has them
 *	+8	address or port
 *	+16	value to store, 16 bytes
 *	+32	value loaded, 16 bytes, zero-extended
 * With nothing to do the guest writes a byte to port 0xf5, and looks again when the host lets it go on.
 */
#include "guest.h"
#include "commands.h"

#define GUEST_IDLE_PORT	0xf5

PROGRAM script
	/* r12: done, r13: position in the ring, r14: its entry */
	xor	%r12d, %r12d
	xor	%r13d, %r13d
10:	cmp	%r12, 0(%r9)
	jne	11f
	out	%al, $GUEST_IDLE_PORT
	jmp	10b

11:	mov	%r13, %r14
	shl	$6, %r14
	lea	128(%r9,%r14), %r14
	mov	0(%r14), %rcx
	test	%ecx, %ecx
	jz	20f
	mov	8(%r14), %rdi
	mov	%edi, %edx
	mov	16(%r14), %rax
	movdqu	16(%r14), %xmm0
	ACCESS
	movdqu	%xmm0, 32(%r14)
	inc	%r13
	cmp	%rsi, %r13
	jne	12f
	xor	%r13d, %r13d
12:	inc	%r12
	mov	%r12, 64(%r9)
	jmp	10b
20:
END_PROGRAM script

	.section .note.GNU-stack, "", @progbits

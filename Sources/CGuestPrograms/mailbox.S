/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Accesses on demand.  The scratch's first words are a mailbox:
 *	+0	sequence: the host counts it up when the command below is complete
 *	+8	command: 0 end, else as commands.h has them
 *	+16	address or port
 *	+24	value to store, 16 bytes
 *	+64	sequence: the guest copies it here when the command is done and its value is below
 *	+72	value loaded, 16 bytes, zero-extended
 * The guest spins.  x86 keeps stores in order, and so the sequence comes last.
 */
#include "guest.h"
#include "commands.h"

PROGRAM mailbox
	xor	%r12d, %r12d
10:	pause
	mov	0(%r9), %rax
	cmp	%rax, %r12
	je	10b
	mov	%rax, %r12
	mov	8(%r9), %rcx
	mov	16(%r9), %rdi
	mov	%edi, %edx
	mov	24(%r9), %rax
	movdqu	24(%r9), %xmm0

	test	%ecx, %ecx
	jz	20f
	ACCESS
	movdqu	%xmm0, 72(%r9)
	mov	%r12, 64(%r9)
	jmp	10b

20:	mov	%r12, 64(%r9)
END_PROGRAM mailbox

	.section .note.GNU-stack, "", @progbits

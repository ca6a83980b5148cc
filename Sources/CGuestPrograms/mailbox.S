/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Accesses on demand.  The scratch's first words are a mailbox:
 *	+0	sequence: the host counts it up when the command below is complete
 *	+8	command: 0 end; 1-4 load of 1, 2, 4, 8 bytes; 5-8 store; 9-11 IN of 1, 2, 4; 12-14 OUT; 15 load of 16;
 *		16 store of 16
 *	+16	address or port
 *	+24	value to store, 16 bytes
 *	+64	sequence: the guest copies it here when the command is done and its value is below
 *	+72	value loaded, 16 bytes, zero-extended
 * The guest spins.  x86 keeps stores in order, and so the sequence comes last.
 */
#include "guest.h"

.macro COMMAND number
	cmp	$\number, %ecx
	jne	1f
.endm

.macro DONE
	jmp	9f
1:
.endm

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
	.irp	command, 1, 2, 3, 4
	COMMAND	\command
	LOAD	(1 << (\command - 1)), (%rdi)
	movq	%rax, %xmm0
	DONE
	.endr
	.irp	command, 5, 6, 7, 8
	COMMAND	\command
	STORE	(1 << (\command - 5)), (%rdi)
	DONE
	.endr
	.irp	command, 9, 10, 11
	COMMAND	\command
	IN	(1 << (\command - 9))
	movq	%rax, %xmm0
	DONE
	.endr
	.irp	command, 12, 13, 14
	COMMAND	\command
	OUT	(1 << (\command - 12))
	DONE
	.endr
	COMMAND	15
	movdqu	(%rdi), %xmm0
	DONE
	COMMAND	16
	movdqu	%xmm0, (%rdi)
	DONE
9:	movdqu	%xmm0, 72(%r9)
	mov	%r12, 64(%r9)
	jmp	10b

20:	mov	%r12, 64(%r9)
END_PROGRAM mailbox

	.section .note.GNU-stack, "", @progbits

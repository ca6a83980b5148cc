/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Accesses by number, for programs that make what the host asks for:
 *	1-4	load of 1, 2, 4, 8 bytes
 *	5-8	store
 *	9-11	IN of 1, 2, 4 bytes
 *	12-14	OUT
 *	15	load of 16 bytes
 *	16	store of 16 bytes
 */

.macro COMMAND number
	cmp	$\number, %ecx
	jne	1f
.endm

.macro DONE
	jmp	9f
1:
.endm

/*
 * Makes access ecx at address rdi, or port dx, with the value in rax or, of 16 bytes, in xmm0.  What is loaded is in
 * xmm0 then, zero-extended.
 */
.macro ACCESS
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
9:
.endm

/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The client's table of system calls (kubectl_gadget/linux/syscalls.py): which calls are wanted, and what
 * their arguments point to. A gadget gets it through a parameter of the type `syscalls` for the variable syscall_table.
 */
#pragma once

#include <gadget/record.h>

#define GADGET_SYSCALLS 512

/*
 * Eight letters for each call: six for the data that its arguments point to (see every_syscall.h); then E if the
 * arguments are read when the call begins, or X if it does not return; then 0 if it is not wanted.
 */
#define GADGET_SYSCALL_LETTERS 8
#define GADGET_SYSCALL_WHEN 6
#define GADGET_SYSCALL_WANTED 7
const volatile char syscall_table_x86_64[GADGET_SYSCALLS * GADGET_SYSCALL_LETTERS] = "";
const volatile char syscall_table_aarch64[GADGET_SYSCALLS * GADGET_SYSCALL_LETTERS] = "";

#if defined(__TARGET_ARCH_x86)
#define GADGET_SYSCALL_TABLE syscall_table_x86_64
#else
#define GADGET_SYSCALL_TABLE syscall_table_aarch64
#endif

/* One of the letters of a call; 0 if the table does not have the call. */
static __always_inline char gadget_syscall_letter(__u32 number, __u32 index)
{
	__u32 at = number * GADGET_SYSCALL_LETTERS + index;

	asm volatile("" : "+r"(at));
	return at < sizeof(GADGET_SYSCALL_TABLE) ? GADGET_SYSCALL_TABLE[at] : 0;
}

static __always_inline bool gadget_wants_syscall(__u32 number)
{
	return gadget_syscall_letter(number, GADGET_SYSCALL_WANTED) != '0';
}

/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The registers that hold the arguments of a system call, of a 32-bit system call (GADGET_COMPAT_…), and of a function
 * (GADGET_FUNCTION_…, for kprobes). The trap: on arm64 the result overwrites the first argument.
 */
#pragma once

#include <linux/types.h>

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

#if defined(__TARGET_ARCH_x86)
struct pt_regs {
	unsigned long bp;
	unsigned long bx;
	unsigned long di;
	unsigned long si;
	unsigned long dx;
	unsigned long cx;
	unsigned long ax;
	unsigned long r10;
	unsigned long r8;
	unsigned long r9;
	unsigned long orig_ax;
	unsigned long ip;
	unsigned long sp;
};
#define GADGET_SYSCALL_NUMBER orig_ax
#define GADGET_INSTRUCTION ip
#define GADGET_FRAME_POINTER bp
#define GADGET_FUNCTION_ARGUMENT_0 di
#define GADGET_FUNCTION_ARGUMENT_1 si
#define GADGET_FUNCTION_ARGUMENT_2 dx
#define GADGET_FUNCTION_ARGUMENT_3 cx
#define GADGET_FUNCTION_RESULT ax
#define GADGET_ARGUMENT_0 di
#define GADGET_ARGUMENT_1 si
#define GADGET_ARGUMENT_2 dx
#define GADGET_ARGUMENT_3 r10
#define GADGET_ARGUMENT_4 r8
#define GADGET_ARGUMENT_5 r9
#define GADGET_COMPAT_ARGUMENT_0 bx
#define GADGET_COMPAT_ARGUMENT_1 cx
#define GADGET_COMPAT_ARGUMENT_2 dx
#define GADGET_COMPAT_ARGUMENT_3 si
#define GADGET_COMPAT_ARGUMENT_4 di
#define GADGET_COMPAT_ARGUMENT_5 bp
#elif defined(__TARGET_ARCH_arm64)
struct pt_regs {
	__u64 regs[31];
	__u64 sp;
	__u64 pc;
	__u64 pstate;
	__u64 orig_x0;
	__s32 syscallno;
};
#define GADGET_SYSCALL_NUMBER syscallno
#define GADGET_INSTRUCTION pc
#define GADGET_FRAME_POINTER regs[29]
#define GADGET_FUNCTION_ARGUMENT_0 regs[0]
#define GADGET_FUNCTION_ARGUMENT_1 regs[1]
#define GADGET_FUNCTION_ARGUMENT_2 regs[2]
#define GADGET_FUNCTION_ARGUMENT_3 regs[3]
#define GADGET_FUNCTION_RESULT regs[0]
#define GADGET_ARGUMENT_0 orig_x0
#define GADGET_ARGUMENT_1 regs[1]
#define GADGET_ARGUMENT_2 regs[2]
#define GADGET_ARGUMENT_3 regs[3]
#define GADGET_ARGUMENT_4 regs[4]
#define GADGET_ARGUMENT_5 regs[5]
#define GADGET_COMPAT_ARGUMENT_0 orig_x0
#define GADGET_COMPAT_ARGUMENT_1 regs[1]
#define GADGET_COMPAT_ARGUMENT_2 regs[2]
#define GADGET_COMPAT_ARGUMENT_3 regs[3]
#define GADGET_COMPAT_ARGUMENT_4 regs[4]
#define GADGET_COMPAT_ARGUMENT_5 regs[5]
#else
#error "define __TARGET_ARCH_x86 or __TARGET_ARCH_arm64"
#endif

#pragma clang attribute pop

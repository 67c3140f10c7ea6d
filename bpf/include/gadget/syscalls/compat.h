/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Whether a system call is a 32-bit call. The raw tracepoints of all calls also see these, with other numbers and
 * structs. A 64-bit program can also make them (int 0x80), so the call is checked, not the program.
 */
#pragma once

#include <gadget/syscall.h>
#include <gadget/task.h>
#include <kernel/ptrace.h>
#include <kernel/task.h>

/* The bit that distinguishes the call numbers of x32. */
#define GADGET_X32 (1U << 30)
/* Defined by the client: call numbers of 32-bit programs have this bit (kubectl_gadget/linux/syscalls.py). */
#define GADGET_COMPAT (1U << 29)

static __always_inline bool gadget_is_compat_call(struct task_struct *task, struct pt_regs *registers)
{
#if defined(__TARGET_ARCH_x86)

	/* TS_COMPAT. */
	return gadget_read(task, thread_info.status) & 2;
#else

	/* PSR_MODE32_BIT. */
	return (GADGET_HAS_TASK_PT_REGS ? registers->pstate : BPF_CORE_READ(registers, pstate)) & 0x10;
#endif
}

/* The same for programs whose `registers` are untyped for the verifier, such as those at raw tracepoints. */
static __always_inline bool gadget_is_in_compat_call(struct task_struct *task)
{
#if defined(__TARGET_ARCH_x86)
	return gadget_is_compat_call(task, NULL);
#else
	return gadget_is_compat_call(task, gadget_registers(task));
#endif
}

/* The number of a call as the client shows it; negative: not a call. */
static __always_inline __s32 gadget_shown_number(struct task_struct *task, struct pt_regs *registers, __s32 number)
{
	return number >= 0 && gadget_is_compat_call(task, registers) ? number | GADGET_COMPAT : number;
}

/* For programs that follow all calls: the same marks as in records of programs for single calls. */
static __always_inline gadget_marks gadget_marks_of_call(__u32 shown_number)
{
	if ((__s32)shown_number < 0)
		return 0;
	if (shown_number & GADGET_COMPAT)
		return GADGET_MARK_COMPAT;
#if defined(__TARGET_ARCH_x86)
	if (shown_number & GADGET_X32)
		return GADGET_MARK_COMPAT | GADGET_MARK_X32;
#endif
	return 0;
}

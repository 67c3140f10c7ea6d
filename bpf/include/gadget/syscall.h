/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * A system call's arguments, read when it returns: its registers are still on the kernel stack. So no second program at
 * the entry and no hash map between the two are needed, and by then the kernel has paged in the memory that the
 * arguments point to.
 *
 * Programs for single system calls also run for the calls of 32-bit programs (bpf/syscalls.bpf.c), with translated
 * arguments. So they use gadget_argument() and gadget_read_user_pointer(), and read structs with pointers in both
 * layouts.
 *
 * The traps: the caller may have changed that memory in the meantime, and a tracer may have changed the registers.
 * Where this matters, read the data that the kernel has resolved.
 */
#pragma once

#include <gadget/record.h>
#include <gadget/syscalls/translated_call.h>
#include <gadget/task.h>
#include <kernel/ptrace.h>
#include <kernel/tracepoint.h>

/* bpf_task_pt_regs() exists since 5.15. */
#define GADGET_HAS_TASK_PT_REGS gadget_has_helper(task_pt_regs)

/* THREAD_SIZE of kernels before 5.15, with pages of 4 KiB and without KASAN, on both architectures. */
#define GADGET_THREAD_SIZE (16 << 10)

/* The user's registers are at the end of the stack. Read them with bpf_probe_read_kernel. */
static __always_inline struct pt_regs *gadget_registers_on_stack(struct task_struct *task)
{
	void *stack = gadget_read(task, stack);

	return stack + GADGET_THREAD_SIZE - bpf_core_type_size(struct pt_regs);
}

static __always_inline struct pt_regs *gadget_registers(struct task_struct *task)
{
	if (GADGET_HAS_TASK_PT_REGS)
		return (struct pt_regs *)bpf_task_pt_regs(bpf_get_current_task_btf());
	return gadget_registers_on_stack(task);
}

#define GADGET_REGISTER(registers, REGISTER)                                                                           \
	(GADGET_HAS_TASK_PT_REGS ? (registers)->REGISTER : BPF_CORE_READ(registers, REGISTER))

/* gadget_argument(registers, 0) is the first argument of the system call that returns. N must be a literal number. */
#define gadget_argument(registers, N)                                                                                  \
	({                                                                                                             \
		const struct gadget_compat_call *translated = gadget_translated_call();                                \
                                                                                                                       \
		translated ? translated->arguments[N] : GADGET_REGISTER(registers, GADGET_ARGUMENT_##N);               \
	})

/* Whether pointers and `long` are 32 bits wide in the calling program's structs. */
static __always_inline bool gadget_has_short_pointers(void)
{
	const struct gadget_compat_call *call = gadget_translated_call();

	return call && call->has_short_pointers;
}

/* The size of a pointer in the memory of the program that makes the call. The trap: call it before a loop, not in it,
 * since the verifier follows both results each time. */
static __always_inline __u32 gadget_pointer_bytes(void)
{
	return gadget_has_short_pointers() ? sizeof(__u32) : sizeof(__u64);
}

/* Reads a pointer of `bytes` bytes from an array in the program's memory. Returns the result of bpf_probe_read_user().
 */
static __always_inline long gadget_read_user_pointer(void *pointer, const void *array, __u64 index, __u32 bytes)
{
	*(__u64 *)pointer = 0;
	return bpf_probe_read_user(pointer, bytes, array + index * bytes);
}

/* The number of the system call with which these registers entered the kernel. A kernel thread, or a task that entered
 * by an interrupt, is in no call: then this is -1 or the number of an earlier call. */
#define gadget_syscall_number(registers) ((__s32)GADGET_REGISTER(registers, GADGET_SYSCALL_NUMBER))

/*
 * The functions below read the arguments of the raw tracepoint in assembly: the verifier accepts only a constant offset
 * from the context, but the compiler may compute the address from C code in another way.
 */

/* The registers of the system call; `ctx` is the context of a program for it. Reading them from the raw tracepoint's
 * context is faster than the helpers. */
static __always_inline struct pt_regs *gadget_call_registers(void *ctx)
{
	struct pt_regs *registers;

	asm volatile("%0 = *(u64 *)(%1 + 0)" : "=r"(registers) : "r"(ctx));
	return registers;
}

/* The return value of the system call; `ctx` is the context of a program at its exit. */
static __always_inline long gadget_result(struct trace_event_raw_sys_exit *ctx)
{
	long result;

	asm volatile("%0 = *(u64 *)(%1 + 8)" : "=r"(result) : "r"(ctx));
	return result;
}

/*
 * Defines the program CALL_ends at the exit of a system call: GADGET_ON_EXIT(unlink) { … }. Its body has `result`, the
 * call's return value, its `registers`, and `ctx` for bpf_tail_call().
 */
#define GADGET_ON_EXIT(CALL)                                                                                           \
	static __always_inline int CALL##_on_exit(struct trace_event_raw_sys_exit *ctx, long result,                   \
						  struct pt_regs *registers);                                          \
	SEC("tracepoint/syscalls/sys_exit_" #CALL)                                                                     \
	int CALL##_ends(struct trace_event_raw_sys_exit *ctx)                                                          \
	{                                                                                                              \
		return CALL##_on_exit(ctx, gadget_result(ctx), gadget_call_registers(ctx));                            \
	}                                                                                                              \
	static __always_inline int CALL##_on_exit(struct trace_event_raw_sys_exit *ctx, long result,                   \
						  struct pt_regs *registers)

/*
 * Defines a program that programs at exits tail-call: GADGET_AFTER_EXIT(send_row) { … }. It is loaded like them, but
 * attached to nothing; the gadget's YAML lists it with them. For long code at the end of many programs, which the
 * verifier would otherwise check in each of them.
 */
#define GADGET_AFTER_EXIT(NAME)                                                                                        \
	SEC("tracepoint/syscalls/sys_exit")                                                                            \
	int NAME(struct trace_event_raw_sys_exit *ctx)

/* Defines the program array MAP, which contains PROGRAM, for bpf_tail_call(ctx, &MAP, 0). */
#define GADGET_TAIL(MAP, PROGRAM)                                                                                      \
	struct {                                                                                                       \
		__uint(type, BPF_MAP_TYPE_PROG_ARRAY);                                                                 \
		__uint(max_entries, 1);                                                                                \
		__uint(key_size, sizeof(__u32));                                                                       \
		__array(values, int(struct trace_event_raw_sys_exit *));                                               \
	} MAP SEC(".maps") = {.values = {(void *)&PROGRAM}}

/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * A system call's arguments, read when it returns: its registers are still on the kernel's stack. That saves a second
 * program at its entry and the hash between the two, and the memory that the caller points to has been paged in by
 * then.
 *
 * The trap: the caller may have changed that memory in the meantime. Where this matters, read what the kernel resolved.
 */
#pragma once

#include <gadget/task.h>
#include <kernel/ptrace.h>
#include <kernel/tracepoint.h>

/* bpf_task_pt_regs() came with 5.15. */
#define GADGET_HAS_TASK_PT_REGS bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_task_pt_regs)

/* THREAD_SIZE of kernels before 5.15, with pages of 4 KiB and without KASAN, on both architectures. */
#define GADGET_THREAD_SIZE (16 << 10)

/* The user's registers lie at the end of the stack. To be read with bpf_probe_read_kernel. */
static __always_inline struct pt_regs *gadget_registers_on_stack(struct task_struct *task)
{
	void *stack = gadget_read(task, stack);

	return stack + GADGET_THREAD_SIZE - bpf_core_type_size(struct pt_regs);
}

static __always_inline struct pt_regs *gadget_registers(struct task_struct *task)
{
	if (GADGET_HAS_TASK_PT_REGS)
		return (struct pt_regs *)bpf_task_pt_regs(task);
	return gadget_registers_on_stack(task);
}

/* gadget_argument(registers, 0) is the first argument of the system call that returns. N must be written as a number.
 */
#define gadget_argument(registers, N)                                                                                  \
	(GADGET_HAS_TASK_PT_REGS ? (registers)->GADGET_ARGUMENT_##N : BPF_CORE_READ(registers, GADGET_ARGUMENT_##N))

/* The system call that these registers entered the kernel with. A task that came by an interrupt or is a kernel thread
 * has none, which is -1 or looks like an old one. */
#define gadget_syscall_number(registers)                                                                               \
	((__s32)(GADGET_HAS_TASK_PT_REGS ? (registers)->GADGET_SYSCALL_NUMBER                                          \
					 : BPF_CORE_READ(registers, GADGET_SYSCALL_NUMBER)))

/*
 * Set by the agent where the kernel keeps the tracepoints of system calls from it: the same programs are then called
 * from the raw tracepoints of all system calls (bpf/syscalls.bpf.c), whose context is another one.
 */
const volatile bool gadget_node_raw_syscalls = false;

/* What the system call returns; `ctx` is the context of a program at its exit. */
static __always_inline long gadget_result(struct trace_event_raw_sys_exit *ctx)
{
	long result;

	if (!gadget_node_raw_syscalls)
		return ((struct trace_event_raw_sys_exit___perf *)ctx)->ret;
	/* The second argument of the raw tracepoint. The compiler would make one load from either of two addresses of
	 * both, and the verifier wants a constant distance from the context. */
	asm volatile("%0 = *(u64 *)(%1 + 8)" : "=r"(result) : "r"(ctx));
	return result;
}

/*
 * A program NAME_ends for the exit of a system call: GADGET_ON_EXIT(unlink) { … }. It has `result`, what the call
 * returns, its `registers`, and `ctx` for who goes on with bpf_tail_call().
 */
#define GADGET_ON_EXIT(CALL)                                                                                           \
	static __always_inline int CALL##_on_exit(struct trace_event_raw_sys_exit *ctx, long result,                   \
						  struct pt_regs *registers);                                          \
	SEC("tracepoint/syscalls/sys_exit_" #CALL)                                                                     \
	int CALL##_ends(struct trace_event_raw_sys_exit *ctx)                                                          \
	{                                                                                                              \
		return CALL##_on_exit(ctx, gadget_result(ctx), gadget_registers(gadget_task()));                       \
	}                                                                                                              \
	static __always_inline int CALL##_on_exit(struct trace_event_raw_sys_exit *ctx, long result,                   \
						  struct pt_regs *registers)

/*
 * What programs at exits have in common, as a program that they go on with: GADGET_AFTER_EXIT(told) { … }. It is loaded
 * as they are, and attached to nothing; the gadget's YAML names it among them. Worth it when many programs end in the
 * same long code, which the verifier looks at for each of them anew.
 */
#define GADGET_AFTER_EXIT(NAME)                                                                                        \
	SEC("tracepoint/syscalls/sys_exit")                                                                            \
	int NAME(struct trace_event_raw_sys_exit *ctx)

/* The array MAP for bpf_tail_call(ctx, &MAP, 0), with PROGRAM in it. */
#define GADGET_TAIL(MAP, PROGRAM)                                                                                      \
	struct {                                                                                                       \
		__uint(type, BPF_MAP_TYPE_PROG_ARRAY);                                                                 \
		__uint(max_entries, 1);                                                                                \
		__uint(key_size, sizeof(__u32));                                                                       \
		__array(values, int(struct trace_event_raw_sys_exit *));                                               \
	} MAP SEC(".maps") = {.values = {(void *)&PROGRAM}}

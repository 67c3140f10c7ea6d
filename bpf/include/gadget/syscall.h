/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * A system call's arguments, read when it returns: its registers are still on the kernel's stack. That saves a second
 * program at its entry and the hash between the two, and the memory that the caller points to has been paged in by
 * then.
 *
 * Programs for single system calls are loaded twice: for the calls of 64-bit programs, and as a copy that is called for
 * those of 32-bit ones (bpf/syscalls.bpf.c), with arguments that were translated. So they use gadget_argument() and
 * gadget_read_user_pointer(), and structs that hold pointers are read by both layouts.
 *
 * The traps: the caller may have changed that memory in the meantime, and a tracer the registers. Where this matters,
 * read what the kernel resolved.
 */
#pragma once

#include <gadget/record.h>
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

#define GADGET_REGISTER(registers, REGISTER)                                                                           \
	(GADGET_HAS_TASK_PT_REGS ? (registers)->REGISTER : BPF_CORE_READ(registers, REGISTER))

/* A call of a 32-bit program, as gadget/compat_call.h translates it. */
struct gadget_compat_call {
	__u64 arguments[6];
	/* As the client shows it. */
	__u32 number;
	/* The 64-bit call that does the same. */
	__u16 native;
	/* Structs that it points to have pointers of 32 bits. */
	bool has_short_pointers;
	bool unused;
};

/* The call that this CPU looks at; one for all objects of a gadget. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct gadget_compat_call);
} gadget_compat_calls_now SEC(".maps");

static __always_inline struct gadget_compat_call *gadget_compat_call_now(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&gadget_compat_calls_now, &zero);
}

static __always_inline __u64 gadget_compat_argument(__u32 place)
{
	const struct gadget_compat_call *call = gadget_compat_call_now();

	return call ? call->arguments[place] : 0;
}

/* gadget_argument(registers, 0) is the first argument of the system call that returns. N must be written as a number.
 */
#define gadget_argument(registers, N)                                                                                  \
	(gadget_node_compat ? gadget_compat_argument(N) : GADGET_REGISTER(registers, GADGET_ARGUMENT_##N))

/* Whether structs of the program that makes the call have pointers, and `long`, of 32 bits. */
static __always_inline bool gadget_has_short_pointers(void)
{
	const struct gadget_compat_call *call;

	if (!gadget_node_compat)
		return false;
	call = gadget_compat_call_now();
	return call && call->has_short_pointers;
}

/* The pointer at `place` of an array of pointers in the program's memory. As bpf_probe_read_user(). */
static __always_inline long gadget_read_user_pointer(void *pointer, const void *array, __u64 place)
{
	__u64 *to = pointer;
	__u32 low = 0;
	long failed;

	if (!gadget_has_short_pointers())
		return bpf_probe_read_user(to, sizeof(*to), array + place * sizeof(*to));
	failed = bpf_probe_read_user(&low, sizeof(low), array + place * sizeof(low));
	*to = low;
	return failed;
}

/* The system call that these registers entered the kernel with. A task that came by an interrupt or is a kernel thread
 * has none, which is -1 or looks like an old one. */
#define gadget_syscall_number(registers) ((__s32)GADGET_REGISTER(registers, GADGET_SYSCALL_NUMBER))

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
 * returns, its `registers`, and `ctx` for programs that go on with bpf_tail_call().
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

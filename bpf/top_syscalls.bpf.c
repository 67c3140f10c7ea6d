// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * top syscalls: counts system calls and failures by container and call, and adds up their durations.
 *
 * Hooks: the raw tracepoints sys_enter and sys_exit. A call is counted when it returns, so a blocked call is not
 * counted yet; a call that began before the gadget did is counted without its duration. Not counted: calls that do not
 * return (exit), unless `count_begun` is set.
 */
#include <gadget/processes/runtime.h>
#include <gadget/processes/thread_state.h>
#include <gadget/syscalls/compat_call.h>
#include <gadget/syscalls/syscall_table.h>
#include <gadget/totals.h>
#include <kernel/ptrace.h>

#define TOTALS 32768

/* Numbered as on the node's architecture; calls of 32-bit programs, which have their own numbers, with GADGET_COMPAT.
 */
typedef __u32 gadget_syscall;

struct syscall_key {
	gadget_cgroup cgroup;
	gadget_syscall syscall;
	__u32 unused;
};

struct syscall_value {
	__u64 count;
	__u64 errors;
	/* The number of calls whose beginning was seen. */
	__u64 timed;
	gadget_duration total;
};

struct top_syscalls {
	struct gadget_total interval;
	struct syscall_key key;
	struct syscall_value value;
	/* Filled in by the client. */
	gadget_duration mean;
};

GADGET_RECORD(top_syscalls);

/* Count calls when they begin, without errors and times. */
const volatile bool count_begun = false;

GADGET_TOTALS(syscall_key, syscall_value, TOTALS);

/* When a thread entered the kernel; 0: its call has been counted. */
struct entered {
	__u64 time;
};

GADGET_THREAD_STATE(entered);

/* NULL: not wanted, or there is no room. */
static __always_inline struct syscall_value *counters_of(__s32 number)
{
	bool is_compat = gadget_is_in_compat_call(gadget_task());
	struct syscall_key key = {};

	if (number < 0 || !gadget_wants_syscall(is_compat ? gadget_possible_call(number) : number))
		return NULL;
	key.cgroup = gadget_current_cgroup();
	key.syscall = is_compat ? number | GADGET_COMPAT : number;
	return gadget_total(&key);
}

/* Excludes calls of the container runtime while it creates the container, such as those that drop privileges. */
static __always_inline void begins(struct bpf_raw_tracepoint_args *ctx)
{
	struct syscall_value *value;

	if (gadget_is_runtime(gadget_task()))
		return;
	value = counters_of(ctx->args[1]);
	if (value)
		gadget_add(value->count, 1);
}

SEC("raw_tp/sys_enter")
int enters(struct bpf_raw_tracepoint_args *ctx)
{
	struct entered *entered;

	if (!gadget_counts())
		return 0;
	if (count_begun) {
		begins(ctx);
		return 0;
	}
	entered = gadget_make_thread_state();
	if (entered)
		entered->time = bpf_ktime_get_ns();
	return 0;
}

SEC("raw_tp/sys_exit")
int exits(struct bpf_raw_tracepoint_args *ctx)
{
	struct pt_regs *registers = (struct pt_regs *)ctx->args[0];
	struct syscall_value *value;
	long result = ctx->args[1];
	struct entered *entered;

	if (count_begun || !gadget_counts())
		return 0;
	value = counters_of(BPF_CORE_READ(registers, GADGET_SYSCALL_NUMBER));
	if (!value)
		return 0;
	gadget_add(value->count, 1);
	if (result < 0 && result >= -4095)
		gadget_add(value->errors, 1);
	entered = gadget_thread_state();
	if (!entered || !entered->time)
		return 0;
	gadget_add(value->timed, 1);
	gadget_add(value->total, bpf_ktime_get_ns() - entered->time);
	entered->time = 0;
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";

// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * profile syscall: histograms of how long system calls took, by container and call.
 *
 * Hooks: the raw tracepoints sys_enter and sys_exit. A call is counted when it returns, if its beginning was seen. Not
 * counted: calls that do not return (exit).
 */
#include <gadget/histogram.h>
#include <gadget/syscalls/syscall_table.h>
#include <gadget/syscalls/timed_call.h>

#define HISTOGRAMS 16384

/* Numbered as on the node's architecture; calls of 32-bit programs with GADGET_COMPAT. */
typedef __u32 gadget_syscall;

struct syscall_key {
	gadget_cgroup cgroup;
	gadget_syscall syscall;
	__u32 unused;
};

struct syscall_value {
	struct gadget_histogram histogram;
};

struct profile_syscall {
	struct gadget_total interval;
	struct syscall_key key;
	struct syscall_value value;
	struct gadget_percentiles percentiles;
};

GADGET_RECORD(profile_syscall);

GADGET_TOTALS(syscall_key, syscall_value, HISTOGRAMS);

SEC("raw_tp/sys_enter")
int enters(struct bpf_raw_tracepoint_args *ctx)
{
	__u64 number = ctx->args[1];
	struct task_struct *task;
	struct gadget_compat_call now;

	if (!gadget_wants_syscall(number) && !gadget_wants_syscall(gadget_possible_call(number)) &&
	    !gadget_is_x32(number))
		return 0;
	task = gadget_task();
	gadget_describe_call(&now, task, gadget_registers(task), number);
	/* Its own number: a call made through socketcall() is shown as socketcall(). */
	now.number = gadget_shown_number(task, gadget_registers(task), number);
	if (gadget_wants_syscall(now.native) && gadget_counts())
		gadget_begin_call(&now);
	return 0;
}

SEC("raw_tp/sys_exit")
int exits(struct bpf_raw_tracepoint_args *ctx)
{
	struct syscall_key key = {};
	struct gadget_timed_call ended;
	struct syscall_value *value;
	__u64 duration;

	if (!gadget_end_call(&ended, &duration))
		return 0;
	key.syscall = ended.shown;
	key.cgroup = gadget_current_cgroup();
	value = gadget_total(&key);
	if (value)
		gadget_observe(&value->histogram, duration);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";

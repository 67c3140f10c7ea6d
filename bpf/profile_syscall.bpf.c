// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * profile syscall: histograms of how long system calls took, by container and call.
 *
 * Hooks: the raw tracepoints sys_enter and sys_exit. A call counts when it returns, if its beginning was seen. Not
 * seen: calls that do not return (exit), and those of 32-bit programs, whose numbers mean others.
 */
#include <gadget/compat.h>
#include <gadget/histogram.h>
#include <gadget/syscall.h>
#include <gadget/syscall_table.h>

#define CALLS 65536
#define HISTOGRAMS 16384

/* As the node's architecture numbers them. */
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

struct begun {
	__u64 time;
	__u64 number;
};

/* By thread. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, CALLS);
	__type(key, __u32);
	__type(value, struct begun);
} calls SEC(".maps");

SEC("raw_tp/sys_enter")
int enters(struct bpf_raw_tracepoint_args *ctx)
{
	struct begun begun = {.number = ctx->args[1]};
	__u32 thread = bpf_get_current_pid_tgid();
	struct task_struct *task;

	if (!gadget_wants_syscall(begun.number) || !gadget_counts())
		return 0;
	task = gadget_task();
	if (gadget_is_compat_call(task, gadget_registers(task)))
		return 0;
	begun.time = bpf_ktime_get_ns();
	bpf_map_update_elem(&calls, &thread, &begun, BPF_ANY);
	return 0;
}

SEC("raw_tp/sys_exit")
int exits(struct bpf_raw_tracepoint_args *ctx)
{
	__u32 thread = bpf_get_current_pid_tgid();
	struct begun *begun = bpf_map_lookup_elem(&calls, &thread);
	struct syscall_key key = {};
	struct syscall_value *value;
	__u64 duration;

	if (!begun || !begun->time)
		return 0;
	duration = bpf_ktime_get_ns() - begun->time;
	begun->time = 0;
	key.cgroup = bpf_get_current_cgroup_id();
	key.syscall = begun->number;
	value = gadget_total(&key);
	if (value)
		gadget_observe(&value->histogram, duration);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";

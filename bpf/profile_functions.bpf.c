// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * profile functions: histograms of how long calls of user functions took, by container and function.
 *
 * Hooks: uprobes at the entry and the return of the functions that the user names, in all files in which the agent
 * finds them. A cookie (Linux 5.15) identifies the function, and the agent writes the names to `gadget_functions`. The
 * traps: a function may call itself, so the key of a call includes the stack address; and a program may run twice for
 * one call (agent/symbols/uprobes.py), so a call is counted by the program that removes its entry at the return.
 */
#include <gadget/histogram.h>
#include <kernel/ptrace.h>

#define CALLS 65536
#define HISTOGRAMS 8192
#define FUNCTIONS 1024
#define NAME_BYTES 64

/* On x86, the return address has been popped from the stack at the return. */
#if defined(__TARGET_ARCH_x86)
#define RETURN_BYTES 8
#else
#define RETURN_BYTES 0
#endif

struct function_key {
	gadget_cgroup cgroup;
	char function[NAME_BYTES];
};

struct function_value {
	struct gadget_histogram histogram;
};

struct profile_functions {
	struct gadget_total interval;
	struct function_key key;
	struct function_value value;
	struct gadget_percentiles percentiles;
};

GADGET_RECORD(profile_functions);

GADGET_TOTALS(function_key, function_value, HISTOGRAMS);

struct name {
	char text[NAME_BYTES];
};

/* By cookie. Filled in by the agent. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, FUNCTIONS);
	__type(key, __u32);
	__type(value, struct name);
} gadget_functions SEC(".maps");

struct call {
	__u32 thread;
	__u32 function;
	/* The stack address of the return address. */
	__u64 stack;
};

/* Entries of calls that never return (longjmp, an exception) are dropped in time. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, CALLS);
	__type(key, struct call);
	__type(value, __u64);
} calls SEC(".maps");

SEC("uprobe")
int called(struct pt_regs *ctx)
{
	struct call call = {.thread = bpf_get_current_pid_tgid(), .stack = ctx->sp};
	__u64 now;

	if (!gadget_counts())
		return 0;
	call.function = bpf_get_attach_cookie(ctx);
	now = bpf_ktime_get_ns();
	bpf_map_update_elem(&calls, &call, &now, BPF_ANY);
	return 0;
}

SEC("uretprobe")
int returned(struct pt_regs *ctx)
{
	struct call call = {.thread = bpf_get_current_pid_tgid(), .stack = ctx->sp - RETURN_BYTES};
	struct function_key key = {};
	struct function_value *value;
	struct name *name;
	__u64 *start, took;

	call.function = bpf_get_attach_cookie(ctx);
	start = bpf_map_lookup_elem(&calls, &call);
	if (!start)
		return 0;
	took = bpf_ktime_get_ns() - *start;
	bpf_map_delete_elem(&calls, &call);
	name = bpf_map_lookup_elem(&gadget_functions, &call.function);
	if (!name)
		return 0;
	key.cgroup = gadget_current_cgroup();
	__builtin_memcpy(key.function, name->text, sizeof(key.function));
	value = gadget_total(&key);
	if (value)
		gadget_observe(&value->histogram, took);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";

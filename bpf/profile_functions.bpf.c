// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * profile functions: histograms of how long calls of user functions took, by container and function.
 *
 * Hooks: uprobes at the entry and the return of the functions that the user names, in all files in which the agent
 * finds them. A cookie (Linux 5.15) identifies the function, and the agent writes the names to `gadget_functions`. The
 * traps: a function may call itself, so a call is known by its stack address; and a program may run twice for one call
 * (agent/symbols/uprobes.py), so a call is counted by the program that sees its return first.
 */
#include <gadget/histogram.h>
#include <gadget/processes/thread_state.h>
#include <kernel/ptrace.h>

/* The maximum number of nested calls of one thread. The kernel does not trace more returns (MAX_URETPROBE_DEPTH). */
#define NESTED 64
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
	/* The stack address of the return address. */
	__u64 stack;
	/* 0: it has returned. */
	__u64 start;
	__u32 function;
	__u32 unused;
};

/* A thread's calls in progress, the innermost last. */
struct calls {
	__u64 depth;
	struct call nested[NESTED];
};

GADGET_THREAD_STATE(calls);

/* Read once and first: the verifier accepts only a constant offset from the context, which the compiler may not keep.
 */
static __always_inline __u64 stack_pointer(const struct pt_regs *ctx)
{
	__u64 stack = ctx->sp;

	asm volatile("" : "+r"(stack));
	return stack;
}

static __always_inline struct call *innermost(struct calls *calls, __u32 above)
{
	return &calls->nested[(calls->depth - 1 - above) & (NESTED - 1)];
}

/* Drops calls below this stack address, which cannot return any more (longjmp, an exception). The kernel forgets them
 * too. */
static __always_inline void drop_below(struct calls *calls, __u64 stack)
{
	for (int i = 0; i < NESTED && calls->depth; i++) {
		const struct call *call = innermost(calls, 0);

		if (call->start && call->stack >= stack)
			return;
		calls->depth--;
	}
}

/* NULL: there is none. Functions that call each other last (a jump) have the same stack address, and so have names of
 * one function. */
static __always_inline struct call *find_call(struct calls *calls, __u64 stack, __u32 function)
{
	for (int i = 0; i < NESTED && i < calls->depth; i++) {
		struct call *call = innermost(calls, i);

		if (call->stack != stack)
			break;
		if (call->function == function && call->start)
			return call;
	}
	return NULL;
}

SEC("uprobe")
int called(struct pt_regs *ctx)
{
	__u64 stack = stack_pointer(ctx);
	__u32 function = bpf_get_attach_cookie(ctx);
	struct calls *calls;
	struct call *call;

	if (!gadget_counts())
		return 0;
	calls = gadget_make_thread_state();
	if (!calls)
		return 0;
	drop_below(calls, stack);
	call = find_call(calls, stack, function);
	if (!call) {
		if (calls->depth >= NESTED) {
			gadget_count_share_full(gadget_share_number(gadget_current_cgroup()));
			return 0;
		}
		calls->depth++;
		call = innermost(calls, 0);
	}
	call->stack = stack;
	call->function = function;
	call->start = bpf_ktime_get_ns();
	return 0;
}

SEC("uretprobe")
int returned(struct pt_regs *ctx)
{
	__u32 function = bpf_get_attach_cookie(ctx);
	struct calls *calls = gadget_thread_state();
	__u64 stack = stack_pointer(ctx) - RETURN_BYTES, took;
	struct function_key key = {};
	struct function_value *value;
	struct call *call;
	struct name *name;

	if (!calls)
		return 0;
	drop_below(calls, stack);
	call = find_call(calls, stack, function);
	if (!call)
		return 0;
	took = bpf_ktime_get_ns() - call->start;
	call->start = 0;
	name = bpf_map_lookup_elem(&gadget_functions, &function);
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

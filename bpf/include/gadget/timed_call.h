/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The duration of a thread's system call, for histograms: from the raw tracepoint sys_enter to sys_exit. Not seen:
 * calls that do not return (exit).
 *
 * The trap: entries are not deleted, since the thread's next call uses the same entry; a time of 0 means that no call
 * is in progress.
 */
#pragma once

#include <gadget/compat_call.h>
#include <gadget/syscall.h>

/* The maximum number of threads with a call in progress. */
#define GADGET_TIMED_CALLS 65536

struct gadget_timed_call {
	__u64 begun;
	/* The number as the client shows it, and the equivalent 64-bit call. */
	__u32 shown;
	__u32 native;
	__u64 first_argument;
};

/* By thread. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, GADGET_TIMED_CALLS);
	__type(key, __u32);
	__type(value, struct gadget_timed_call);
} gadget_timed_calls SEC(".maps");

static __always_inline void gadget_begin_call(const struct gadget_compat_call *now)
{
	struct gadget_timed_call call = {.shown = now->number, .native = now->native};
	__u32 thread = bpf_get_current_pid_tgid();

	call.first_argument = now->arguments[0];
	call.begun = bpf_ktime_get_ns();
	bpf_map_update_elem(&gadget_timed_calls, &thread, &call, BPF_ANY);
}

/* Returns the call as it began, and its duration in nanoseconds. False: its beginning was not seen, or it is not
 * wanted. */
static __always_inline bool gadget_end_call(struct gadget_timed_call *ended, __u64 *duration)
{
	__u32 thread = bpf_get_current_pid_tgid();
	struct gadget_timed_call *call = bpf_map_lookup_elem(&gadget_timed_calls, &thread);

	if (!call || !call->begun)
		return false;
	*ended = *call;
	*duration = bpf_ktime_get_ns() - call->begun;
	call->begun = 0;
	return true;
}

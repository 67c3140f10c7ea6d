/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The duration of each thread's system call, for histograms: from the raw tracepoint sys_enter to sys_exit. Not seen:
 * calls that do not return (exit).
 *
 * The trap: entries stay until the thread ends, since its next call uses the same entry; a time of 0 means that no call
 * is in progress.
 */
#pragma once

#include <gadget/processes/thread_state.h>
#include <gadget/syscall.h>
#include <gadget/syscalls/compat_call.h>

struct gadget_timed_call {
	__u64 begun;
	/* The number as the client shows it, and the equivalent 64-bit call. */
	__u32 shown;
	__u32 native;
	__u64 first_argument;
};

GADGET_THREAD_STATE(gadget_timed_call);

static __always_inline void gadget_begin_call(const struct gadget_compat_call *now)
{
	struct gadget_timed_call *call = gadget_make_thread_state();

	if (!call)
		return;
	call->shown = now->number;
	call->native = now->native;
	call->first_argument = now->arguments[0];
	call->begun = bpf_ktime_get_ns();
}

/* Returns the call as it began, and its duration in nanoseconds. False: its beginning was not seen, or it is not
 * wanted. */
static __always_inline bool gadget_end_call(struct gadget_timed_call *ended, __u64 *duration)
{
	struct gadget_timed_call *call = gadget_thread_state();

	if (!call || !call->begun)
		return false;
	*ended = *call;
	*duration = bpf_ktime_get_ns() - call->begun;
	call->begun = 0;
	return true;
}

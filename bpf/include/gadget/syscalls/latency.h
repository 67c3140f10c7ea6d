/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The duration of a system call: GADGET_STARTS(mount) notes the start at its entry, gadget_latency() returns the
 * duration at its exit. The gadget's YAML must list the program `thread_ends`.
 */
#pragma once

#include <gadget/processes/thread_state.h>

struct gadget_call_start {
	/* 0: no call is in progress. */
	__u64 time;
};

GADGET_THREAD_STATE(gadget_call_start);

static __always_inline void gadget_note_start(void)
{
	struct gadget_call_start *start = gadget_make_thread_state();

	if (start)
		start->time = bpf_ktime_get_boot_ns();
}

/* Defines the program CALL_starts at the entry of a system call. */
#define GADGET_STARTS(CALL)                                                                                            \
	SEC("tracepoint/syscalls/sys_enter_" #CALL)                                                                    \
	int CALL##_starts(void *ctx)                                                                                   \
	{                                                                                                              \
		gadget_note_start();                                                                                   \
		return 0;                                                                                              \
	}

/* The duration of the call that returns; ~0: it began before the gadget did, or the map was full. */
static __always_inline gadget_duration gadget_latency(void)
{
	struct gadget_call_start *start = gadget_thread_state();
	gadget_duration latency = ~0ULL;

	if (start && start->time) {
		latency = bpf_ktime_get_boot_ns() - start->time;
		start->time = 0;
	}
	return latency;
}

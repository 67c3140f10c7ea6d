/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * What a gadget remembers of each thread, such as the call that is in progress: GADGET_THREAD_STATE(state) defines
 * gadget_thread_state(), gadget_make_thread_state() and the program `thread_ends`, which removes the entry. A gadget's
 * YAML must list that program.
 *
 * The trap: when a thread other than the first one executes a program, its TID changes. So keys are addresses of tasks.
 */
#pragma once

#include <gadget/map_shares.h>
#include <gadget/processes/moved.h>

/* One container may have half of them. */
#define GADGET_THREADS 131072

#define GADGET_THREAD_STATE(STATE)                                                                                     \
	GADGET_STATES(gadget_thread, STATE, GADGET_THREADS);                                                           \
                                                                                                                       \
	/* The state of the current thread; NULL: it has none. */                                                      \
	static __always_inline struct STATE *gadget_thread_state(void)                                                 \
	{                                                                                                              \
		return gadget_thread_state_of((__u64)bpf_get_current_task());                                          \
	}                                                                                                              \
                                                                                                                       \
	static __always_inline struct STATE *gadget_make_thread_state(void)                                            \
	{                                                                                                              \
		return gadget_thread_make_state((__u64)bpf_get_current_task(), gadget_current_cgroup());               \
	}                                                                                                              \
                                                                                                                       \
	SEC("tp_btf/sched_process_exit")                                                                               \
	int thread_ends(__u64 *ctx)                                                                                    \
	{                                                                                                              \
		gadget_thread_remove_state((__u64)bpf_get_current_task());                                             \
		return 0;                                                                                              \
	}                                                                                                              \
	struct gadget_thread_entry

/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The duration of a system call: GADGET_STARTS(mount) notes the start at its entry, gadget_latency() returns the
 * duration at its exit.
 *
 * The trap: a call may never return, for example when its thread is killed. Its entry in the map is overwritten by a
 * later thread with the same TID.
 */
#pragma once

#include <gadget/output.h>
#include <gadget/record.h>

/* The maximum number of traced system calls in progress at the same time. */
#define GADGET_STARTED 16384

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, GADGET_STARTED);
	__type(key, __u64);
	__type(value, __u64);
} gadget_started SEC(".maps");

static __always_inline void gadget_note_start(void)
{
	__u64 thread = bpf_get_current_pid_tgid();
	__u64 now = bpf_ktime_get_boot_ns();

	if (bpf_map_update_elem(&gadget_started, &thread, &now, BPF_ANY))
		gadget_count_map_full();
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
	__u64 thread = bpf_get_current_pid_tgid();
	const __u64 *start = bpf_map_lookup_elem(&gadget_started, &thread);
	gadget_duration latency = ~0ULL;

	if (start) {
		latency = bpf_ktime_get_boot_ns() - *start;
		bpf_map_delete_elem(&gadget_started, &thread);
	}
	return latency;
}

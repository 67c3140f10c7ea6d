/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Detects that data about a process's memory is outdated: gadget_first_seen(pid) distinguishes successive processes
 * with the same PID, and successive programs of one process. The YAML of a gadget that includes this file lists the
 * programs `exits` and `executes`; the gadget defines gadget_thread_ends(), which is called for each thread.
 *
 * Old data is not removed automatically; store the result of gadget_first_seen() in it, and compare.
 */
#pragma once

#include <gadget/output.h>
#include <gadget/task.h>

#define GADGET_LIVING 16384

/* When each living process was first seen, by its PID on the node. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, GADGET_LIVING);
	__type(key, __u32);
	__type(value, __u64);
} gadget_living SEC(".maps");

static __always_inline void gadget_thread_ends(void);

static __always_inline __u64 gadget_first_seen(__u32 pid)
{
	__u64 now = bpf_ktime_get_boot_ns();
	const __u64 *found = bpf_map_lookup_elem(&gadget_living, &pid);

	if (found)
		return *found;
	if (!bpf_map_update_elem(&gadget_living, &pid, &now, BPF_NOEXIST))
		return now;
	found = bpf_map_lookup_elem(&gadget_living, &pid);
	if (!found)
		gadget_count_map_full();
	return found ? *found : now;
}

/* Whether the process still runs the program that it ran when it was first seen. */
static __always_inline bool gadget_lives(__u32 pid, __u64 first_seen)
{
	const __u64 *found = bpf_map_lookup_elem(&gadget_living, &pid);

	return found && *found == first_seen;
}

static __always_inline int gadget_memory_is_gone(struct task_struct *task)
{
	__u32 pid = gadget_node_pid(task);

	bpf_map_delete_elem(&gadget_living, &pid);
	return 0;
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(exits, struct task_struct *task)
{
	gadget_thread_ends();
	/* Only for the last thread of a process. */
	return BPF_CORE_READ(task, signal, live.counter) ? 0 : gadget_memory_is_gone(task);
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(executes, struct task_struct *task)
{
	return gadget_memory_is_gone(task);
}

/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The end of a process, for programs on the tracepoint sched_process_exit, which runs for each thread.
 *
 * Before Linux 6.16, the tracepoint did not say whether the thread is the last one.
 */
#pragma once

#include <linux/errno.h>

#include <gadget/task.h>

/* The status that wait() returns (include/uapi/linux/wait.h): the signal, this flag, and the exit code in the second
 * byte. */
#define CORE_DUMPED 0x80
/* The maximum number of processes whose threads are ending at the same time: see gadget_ends_first(). */
#define GADGET_ENDING 1024

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, GADGET_ENDING);
	__type(key, __u64);
	__type(value, __u64);
} gadget_ending SEC(".maps");

/*
 * Whether this is the last thread. If two threads end at the same time, both see that no other is left; then this is
 * true for the first one only. The start time distinguishes a later process with the same PID. An entry that is dropped
 * before the second thread ends makes this true twice, never less than once.
 */
static __always_inline bool gadget_ends_first(struct task_struct *task)
{
	__u64 process = gadget_read(task, tgid);
	__u64 start = gadget_read(task, group_leader, start_boottime);
	const __u64 *noted;

	if (gadget_read(task, signal, live.counter))
		return false;
	noted = bpf_map_lookup_elem(&gadget_ending, &process);
	if (noted && *noted == start)
		return false;
	if (!noted)
		return bpf_map_update_elem(&gadget_ending, &process, &start, BPF_NOEXIST) != -EEXIST;
	bpf_map_update_elem(&gadget_ending, &process, &start, BPF_ANY);
	return true;
}

/* Whether the process ends with this thread. `ctx` is the context of a program on sched_process_exit. */
static __always_inline bool gadget_ends_process(const __u64 *ctx, struct task_struct *task)
{
	if (bpf_core_type_exists(btf_trace_sched_process_exit___with_last))
		return (bool)ctx[1];
	return gadget_ends_first(task);
}

/* The status that wait() will return. */
static __always_inline __u32 gadget_exit_status(struct task_struct *task)
{
	struct signal_struct *signal = gadget_read(task, signal);

	if (gadget_read(signal, flags) & SIGNAL_GROUP_EXIT)
		return gadget_read(signal, group_exit_code);
	return gadget_read(task, group_leader, exit_code);
}

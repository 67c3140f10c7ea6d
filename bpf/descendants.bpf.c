// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * Maintains the set of one process and its descendants for all gadgets of a session
 * (gadget/processes/chosen_process.h). Emits nothing.
 *
 * Hooks: the tracepoints sched_process_fork, which runs before the child does, and sched_process_free, after which the
 * process causes no more events; and an iterator over all tasks, which the agent runs until it adds no further process:
 * only then have all processes been visited after their parent was added. The trap: a PID can be reused shortly before
 * sched_process_free runs for the old process. So an entry has the fork time of its process, and is removed only for
 * that process.
 */
#include <gadget/processes/chosen_process.h>
#include <kernel/iterator.h>
#include <kernel/task.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* The number of processes for which there was no room: these and their descendants are missing. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} not_added SEC(".maps");

static __always_inline __u64 forked_at(struct task_struct *task)
{
	return gadget_read(task, group_leader, start_boottime);
}

static __always_inline bool add(struct task_struct *task)
{
	__u32 process = gadget_read(task, tgid), zero = 0;
	__u64 at = forked_at(task);
	__u64 *missing;

	if (!bpf_map_update_elem(&gadget_descendants, &process, &at, BPF_ANY))
		return true;
	missing = bpf_map_lookup_elem(&not_added, &zero);
	if (missing)
		__sync_fetch_and_add(missing, 1);
	return false;
}

static __always_inline bool is_leader(struct task_struct *task)
{
	return gadget_read(task, pid) == gadget_read(task, tgid);
}

static __always_inline bool is_chosen(struct task_struct *task, struct task_struct *parent)
{
	return gadget_descends(parent) || gadget_node_pid(task) == gadget_filter_pid;
}

SEC("tp_btf/sched_process_fork")
int BPF_PROG(forks, struct task_struct *parent, struct task_struct *child)
{
	__u32 process = child->tgid;

	if (!is_leader(child))
		return 0;
	/* `parent` is the process that forks; with CLONE_PARENT, real_parent is another process. */
	if (is_chosen(child, parent))
		add(child);
	else
		bpf_map_delete_elem(&gadget_descendants, &process);
	return 0;
}

SEC("tp_btf/sched_process_free")
int BPF_PROG(is_freed, struct task_struct *task)
{
	__u32 process = task->tgid;
	const __u64 *known = bpf_map_lookup_elem(&gadget_descendants, &process);

	if (known && is_leader(task) && *known == task->start_boottime)
		bpf_map_delete_elem(&gadget_descendants, &process);
	return 0;
}

/* Writes one byte for each process that it adds. */
SEC("iter/task")
int finds(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	const char added = 1;

	if (!task || !is_leader(task) || gadget_descends(task) || !is_chosen(task, gadget_read(task, real_parent)))
		return 0;
	if (add(task))
		bpf_seq_write(ctx->meta->seq, &added, sizeof(added));
	return 0;
}

// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * profile runqlat: a histogram of how long runnable threads waited for a CPU, by container and command.
 *
 * Hooks: the tracepoints sched_wakeup and sched_wakeup_new, where a wait begins, and sched_switch, where it ends, and
 * where the wait of a preempted thread begins. At sched_switch, the current task is the one that leaves the CPU.
 */
#include <gadget/histogram.h>
#include <gadget/other_task.h>
#include <kernel/task_state.h>

#define WAITING 65536
#define HISTOGRAMS 8192

struct runqlat_key {
	gadget_cgroup cgroup;
	gadget_comm comm;
};

struct runqlat_value {
	struct gadget_histogram histogram;
};

struct profile_runqlat {
	struct gadget_total interval;
	struct runqlat_key key;
	struct runqlat_value value;
	struct gadget_percentiles percentiles;
};

GADGET_RECORD(profile_runqlat);

GADGET_TOTALS(runqlat_key, runqlat_value, HISTOGRAMS);

/* When each thread began to wait, by TID. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, WAITING);
	__type(key, __u32);
	__type(value, __u64);
} waiting SEC(".maps");

static __always_inline void begin(struct task_struct *task)
{
	__u32 thread = BPF_CORE_READ(task, pid);
	__u64 now = bpf_ktime_get_ns();

	/* Each CPU has an idle thread, which does not wait. */
	if (thread && bpf_map_update_elem(&waiting, &thread, &now, BPF_ANY))
		gadget_count_map_full();
}

static __always_inline void end(struct task_struct *task)
{
	__u32 thread = BPF_CORE_READ(task, pid);
	struct gadget_record record;
	struct runqlat_value *value;
	struct runqlat_key key = {};
	__u64 *since, waited;

	since = bpf_map_lookup_elem(&waiting, &thread);
	/* The wait began before the gadget did. */
	if (!since)
		return;
	waited = bpf_ktime_get_ns() - *since;
	bpf_map_delete_elem(&waiting, &thread);
	if (!gadget_begin_for_task(&record, task))
		return;
	key.cgroup = record.cgroup;
	__builtin_memcpy(key.comm, record.comm, sizeof(key.comm));
	value = gadget_total(&key);
	if (value)
		gadget_observe(&value->histogram, waited);
}

SEC("tp_btf/sched_wakeup")
int BPF_PROG(woken, struct task_struct *task)
{
	begin(task);
	return 0;
}

SEC("tp_btf/sched_wakeup_new")
int BPF_PROG(made, struct task_struct *task)
{
	begin(task);
	return 0;
}

SEC("tp_btf/sched_switch")
int BPF_PROG(switched, bool preempted, struct task_struct *before, struct task_struct *after)
{
	if (preempted || gadget_state_of(before) == TASK_RUNNING)
		begin(before);
	end(after);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";

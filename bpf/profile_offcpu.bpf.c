// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * profile offcpu: adds up how long threads were off the CPU, by the stack that they had when they left it.
 *
 * Hook: the tracepoint sched_switch, where the thread that leaves the CPU is still the current one. So its stacks are
 * taken then, and its time is added when it runs again. The trap: stacks are taken for every thread that leaves, since
 * it is not known yet for how long; a thread that has not run again at the end of the trace is not counted.
 */
#include <gadget/operation.h>
#include <gadget/stacks.h>
#include <gadget/totals.h>
#include <kernel/task_state.h>

/* The maximum number of threads that are off the CPU at the same time. */
#define THREADS 65536
/* The maximum number of different keys in one interval. */
#define ROWS 32768

/* The client derives it from the two stacks. */
typedef __u64 gadget_innermost;

struct wait_key {
	gadget_cgroup cgroup;
	/* The PID on the node. */
	__u32 pid;
	__u32 unused;
	gadget_comm comm;
	gadget_operation state;
	gadget_stack user_stack;
	gadget_stack kernel_stack;
};

struct wait_value {
	gadget_duration blocked;
	__u64 waits;
};

struct profile_offcpu {
	struct gadget_total interval;
	struct wait_key key;
	struct wait_value value;
	/* Filled in by the client. */
	gadget_innermost function;
	gadget_duration mean;
};

GADGET_RECORD(profile_offcpu);

GADGET_TOTALS(wait_key, wait_value, ROWS);

/* The minimum duration of counted waits, in microseconds. */
const volatile __u32 min_block = 1000;
/* Also threads that were preempted. */
const volatile bool preempted = false;

struct off {
	__u64 since;
	struct wait_key key;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, THREADS);
	__type(key, __u64); /* the task's address */
	__type(value, struct off);
} off_cpu SEC(".maps");

/* Interrupts are off in sched_switch, so one per CPU is enough. */
GADGET_SCRATCH(leaving, sizeof(struct off));

enum { PREEMPTED, INTERRUPTIBLE, UNINTERRUPTIBLE, IO, STOPPED, ENDED };

static __always_inline __u32 state_of(struct task_struct *task, bool preempt)
{
	__u32 state = gadget_state_of(task);

	if (preempt || !state)
		return PREEMPTED;
	if (state & TASK_DEAD)
		return ENDED;
	if (BPF_CORE_READ_BITFIELD_PROBED(task, in_iowait))
		return IO;
	if (state & TASK_UNINTERRUPTIBLE)
		return UNINTERRUPTIBLE;
	return state & TASK_INTERRUPTIBLE ? INTERRUPTIBLE : STOPPED;
}

static __always_inline void leaves_cpu(void *context, struct task_struct *task, bool preempt)
{
	static const gadget_operation words[] = {"preempted", "interruptible", "uninterruptible", "io", "stopped"};
	__u64 key = (__u64)task;
	__u32 state = state_of(task, preempt);
	struct off *off;

	/* 0: the idle task. */
	if (!gadget_node_pid(task) || state == ENDED || (state == PREEMPTED && !preempted) || !gadget_counts())
		return;
	off = gadget_scratch(&leaving);
	if (!off)
		return;
	__builtin_memcpy(off->key.state, words[state > STOPPED ? STOPPED : state], sizeof(off->key.state));
	if (!gadget_wanted_operation(off->key.state))
		return;
	off->key.cgroup = gadget_current_cgroup();
	off->key.pid = gadget_node_pid(task);
	off->key.unused = 0;
	bpf_get_current_comm(off->key.comm, sizeof(off->key.comm));
	off->key.user_stack = gadget_user_stack(context);
	off->key.kernel_stack = gadget_kernel_stack(context, GADGET_BEGINS_TRACEPOINT);
	off->since = bpf_ktime_get_ns();
	if (bpf_map_update_elem(&off_cpu, &key, off, BPF_ANY))
		gadget_count_map_full();
}

static __always_inline void enters_cpu(struct task_struct *task)
{
	__u64 key = (__u64)task;
	struct off *off = bpf_map_lookup_elem(&off_cpu, &key);
	struct wait_value *value;
	__u64 blocked;

	if (!off)
		return;
	blocked = bpf_ktime_get_ns() - off->since;
	if (blocked >= min_block * 1000ULL) {
		value = gadget_total(&off->key);
		if (value) {
			gadget_add(value->blocked, blocked);
			gadget_add(value->waits, 1);
		}
	}
	bpf_map_delete_elem(&off_cpu, &key);
}

SEC("tp_btf/sched_switch")
int BPF_PROG(switches, bool preempt, struct task_struct *previous, struct task_struct *next)
{
	enters_cpu(next);
	leaves_cpu(ctx, previous, preempt);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";

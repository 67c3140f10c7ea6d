// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * profile offcpu: adds up how long threads were off the CPU, by the stack that they had when they left it.
 *
 * Hook: the tracepoint sched_switch, where the thread that leaves the CPU is still the current one. So its stacks are
 * taken then, and its time is added when it runs again. Stacks are taken for every thread that leaves, since it is not
 * known yet for how long.
 *
 * An iterator over all tasks, which the agent runs once at the start, adds the threads that already wait. At the end of
 * each interval, a walk counts the waits that have not ended, each up to now; what follows counts in the next interval.
 */
#include <gadget/operation.h>
#include <gadget/other_task.h>
#include <gadget/stacks.h>
#include <gadget/totals.h>
#include <gadget/unwind.h>
#include <gadget/walk.h>
#include <kernel/iterator.h>
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
	bool still_waiting;
	__u8 unused_8;
	__u16 unused_16;
	gadget_comm comm;
	gadget_operation state;
	gadget_stack user_stack;
	gadget_stack kernel_stack;
};

struct wait_value {
	gadget_duration blocked;
	__u64 waits;
	/* How long the longest wait that has not ended has lasted, also before the trace. */
	gadget_duration waiting;
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
	/* When it left the CPU. */
	__u64 left;
	/* From when on its time is not counted yet. */
	__u64 since;
	struct wait_key key;
};

/* Threads that are off the CPU. GADGET_WALK uses the map of this name. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, THREADS);
	__type(key, __u64); /* the task's address */
	__type(value, struct off);
} gadget_walked SEC(".maps");

/* Interrupts are off in sched_switch, so one per CPU is enough. */
GADGET_SCRATCH(leaving, sizeof(struct off));
/* For the iterator, which sched_switch may interrupt. */
GADGET_SCRATCH(found, sizeof(struct off));

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

/* Sets what does not depend on the task being the current one. False: threads in this state are not wanted. */
static __always_inline bool begin(struct off *off, struct task_struct *task, __u32 state)
{
	static const gadget_operation words[] = {"preempted", "interruptible", "uninterruptible", "io", "stopped"};

	__builtin_memcpy(off->key.state, words[state > STOPPED ? STOPPED : state], sizeof(off->key.state));
	off->key.pid = gadget_node_pid(task);
	off->key.still_waiting = false;
	off->key.unused_8 = 0;
	off->key.unused_16 = 0;
	return gadget_wanted_operation(off->key.state);
}

static __always_inline void leaves_cpu(void *context, struct task_struct *task, bool preempt, bool unwinds)
{
	__u64 key = (__u64)task;
	__u32 state = state_of(task, preempt);
	struct off *off;

	/* 0: the idle task. */
	if (!gadget_node_pid(task) || state == ENDED || (state == PREEMPTED && !preempted) || !gadget_counts())
		return;
	off = gadget_scratch(&leaving);
	if (!off || !begin(off, task, state))
		return;
	off->key.cgroup = gadget_current_cgroup();
	bpf_get_current_comm(off->key.comm, sizeof(off->key.comm));
	off->key.user_stack = unwinds ? gadget_unwound_stack(context) : gadget_user_stack(context);
	off->key.kernel_stack = gadget_kernel_stack(context, GADGET_BEGINS_TRACEPOINT);
	off->left = off->since = bpf_ktime_get_ns();
	if (bpf_map_update_elem(&gadget_walked, &key, off, BPF_ANY))
		gadget_count_map_full();
}

static __always_inline void enters_cpu(struct task_struct *task)
{
	__u64 key = (__u64)task;
	struct off *off = bpf_map_lookup_elem(&gadget_walked, &key);
	struct wait_value *value;
	__u64 now;

	if (!off)
		return;
	now = bpf_ktime_get_ns();
	if (now - off->left >= min_block * 1000ULL) {
		value = gadget_total(&off->key);
		if (value) {
			gadget_add(value->blocked, now - off->since);
			gadget_add(value->waits, 1);
			value->waiting = ~0ULL;
		}
	}
	bpf_map_delete_elem(&gadget_walked, &key);
}

SEC("tp_btf/sched_switch")
int BPF_PROG(unwound_switches, bool preempt, struct task_struct *previous, struct task_struct *next)
{
	enters_cpu(next);
	leaves_cpu(ctx, previous, preempt, true);
	return 0;
}

SEC("tp_btf/sched_switch")
int BPF_PROG(switches, bool preempt, struct task_struct *previous, struct task_struct *next)
{
	enters_cpu(next);
	leaves_cpu(ctx, previous, preempt, false);
	return 0;
}

/* Whether it neither runs, nor may run, nor has ended. */
static __always_inline bool waits(struct task_struct *task)
{
	__u32 state = gadget_state_of(task);

	return state && !(state & GADGET_STATES_OF_ENDED);
}

/* Adds a thread that waits since before the trace began. */
static __always_inline int add_waiting(struct task_struct *task, bool sleeps)
{
	struct off *off = gadget_scratch(&found);
	__u64 key = (__u64)task, now, waited;
	struct gadget_record record;

	if (!task || !off || !waits(task) || !gadget_begin_for_task(&record, task) ||
	    !begin(off, task, state_of(task, false)))
		return 0;
	off->key.cgroup = record.cgroup;
	__builtin_memcpy(off->key.comm, record.comm, sizeof(off->key.comm));
	off->key.user_stack = sleeps ? gadget_user_stack_of(task) : GADGET_NO_STACK;
	off->key.kernel_stack = gadget_kernel_stack_of(task);
	waited = gadget_off_cpu_time(task);
	now = bpf_ktime_get_ns();
	off->since = now;
	off->left = waited < now ? now - waited : now;
	/* It may have run, and left the CPU again. */
	switch (bpf_map_update_elem(&gadget_walked, &key, off, BPF_NOEXIST)) {
	case 0:
		break;
	case -E2BIG:
		gadget_count_map_full();
		return 0;
	default:
		return 0;
	}
	/* If it ran before it was in the map, nothing would remove it. */
	if (!waits(task))
		bpf_map_delete_elem(&gadget_walked, &key);
	return 0;
}

SEC("iter.s/task")
int waiting(struct bpf_iter__task *ctx)
{
	return add_waiting(ctx->task, true);
}

/* For kernels that do not take the program above. */
SEC("iter/task")
int waiting_alone(struct bpf_iter__task *ctx)
{
	return add_waiting(ctx->task, false);
}

GADGET_WALK(sum_open)
{
	struct off *off = value;
	struct wait_key open = off->key;
	struct wait_value *total;
	__u64 now = bpf_ktime_get_ns(), waited = now - off->left, counted = now - off->since;

	/* It may have begun while the walk ran. */
	if ((__s64)counted < 0 || waited < min_block * 1000ULL)
		return 0;
	open.still_waiting = true;
	total = gadget_total(&open);
	if (!total)
		return 0;
	off->since = now;
	gadget_add(total->blocked, counted);
	gadget_add(total->waits, 1);
	if (waited > total->waiting)
		total->waiting = waited;
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";

// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * top process: adds up the CPU time of each process, and reports its memory and threads.
 *
 * Hook: the tracepoint sched_stat_runtime, which reports the CPU time of a task at each switch and each tick, so that
 * even a process that never sleeps is seen in each interval. Not counted: the time of interrupts and, before Linux 6.9,
 * of tasks with a real-time priority.
 */
#include <gadget/other_task.h>
#include <gadget/process_identity.h>
#include <gadget/totals.h>
#include <kernel/task_state.h>

#define PROCESSES 65536

typedef __u32 gadget_task_state;

/* In thousandths of a CPU. */
typedef __u64 gadget_millicores;

struct process_key {
	gadget_cgroup cgroup;
	/* The PID on the node. */
	gadget_pid pid;
	/* gadget_program_of() */
	__u32 unused_program;
};

struct process_value {
	gadget_duration cpu_time;
	gadget_bytes memory;
	gadget_timestamp started;
	gadget_comm comm;
	gadget_pid ppid;
	gadget_pid container_pid;
	gadget_uid uid;
	__u32 threads;
	/* The state of the thread that ran last, of those that have not ended while the process lives. */
	gadget_task_state state;
	/* The niceness of the first thread. */
	__s32 nice;
	__s32 priority;
	__u32 unused;
};

struct top_process {
	struct gadget_total interval;
	struct process_key key;
	struct process_value value;
	/* Filled in by the client. */
	gadget_millicores cpu;
};

GADGET_RECORD(top_process);

GADGET_TOTALS(process_key, process_value, PROCESSES);

/* Name and PIDs are those of the process, not of the thread. */
static __always_inline void describe(struct process_value *value, const struct gadget_record *record,
				     struct task_struct *task)
{
	gadget_comm_of(gadget_read(task, group_leader), value->comm);
	value->memory = gadget_memory_of(task);
	value->started = BPF_CORE_READ(task, group_leader, start_boottime);
	value->ppid = record->ppid;
	value->container_pid = record->container_pid;
	value->uid = record->uid;
	value->threads = gadget_threads_of(task);
	value->nice = gadget_nice_of(gadget_read(task, group_leader));
	value->priority = gadget_priority_of(gadget_read(task, group_leader));
}

/* A thread that ends says nothing about its process, unless it is the last one. */
static __always_inline void set_state(struct process_value *value, struct task_struct *task)
{
	__u32 state = gadget_state_of(task);

	if (state & GADGET_STATES_OF_ENDED && gadget_process_lives(task)) {
		if (value->cpu_time)
			return;
		state = gadget_state_of(gadget_read(task, group_leader)) & ~GADGET_STATES_OF_ENDED;
	}
	value->state = state;
}

SEC("tp_btf/sched_stat_runtime")
int BPF_PROG(runs, struct task_struct *task, __u64 runtime)
{
	struct gadget_record record;
	struct process_key key = {};
	struct process_value *value;

	/* The current task is the one that updates the run queue, which is not always the reported task. */
	if (!task->tgid || !gadget_begin_for_task(&record, task))
		return 0;
	key.cgroup = record.cgroup;
	key.pid = record.pid;
	key.unused_program = gadget_program_of(task);
	value = gadget_total(&key);
	if (!value)
		return 0;
	if (!value->cpu_time)
		describe(value, &record, task);
	set_state(value, task);
	gadget_add(value->cpu_time, runtime);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";

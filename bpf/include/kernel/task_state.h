/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The state of a task, since when it does not run, its memory and its priority.
 *
 * The kernel counts a process's pages per CPU and adds them up only from time to time, so the sum read here may be off
 * by a few pages.
 */
#pragma once

#include <gadget/record.h>
#include <gadget/task.h>
#include <kernel/memory.h>
#include <kernel/waits.h>

/* The task's state and exit state, as numbered by the kernel. */
static __always_inline __u32 gadget_state_of(struct task_struct *task)
{
	struct task_struct___old_state *old = (void *)task;
	__u32 state;

	if (bpf_core_field_exists(task->__state))
		state = BPF_CORE_READ(task, __state);
	else
		state = BPF_CORE_READ(old, state);
	return state | BPF_CORE_READ(task, exit_state);
}

/* Bits of the state of a thread that has ended, or is about to: EXIT_DEAD, EXIT_ZOMBIE, TASK_DEAD. */
#define GADGET_STATES_OF_ENDED (0x10 | 0x20 | 0x80)

/* Whether the thread sleeps: it is neither running nor ended. */
static __always_inline bool gadget_sleeps(__u32 state)
{
	return state & (TASK_INTERRUPTIBLE | TASK_UNINTERRUPTIBLE) && !(state & GADGET_STATES_OF_ENDED);
}

/* Policies of the fair scheduler (include/uapi/linux/sched.h): normal, batch, idle, extensible. */
#define GADGET_FAIR_POLICIES (1 << 0 | 1 << 3 | 1 << 5)

/* When a thread left its CPU, or how far it has run, by the clock of the scheduler. 0: unknown. */
static __always_inline __u64 gadget_ran_until(struct task_struct *task)
{
	struct task_struct___waits *times = (void *)task;
	__u64 since;

	if (!bpf_core_field_exists(times->sched_info.last_arrival))
		return 0;
	since = BPF_CORE_READ(times, sched_info.last_arrival);
	if (since && GADGET_FAIR_POLICIES >> (BPF_CORE_READ(times, policy) & 31) & 1)
		since += BPF_CORE_READ(times, se.sum_exec_runtime) - BPF_CORE_READ(times, se.prev_sum_exec_runtime);
	return since;
}

/*
 * For how long a thread that does not run has not run. ~0: unknown. The time at which it got its CPU is known, and for
 * how long it then ran. The clock is the scheduler's, so the agent's own thread tells the time; its run time is counted
 * up at each tick, so a few milliseconds may be missing. Threads with real-time priority do not tell for how long they
 * ran, so it is counted as waiting.
 */
static __always_inline __u64 gadget_off_cpu_time(struct task_struct *task)
{
	__u64 since = gadget_ran_until(task);
	__u64 now = gadget_ran_until((struct task_struct *)bpf_get_current_task());

	if (!since || !now)
		return ~0ULL;
	return now > since ? now - since : 0;
}

/* Whether any thread of the task's process still runs. */
static __always_inline bool gadget_process_lives(struct task_struct *task)
{
	return BPF_CORE_READ(task, signal, live.counter) > 0;
}

/* The memory of a process, in bytes. Unknown for kernel threads, and for processes that have ended. */
static __always_inline __u64 gadget_memory_of(struct task_struct *task)
{
	struct mm_struct *mm = BPF_CORE_READ(task, mm);

	if (!mm)
		return ~0ULL;
	return (gadget_pages(mm, MM_FILEPAGES) + gadget_pages(mm, MM_ANONPAGES) + gadget_pages(mm, MM_SHMEMPAGES)) *
	       gadget_node_page_bytes;
}

/* The static priority of niceness 0, and the number of real-time priorities below the static ones. */
#define GADGET_DEFAULT_PRIORITY 120
#define GADGET_REALTIME_PRIORITIES 100

static __always_inline __s32 gadget_nice_of(struct task_struct *task)
{
	return BPF_CORE_READ(task, static_prio) - GADGET_DEFAULT_PRIORITY;
}

/* As in /proc/PID/stat: 0 to 39 for nice -20 to 19, -2 to -100 for the real-time priorities 1 to 99, -101 for deadline.
 */
static __always_inline __s32 gadget_priority_of(struct task_struct *task)
{
	return BPF_CORE_READ(task, prio) - GADGET_REALTIME_PRIORITIES;
}

static __always_inline __u32 gadget_threads_of(struct task_struct *task)
{
	struct signal_struct *signal = BPF_CORE_READ(task, signal);

	return BPF_CORE_READ(signal, nr_threads);
}

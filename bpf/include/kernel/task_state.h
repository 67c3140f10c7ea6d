/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * What a task is doing, and what it uses.
 *
 * The trap: the kernel counts a process's pages per CPU and adds them up only now and then, so the sum read here may be
 * some pages off.
 */
#pragma once

#include <gadget/record.h>
#include <gadget/task.h>
#include <kernel/memory.h>

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct task_struct___state {
	unsigned int __state;
	int exit_state;
	int static_prio;
};

/* Before 2f064a59a11f "sched: Change task_struct::state" (5.14). */
struct task_struct___old_state {
	volatile long state;
};

struct signal_struct___threads {
	int nr_threads;
};

#pragma clang attribute pop

/* The task's state, as the kernel numbers them, and how it has ended. */
static __always_inline __u32 gadget_state_of(struct task_struct *task)
{
	struct task_struct___state *with_state = (void *)task;
	struct task_struct___old_state *old = (void *)task;
	__u32 state;

	if (bpf_core_field_exists(with_state->__state))
		state = BPF_CORE_READ(with_state, __state);
	else
		state = BPF_CORE_READ(old, state);
	return state | BPF_CORE_READ(with_state, exit_state);
}

/* Bytes of memory that a process has in use. Unknown: a kernel thread, or a process that has ended. */
static __always_inline __u64 gadget_memory_of(struct task_struct *task)
{
	struct mm_struct *mm = BPF_CORE_READ(task, mm);

	if (!mm)
		return ~0ULL;
	return (gadget_pages(mm, MM_FILEPAGES) + gadget_pages(mm, MM_ANONPAGES) + gadget_pages(mm, MM_SHMEMPAGES)) *
	       gadget_node_page_bytes;
}

static __always_inline __u32 gadget_threads_of(struct task_struct *task)
{
	struct signal_struct___threads *signal = (void *)BPF_CORE_READ(task, signal);

	return BPF_CORE_READ(signal, nr_threads);
}

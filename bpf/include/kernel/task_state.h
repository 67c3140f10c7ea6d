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

struct percpu_counter {
	__s64 count;
};

/* Since f1a7941243c1 "mm: convert mm's rss stats into percpu_counter" (6.2). */
struct mm_struct___percpu {
	struct percpu_counter rss_stat[4];
};

struct mm_rss_stat {
	long count[4];
};

struct mm_struct___atomic {
	struct mm_rss_stat rss_stat;
};

#pragma clang attribute pop

/* Of enum MM_FILEPAGES …, all but those that are swapped out. */
#define GADGET_FILE_PAGES 0
#define GADGET_ANON_PAGES 1
#define GADGET_SHMEM_PAGES 3

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

static __always_inline __s64 gadget_pages_of_kind(struct mm_struct *mm, int kind)
{
	struct mm_struct___percpu *percpu = (void *)mm;
	struct mm_struct___atomic *atomic = (void *)mm;
	__s64 pages = 0;

	const void *counters;

	if (bpf_core_field_exists(atomic->rss_stat.count)) {
		counters = &atomic->rss_stat.count;
		bpf_probe_read_kernel(&pages, sizeof(pages), counters + kind * sizeof(long));
	} else {
		/* How large one is depends on the kernel, and CO-RE does not know of an index that is a variable. */
		counters = (const void *)mm + bpf_core_field_offset(percpu->rss_stat) +
			   bpf_core_field_offset(struct percpu_counter, count);
		bpf_probe_read_kernel(&pages, sizeof(pages),
				      counters + kind * bpf_core_type_size(struct percpu_counter));
	}
	return pages > 0 ? pages : 0;
}

/* Bytes of memory that a process has in use. 0: a kernel thread, or a process that has ended. */
static __always_inline __u64 gadget_memory_of(struct task_struct *task)
{
	struct mm_struct *mm = BPF_CORE_READ(task, mm);

	if (!mm)
		return 0;
	return (gadget_pages_of_kind(mm, GADGET_FILE_PAGES) + gadget_pages_of_kind(mm, GADGET_ANON_PAGES) +
		gadget_pages_of_kind(mm, GADGET_SHMEM_PAGES)) *
	       gadget_node_page_bytes;
}

static __always_inline __u32 gadget_threads_of(struct task_struct *task)
{
	struct signal_struct___threads *signal = (void *)BPF_CORE_READ(task, signal);

	return BPF_CORE_READ(signal, nr_threads);
}

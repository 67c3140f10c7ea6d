/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The memory of processes and of cgroups, in pages. The trap: since 6.2, a process's counters are per CPU (f1a7941243c1
 * "mm: convert mm's rss stats into percpu_counter"); only the shared part is read here, as for the kernel's own
 * messages.
 */
#pragma once

#include <linux/types.h>
#include <kernel/cgroup.h>
#include <kernel/task.h>

/* What mm_struct.rss_stat counts. */
#define MM_FILEPAGES 0
#define MM_ANONPAGES 1
#define MM_SHMEMPAGES 3

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

/* Before 6.2. */
struct mm_rss_stat {
	__s64 count[4];
};

struct mm_struct___one_place {
	struct mm_rss_stat rss_stat;
};

struct percpu_counter {
	__s64 count;
};

struct mm_struct___per_cpu {
	struct percpu_counter rss_stat[4];
};

enum cgroup_subsys_id {
	memory_cgrp_id = 0,
};

struct page_counter {
	struct {
		long counter;
	} usage;
	unsigned long max;
};

struct mem_cgroup {
	struct cgroup_subsys_state css;
	struct page_counter memory;
};

struct oom_control {
	struct task_struct *chosen;
};

#pragma clang attribute pop

/* One of the counters of a process's memory. The offset is computed by hand, since CO-RE cannot relocate an index. */
static __always_inline __u64 gadget_pages(const void *memory, int which)
{
	const struct percpu_counter *counter;
	__s64 count = 0;

	if (bpf_core_type_exists(struct mm_rss_stat)) {
		bpf_probe_read_kernel(&count, sizeof(count),
				      memory + bpf_core_field_offset(struct mm_struct___one_place, rss_stat) +
					      which * sizeof(count));
	} else {
		counter = memory + bpf_core_field_offset(struct mm_struct___per_cpu, rss_stat) +
			  which * bpf_core_type_size(struct percpu_counter);
		count = BPF_CORE_READ(counter, count);
	}
	return count < 0 ? 0 : count;
}

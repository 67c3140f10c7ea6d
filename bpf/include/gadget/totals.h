/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Sums instead of events: GADGET_TOTALS(key, value, entries) defines gadget_total(&key), which returns the counters to
 * add to.
 *
 * There are two hash maps; `gadget_totals` contains the one in use. At the end of each interval, the agent replaces it
 * with the other one, then reads and clears the first. Nothing is lost: the kernel returns from that update only when
 * every program that may use the first one has ended (maybe_wait_bpf_programs() of kernel/bpf/syscall.c, Linux 4.19).
 *
 * A gadget may add up what exists instead of what happens: walks (gadget/walk.h) whose names begin with `sum_` run
 * before the sums are read, other walks every two seconds. The YAML of such a gadget has `gauge: true`.
 *
 * The trap: several CPUs may use a value at the same time, so change it only with gadget_add(), and only in the program
 * that looked it up.
 */
#pragma once

#include <linux/errno.h>

#include <gadget/output.h>
#include <gadget/process.h>

/* The beginning of a total's record; the struct of the key and that of the value follow. Set by the agent. */
struct gadget_total {
	/* The end of the interval. */
	gadget_timestamp timestamp;
	/* The length of the interval. */
	gadget_duration interval;
};

#define gadget_add(COUNTER, BY) __sync_fetch_and_add(&(COUNTER), BY)

/* A gadget with a program for perf events defines this as 0: before 6.1, its maps must be preallocated. */
#ifndef GADGET_TOTALS_FLAGS
#define GADGET_TOTALS_FLAGS BPF_F_NO_PREALLOC
#endif

/*
 * KEY and VALUE are names of structs without padding, whose size is a multiple of 8. gadget_total() returns NULL if
 * there are ENTRIES entries already, which is counted as lost.
 */
#define GADGET_TOTALS(KEY, VALUE, ENTRIES)                                                                             \
	struct gadget_totals_map {                                                                                     \
		__uint(type, BPF_MAP_TYPE_HASH);                                                                       \
		__uint(map_flags, GADGET_TOTALS_FLAGS);                                                                \
		__uint(max_entries, ENTRIES);                                                                          \
		__type(key, struct KEY);                                                                               \
		__type(value, struct VALUE);                                                                           \
	} gadget_totals_a SEC(".maps"), gadget_totals_b SEC(".maps");                                                  \
                                                                                                                       \
	struct {                                                                                                       \
		__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);                                                              \
		__uint(max_entries, 1);                                                                                \
		__type(key, __u32);                                                                                    \
		__array(values, struct gadget_totals_map);                                                             \
	} gadget_totals SEC(".maps") = {.values = {&gadget_totals_a}};                                                 \
                                                                                                                       \
	/* Not on the stack, which a value may be too large for. */                                                    \
	static const struct VALUE gadget_zeros = {};                                                                   \
                                                                                                                       \
	static __always_inline struct VALUE *gadget_total(const struct KEY *key)                                       \
	{                                                                                                              \
		struct VALUE *found;                                                                                   \
		__u32 zero = 0;                                                                                        \
		void *totals = bpf_map_lookup_elem(&gadget_totals, &zero);                                             \
                                                                                                                       \
		_Static_assert(sizeof(struct KEY) % 8 == 0 && sizeof(struct VALUE) % 8 == 0, "not a multiple of 8");   \
		if (!totals)                                                                                           \
			return NULL;                                                                                   \
		found = bpf_map_lookup_elem(totals, key);                                                              \
		if (found)                                                                                             \
			return found;                                                                                  \
		/* Another CPU may be faster, which is as good. */                                                     \
		bpf_map_update_elem(totals, key, &gadget_zeros, BPF_NOEXIST);                                          \
		found = bpf_map_lookup_elem(totals, key);                                                              \
		if (!found)                                                                                            \
			gadget_count_map_full();                                                                       \
		return found;                                                                                          \
	}                                                                                                              \
	struct gadget_totals_map

/* Whether the current task is counted. */
static __always_inline bool gadget_counts(void)
{
	struct task_struct *task = gadget_task();
	__u64 cgroup = gadget_current_cgroup();
	struct gadget_record marks;

	return gadget_wanted_cgroup(&marks, cgroup) && gadget_wanted_task(task) && !gadget_hides(task, cgroup);
}

/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Sums instead of events: GADGET_TOTALS(key, value, entries) makes gadget_total(&key), the counters to add to.
 *
 * There are two hashes, and `gadget_totals` holds the one that counts now. At each interval the agent puts the other
 * one there and reads and clears the first. Nothing is lost in between: the kernel returns from that update only when
 * every program has ended that may have seen the first one (maybe_wait_bpf_programs() of kernel/bpf/syscall.c,
 * Linux 4.19).
 *
 * A gadget may add up what is there instead of what happens: iterators over the map `gadget_walked` whose names begin
 * with `sum_` run before sums are taken, others every two seconds. Its YAML says `gauge: true`.
 *
 * The trap: a value may be used by several CPUs at once, so it is added to by gadget_add() alone, and all in the
 * program that looked it up.
 */
#pragma once

#include <linux/errno.h>

#include <gadget/output.h>
#include <gadget/process.h>

/* What a gadget's record begins with; the struct of the key and that of the value follow. Set by the agent. */
struct gadget_total {
	/* When the interval ended. */
	gadget_timestamp timestamp;
	/* How long it was. */
	gadget_duration interval;
};

#define gadget_add(COUNTER, BY) __sync_fetch_and_add(&(COUNTER), BY)

/* Preallocated where a gadget's program is one for perf events, which the kernel demanded before 6.1. */
#ifndef GADGET_TOTALS_FLAGS
#define GADGET_TOTALS_FLAGS BPF_F_NO_PREALLOC
#endif

/*
 * KEY and VALUE are names of structs without padding, of a multiple of 8 bytes. gadget_total() gives NULL when there
 * are ENTRIES of them already, which is counted as lost.
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

/* Whether the current task counts. */
static __always_inline bool gadget_counts(void)
{
	struct gadget_record marks;

	return gadget_wanted_cgroup(&marks, gadget_current_cgroup()) && gadget_wanted_task(gadget_task());
}

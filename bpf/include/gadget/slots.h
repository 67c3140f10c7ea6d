/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Memory to build a record in, for programs that may run again on the same CPU before they have ended: programs for
 * fentry, fexit, uprobes, packets and cgroups may be preempted, and an interrupt may send a packet while another one is
 * being sent. A slot is taken, used and released.
 *
 * The trap: a program that returns without releasing its slot makes it unusable for ever.
 */
#pragma once

#include <gadget/output.h>

/* The maximum number of programs in progress on one CPU; one more is counted as lost. */
#define GADGET_SLOT_COUNT 4

/* The words of a slot before its memory: whether it is taken, and its number. */
#define GADGET_SLOT_HEAD 2

/* SIZE as for GADGET_SCRATCH. */
#define GADGET_SLOTS(NAME, SIZE)                                                                                       \
	struct NAME##_slot {                                                                                           \
		__u64 taken;                                                                                           \
		__u64 number;                                                                                          \
		char memory[(SIZE) + GADGET_WORKSPACE];                                                                \
	};                                                                                                             \
	struct {                                                                                                       \
		__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);                                                               \
		__uint(max_entries, GADGET_SLOT_COUNT);                                                                \
		__type(key, __u32);                                                                                    \
		__type(value, struct NAME##_slot);                                                                     \
	} NAME SEC(".maps")

/*
 * NULL: none is free, which is counted. The contents are those of the last user. The counter is incremented first and
 * read then, since an atomic operation that returns the old value needs Linux 5.12. If two programs meet, neither sees
 * 1, and both go on to the next slot.
 */
static __always_inline void *gadget_take_slot(void *slots)
{
	for (__u32 i = 0; i < GADGET_SLOT_COUNT; i++) {
		__u32 key = i;
		__u64 *slot = bpf_map_lookup_elem(slots, &key);

		if (!slot)
			continue;
		gadget_count(slot, 1);
		if (*(volatile __u64 *)slot == 1) {
			slot[1] = i;
			return slot + GADGET_SLOT_HEAD;
		}
		gadget_count(slot, -1);
	}
	gadget_count_map_full();
	return NULL;
}

static __always_inline void gadget_give_back(void *memory)
{
	gadget_count((__u64 *)memory - GADGET_SLOT_HEAD, -1);
}

/* For gadget_slot() in a function that cannot be given the pointer: one that is not static. */
static __always_inline __u32 gadget_slot_number(const void *memory)
{
	return *((const __u64 *)memory - 1);
}

static __always_inline void *gadget_slot(void *slots, __u32 number)
{
	__u64 *slot = bpf_map_lookup_elem(slots, &number);

	return slot ? slot + GADGET_SLOT_HEAD : NULL;
}

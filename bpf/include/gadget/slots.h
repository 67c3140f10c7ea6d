/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Memory to build a record in, for programs that may be run again on their CPU before they are done: those of fentry,
 * fexit and uprobes, of packets and of cgroups stay on their CPU but do not keep it, and an interrupt may send a packet
 * in the middle of sending another one. A slot is taken, used, and given back.
 *
 * The trap: a program that returns without giving back leaves one slot less for ever.
 */
#pragma once

#include <gadget/output.h>

/* Programs that may be under way on one CPU at the same time; one more is counted as lost. */
#define GADGET_SLOT_COUNT 4

/* SIZE as for GADGET_SCRATCH. */
#define GADGET_SLOTS(NAME, SIZE)                                                                                       \
	struct NAME##_slot {                                                                                           \
		__u64 taken;                                                                                           \
		char memory[(SIZE) + GADGET_WORKSPACE];                                                                \
	};                                                                                                             \
	struct {                                                                                                       \
		__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);                                                               \
		__uint(max_entries, GADGET_SLOT_COUNT);                                                                \
		__type(key, __u32);                                                                                    \
		__type(value, struct NAME##_slot);                                                                     \
	} NAME SEC(".maps")

/*
 * NULL: none is free, which is counted. What it holds is left from before. It is added first and examined then, since
 * what returns the old value needs Linux 5.12; of two that meet, neither sees the 1 alone, and both go on to the next
 * slot.
 */
static __always_inline void *gadget_take_slot(void *slots)
{
	for (__u32 i = 0; i < GADGET_SLOT_COUNT; i++) {
		__u32 key = i;
		__u64 *slot = bpf_map_lookup_elem(slots, &key);

		if (!slot)
			continue;
		gadget_count(slot, 1);
		if (*(volatile __u64 *)slot == 1)
			return slot + 1;
		gadget_count(slot, -1);
	}
	gadget_count_map_full();
	return NULL;
}

static __always_inline void gadget_give_back(void *memory)
{
	gadget_count((__u64 *)memory - 1, -1);
}

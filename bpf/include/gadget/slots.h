/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Memory to build a record in, for programs that may run again on the same CPU before they have ended: programs for
 * fentry, fexit, uprobes, packets and cgroups may be preempted, and an interrupt may send a packet while another one is
 * being sent. A slot is taken, used and released.
 *
 * The trap: a slot that a program does not release is never free again.
 */
#pragma once

#include <gadget/output.h>

/* The maximum number of programs in progress on one CPU; events of further ones are counted as lost. */
#define GADGET_SLOT_COUNT 4

/* The number of words before a slot's memory: `taken` and `number`. */
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
 * NULL: no slot is free, which is counted. The memory still has the last user's contents. The counter is incremented
 * and then read, since an atomic operation that returns the old value needs Linux 5.12. If two programs do so at the
 * same time, neither reads 1, and both try the next slot.
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

/* For gadget_slot() in a function that is not static, to which the pointer cannot be passed. */
static __always_inline __u32 gadget_slot_number(const void *memory)
{
	return *((const __u64 *)memory - 1);
}

static __always_inline void *gadget_slot(void *slots, __u32 number)
{
	__u64 *slot = bpf_map_lookup_elem(slots, &number);

	return slot ? slot + GADGET_SLOT_HEAD : NULL;
}

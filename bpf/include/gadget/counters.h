/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The ring buffer, and one set of counters per CPU.
 *
 * The trap: `in_flight` must be incremented before space in the ring is reserved, and decremented at the same address
 * after the record is committed. With it, the agent finds the end of the committed records (docs/design/reading.md)
 * without reading any record.
 */
#pragma once

#include <gadget/record.h>

/* One per CPU. Its size is two cache lines, since the CPU fetches lines in pairs. The agent maps it and may read it at
 * any time. */
struct gadget_cpu {
	__u64 in_flight;
	__u64 events;
	__u64 bytes;
	/* Events that were not sent, by cause. */
	__u64 lost_ring_full;
	__u64 lost_map_full;
	/* Strings that were sent without their end. */
	__u64 cut_strings;
	/* Events that were not sent, since a call has more parts than are examined, or a part that cannot be read. */
	__u64 lost_unexamined;
	__u64 unused[9];
};

/* The agent sets the size. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4 << 20);
} gadget_events SEC(".maps");

/* The agent sets the number of entries to the number of possible CPUs. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, struct gadget_cpu);
} gadget_cpus SEC(".maps");

static __always_inline struct gadget_cpu *gadget_this_cpu(void)
{
	__u32 cpu = bpf_get_smp_processor_id();

	return bpf_map_lookup_elem(&gadget_cpus, &cpu);
}

/* Atomic, since an interrupt may run a program between the read and the write. */
static __always_inline void gadget_count(__u64 *counter, __u64 by)
{
	__sync_fetch_and_add(counter, by);
}

/* Call it for an event that is lost because a map or all slots are full. */
static __always_inline void gadget_count_map_full(void)
{
	struct gadget_cpu *cpu = gadget_this_cpu();

	if (cpu)
		gadget_count(&cpu->lost_map_full, 1);
}

/* Call it for the parts of a call, such as control messages or requests, that are not examined. */
static __always_inline void gadget_count_unexamined(void)
{
	struct gadget_cpu *cpu = gadget_this_cpu();

	if (cpu)
		gadget_count(&cpu->lost_unexamined, 1);
}

/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The way out of the kernel: the ring buffer, and one counter set per CPU.
 *
 * The trap: `in_flight` must be raised before the ring hands out space and lowered after the record is committed, at
 * the same address: the agent finds the end of the committed records by it (docs/design.md), without reading any
 * record.
 */
#pragma once

#include <gadget/record.h>

/* One per CPU. Two cache lines, since the CPU fetches lines in pairs. The agent maps it and reads it at any time. */
struct gadget_cpu {
	__u64 in_flight;
	__u64 events;
	__u64 bytes;
	/* Events that were not sent, by cause. */
	__u64 lost_ring_full;
	__u64 lost_map_full;
	/* Texts that were sent without their end. */
	__u64 cut_strings;
	__u64 unused[10];
};

/* The agent sets the size. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4 << 20);
} gadget_events SEC(".maps");

/* The agent sets the number of entries to that of the possible CPUs. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, struct gadget_cpu);
} gadget_cpus SEC(".maps");

/* What follows the record in a program's memory, for functions that need more than the stack's 512 bytes or than the
 * verifier would bear to follow. */
#define GADGET_WORKSPACE 80

/*
 * Memory in which a program builds its record: SIZE bytes per CPU, less than 32 KiB. One for each program, not for each
 * object: the kernel never runs a program inside itself on one CPU, but an interrupt may run another one inside it.
 */
#define GADGET_SCRATCH(NAME, SIZE)                                                                                     \
	struct {                                                                                                       \
		__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);                                                               \
		__uint(max_entries, 1);                                                                                \
		__uint(key_size, sizeof(__u32));                                                                       \
		__uint(value_size, (SIZE) + GADGET_WORKSPACE);                                                         \
	} NAME SEC(".maps")

/* This CPU's memory of a GADGET_SCRATCH. NULL never happens, but the verifier wants it to be looked at. */
static __always_inline void *gadget_scratch(void *map)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(map, &zero);
}

static __always_inline struct gadget_cpu *gadget_this_cpu(void)
{
	__u32 cpu = bpf_get_smp_processor_id();

	return bpf_map_lookup_elem(&gadget_cpus, &cpu);
}

/* Atomic, since an interrupt may run a program between reading and writing. */
static __always_inline void gadget_count(__u64 *counter, __u64 by)
{
	__sync_fetch_and_add(counter, by);
}

/* To be called when an event could not be kept until its end was seen. */
static __always_inline void gadget_count_map_full(void)
{
	struct gadget_cpu *cpu = gadget_this_cpu();

	if (cpu)
		gadget_count(&cpu->lost_map_full, 1);
}

/*
 * Sends `length` bytes that begin with a gadget_record, and sets its time. The time is taken while the record counts as
 * in flight, so what the agent does not see in flight at some moment bears a later time. The reader is woken once for
 * each share of the ring that fills up, never for each event: a wake-up costs more than all the rest. `cuts` is the
 * number of texts in the record that were cut.
 */
static __always_inline void gadget_emit(struct gadget_record *record, __u64 length, __u32 cuts)
{
	struct gadget_cpu *cpu = gadget_this_cpu();
	__u64 flags = BPF_RB_NO_WAKEUP;
	__u64 unread;
	long failed;

	if (!cpu)
		return;
	unread = bpf_ringbuf_query(&gadget_events, BPF_RB_AVAIL_DATA);
	if ((unread ^ (unread + length)) & -gadget_ring_wake_bytes)
		flags = BPF_RB_FORCE_WAKEUP;

	gadget_count(&cpu->in_flight, 1);
	record->timestamp = bpf_ktime_get_boot_ns();
	failed = bpf_ringbuf_output(&gadget_events, record, length, flags);
	gadget_count(&cpu->in_flight, -1);

	if (failed) {
		gadget_count(&cpu->lost_ring_full, 1);
		return;
	}
	gadget_count(&cpu->events, 1);
	gadget_count(&cpu->bytes, length);
	if (cuts)
		gadget_count(&cpu->cut_strings, cuts);
}

/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Output to the client: memory to build a record in, and functions that send it.
 *
 * The trap: some kinds of programs may be interrupted by another run of themselves, for example those for packets and
 * cgroups. They must use a slot (gadget/slots.h) instead of a GADGET_SCRATCH.
 */
#pragma once

#include <gadget/counters.h>
#include <gadget/fairness.h>
#include <gadget/record.h>

/* Memory after the record, for functions that need more than the stack's 512 bytes, or that keep state in memory to
 * reduce the verifier's work. */
#define GADGET_WORKSPACE 80

/*
 * Memory in which a program builds its record: SIZE bytes per CPU, less than 32 KiB. Use one for each program, not one
 * for each object: on one CPU, a tracepoint's program is never interrupted by itself, but it may be interrupted by
 * another program.
 */
#define GADGET_SCRATCH(NAME, SIZE)                                                                                     \
	struct {                                                                                                       \
		__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);                                                               \
		__uint(max_entries, 1);                                                                                \
		__uint(key_size, sizeof(__u32));                                                                       \
		__uint(value_size, (SIZE) + GADGET_WORKSPACE);                                                         \
	} NAME SEC(".maps")

/* This CPU's memory of a GADGET_SCRATCH. Never NULL, but the verifier demands a check. */
static __always_inline void *gadget_scratch(void *map)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(map, &zero);
}

/*
 * Sends a record of `length` bytes that begins with a gadget_record, and sets its time. False: the record is lost, and
 * counted as such.
 *
 * The time is taken while the record counts as in flight. So if the agent sees no record in flight, all records that
 * follow have a later time. The reader is woken once for each quarter of the ring that fills up, not for each event
 * (unless it reacts to events), since a wake-up costs more than everything else.
 *
 * `cuts` is the number of texts in the record that were cut. If `since` is not 0, `duration`, a member of the record,
 * is set to the time since then, so that the caller need not read the clock.
 */
static __always_inline bool gadget_emit_since(struct gadget_record *record, __u64 length, __u32 cuts, __u64 since,
					      __u64 *duration)
{
	struct gadget_cpu *cpu = gadget_this_cpu();
	__u64 flags = BPF_RB_NO_WAKEUP;
	__u64 unread;
	long failed;

	if (!cpu)
		return false;
	unread = bpf_ringbuf_query(&gadget_events, BPF_RB_AVAIL_DATA);
	if (unread > 2 * gadget_ring_wake_bytes && !gadget_has_share(record->cgroup, unread, length)) {
		gadget_count_ring_full(record->cgroup);
		return false;
	}
	if (gadget_wake_each || ((unread ^ (unread + length)) & -gadget_ring_wake_bytes))
		flags = BPF_RB_FORCE_WAKEUP;

	gadget_count(&cpu->in_flight, 1);
	record->timestamp = bpf_ktime_get_boot_ns();
	if (since)
		*duration = record->timestamp - since;
	failed = bpf_ringbuf_output(&gadget_events, record, length, flags);
	gadget_count(&cpu->in_flight, -1);

	if (failed) {
		gadget_count_ring_full(record->cgroup);
		return false;
	}
	gadget_count(&cpu->events, 1);
	gadget_count(&cpu->bytes, length);
	if (cuts)
		gadget_count(&cpu->cut_strings, cuts);
	return true;
}

static __always_inline bool gadget_emit(struct gadget_record *record, __u64 length, __u32 cuts)
{
	return gadget_emit_since(record, length, cuts, 0, NULL);
}

/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The way out of the kernel: memory to build a record in, and what sends it.
 *
 * The trap: the kernel may run some kinds of programs inside themselves, those for packets and of cgroups among them.
 * Their memory is not a GADGET_SCRATCH but a slot (gadget/slots.h).
 */
#pragma once

#include <gadget/counters.h>
#include <gadget/fairness.h>
#include <gadget/record.h>

/* What follows the record in a program's memory, for functions that need more than the stack's 512 bytes or than the
 * verifier would bear to follow. */
#define GADGET_WORKSPACE 80

/*
 * Memory in which a program builds its record: SIZE bytes per CPU, less than 32 KiB. One for each program, not for each
 * object: the kernel never runs a tracepoint's program inside itself on one CPU, but an interrupt may run another one
 * inside it.
 */
#define GADGET_SCRATCH(NAME, SIZE)                                                                                     \
	struct {                                                                                                       \
		__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);                                                               \
		__uint(max_entries, 1);                                                                                \
		__uint(key_size, sizeof(__u32));                                                                       \
		__uint(value_size, (SIZE) + GADGET_WORKSPACE);                                                         \
	} NAME SEC(".maps")

/* This CPU's memory of a GADGET_SCRATCH. NULL never happens, but the verifier demands the check. */
static __always_inline void *gadget_scratch(void *map)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(map, &zero);
}

/*
 * Sends `length` bytes that begin with a gadget_record, and sets its time. The time is taken while the record counts as
 * in flight, so what the agent does not see in flight at some moment bears a later time. The reader is woken once for
 * each share of the ring that fills up, and not for each event, unless it acts on them: a wake-up costs more than all
 * the rest. `cuts` is the number of texts in the record that were cut. False: the record is lost, and counted as such.
 */
static __always_inline bool gadget_emit(struct gadget_record *record, __u64 length, __u32 cuts)
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

/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * A flight recorder: the latest records of each cgroup are kept in memory until they are requested.
 *
 * A recording is an array in which new records overwrite the oldest. The agent creates the recordings
 * (agent/sources/recorder.py) and puts the indexes of spare ones into a queue; the first record of a cgroup
 * takes one from there, so nothing waits for the agent. A trigger causes a recording to be shown, and takes another one
 * for the following records. The agent reads a recording only after it has replaced it with another one: the kernel
 * returns from that update when no program can still be writing (maybe_wait_bpf_programs() of kernel/bpf/syscall.c,
 * Linux 4.19).
 *
 * Before including this file, define GADGET_RECORDED_BYTES, the maximum size of a record. The trap: a program may run
 * on several CPUs for the same cgroup, so record numbers are assigned atomically, and each record is written by one
 * program.
 */
#pragma once

#include <linux/errno.h>

#include <gadget/output.h>
#include <gadget/string.h>

/* Why a recording is shown. */
enum gadget_because {
	GADGET_BECAUSE_CRASH = 1,
	GADGET_BECAUSE_KILL = 2,
	/* The agent's own reasons. */
	GADGET_BECAUSE_EXIT = 3,
	GADGET_BECAUSE_END = 4,
	GADGET_BECAUSE_ASKED = 5,
};

/* Members of each record, which the agent fills in; the client sends it their offset. */
struct gadget_recording {
	enum gadget_because because;
	gadget_signal trigger_signal;
	gadget_pid trigger_pid;
	__u32 unused_recording;
	gadget_comm trigger_comm;
	/* The record's number in this cgroup, from 1. */
	__u64 number;
};

/* The record that a trigger sends: `place` is the index of the recording to be shown. */
struct gadget_trigger {
	struct gadget_record record;
	__u32 place;
	__u32 because;
	__u32 signal;
	__u32 unused;
};

struct gadget_recorded {
	/* 0: nothing was written here. */
	__u64 number;
	__u64 length;
	char record[GADGET_RECORDED_BYTES];
};

/* The state of one cgroup. */
struct gadget_recorder {
	__u64 records;
	__u32 place;
	__u32 unused;
};

/* The agent sets the maximum number of recorders. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1);
	__type(key, __u64);
	__type(value, struct gadget_recorder);
} gadget_recorders SEC(".maps");

/* Indexes of spare recordings. */
struct {
	__uint(type, BPF_MAP_TYPE_QUEUE);
	__uint(max_entries, 1);
	__uint(value_size, sizeof(__u32));
} gadget_spare_places SEC(".maps");

/* With BPF_F_INNER_MAP (Linux 5.10), the agent may choose the number of records of an array. */
struct gadget_recording_map {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE | BPF_F_INNER_MAP);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(struct gadget_recorded));
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, __u32);
	__array(values, struct gadget_recording_map);
} gadget_recordings SEC(".maps");

/* The number of records kept for each cgroup. Set by the agent. */
const volatile __u32 gadget_recorder_last = 1;

/* Wakes the agent at once: a spare recording was taken, or there is a trigger. */
static __always_inline void gadget_wake_agent(void)
{
	struct gadget_cpu *cpu = gadget_this_cpu();
	__u64 nothing = 0;

	if (!cpu)
		return;
	gadget_count(&cpu->in_flight, 1);
	/* If the ring is full, the agent has enough to read and needs no wake-up. */
	bpf_ringbuf_output(&gadget_events, &nothing, sizeof(nothing), BPF_RB_FORCE_WAKEUP);
	gadget_count(&cpu->in_flight, -1);
}

/* This cgroup's recorder, which is created if there is none. NULL: no recording is spare. */
static __always_inline struct gadget_recorder *gadget_recorder_of(__u64 cgroup)
{
	struct gadget_recorder *found = bpf_map_lookup_elem(&gadget_recorders, &cgroup);
	struct gadget_recorder made = {};

	if (found)
		return found;
	if (bpf_map_pop_elem(&gadget_spare_places, &made.place))
		return NULL;
	/* Another CPU may have created it first. */
	if (bpf_map_update_elem(&gadget_recorders, &cgroup, &made, BPF_NOEXIST))
		bpf_map_push_elem(&gadget_spare_places, &made.place, 0);
	gadget_wake_agent();
	return bpf_map_lookup_elem(&gadget_recorders, &cgroup);
}

/* Stores the record with everything appended to it. `recording` is a field of the record. */
static __always_inline void gadget_keep(const struct gadget_writer *writer, struct gadget_recording *recording)
{
	struct gadget_record *record = writer->record;
	struct gadget_recorder *recorder = gadget_recorder_of(record->cgroup);
	struct gadget_cpu *cpu = gadget_this_cpu();
	struct gadget_recorded *kept;
	__u64 number, length;
	void *records;
	__u32 place;

	if (!cpu)
		return;
	if (!recorder) {
		gadget_count(&cpu->lost_map_full, 1);
		return;
	}
	number = __sync_fetch_and_add(&recorder->records, 1);
	place = recorder->place;
	records = bpf_map_lookup_elem(&gadget_recordings, &place);
	place = number % gadget_recorder_last;
	kept = records ? bpf_map_lookup_elem(records, &place) : NULL;
	if (!kept) {
		gadget_count(&cpu->lost_map_full, 1);
		return;
	}
	__builtin_memset(recording, 0, sizeof(*recording));
	recording->number = number + 1;
	record->timestamp = bpf_ktime_get_boot_ns();
	/* Read as late as here, since old verifiers forget its bounds when it is spilled to the stack. */
	length = writer->progress->length;
	if (length > GADGET_RECORDED_BYTES)
		return;
	bpf_probe_read_kernel(kept->record, length, record);
	kept->length = length;
	kept->number = number + 1;
	gadget_count(&cpu->events, 1);
	gadget_count(&cpu->bytes, length);
}

/*
 * Requests that the recording of the trigger's cgroup is shown. The following records go into another recording or, if
 * none is spare, into the same one until the agent replaces it. The caller has set the record's head and the reason in
 * `trigger`.
 */
static __always_inline void gadget_show_recording(struct gadget_trigger *trigger)
{
	struct gadget_recorder *recorder = bpf_map_lookup_elem(&gadget_recorders, &trigger->record.cgroup);
	__u32 next;

	if (!recorder)
		return;
	trigger->unused = 0;
	trigger->place = recorder->place;
	if (!bpf_map_pop_elem(&gadget_spare_places, &next))
		recorder->place = next;
	gadget_emit(&trigger->record, sizeof(*trigger), 0);
	gadget_wake_agent();
}

/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * maxData: sends whole buffers, up to POLICY_WHOLE_BYTES. Such an event is assembled in memory (`struct policy_room`)
 * from a pool that all CPUs share, since per-CPU memory is limited to 32 KiB. The rest of a buffer follows the event in
 * pieces: values of the same slot, without numbers.
 *
 * The trap: the pieces are read after the tests, which have seen only the first 4,095 bytes.
 */
#pragma once

#include <policy/decide.h>

/* As much as Tetragon reads at most. */
#define POLICY_WHOLE_BYTES 327360
/* The length of a value in an event has 16 bits. */
#define POLICY_PIECE_BYTES 32768
/* The maximum number of iterations: each adds a piece or goes on to the next buffer, of which there are at most 1024
 * (UIO_MAXIOV). */
#define POLICY_MOST_STEPS (2 * 1024 + 16)
#define POLICY_MOST_ROOMS 16
/* Room for all pieces, and for their heads. */
#define POLICY_ROOM_BYTES                                                                                              \
	(POLICY_EVENT_BYTES + POLICY_WHOLE_BYTES + POLICY_MOST_STEPS * sizeof(struct policy_value_head))

struct policy_room {
	__u64 taken;
	/* Bytes of the event so far. */
	__u64 length;
	/* The rest of the current buffer. */
	__u64 from;
	__u64 left;
	/* The number of bytes still to be sent, from this buffer and the following ones. */
	__u64 wanted;
	/* The following buffers, and how many of their bytes have already been sent. */
	const struct policy_iovec *buffers;
	__u64 count;
	__u64 sent;
	/* After every position, there is room for the longest piece, so that the verifier accepts each write. */
	char memory[POLICY_ROOM_BYTES + POLICY_PIECE_BYTES];
};

/* The values have this size only if a policy needs it. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(key_size, 4);
	__uint(value_size, sizeof(struct policy_room));
} policy_rooms SEC(".maps");

/* Like gadget_take_slot(). NULL: none is free. */
static __always_inline struct policy_room *policy_take_room(void)
{
	__u32 first = bpf_get_smp_processor_id();

	for (__u32 i = 0; i < POLICY_MOST_ROOMS; i++) {
		__u32 key = policy_rooms_count ? (first + i) % policy_rooms_count : 0;
		struct policy_room *room;

		if (i >= policy_rooms_count)
			break;
		room = bpf_map_lookup_elem(&policy_rooms, &key);
		if (!room)
			continue;
		gadget_count(&room->taken, 1);
		if (*(volatile __u64 *)&room->taken == 1)
			return room;
		gadget_count(&room->taken, -1);
	}
	return NULL;
}

struct policy_pieces {
	struct policy_room *room;
	__u32 slot;
	bool user;
};

/* Goes on to the next of several buffers, which may be empty. False: there is no further one. */
static __always_inline bool policy_next_buffer(struct policy_room *room)
{
	struct policy_iovec buffer = {};
	__u64 sent = room->sent;

	if (!room->count || bpf_probe_read_kernel(&buffer, sizeof(buffer), room->buffers))
		return false;
	room->count--;
	room->buffers++;
	if (sent > buffer.length)
		sent = buffer.length;
	room->sent -= sent;
	room->from = (__u64)buffer.base + sent;
	room->left = buffer.length - sent;
	return true;
}

/* Adds one piece, or goes on to the next buffer. The loop's state is in map memory, about whose contents the verifier
 * knows nothing, so it checks one iteration instead of all. */
static long policy_add_piece(__u32 index, struct policy_pieces *pieces)
{
	struct policy_room *room = pieces->room;
	__u64 at = room->length, bytes = room->left;
	const void *from = (void *)room->from;
	struct policy_value_head *head;
	char *to;

	if (!room->wanted)
		return 1;
	if (!bytes)
		return !policy_next_buffer(room);
	if (bytes > room->wanted)
		bytes = room->wanted;
	if (bytes > POLICY_PIECE_BYTES)
		bytes = POLICY_PIECE_BYTES;
	asm volatile("" : "+r"(at), "+r"(bytes));
	if (!bytes || bytes > POLICY_PIECE_BYTES || at > POLICY_ROOM_BYTES - sizeof(*head))
		return 1;
	head = (void *)&room->memory[at];
	to = &room->memory[at + sizeof(*head)];
	if (pieces->user ? bpf_probe_read_user(to, bytes, from) : bpf_probe_read_kernel(to, bytes, from))
		return 1;
	head->slot = pieces->slot;
	head->lacks = POLICY_BUFFER << POLICY_TYPE_SHIFT;
	head->length = bytes;
	room->from += bytes;
	room->left -= bytes;
	room->wanted -= bytes;
	room->length = at + sizeof(*head) + bytes;
	((struct policy_event *)room->memory)->values++;
	return 0;
}

/* Adds the missing part of one or several buffers to the event. */
static __always_inline void policy_add_rest(struct policy_memory *memory, const struct policy_context *context,
					    __u32 number, struct policy_room *room)
{
	const volatile struct policy_slot *slot = &policy_slots[number];
	struct policy_pieces pieces = {.room = room, .slot = number, .user = slot->flags & POLICY_USER};
	__u64 raw = policy_raw(context, slot, slot->index), sent = memory->sent[number];
	struct policy_spread spread = {};

	if (slot->type != POLICY_IOV_ITER) {
		spread.buffer = (void *)raw;
		spread.bytes = policy_size(context, slot);
	} else if (policy_spread_of(&spread, (void *)raw)) {
		pieces.user = spread.user;
	} else {
		return;
	}
	if (spread.bytes <= sent)
		return;
	room->wanted = (spread.bytes < POLICY_WHOLE_BYTES ? spread.bytes : POLICY_WHOLE_BYTES) - sent;
	room->from = (__u64)spread.buffer + sent;
	room->left = spread.buffer ? spread.bytes - sent : 0;
	room->buffers = spread.buffers;
	room->count = spread.buffer ? 0 : spread.count;
	room->sent = spread.skip + sent;
	bpf_loop(POLICY_MOST_STEPS, policy_add_piece, &pieces, 0);
	/* policy_append() has counted this value as cut. */
	if (!room->wanted && spread.bytes <= POLICY_WHOLE_BYTES && memory->cuts)
		memory->cuts--;
}

/* Sends the event in `memory` with its whole buffers. False: no memory is free. */
static __noinline bool policy_emit_whole(struct policy_memory *memory, const struct policy_context *context)
{
	struct policy_room *room = policy_take_room();
	__u64 length = memory->length;

	if (!room)
		return false;
	asm volatile("" : "+r"(length));
	if (length > POLICY_EVENT_BYTES || bpf_probe_read_kernel(room->memory, length, memory->event)) {
		gadget_count(&room->taken, -1);
		return false;
	}
	room->length = length;
	for (__u32 i = 0; i < POLICY_SLOTS; i++) {
		if (i >= policy_slot_count)
			break;
		if (policy_slots[i].flags & POLICY_WHOLE && !(policy_slots[i].flags & POLICY_UNSENT))
			policy_add_rest(memory, context, i, room);
	}
	length = room->length;
	asm volatile("" : "+r"(length));
	if (length <= POLICY_ROOM_BYTES)
		gadget_emit((void *)room->memory, length, memory->cuts);
	gadget_count(&room->taken, -1);
	return true;
}

/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * maxData: sends whole buffers, up to POLICY_WHOLE_BYTES. Such an event is assembled in memory (`struct
 * policy_large_event`) from a pool that all CPUs share, since per-CPU memory is limited to 32 KiB. The rest of a buffer
 * follows the event in pieces: values of the same slot, without numbers.
 *
 * The pieces are read after the tests, which have seen only the first 4,095 bytes.
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
#define POLICY_MOST_LARGE 16
/* Room for all pieces, and for their heads. */
#define POLICY_LARGE_BYTES                                                                                             \
	(POLICY_EVENT_BYTES + POLICY_WHOLE_BYTES + POLICY_MOST_STEPS * sizeof(struct policy_value_head))

struct policy_large_event {
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
	char memory[POLICY_LARGE_BYTES + POLICY_PIECE_BYTES];
};

/* The values have this size only if a policy needs it. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(key_size, 4);
	__uint(value_size, sizeof(struct policy_large_event));
} policy_large SEC(".maps");

/* Like gadget_take_slot(). NULL: none is free. */
static __always_inline struct policy_large_event *policy_take_large(void)
{
	__u32 first = bpf_get_smp_processor_id();

	for (__u32 i = 0; i < POLICY_MOST_LARGE; i++) {
		__u32 key = policy_large_count ? (first + i) % policy_large_count : 0;
		struct policy_large_event *large;

		if (i >= policy_large_count)
			break;
		large = bpf_map_lookup_elem(&policy_large, &key);
		if (!large)
			continue;
		gadget_count(&large->taken, 1);
		if (*(volatile __u64 *)&large->taken == 1)
			return large;
		gadget_count(&large->taken, -1);
	}
	return NULL;
}

struct policy_pieces {
	struct policy_large_event *large;
	__u32 slot;
	bool user;
};

/* Goes on to the next of several buffers, which may be empty. False: there is no further one. */
static __always_inline bool policy_next_buffer(struct policy_large_event *large)
{
	struct policy_iovec buffer = {};
	__u64 sent = large->sent;

	if (!large->count || bpf_probe_read_kernel(&buffer, sizeof(buffer), large->buffers))
		return false;
	large->count--;
	large->buffers++;
	if (sent > buffer.length)
		sent = buffer.length;
	large->sent -= sent;
	large->from = (__u64)buffer.base + sent;
	large->left = buffer.length - sent;
	return true;
}

/* Adds one piece, or goes on to the next buffer. The loop's state is in map memory, about whose contents the verifier
 * knows nothing, so it checks one iteration instead of all. */
static long policy_add_piece(__u32 index, struct policy_pieces *pieces)
{
	struct policy_large_event *large = pieces->large;
	__u64 at = large->length, bytes = large->left;
	const void *from = (void *)large->from;
	struct policy_value_head *head;
	char *to;

	if (!large->wanted)
		return 1;
	if (!bytes)
		return !policy_next_buffer(large);
	if (bytes > large->wanted)
		bytes = large->wanted;
	if (bytes > POLICY_PIECE_BYTES)
		bytes = POLICY_PIECE_BYTES;
	asm volatile("" : "+r"(at), "+r"(bytes));
	if (!bytes || bytes > POLICY_PIECE_BYTES || at > POLICY_LARGE_BYTES - sizeof(*head))
		return 1;
	head = (void *)&large->memory[at];
	to = &large->memory[at + sizeof(*head)];
	if (pieces->user ? bpf_probe_read_user(to, bytes, from) : bpf_probe_read_kernel(to, bytes, from))
		return 1;
	head->slot = pieces->slot;
	head->lacks = POLICY_BUFFER << POLICY_TYPE_SHIFT;
	head->length = bytes;
	large->from += bytes;
	large->left -= bytes;
	large->wanted -= bytes;
	large->length = at + sizeof(*head) + bytes;
	((struct policy_event *)large->memory)->values++;
	return 0;
}

/* Adds the missing part of one or several buffers to the event. */
static __always_inline void policy_add_rest(struct policy_memory *memory, const struct policy_context *context,
					    __u32 number, struct policy_large_event *large)
{
	const volatile struct policy_slot *slot = &policy_slots[number];
	struct policy_pieces pieces = {.large = large, .slot = number, .user = slot->flags & POLICY_USER};
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
	large->wanted = (spread.bytes < POLICY_WHOLE_BYTES ? spread.bytes : POLICY_WHOLE_BYTES) - sent;
	large->from = (__u64)spread.buffer + sent;
	large->left = spread.buffer ? spread.bytes - sent : 0;
	large->buffers = spread.buffers;
	large->count = spread.buffer ? 0 : spread.count;
	large->sent = spread.skip + sent;
	bpf_loop(POLICY_MOST_STEPS, policy_add_piece, &pieces, 0);
	/* policy_append() has counted this value as cut. */
	if (!large->wanted && spread.bytes <= POLICY_WHOLE_BYTES && memory->cuts)
		memory->cuts--;
}

/* Sends the event in `memory` with its whole buffers. False: no memory is free. */
static __noinline bool policy_emit_whole(struct policy_memory *memory, const struct policy_context *context)
{
	struct policy_large_event *large = policy_take_large();
	__u64 length = memory->length;

	if (!large)
		return false;
	asm volatile("" : "+r"(length));
	if (length > POLICY_EVENT_BYTES || bpf_probe_read_kernel(large->memory, length, memory->event)) {
		gadget_count(&large->taken, -1);
		return false;
	}
	large->length = length;
	for (__u32 i = 0; i < POLICY_SLOTS; i++) {
		if (i >= policy_slot_count)
			break;
		if (policy_slots[i].flags & POLICY_WHOLE && !(policy_slots[i].flags & POLICY_UNSENT))
			policy_add_rest(memory, context, i, large);
	}
	length = large->length;
	asm volatile("" : "+r"(length));
	if (length <= POLICY_LARGE_BYTES)
		gadget_emit((void *)large->memory, length, memory->cuts);
	gadget_count(&large->taken, -1);
	return true;
}

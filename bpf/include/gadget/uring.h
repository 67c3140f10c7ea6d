/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * What io_uring does: a record is made of a request when the kernel takes it, and kept until its result is known.
 *
 * A program that includes this defines before: GADGET_URING_BYTES, the longest record when it is kept,
 * GADGET_URING_SENT_BYTES, the longest when it is sent, and GADGET_URING_KEPT, how many are kept. It says what a record
 * is (gadget_uring_describe) and sends it in the end (gadget_uring_send).
 *
 * The trap: not every request completes where it can be seen. One with IOSQE_CQE_SKIP_SUCCESS says nothing when it
 * succeeds (unlinkat and others not even when they fail), and where the completion queue is full the tracepoint does
 * not name the request. So a record goes out with GADGET_RESULT_UNKNOWN at once in the first case (and once more with
 * the error, if that is reported), in the second when the queue is found full, and in all others when the kernel uses
 * the request's memory again or no more records can be kept. Nothing is left out because a program fills or never
 * empties its queues.
 */
#pragma once

#include <gadget/output.h>
#include <gadget/result.h>
#include <gadget/string.h>
#include <kernel/io_uring.h>

/* No errno and no descriptor is it. */
#define GADGET_RESULT_UNKNOWN (1L << 40)

/* A record of a request, and how long it is by now. */
struct gadget_uring_request {
	/* Which ring it is of, and which name its submitter gave to it. */
	__u64 ring;
	__u64 user_data;
	__u32 length;
	__u32 cuts;
	/* Of an open, of gadgets that ask for it: the slot of a direct descriptor, from 1. */
	__u64 slot;
	char record[GADGET_URING_BYTES];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, GADGET_URING_KEPT);
	__type(key, __u64);
	__type(value, struct gadget_uring_request);
} gadget_uring_requests SEC(".maps");

/* Those that say nothing when they succeed have been sent. They only have a chance to fail, and make room for others.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 128);
	__type(key, __u64);
	__type(value, struct gadget_uring_request);
} gadget_uring_silent SEC(".maps");

GADGET_SCRATCH(gadget_uring_scratch, sizeof(struct gadget_uring_request));
/* One for each program that sends. */
GADGET_SCRATCH(gadget_uring_submit_scratch, GADGET_URING_SENT_BYTES);
GADGET_SCRATCH(gadget_uring_complete_scratch, GADGET_URING_SENT_BYTES);
GADGET_SCRATCH(gadget_uring_overflow_scratch, GADGET_URING_SENT_BYTES);

/* Makes the record of a request that is submitted. False: it is not wanted. */
static __always_inline bool gadget_uring_describe(struct gadget_uring_request *new, struct io_kiocb *request,
						  __u8 opcode);

/* Sends the record, if such a result is wanted. `scratch` is for gadget_uring_take(). */
static __always_inline void gadget_uring_send(const struct gadget_uring_request *request, long result, void *scratch);

/* Whether the gadget follows requests of this kind. */
static __always_inline bool gadget_uring_follows(__u8 opcode);

/* For gadget_uring_describe(): how far the record has been written. */
static __always_inline void gadget_uring_wrote(struct gadget_uring_request *new, const struct gadget_writer *writer)
{
	new->length = writer->progress->length;
	new->cuts = writer->progress->cuts;
}

/* For gadget_uring_send(): what may have failed counts as failed, and may have failed with any error. */
static __always_inline bool gadget_uring_wanted(long result)
{
	return result == GADGET_RESULT_UNKNOWN || gadget_wanted_result(result);
}

/* For gadget_uring_send(): copies the record to `scratch`, where more can be appended. False never happens. */
static __always_inline bool gadget_uring_take(struct gadget_writer *writer, const struct gadget_uring_request *request,
					      void *scratch)
{
	__u32 length = request->length;

	if (!scratch || length > GADGET_URING_BYTES)
		return false;
	bpf_probe_read_kernel(scratch, length, request->record);
	*writer = gadget_write(scratch, length, GADGET_URING_SENT_BYTES);
	writer->progress->cuts = request->cuts;
	return true;
}

static __always_inline int gadget_uring_submitted(struct io_kiocb *request)
{
	const struct gadget_uring_request *before;
	struct gadget_uring_request *new;
	__u8 opcode = request->opcode;
	__u64 key = (__u64)request;
	bool is_silent, is_kept;

	if (!gadget_uring_follows(opcode))
		return 0;
	/* The one that had this memory before has come to its end unseen. */
	before = bpf_map_lookup_elem(&gadget_uring_requests, &key);
	if (before) {
		gadget_uring_send(before, GADGET_RESULT_UNKNOWN, gadget_scratch(&gadget_uring_submit_scratch));
		bpf_map_delete_elem(&gadget_uring_requests, &key);
	}
	new = gadget_scratch(&gadget_uring_scratch);
	if (!new || !gadget_uring_describe(new, request, opcode))
		return 0;
	new->ring = (__u64)BPF_CORE_READ(request, ctx);
	new->user_data = BPF_CORE_READ(request, cqe.user_data);
	is_silent = BPF_CORE_READ(request, flags) & GADGET_URING_SKIPS_SUCCESS;
	if (is_silent)
		is_kept = !bpf_map_update_elem(&gadget_uring_silent, &key, new, BPF_ANY);
	else
		is_kept = !bpf_map_update_elem(&gadget_uring_requests, &key, new, BPF_ANY);
	if (is_silent || !is_kept)
		gadget_uring_send(new, GADGET_RESULT_UNKNOWN, gadget_scratch(&gadget_uring_submit_scratch));
	return 0;
}

static __always_inline int gadget_uring_completed(struct io_kiocb *request, __s32 result)
{
	const struct gadget_uring_request *done;
	__u64 key = (__u64)request;

	if (!gadget_uring_follows(BPF_CORE_READ(request, opcode)))
		return 0;
	done = bpf_map_lookup_elem(&gadget_uring_requests, &key);
	if (!done)
		done = bpf_map_lookup_elem(&gadget_uring_silent, &key);
	if (!done)
		return 0;
	gadget_uring_send(done, result, gadget_scratch(&gadget_uring_complete_scratch));
	bpf_map_delete_elem(&gadget_uring_requests, &key);
	bpf_map_delete_elem(&gadget_uring_silent, &key);
	return 0;
}

GADGET_ON_URING_SUBMIT(gadget_uring_submitted)

SEC("tp_btf/io_uring_complete")
int uring_complete(__u64 *ctx)
{
	return gadget_uring_completed((struct io_kiocb *)ctx[1], gadget_uring_result(ctx));
}

struct gadget_uring_overflow {
	__u64 ring;
	__u64 user_data;
};

static long gadget_uring_overflows(void *map, const __u64 *key, const struct gadget_uring_request *request,
				   const struct gadget_uring_overflow *overflow)
{
	if (request->ring != overflow->ring || request->user_data != overflow->user_data)
		return 0;
	/* Not the result that came with it, which may be that of another request of the same name. */
	gadget_uring_send(request, GADGET_RESULT_UNKNOWN, gadget_scratch(&gadget_uring_overflow_scratch));
	bpf_map_delete_elem(map, key);
	return 1;
}

/* A completion without room in its queue waits for some, and is not reported as the others are. It comes with the name
 * that the submitter gave to the request, which need not be the only one of that name. */
SEC("tp_btf/io_uring_cqe_overflow")
int BPF_PROG(uring_overflow, void *ring, __u64 user_data)
{
	struct gadget_uring_overflow overflow = {.ring = (__u64)ring, .user_data = user_data};

	bpf_for_each_map_elem(&gadget_uring_requests, gadget_uring_overflows, &overflow, 0);
	return 0;
}

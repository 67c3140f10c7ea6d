/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Operations of io_uring: a record is made when the kernel accepts a request, and stored until the result is known.
 *
 * Before including this file, a program defines GADGET_URING_BYTES, the maximum size of a stored record,
 * GADGET_URING_SENT_BYTES, its maximum size when it is sent, and GADGET_URING_KEPT, the maximum number of stored
 * records. It defines functions that fill in a record (gadget_uring_describe) and send it (gadget_uring_send).
 *
 * The trap: the completion of some requests cannot be seen. A request with IOSQE_CQE_SKIP_SUCCESS does not report
 * success (unlinkat and others do not even report failure), and if the completion queue is full, the tracepoint does
 * not name the request. So a record with GADGET_RESULT_UNKNOWN is sent: in the first case at once (and again with the
 * error, if that is reported), in the second case when the queue overflows, and in all other cases when the kernel
 * reuses the request's memory or no more records can be stored. So a program cannot hide requests by filling its queues
 * or never emptying them.
 */
#pragma once

#include <gadget/output.h>
#include <gadget/result.h>
#include <gadget/string.h>
#include <kernel/io_uring.h>

/* A value that is neither an errno nor a descriptor. */
#define GADGET_RESULT_UNKNOWN (1L << 40)

/* A record of a request, and its current length. */
struct gadget_uring_request {
	/* The ring, and the user_data of the request. */
	__u64 ring;
	__u64 user_data;
	__u32 length;
	__u32 cuts;
	/* For an open, if the gadget sets it: the slot of a direct descriptor, from 1. */
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

/* Requests that do not report success; their records have been sent. They are kept only for a failure that may still be
 * reported, so there are few entries. */
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

/* Fills in the record of a request that is submitted. False: it is not wanted. */
static __always_inline bool gadget_uring_describe(struct gadget_uring_request *new, struct io_kiocb *request,
						  __u8 opcode);

/* Sends the record, if its result is wanted. `scratch` is for gadget_uring_take(). */
static __always_inline void gadget_uring_send(const struct gadget_uring_request *request, long result, void *scratch);

/* Whether the gadget follows requests of this kind. */
static __always_inline bool gadget_uring_follows(__u8 opcode);

/* For gadget_uring_describe(): stores the length of the record. */
static __always_inline void gadget_uring_wrote(struct gadget_uring_request *new, const struct gadget_writer *writer)
{
	new->length = writer->progress->length;
	new->cuts = writer->progress->cuts;
}

/* For gadget_uring_send(): an unknown result passes the filters --failed and --errno. */
static __always_inline bool gadget_uring_wanted(long result)
{
	return result == GADGET_RESULT_UNKNOWN || gadget_wanted_result(result);
}

/* For gadget_uring_send(): copies the record to `scratch`, where more can be appended. Never false. */
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
	/* The end of an earlier request at this address was not seen. */
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

static long gadget_uring_overflows(void *map, const __u64 *key, const struct gadget_uring_request *request,
				   const struct gadget_uring_overflow *overflow)
{
	if (request->ring != overflow->ring || request->user_data != overflow->user_data)
		return 0;
	/* Not the result of this completion, which may belong to another request with the same user_data. */
	gadget_uring_send(request, GADGET_RESULT_UNKNOWN, gadget_scratch(&gadget_uring_overflow_scratch));
	bpf_map_delete_elem(map, key);
	return 1;
}

GADGET_ON_URING_OVERFLOW(gadget_uring_requests, gadget_uring_overflows)

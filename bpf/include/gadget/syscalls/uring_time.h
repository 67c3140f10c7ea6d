/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The duration of io_uring requests that read, write, open or sync a file: from submission to completion, including the
 * wait for requests that they are linked to.
 *
 * The end is not seen for requests that complete silently (IOSQE_CQE_SKIP_SUCCESS), in parts (multishot) or into a full
 * queue. The tracepoint for a full queue has only the user_data of the request, which several may share. So the entry
 * of one of them is removed, and counted as not examined: otherwise it would take room of its container's share until
 * the kernel reuses the request's memory.
 */
#pragma once

#include <gadget/files/uring_file.h>
#include <gadget/map_shares.h>
#include <gadget/output.h>

/* The maximum number of requests in progress at the same time. One container may have half of them. */
#define GADGET_URING_TIMED 32768

struct gadget_uring_start {
	__u64 time;
	/* The position in the file; ~0: the file's current position. */
	__u64 position;
	/* The ring, and the user_data of the request. */
	__u64 ring;
	__u64 user_data;
};

GADGET_STATES(gadget_uring, gadget_uring_start, GADGET_URING_TIMED);

/* Call it when a request is submitted whose opcode is followed. */
static __always_inline void gadget_uring_begin(struct io_kiocb *request)
{
	struct gadget_uring_start *start;

	/* Its completion would not be seen. */
	if (BPF_CORE_READ(request, flags) & GADGET_URING_SKIPS_SUCCESS)
		return;
	start = gadget_uring_make_state((__u64)request, gadget_current_cgroup());
	if (!start)
		return;
	start->position = BPF_CORE_READ((struct io_rw *)request, kiocb.ki_pos);
	start->ring = (__u64)BPF_CORE_READ(request, ctx);
	start->user_data = BPF_CORE_READ(request, cqe.user_data);
	start->time = bpf_ktime_get_boot_ns();
}

/* Call it when a request completes. False: its beginning was not seen. */
static __always_inline bool gadget_uring_end(struct io_kiocb *request, struct gadget_uring_start *start,
					     __u64 *duration)
{
	const struct gadget_uring_start *found = gadget_uring_state_of((__u64)request);

	if (!found)
		return false;
	*start = *found;
	*duration = bpf_ktime_get_boot_ns() - found->time;
	gadget_uring_remove_state((__u64)request);
	return true;
}

static long gadget_uring_overflows(void *map, const __u64 *key, const struct gadget_uring_entry *entry,
				   const struct gadget_uring_overflow *overflow)
{
	if (entry->state.ring != overflow->ring || entry->state.user_data != overflow->user_data)
		return 0;
	gadget_uring_remove_state(*key);
	gadget_count_unexamined();
	return 1;
}

GADGET_ON_URING_OVERFLOW(gadget_uring_states, gadget_uring_overflows)

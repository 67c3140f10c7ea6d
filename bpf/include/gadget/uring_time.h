/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The duration of io_uring requests that read, write, open or sync a file: from submission to completion, including the
 * wait for requests that they are linked to.
 *
 * The trap: the end is not seen for requests that complete silently (IOSQE_CQE_SKIP_SUCCESS), in parts (multishot) or
 * into a full queue. Their entry is replaced when the kernel reuses the request's memory.
 */
#pragma once

#include <gadget/output.h>
#include <gadget/uring_file.h>

/* The maximum number of requests in progress at the same time. */
#define GADGET_URING_TIMED 16384

struct gadget_uring_start {
	__u64 time;
	/* The position in the file; ~0: the file's current position. */
	__u64 position;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, GADGET_URING_TIMED);
	__type(key, __u64);
	__type(value, struct gadget_uring_start);
} gadget_uring_starts SEC(".maps");

/* Call it when a request is submitted whose opcode is followed. */
static __always_inline void gadget_uring_begin(struct io_kiocb *request)
{
	struct gadget_uring_start start = {.position = BPF_CORE_READ((struct io_rw *)request, kiocb.ki_pos)};
	__u64 key = (__u64)request;

	/* Its completion would not be seen. */
	if (BPF_CORE_READ(request, flags) & GADGET_URING_SKIPS_SUCCESS)
		return;
	start.time = bpf_ktime_get_boot_ns();
	if (bpf_map_update_elem(&gadget_uring_starts, &key, &start, BPF_ANY))
		gadget_count_map_full();
}

/* Call it when a request completes. False: its beginning was not seen. */
static __always_inline bool gadget_uring_end(struct io_kiocb *request, struct gadget_uring_start *start,
					     __u64 *duration)
{
	__u64 key = (__u64)request;
	const struct gadget_uring_start *found = bpf_map_lookup_elem(&gadget_uring_starts, &key);

	if (!found)
		return false;
	*start = *found;
	*duration = bpf_ktime_get_boot_ns() - found->time;
	bpf_map_delete_elem(&gadget_uring_starts, &key);
	return true;
}

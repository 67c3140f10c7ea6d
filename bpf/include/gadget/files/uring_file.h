/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The file of an io_uring request: a file of one of the process's descriptors, or one registered with the ring (a
 * direct descriptor), which is in no process's table.
 *
 * A request has no file until it is issued. Before that, its descriptor is looked up here as the kernel will do later,
 * but the program may replace the file in between.
 */
#pragma once

#include <gadget/files/open_file.h>
#include <kernel/io_uring.h>

/* The file in a slot of the ring's table of registered files. NULL: there is none. */
static __always_inline struct file *gadget_uring_direct_file(const struct io_ring_ctx *ring, __u32 slot)
{
	const struct io_ring_ctx___array *older = (const void *)ring;
	struct io_rsrc_node **nodes, *node = NULL;
	struct io_fixed_file *files;
	unsigned long pointer = 0;

	if (bpf_core_field_exists(older->file_table.files)) {
		files = BPF_CORE_READ(older, file_table.files);
		if (slot < BPF_CORE_READ(older, nr_user_files))
			pointer = BPF_CORE_READ(&files[slot], file_ptr);
	} else if (slot < BPF_CORE_READ(ring, file_table.data.nr)) {
		nodes = BPF_CORE_READ(ring, file_table.data.nodes);
		bpf_probe_read_kernel(&node, sizeof(node), &nodes[slot]);
		pointer = BPF_CORE_READ(node, file_ptr);
	}
	return (struct file *)(pointer & ~7UL);
}

/* The file that a newly submitted request will use. */
static __always_inline struct file *gadget_uring_file_of(struct io_kiocb *request)
{
	__s32 fd = BPF_CORE_READ(request, cqe.fd);

	if (BPF_CORE_READ(request, flags) & GADGET_URING_FIXED_FILE)
		return gadget_uring_direct_file(BPF_CORE_READ(request, ctx), fd);
	return gadget_file_of(fd);
}

/* The file that an open request has returned with this result. `slot`: as in its io_open. */
static __always_inline struct file *gadget_uring_file_in(const struct io_ring_ctx *ring, __u32 slot, __s32 result)
{
	if (!slot)
		return gadget_file_of(result);
	return gadget_uring_direct_file(ring, slot == GADGET_URING_ANY_SLOT ? result : slot - 1);
}

/* The file that was opened by a request that completes with `result`. NULL: it failed. */
static __always_inline struct file *gadget_uring_opened_file(struct io_kiocb *request, __s32 result)
{
	__u32 slot = BPF_CORE_READ((struct io_open *)request, file_slot);

	return result < 0 ? NULL : gadget_uring_file_in(BPF_CORE_READ(request, ctx), slot, result);
}

enum gadget_uring_kind {
	GADGET_URING_OTHER,
	GADGET_URING_READS,
	GADGET_URING_WRITES,
	GADGET_URING_OPENS,
	GADGET_URING_SYNCS,
};

/* What a request does with a file. */
static __always_inline enum gadget_uring_kind gadget_uring_kind_of(__u8 opcode)
{
	switch (opcode) {
	case IORING_OP_READ:
	case IORING_OP_READV:
	case IORING_OP_READ_FIXED:
	case IORING_OP_READV_FIXED:
	case IORING_OP_READ_MULTISHOT:
		return GADGET_URING_READS;
	case IORING_OP_WRITE:
	case IORING_OP_WRITEV:
	case IORING_OP_WRITE_FIXED:
	case IORING_OP_WRITEV_FIXED:
		return GADGET_URING_WRITES;
	case IORING_OP_OPENAT:
	case IORING_OP_OPENAT2:
		return GADGET_URING_OPENS;
	case IORING_OP_FSYNC:
		return GADGET_URING_SYNCS;
	}
	return GADGET_URING_OTHER;
}

/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Requests to block devices, as far as gadgets read them. A request without a bio is a flush or the driver's own
 * request. It is attributed to the task that happens to issue it.
 */
#pragma once

#include <linux/types.h>
#include <kernel/cgroup.h>

/* enum req_op of include/linux/blk_types.h. */
#define GADGET_BLOCK_OPERATION 0xff
#define GADGET_BLOCK_READ 0
#define GADGET_BLOCK_WRITE 1
#define GADGET_BLOCK_FLUSH 2
#define GADGET_BLOCK_DISCARD 3
#define GADGET_BLOCK_ZONE_APPEND 7

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct gendisk {
	int major;
	int first_minor;
	char disk_name[32];
};

struct request_queue {
	struct gendisk *disk;
};

/* The I/O controller's part of a cgroup. */
struct blkcg {
	struct cgroup_subsys_state css;
};

struct blkcg_gq {
	struct blkcg *blkcg;
};

struct bio {
	struct blkcg_gq *bi_blkg;
};

struct request {
	struct request_queue *q;
	__u32 cmd_flags;
	__u32 __data_len;
	struct bio *bio;
};

/* Before Linux 5.17. */
struct request___disk {
	struct gendisk *rq_disk;
};

#pragma clang attribute pop

static __always_inline struct gendisk *gadget_disk_of(struct request *request)
{
	struct request___disk *old = (void *)request;

	if (bpf_core_field_exists(old->rq_disk))
		return BPF_CORE_READ(old, rq_disk);
	return BPF_CORE_READ(request, q, disk);
}

/* The tracepoint's arguments since Linux 5.11, and in late versions of 5.10. Before, the queue is the first one. */
typedef void (*btf_trace_block_rq_insert___request)(void *, struct request *);

/* The request that block_rq_issue, block_rq_insert or block_rq_merge is about. */
static __always_inline struct request *gadget_request_of(__u64 *ctx)
{
	struct request *request;

	if (!bpf_core_type_exists(btf_trace_block_rq_insert___request))
		return (struct request *)ctx[1];
	request = (struct request *)ctx[0];
	/* Keeps the two loads apart. The verifier refuses one load whose place is computed. */
	barrier_var(request);
	return request;
}

// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * top blockio: adds up the requests to block devices: how many, how many bytes, and how long they took.
 *
 * Hooks: the tracepoints block_io_start (Linux 6.5), where the task that wants the I/O is current; block_rq_issue, when
 * the device gets the request; block_rq_complete. Whose the I/O is says the bio, since the kernel writes back later
 * what a container has written to its pages. The trap: that needs version 2's I/O controller for the container's
 * cgroup; what the bio names may be a cgroup above it, or one of version 1. Then it is the current task's.
 */
#include <gadget/other_task.h>
#include <gadget/output.h>
#include <gadget/totals.h>
#include <kernel/block.h>

/* Requests that may be under way at the same time, and sums of an interval. */
#define REQUESTS 32768
#define SUMS 32768

/* 12 bits of major, 20 of minor number. */
typedef __u32 gadget_device_number;

struct blockio_key {
	gadget_cgroup cgroup;
	gadget_device_number device;
	/* On the node. */
	__u32 pid;
};

struct blockio_value {
	__u64 ios;
	__u64 reads;
	__u64 writes;
	__u64 others;
	__u64 errors;
	gadget_bytes read_bytes;
	gadget_bytes written_bytes;
	/* From when the device gets a request to its end. */
	gadget_duration total;
	/* From when it was wanted to when the device gets it. */
	gadget_duration queued;
	gadget_comm comm;
	char disk[32];
	gadget_uid uid;
	__u32 unused;
};

struct top_blockio {
	struct gadget_total interval;
	struct blockio_key key;
	struct blockio_value value;
	/* Filled in by the client. */
	gadget_duration mean;
};

GADGET_RECORD(top_blockio);

GADGET_TOTALS(blockio_key, blockio_value, SUMS);

struct pending {
	__u64 cgroup;
	__u64 started;
	/* 0: not yet. */
	__u64 issued;
	__u32 pid;
	__u32 uid;
	char comm[16];
	__u32 wanted;
	__u32 failed;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, REQUESTS);
	__type(key, __u64);
	__type(value, struct pending);
} requests SEC(".maps");

/* Whether the current task's cgroup is this one, or lies below it. */
static __always_inline bool current_is_below(struct cgroup *cgroup)
{
	__u32 level = BPF_CORE_READ(cgroup, level);

	return bpf_get_current_ancestor_cgroup_id(level) == BPF_CORE_READ(cgroup, kn, id);
}

static __always_inline struct cgroup *cgroup_of(struct request *request)
{
	struct cgroup *own = gadget_cgroup_of(gadget_task());
	struct bio *bio = BPF_CORE_READ(request, bio);
	struct cgroup *named = bio ? BPF_CORE_READ(bio, bi_blkg, blkcg, css.cgroup) : NULL;

	if (!named || BPF_CORE_READ(named, root, hierarchy_id) || current_is_below(named))
		return own;
	return named;
}

static __always_inline void remember(struct request *request, __u64 issued, __u64 flags)
{
	__u64 now = bpf_ktime_get_boot_ns(), key = (__u64)request;
	struct pending pending = {.started = now, .issued = issued ? now : 0};
	struct task_struct *task = gadget_task();
	struct gadget_record record;

	pending.wanted = gadget_wanted_other_cgroup(&record, cgroup_of(request)) && gadget_wanted_task(task);
	pending.cgroup = record.cgroup;
	pending.pid = gadget_node_pid(task);
	pending.uid = (__u32)bpf_get_current_uid_gid();
	gadget_comm_of(task, pending.comm);
	/* With BPF_NOEXIST it fails when there is one already, which is no loss. */
	if (bpf_map_update_elem(&requests, &key, &pending, flags) == -E2BIG)
		gadget_count_map_full();
}

SEC("tp_btf/block_io_start")
int BPF_PROG(started, struct request *request)
{
	remember(request, false, BPF_ANY);
	return 0;
}

SEC("tp_btf/block_rq_insert")
int inserted(__u64 *ctx)
{
	remember(gadget_request_of(ctx), false, BPF_NOEXIST);
	return 0;
}

SEC("tp_btf/block_rq_issue")
int issued(__u64 *ctx)
{
	struct request *request = gadget_request_of(ctx);
	__u64 key = (__u64)request;
	struct pending *pending = bpf_map_lookup_elem(&requests, &key);

	if (!pending)
		remember(request, true, BPF_NOEXIST);
	/* A request that the device did not take comes again. */
	else if (!pending->issued)
		pending->issued = bpf_ktime_get_boot_ns();
	return 0;
}

/* It has become a part of another one. */
SEC("tp_btf/block_rq_merge")
int merged(__u64 *ctx)
{
	__u64 key = (__u64)gadget_request_of(ctx);

	bpf_map_delete_elem(&requests, &key);
	return 0;
}

static __always_inline struct blockio_value *sums_of(struct request *request, const struct pending *pending)
{
	struct gendisk *disk = gadget_disk_of(request);
	struct blockio_key key = {.cgroup = pending->cgroup, .pid = pending->pid};
	struct blockio_value *value;

	key.device = BPF_CORE_READ(disk, major) << 20 | BPF_CORE_READ(disk, first_minor);
	value = gadget_total(&key);
	if (value && !value->ios) {
		bpf_probe_read_kernel(value->disk, sizeof(value->disk), &disk->disk_name);
		__builtin_memcpy(value->comm, pending->comm, sizeof(value->comm));
		value->uid = pending->uid;
	}
	return value;
}

/* The whole request, or, where the device has done no more, its first `bytes`. */
SEC("tp_btf/block_rq_complete")
int BPF_PROG(completed, struct request *request, int error, unsigned int bytes)
{
	__u32 operation = BPF_CORE_READ(request, cmd_flags) & GADGET_BLOCK_OPERATION;
	__u64 now = bpf_ktime_get_boot_ns(), key = (__u64)request;
	struct pending *pending = bpf_map_lookup_elem(&requests, &key);
	bool last = bytes >= BPF_CORE_READ(request, __data_len);
	bool reads = operation == GADGET_BLOCK_READ;
	bool writes = operation == GADGET_BLOCK_WRITE || operation == GADGET_BLOCK_ZONE_APPEND;
	struct blockio_value *value;

	if (!pending)
		return 0;
	/* The low byte: it is a blk_status_t since Linux 5.18, and an int before. Neither is 0 with it. */
	error &= 0xff;
	value = pending->wanted ? sums_of(request, pending) : NULL;
	if (value) {
		if (error)
			pending->failed = true;
		else if (reads)
			gadget_add(value->read_bytes, bytes);
		else if (writes)
			gadget_add(value->written_bytes, bytes);
		if (last) {
			gadget_add(value->ios, 1);
			gadget_add(value->reads, reads);
			gadget_add(value->writes, writes);
			gadget_add(value->others, !reads && !writes);
			gadget_add(value->errors, pending->failed);
			if (pending->issued) {
				gadget_add(value->total, now - pending->issued);
				gadget_add(value->queued, pending->issued - pending->started);
			}
		}
	}
	if (last)
		bpf_map_delete_elem(&requests, &key);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";

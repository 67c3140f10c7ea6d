// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * top blockio: counts requests to block devices, and adds up their bytes and durations.
 *
 * Hooks: those of gadget/files/block_request.h, and the tracepoint block_rq_complete.
 */
#include <gadget/files/block_request.h>
#include <gadget/totals.h>

/* The maximum number of rows in one interval. */
#define SUMS 32768

/* 12 bits of major number, 20 bits of minor number. */
typedef __u32 gadget_device_number;

struct blockio_key {
	gadget_cgroup cgroup;
	gadget_device_number device;
	/* The PID on the node. */
	__u32 pid;
	/* gadget_program_of() */
	__u64 unused_program;
};

struct blockio_value {
	__u64 ios;
	__u64 reads;
	__u64 writes;
	__u64 others;
	__u64 errors;
	gadget_bytes read_bytes;
	gadget_bytes written_bytes;
	/* From when the device gets a request until it is complete. */
	gadget_duration total;
	/* From when the request was made until the device gets it. */
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

static __always_inline struct blockio_value *sums_of(struct request *request,
						     const struct gadget_block_request *pending)
{
	struct gendisk *disk = gadget_disk_of(request);
	struct blockio_key key = {.cgroup = pending->cgroup, .pid = pending->pid, .unused_program = pending->program};
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

/* The request is complete or, if `bytes` is less than its length, only the first `bytes` are. */
SEC("tp_btf/block_rq_complete")
int BPF_PROG(completed, struct request *request, int error, unsigned int bytes)
{
	__u32 operation = BPF_CORE_READ(request, cmd_flags) & GADGET_BLOCK_OPERATION;
	__u64 now = bpf_ktime_get_boot_ns(), key = (__u64)request;
	struct gadget_block_request *pending = bpf_map_lookup_elem(&gadget_block_requests, &key);
	bool last = bytes >= BPF_CORE_READ(request, __data_len);
	bool reads = operation == GADGET_BLOCK_READ;
	bool writes = operation == GADGET_BLOCK_WRITE || operation == GADGET_BLOCK_ZONE_APPEND;
	struct blockio_value *value;

	if (!pending)
		return 0;
	/* Since Linux 5.18, this is a blk_status_t, one byte; before, it was an errno, whose low byte is never 0. */
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
		bpf_map_delete_elem(&gadget_block_requests, &key);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";

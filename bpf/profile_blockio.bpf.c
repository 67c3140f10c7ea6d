// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * profile blockio: histograms of how long requests to block devices took, by container, device and operation.
 *
 * Hooks: those of gadget/files/block_request.h, and the tracepoint block_rq_complete.
 */
#include <gadget/files/block_request.h>
#include <gadget/histogram.h>
#include <gadget/operation.h>

#define HISTOGRAMS 8192

/* 12 bits of major number, 20 bits of minor number. */
typedef __u32 gadget_device_number;

struct blockio_key {
	gadget_cgroup cgroup;
	gadget_operation operation;
	gadget_device_number device;
	__u32 unused;
};

struct blockio_value {
	struct gadget_histogram histogram;
	char disk[32];
};

struct profile_blockio {
	struct gadget_total interval;
	struct blockio_key key;
	struct blockio_value value;
	struct gadget_percentiles percentiles;
};

GADGET_RECORD(profile_blockio);

GADGET_TOTALS(blockio_key, blockio_value, HISTOGRAMS);

/* Measure from the time when the request was made, not from when the device got it. */
const volatile bool with_queue = false;

static __always_inline void set_operation(struct blockio_key *key, __u32 operation)
{
	switch (operation) {
	case GADGET_BLOCK_READ:
		GADGET_SET_OPERATION(key->operation, "read");
		break;
	case GADGET_BLOCK_WRITE:
	case GADGET_BLOCK_ZONE_APPEND:
		GADGET_SET_OPERATION(key->operation, "write");
		break;
	case GADGET_BLOCK_FLUSH:
		GADGET_SET_OPERATION(key->operation, "flush");
		break;
	case GADGET_BLOCK_DISCARD:
		GADGET_SET_OPERATION(key->operation, "discard");
		break;
	default:
		GADGET_SET_OPERATION(key->operation, "other");
	}
}

static __always_inline void count(struct request *request, const struct gadget_block_request *pending, __u64 now)
{
	struct gendisk *disk = gadget_disk_of(request);
	struct blockio_key key = {.cgroup = pending->cgroup};
	struct blockio_value *value;

	set_operation(&key, BPF_CORE_READ(request, cmd_flags) & GADGET_BLOCK_OPERATION);
	if (!gadget_wanted_operation(key.operation))
		return;
	key.device = BPF_CORE_READ(disk, major) << 20 | BPF_CORE_READ(disk, first_minor);
	value = gadget_total(&key);
	if (!value)
		return;
	if (!value->histogram.count)
		bpf_probe_read_kernel(value->disk, sizeof(value->disk), &disk->disk_name);
	gadget_observe(&value->histogram, now - (with_queue ? pending->started : pending->issued));
}

/* The request is complete or, if `bytes` is less than its length, only the first `bytes` are. */
SEC("tp_btf/block_rq_complete")
int BPF_PROG(completed, struct request *request, int error, unsigned int bytes)
{
	__u64 now = bpf_ktime_get_boot_ns(), key = (__u64)request;
	struct gadget_block_request *pending = bpf_map_lookup_elem(&gadget_block_requests, &key);

	if (!pending || bytes < BPF_CORE_READ(request, __data_len))
		return 0;
	if (pending->wanted && pending->issued)
		count(request, pending, now);
	bpf_map_delete_elem(&gadget_block_requests, &key);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";

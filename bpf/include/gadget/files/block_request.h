/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Programs that remember the owner and the start time of a request to a block device. A gadget's YAML must list them
 * (see gadgets/top_blockio.yaml); the gadget itself follows block_rq_complete and removes the request.
 *
 * Hooks: the tracepoints block_io_start (Linux 6.5), where the task that wants the I/O is current, or block_rq_insert;
 * block_rq_issue, when the device gets the request. The owner is the cgroup of the bio, since a kernel thread writes a
 * container's dirty pages later. This needs the I/O controller of cgroup v2 for the container's cgroup. If the bio
 * names an ancestor, or a cgroup of version 1, the owner is the current task's cgroup.
 */
#pragma once

#include <linux/errno.h>

#include <gadget/other_task.h>
#include <gadget/output.h>
#include <gadget/process_identity.h>
#include <kernel/block.h>

/* The maximum number of requests in progress at the same time. */
#define GADGET_BLOCK_REQUESTS 32768

struct gadget_block_request {
	__u64 cgroup;
	__u64 started;
	/* 0: not issued yet. */
	__u64 issued;
	__u32 pid;
	__u32 uid;
	char comm[16];
	/* gadget_program_of() */
	__u64 program;
	__u32 wanted;
	__u32 failed;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, GADGET_BLOCK_REQUESTS);
	__type(key, __u64);
	__type(value, struct gadget_block_request);
} gadget_block_requests SEC(".maps");

/* Whether the current task, whose cgroup is `own`, is in this cgroup or below it. Tracing programs may call the helper
 * only since Linux 5.15. */
static __always_inline bool gadget_current_is_below(struct cgroup *cgroup, struct cgroup *own)
{
	__u32 level = BPF_CORE_READ(cgroup, level);
	__u64 id = BPF_CORE_READ(cgroup, kn, id);
	void *ids = (void *)own + bpf_core_field_offset(struct cgroup___ids, ancestor_ids);

	if (!bpf_core_field_exists(struct cgroup___ids, ancestor_ids))
		return bpf_get_current_ancestor_cgroup_id(level) == id;
	return level <= BPF_CORE_READ(own, level) && gadget_word_at(ids + level * sizeof(id)) == id;
}

static __always_inline struct cgroup *gadget_cgroup_of_request(struct request *request)
{
	struct cgroup *own = gadget_cgroup_of(gadget_task());
	struct bio *bio = BPF_CORE_READ(request, bio);
	struct cgroup *named = bio ? BPF_CORE_READ(bio, bi_blkg, blkcg, css.cgroup) : NULL;

	if (!named || BPF_CORE_READ(named, root, hierarchy_id) || gadget_current_is_below(named, own))
		return own;
	return named;
}

static __always_inline void gadget_remember_request(struct request *request, __u64 issued, __u64 flags)
{
	__u64 now = bpf_ktime_get_boot_ns(), key = (__u64)request;
	struct gadget_block_request pending = {.started = now, .issued = issued ? now : 0};
	struct cgroup *cgroup = gadget_cgroup_of_request(request);
	struct task_struct *task = gadget_task();
	struct gadget_record record;

	if (cgroup == gadget_cgroup_of(task))
		pending.wanted = gadget_wanted_other_task(&record, task);
	else
		pending.wanted = gadget_wanted_other_cgroup(&record, cgroup);
	pending.wanted = pending.wanted && gadget_wanted_task(task);
	pending.cgroup = record.cgroup;
	pending.pid = gadget_node_pid(task);
	pending.uid = (__u32)bpf_get_current_uid_gid();
	gadget_comm_of(task, pending.comm);
	pending.program = gadget_program_of(task);
	/* With BPF_NOEXIST this fails when there is an entry already, which loses nothing. */
	if (bpf_map_update_elem(&gadget_block_requests, &key, &pending, flags) == -E2BIG)
		gadget_count_map_full();
}

SEC("tp_btf/block_io_start")
int BPF_PROG(started, struct request *request)
{
	gadget_remember_request(request, false, BPF_ANY);
	return 0;
}

SEC("tp_btf/block_rq_insert")
int inserted(__u64 *ctx)
{
	gadget_remember_request(gadget_request_of(ctx), false, BPF_NOEXIST);
	return 0;
}

SEC("tp_btf/block_rq_issue")
int issued(__u64 *ctx)
{
	struct request *request = gadget_request_of(ctx);
	__u64 key = (__u64)request;
	struct gadget_block_request *pending = bpf_map_lookup_elem(&gadget_block_requests, &key);

	if (!pending)
		gadget_remember_request(request, true, BPF_NOEXIST);
	/* A request that the device did not accept is issued again. */
	else if (!pending->issued)
		pending->issued = bpf_ktime_get_boot_ns();
	return 0;
}

/* The request was merged into another one. */
SEC("tp_btf/block_rq_merge")
int merged(__u64 *ctx)
{
	__u64 key = (__u64)gadget_request_of(ctx);

	bpf_map_delete_elem(&gadget_block_requests, &key);
	return 0;
}

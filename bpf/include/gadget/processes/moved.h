/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Processes of a container that are in a cgroup outside of the container, because they or their ancestors have moved
 * there. bpf/containers.bpf.c maintains the list. Their records have the container's cgroup with the bit
 * GADGET_ELSEWHERE.
 *
 * Usually there are none, and then the check costs one read of a counter. The trap: a cgroup id with that bit is not
 * the id of any cgroup, so clear the bit before a lookup.
 */
#pragma once

#include <gadget/record.h>

#define GADGET_ELSEWHERE (1ULL << 63)

struct gadget_moved_process {
	/* The container's own cgroup, with GADGET_ELSEWHERE. */
	__u64 cgroup;
	/* When the process was forked, since PIDs are reused. */
	__u64 started;
};

struct gadget_moved_counts {
	__u64 processes;
	/* Processes for which there was no room. */
	__u64 lost;
};

/* By the process's PID in the initial PID namespace. Shared by all objects, like gadget_containers. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, __u32);
	__type(value, struct gadget_moved_process);
} gadget_moved SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct gadget_moved_counts);
} gadget_moved_counts SEC(".maps");

static __always_inline bool gadget_any_moved(void)
{
	__u32 zero = 0;
	const struct gadget_moved_counts *counts = bpf_map_lookup_elem(&gadget_moved_counts, &zero);

	return counts && counts->processes;
}

/* The container's cgroup that a process came from, with GADGET_ELSEWHERE; 0: it has not moved. Not inlined and not
 * static, so that the verifier checks it once. */
__noinline __u64 gadget_origin_of(__u32 tgid)
{
	const struct gadget_moved_process *moved = bpf_map_lookup_elem(&gadget_moved, &tgid);

	return moved ? moved->cgroup : 0;
}

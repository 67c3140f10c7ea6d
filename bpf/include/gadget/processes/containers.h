/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The agent's entry for each cgroup: its verdict, and its container's share of the ring (gadget/fairness.h).
 *
 * The trap: a verdict on a cgroup of the host is not inherited. Otherwise the cgroup above all pods would decide about
 * pods that have no verdict yet.
 */
#pragma once

#include <gadget/processes/moved.h>
#include <gadget/record.h>

enum gadget_verdict {
	GADGET_UNKNOWN = 0,
	/* A container. Cgroups below it inherit the verdict. */
	GADGET_WANTED = 1,
	GADGET_UNWANTED = 2,
	/* A cgroup of the host. Not inherited. */
	GADGET_WANTED_HOST = 3,
	GADGET_UNWANTED_HOST = 4,
};

/* A value consists of the verdict and, above it, the number of the share. */
#define GADGET_VERDICT_MASK 0xff
#define GADGET_SHARE_SHIFT 8

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, __u64);
	__type(value, __u32);
} gadget_containers SEC(".maps");

/* GADGET_UNKNOWN when the agent has not reported it. */
static __always_inline enum gadget_verdict gadget_verdict_on(__u64 cgroup)
{
	const __u32 *found;

	cgroup &= ~GADGET_ELSEWHERE;
	found = bpf_map_lookup_elem(&gadget_containers, &cgroup);
	return found ? *found & GADGET_VERDICT_MASK : GADGET_UNKNOWN;
}

static __always_inline bool gadget_is_wanted(enum gadget_verdict verdict)
{
	return verdict == GADGET_WANTED || verdict == GADGET_WANTED_HOST;
}

/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Keeps room in the ring for the other containers when one container floods it.
 *
 * While the ring is less than half full, nothing is checked. Above that, a container may use at most as much of the
 * upper half as is still free there: one flooding container fills the ring to three quarters, two leave a third of the
 * upper half free, and a container that uses none of it always finds room. Refused records count as lost, like those
 * for which the ring was full, and both are counted per container.
 *
 * The trap: a container may have any number of cgroups, so usage is counted per share, a number that the agent assigns
 * to all cgroups of a container. All cgroups that the agent has not reported have one common share, and so have those
 * of the host.
 */
#pragma once

#include <gadget/counters.h>
#include <gadget/processes/containers.h>

/* Read by kubectl_gadget/agent/containers/ring_fairness.py. */
struct gadget_share {
	/* Bytes sent into the upper half since the agent had read everything that this share had sent there. */
	__u64 bytes;
	/* The ring's position after them. */
	__u64 until;
	/* Records that were refused, and entries for which a map had no room. */
	__u64 lost;
	__u64 unused;
};

#define GADGET_SHARES 2048
/* The ring buffer's own header of each record. */
#define GADGET_RING_HEAD 8

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, GADGET_SHARES);
	__type(key, __u32);
	__type(value, struct gadget_share);
} gadget_shares SEC(".maps");

static __always_inline __u32 gadget_share_number(__u64 cgroup)
{
	const __u32 *found;

	cgroup &= ~GADGET_ELSEWHERE;
	found = bpf_map_lookup_elem(&gadget_containers, &cgroup);
	return found ? *found >> GADGET_SHARE_SHIFT : 0;
}

static __always_inline struct gadget_share *gadget_share_of(__u64 cgroup)
{
	__u32 number = gadget_share_number(cgroup);

	return bpf_map_lookup_elem(&gadget_shares, &number);
}

/*
 * Whether the container of this cgroup may send another `length` bytes into the ring, which has `unread` bytes. Not
 * inlined and not static, so that the verifier checks it once. CPUs that run it at the same time may accept too many
 * records; at worst, the ring is full.
 */
__noinline bool gadget_has_share(__u64 cgroup, __u64 unread, __u64 length)
{
	struct gadget_share *share = gadget_share_of(cgroup);
	__u64 position = bpf_ringbuf_query(&gadget_events, BPF_RB_CONS_POS);

	if (!share)
		return true;
	if (position >= share->until)
		share->bytes = 0;
	if (share->bytes + unread > 4 * gadget_ring_wake_bytes)
		return false;
	gadget_count(&share->bytes, length + GADGET_RING_HEAD);
	share->until = position + unread + length;
	return true;
}

/* Call it when a record of this cgroup was not sent. */
__noinline bool gadget_count_ring_full(__u64 cgroup)
{
	struct gadget_share *share = gadget_share_of(cgroup);
	struct gadget_cpu *cpu = gadget_this_cpu();

	if (share)
		gadget_count(&share->lost, 1);
	if (cpu)
		gadget_count(&cpu->lost_ring_full, 1);
	return true;
}

/* Call it when a map has no room for an entry of the container with this share (gadget/map_shares.h). */
__noinline bool gadget_count_share_full(__u32 number)
{
	struct gadget_share *share = bpf_map_lookup_elem(&gadget_shares, &number);

	if (share)
		gadget_count(&share->lost, 1);
	gadget_count_map_full();
	return true;
}

/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The action TrackSock: stores the owner of a socket for later events, which may happen while another process is
 * current, for example in a softirq.
 *
 * The owner is stored as the head of an event, with the data at the time when tracking began. The map drops the least
 * recently used entries; then an event has the current process, as without tracking.
 */
#pragma once

#include <gadget/processes/runtime.h>
#include <policy/decide.h>

struct policy_owner {
	struct policy_event head;
	__u64 socket;
	/* The owner's profile, for a cgroup that the agent has not reported. */
	__u32 profile;
	/* Whether the user has selected the process. */
	__u32 wanted;
};

_Static_assert(sizeof(struct policy_owner) <= POLICY_OWNER_BYTES, "memory has room for an owner");

/* By the kernel address of the socket. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1);
	__type(key, __u64);
	__type(value, struct policy_owner);
} policy_sockets SEC(".maps");

/* The socket of a slot; 0: none. */
static __always_inline __u64 policy_socket(const struct policy_context *context,
					   const volatile struct policy_slot *slot)
{
	__u64 raw = policy_raw(context, slot, slot->index);

	if (slot->type == POLICY_SOCKET)
		return (__u64)BPF_CORE_READ((struct socket *)raw, sk);
	if (slot->type == POLICY_SKB)
		return (__u64)BPF_CORE_READ((struct sk_buff *)raw, sk);
	return raw;
}

/* The owner of the first socket that has one. NULL: there is none. */
static __noinline const struct policy_owner *policy_owner_of(const struct policy_context *context)
{
	for (__u32 i = 0; i < POLICY_SLOTS; i++) {
		const volatile struct policy_slot *slot = &policy_slots[i];
		const struct policy_owner *owner;
		__u64 socket;

		if (i >= policy_slot_count)
			break;
		if ((slot->type != POLICY_SOCK && slot->type != POLICY_SOCKET && slot->type != POLICY_SKB) ||
		    slot->flags & POLICY_NEW_SOCKET)
			continue;
		socket = policy_socket(context, slot);
		owner = bpf_map_lookup_elem(&policy_sockets, &socket);
		if (owner)
			return owner;
	}
	return NULL;
}

/* For a cgroup that the agent has not reported: the profile of the nearest container above it; 0, the profile of
 * unknown cgroups, if there is none. */
static __always_inline __u32 policy_inherited_profile(void)
{
	bool on_this_node = !gadget_node_cgroup;
	__u32 nearest = 0;

	for (int level = 0; level < GADGET_CGROUP_LEVELS; level++) {
		__u64 ancestor = bpf_get_current_ancestor_cgroup_id(level);
		const __u32 *profile;

		if (!ancestor)
			break;
		on_this_node |= ancestor == gadget_node_cgroup;
		profile = bpf_map_lookup_elem(&policy_containers, &ancestor);
		if (profile && *profile & POLICY_INHERITED)
			nearest = *profile & POLICY_PROFILE;
	}
	/* No profile has this number. */
	return on_this_node ? nearest : ~0U;
}

/* The profile of a cgroup, either the current one or that of a socket's owner. A separate stack frame, for the reason
 * given at policy_read(). */
static __noinline __u32 policy_profile_of(__u64 cgroup, const struct policy_owner *owner)
{
	const __u32 *known;

	/* A process that left its container is still subject to that container's policies. */
	cgroup &= ~GADGET_ELSEWHERE;
	known = bpf_map_lookup_elem(&policy_containers, &cgroup);
	/* The runtime is exempt in a sandbox: users do not choose the sandbox's program, so a policy that allows only
	 * certain programs must not keep pods from starting. */
	if (known && *known & POLICY_SANDBOX && !owner && gadget_is_runtime(gadget_task()))
		return ~0U;
	if (known)
		return *known & POLICY_PROFILE;
	return owner ? owner->profile : policy_inherited_profile();
}

/* The socket in the action of the first chosen selector in a mask; 0: none. */
static __always_inline __u64 policy_named_socket(struct policy_memory *memory, __u32 which)
{
	const struct policy_action *action = policy_first_of(memory, which);

	return action && action->socket < POLICY_SLOTS ? memory->files[action->socket] : 0;
}

/* Like policy_describe(), for a socket's owner. */
static __noinline bool policy_describe_owner(struct policy_event *event, const struct policy_owner *owner)
{
	event->record = owner->head.record;
	event->exec = owner->head.exec;
	event->parent = owner->head.parent;
	event->credentials = owner->head.credentials;
	event->namespaces = owner->head.namespaces;
	return owner->wanted;
}

/* Stores the owner of the socket to track: the owner of another socket of this call or, if there is none, the current
 * process. If the socket itself already had an owner, it now belongs to another process, or is a new socket at the same
 * address. Also notes the socket whose entry is to be removed after the event. */
static __noinline void policy_track(struct policy_memory *memory, const struct policy_owner *owner)
{
	__u64 socket = policy_named_socket(memory, POLICY_MASK_TRACK);
	struct policy_owner *new = (void *)memory->owner;
	__u64 cgroup;

	memory->forgotten = policy_named_socket(memory, POLICY_MASK_UNTRACK);
	if (!socket)
		return;
	if (owner && owner->socket == socket)
		owner = NULL;
	cgroup = owner ? owner->head.record.cgroup : gadget_current_cgroup();
	new->wanted = owner ? policy_describe_owner(&new->head, owner) : policy_describe(&new->head, cgroup);
	new->socket = socket;
	new->profile = policy_profile_of(cgroup, owner);
	if (bpf_map_update_elem(&policy_sockets, &socket, new, BPF_ANY))
		gadget_count_map_full();
}

static __always_inline void policy_forget(struct policy_memory *memory)
{
	if (memory->forgotten)
		bpf_map_delete_elem(&policy_sockets, &memory->forgotten);
}

/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Refusals by network policies, with which other agents explain a dropped packet or a failed call.
 *
 * Each agent that enforces network policies has a map `gadget_refused`. An agent that reports reasons has a map of
 * maps, `gadget_refusals`, which it fills with the maps of all enforcing agents
 * (kubectl_gadget/agent/sources/shared_maps.py). A refusal is recorded before it takes effect, so it is there when
 * its effect is seen. A later packet with the same key may be dropped for another reason, so only a recent entry
 * counts.
 */
#pragma once

#include <gadget/network/address.h>
#include <gadget/network/network_namespace.h>
#include <gadget/string.h>

/* When the map is full, the oldest entries are dropped. */
#define GADGET_REFUSED 4096
/* The maximum number of enforcing agents at the same time. */
#define GADGET_REFUSERS 8
/* A refusal takes effect at once, but interrupts may come between. */
#define GADGET_REFUSED_FRESH_NS 100000000ULL

#define GADGET_POLICIES_BYTES 248
#define GADGET_RULE_BYTES 128

enum gadget_refused_direction {
	GADGET_REFUSED_EGRESS = 1,
	GADGET_REFUSED_INGRESS = 2,
};

struct gadget_refused_key {
	gadget_ip remote;
	/* The network namespace's inode number: policies apply to pods, whose containers share one namespace. */
	__u32 network_namespace;
	/* The destination port of the connection. */
	__u16 port;
	__u8 protocol;
	__u8 direction;
};

struct gadget_refused {
	/* The boot time of the refusal. */
	__u64 at;
	char policy[GADGET_POLICIES_BYTES];
	char rule[GADGET_RULE_BYTES];
};

/* The map of maps, for programs that look up refusals. */
#define GADGET_REFUSALS                                                                                                \
	struct {                                                                                                       \
		__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);                                                              \
		__uint(max_entries, GADGET_REFUSERS);                                                                  \
		__type(key, __u32);                                                                                    \
		__array(                                                                                               \
			values, struct {                                                                               \
				__uint(type, BPF_MAP_TYPE_LRU_HASH);                                                   \
				__uint(max_entries, GADGET_REFUSED);                                                   \
				__uint(key_size, sizeof(struct gadget_refused_key));                                   \
				__uint(value_size, sizeof(struct gadget_refused));                                     \
			});                                                                                            \
	} gadget_refusals SEC(".maps")

/* NULL: no policy has just refused this. */
static __always_inline const struct gadget_refused *gadget_refused_by(void *refusals,
								      const struct gadget_refused_key *key)
{
	__u64 now = bpf_ktime_get_boot_ns();

	for (__u32 i = 0; i < GADGET_REFUSERS; i++) {
		__u32 key_of_map = i;
		void *refused = bpf_map_lookup_elem(refusals, &key_of_map);
		const struct gadget_refused *found = refused ? bpf_map_lookup_elem(refused, key) : NULL;

		if (found && now - found->at < GADGET_REFUSED_FRESH_NS)
			return found;
	}
	return NULL;
}

/* Appends the names of the policies, and of the rule that was the closest match. `refused` may be NULL. */
static __always_inline void gadget_append_refused(struct gadget_writer *writer, const struct gadget_refused *refused,
						  struct gadget_text *policy, struct gadget_text *rule)
{
	gadget_no_text(policy);
	gadget_no_text(rule);
	if (!refused)
		return;
	gadget_append_kernel_string(writer, policy, refused->policy, GADGET_POLICIES_BYTES);
	if (refused->rule[0])
		gadget_append_kernel_string(writer, rule, refused->rule, GADGET_RULE_BYTES);
}

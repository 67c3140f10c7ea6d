/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Keeps room in a map for the other containers when one container fills it: a container may have at most as many
 * entries as are free. So one container can fill half of the map, two can fill two thirds, and a container that has no
 * entry yet finds room. What finds no room is counted as lost, also for its container.
 *
 * The trap: an entry is given back to the share that it was taken from. The container of a cgroup may become known
 * meanwhile, so the entry itself has the number of its share.
 */
#pragma once

#include <linux/errno.h>

#include <gadget/fairness.h>
#include <gadget/slots.h>

/* The agent sets it if it has set the number of entries of all maps. 0: each map has its own. */
const volatile __u64 gadget_node_map_entries = 0;

/* The number of entries of each share; the last value is the number of all entries. */
#define GADGET_MAP_SHARES(NAME)                                                                                        \
	struct {                                                                                                       \
		__uint(type, BPF_MAP_TYPE_ARRAY);                                                                      \
		__uint(max_entries, GADGET_SHARES + 1);                                                                \
		__type(key, __u32);                                                                                    \
		__type(value, __u64);                                                                                  \
	} NAME SEC(".maps")

static __always_inline void gadget_count_entries(void *shares, __u32 share, __u64 by)
{
	__u32 all = GADGET_SHARES;
	__u64 *own = bpf_map_lookup_elem(shares, &share), *sum = bpf_map_lookup_elem(shares, &all);

	if (!own || !sum)
		return;
	gadget_count(own, by);
	gadget_count(sum, by);
}

/* Adds a key that the map does not have. `entries`: how many the map has room for. An error other than -EEXIST, such as
 * that the container has its share already, is counted. */
static __always_inline long gadget_add_entry(void *map, const void *key, const void *value, void *shares, __u32 share,
					     __u64 entries)
{
	__u32 all = GADGET_SHARES;
	__u64 *own = bpf_map_lookup_elem(shares, &share), *sum = bpf_map_lookup_elem(shares, &all);
	long error = -E2BIG;

	if (!own || !sum)
		return error;
	if (*own + *sum < (gadget_node_map_entries ? gadget_node_map_entries : entries)) {
		gadget_count(own, 1);
		gadget_count(sum, 1);
		error = bpf_map_update_elem(map, key, value, BPF_NOEXIST);
		if (error) {
			gadget_count(own, -1);
			gadget_count(sum, -1);
		}
	}
	if (error && error != -EEXIST)
		gadget_count_share_full(share);
	return error;
}

/* Removes an entry. `of_entry` points to the share's number in it; NULL: there is no entry. */
static __always_inline void gadget_remove_entry(void *map, const void *key, void *shares, const __u32 *of_entry)
{
	__u32 share;

	if (!of_entry)
		return;
	share = *of_entry;
	if (!bpf_map_delete_elem(map, key))
		gadget_count_entries(shares, share, -1ULL);
}

/*
 * What a gadget remembers, by a key of 64 bits: GADGET_STATES(job, job_state, 1000) defines a map with struct job_state
 * for 1000 keys, and functions that use it: job_state_of(), job_make_state() and job_remove_state(). The trap: an LRU
 * map would drop entries of other containers without a trace.
 */
#define GADGET_STATES(NAME, STATE, ENTRIES)                                                                            \
	struct NAME##_entry {                                                                                          \
		struct STATE state;                                                                                    \
		__u32 share;                                                                                           \
		__u32 unused;                                                                                          \
	};                                                                                                             \
	struct {                                                                                                       \
		__uint(type, BPF_MAP_TYPE_HASH);                                                                       \
		__uint(map_flags, BPF_F_NO_PREALLOC);                                                                  \
		__uint(max_entries, ENTRIES);                                                                          \
		__type(key, __u64);                                                                                    \
		__type(value, struct NAME##_entry);                                                                    \
	} NAME##_states SEC(".maps");                                                                                  \
	GADGET_MAP_SHARES(NAME##_shares);                                                                              \
	/* New entries, of which only the share is ever written. */                                                    \
	GADGET_SLOTS(NAME##_new, sizeof(struct NAME##_entry));                                                         \
                                                                                                                       \
	/* NULL: there is none. */                                                                                     \
	static __always_inline struct STATE *NAME##_state_of(__u64 key)                                                \
	{                                                                                                              \
		return bpf_map_lookup_elem(&NAME##_states, &key);                                                      \
	}                                                                                                              \
                                                                                                                       \
	/* The state of this key. A new one is all zeros, in the share of the cgroup's container. NULL: no room;       \
	 * counted. */                                                                                                 \
	static __always_inline struct STATE *NAME##_make_state(__u64 key, __u64 cgroup)                                \
	{                                                                                                              \
		struct NAME##_entry *entry = bpf_map_lookup_elem(&NAME##_states, &key), *new;                          \
		long error;                                                                                            \
                                                                                                                       \
		if (entry)                                                                                             \
			return &entry->state;                                                                          \
		new = gadget_take_slot(&NAME##_new);                                                                   \
		if (!new)                                                                                              \
			return NULL;                                                                                   \
		/* Before the entry is added: another CPU may remove it at once, and gives back what it reads here. */ \
		new->share = gadget_share_number(cgroup);                                                              \
		error = gadget_add_entry(&NAME##_states, &key, new, &NAME##_shares, new->share, ENTRIES);              \
		gadget_give_back(new);                                                                                 \
		if (error && error != -EEXIST)                                                                         \
			return NULL;                                                                                   \
		entry = bpf_map_lookup_elem(&NAME##_states, &key);                                                     \
		return entry ? &entry->state : NULL;                                                                   \
	}                                                                                                              \
                                                                                                                       \
	static __always_inline void NAME##_remove_state(__u64 key)                                                     \
	{                                                                                                              \
		const struct NAME##_entry *entry = bpf_map_lookup_elem(&NAME##_states, &key);                          \
                                                                                                                       \
		gadget_remove_entry(&NAME##_states, &key, &NAME##_shares, entry ? &entry->share : NULL);               \
	}                                                                                                              \
	struct NAME##_entry

/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Walks over the entries of the map `gadget_walked`. GADGET_WALK(name) begins a function that is called with each
 * entry's key and value, and defines the program `name`, which is attached to nothing: the agent runs it.
 *
 * An iterator (SEC("iter/bpf_map_elem")) would do the same, but some kernels refuse to load it. Needs Linux 5.13. If
 * entries are added or removed during the walk, it may miss these or others, until the next walk.
 */
#pragma once

#include <gadget/record.h>

struct bpf_map;

#define GADGET_WALK(NAME)                                                                                              \
	static long NAME##_entry(struct bpf_map *map, const void *key, void *value, void *unused);                     \
	SEC("raw_tp")                                                                                                  \
	int NAME(void *ctx)                                                                                            \
	{                                                                                                              \
		bpf_for_each_map_elem(&gadget_walked, NAME##_entry, NULL, 0);                                          \
		return 0;                                                                                              \
	}                                                                                                              \
	static long NAME##_entry(struct bpf_map *map, const void *key, void *value, void *unused)

/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * --unique: remembers what a run has shown, so that it is not shown again.
 */
#pragma once

#include <gadget/helpers.h>

/* Set by the parameter --unique. */
const volatile bool gadget_unique = false;

/*
 * Remembers up to ENTRIES keys; if there are more, the least recently used ones are forgotten. The kernel allocates all
 * entries at once, so without --unique the agent makes the map as small as possible
 * (kubectl_gadget/agent/sources/gadget_programs.py).
 */
#define GADGET_SEEN(KEY, ENTRIES)                                                                                      \
	struct {                                                                                                       \
		__uint(type, BPF_MAP_TYPE_LRU_HASH);                                                                   \
		__uint(max_entries, ENTRIES);                                                                          \
		__type(key, KEY);                                                                                      \
		__type(value, __u8);                                                                                   \
	} gadget_seen SEC(".maps")

/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Sets of selectors: lookups by a number, and unions of several sets.
 *
 * The trap: all tests use the same `found`, so a test that collects sets there must end before the next one begins.
 */
#pragma once

#include <policy/memory.h>

/* A search that tries the entries of a map one by one. */
struct policy_search {
	struct policy_memory *memory;
	__u64 number;
	__u32 first;
	__u32 class;
};

static __always_inline const __u64 *policy_or_none(const __u64 *bits)
{
	return bits ?: policy_mask(POLICY_MASK_NONE);
}

static __always_inline const __u64 *policy_in_set(__u32 test, __u64 number)
{
	struct policy_number_key key = {.test = test, .number = number};

	return policy_or_none(bpf_map_lookup_elem(&policy_numbers, &key));
}

static __always_inline void policy_find(struct policy_memory *memory, const __u64 *bits)
{
	for (__u32 i = 0; i < POLICY_WORDS && i < policy_words; i++)
		memory->found[i] |= bits[i];
}

static __always_inline void policy_find_none(struct policy_memory *memory)
{
	for (__u32 i = 0; i < POLICY_WORDS && i < policy_words; i++)
		memory->found[i] = 0;
}

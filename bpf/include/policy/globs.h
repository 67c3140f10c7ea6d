/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Patterns with wildcards: all patterns of one automaton are matched in one pass over the text, with operations on a
 * few words for each byte and without backtracking.
 *
 * The trap: the states are shifted across patterns: the bit before a pattern's first position is the last position of
 * another pattern. So no byte leads to a first position.
 */
#pragma once

#include <policy/sets.h>

struct policy_scan {
	const struct policy_automaton *automaton;
	struct policy_memory *memory;
	__u64 start;
};

static long policy_scan_byte(__u32 index, struct policy_scan *scan)
{
	struct policy_memory *memory = scan->memory;
	const struct policy_automaton *automaton = scan->automaton;
	__u64 position = (scan->start + index) & (2 * POLICY_TEXT_END - 1);
	__u8 byte = memory->text[position];
	__u64 carried = 0;

	for (int i = 0; i < POLICY_GLOB_WORDS; i++) {
		__u64 states = memory->states[i];
		__u64 stay = automaton->any[i];

		if (byte != '/')
			stay |= automaton->name[i];
		memory->states[i] = ((states << 1 | carried) & automaton->step[byte][i]) | (states & stay);
		carried = states >> 63;
	}
	return 0;
}

/* Leaves the states after the text in memory->states. */
static __always_inline void policy_scan(struct policy_memory *memory, __u32 number)
{
	const struct policy_automaton *automaton = bpf_map_lookup_elem(&policy_automata, &number);
	struct policy_scan scan = {.automaton = automaton, .memory = memory, .start = memory->value.start};

	if (!automaton || scan.start > POLICY_TEXT_END)
		return;
	for (int i = 0; i < POLICY_GLOB_WORDS; i++)
		memory->states[i] = automaton->start[i];
	bpf_loop(POLICY_TEXT_END - scan.start, policy_scan_byte, &scan, 0);
}

struct policy_accepted {
	struct policy_memory *memory;
	__u32 first;
	__u32 automaton;
};

/* Here, a pattern's `mask` is its last position, and `length` the number of its automaton. */
static long policy_accept(__u32 index, struct policy_accepted *accepted)
{
	__u32 key = accepted->first + index;
	struct policy_memory *memory = accepted->memory;
	const struct policy_pattern *pattern = bpf_map_lookup_elem(&policy_patterns, &key);

	if (!pattern)
		return 1;
	if (pattern->length != accepted->automaton) {
		accepted->automaton = pattern->length;
		policy_scan(memory, accepted->automaton);
	}
	if (memory->states[pattern->mask / 64 & (POLICY_GLOB_WORDS - 1)] >> (pattern->mask & 63) & 1)
		policy_find(memory, pattern->selectors);
	return 0;
}

static __always_inline const __u64 *policy_globs_of(struct policy_memory *memory,
						    const volatile struct policy_test *test)
{
	struct policy_accepted accepted = {.memory = memory, .first = test->first, .automaton = ~0U};

	policy_find_none(memory);
	bpf_loop(test->count, policy_accept, &accepted, 0);
	return memory->found;
}

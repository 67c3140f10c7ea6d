/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Tests of a value: each looks up the set of selectors whose filter matches, and removes from `alive` the other
 * selectors that have this filter. So a thousand selectors cost as much as one, except for the words of their sets.
 *
 * A filter, negated or not, never matches a value that could not be read.
 */
#pragma once

#include <gadget/task.h>
#include <policy/ancestors.h>
#include <policy/expressions.h>
#include <policy/globs.h>

/* Keeps the selectors whose filter matches (those in `bits` or, if the filter is negated, those not in `bits`), and
 * those without this filter. */
static __always_inline void policy_keep(struct policy_memory *memory, __u32 test, const __u64 *bits)
{
	const __u64 *negated = bpf_map_lookup_elem(&policy_planes, &test);

	if (!negated || !bits)
		return;
	for (__u32 i = 0; i < POLICY_WORDS && i < policy_words; i++)
		memory->alive[i] &= (bits[i] ^ negated[i]) | negated[policy_words + i];
}

/* Keeps only the selectors without this filter. */
static __always_inline void policy_keep_unfiltered(struct policy_memory *memory, __u32 test)
{
	const __u64 *negated = bpf_map_lookup_elem(&policy_planes, &test);

	if (!negated)
		return;
	for (__u32 i = 0; i < POLICY_WORDS && i < policy_words; i++)
		memory->alive[i] &= negated[policy_words + i];
}

/* Counts the test's bounds that are not above the number, by binary search. `low` and `high` are in memory for the
 * reason given in gadget/string.h. */
static __always_inline const __u64 *policy_in_interval(struct policy_memory *memory,
						       const volatile struct policy_test *test, __u64 number)
{
	__u32 first = test->first;
	__u32 interval;

	memory->low = 0;
	memory->high = test->count;
	for (int i = 0; i < 32; i++) {
		__u64 low = memory->low;
		__u64 high = memory->high;
		__u32 middle = (low + high) / 2;
		__u32 key = first + middle;
		const __u64 *bound;

		if (low >= high)
			break;
		bound = bpf_map_lookup_elem(&policy_bounds, &key);
		if (!bound)
			break;
		if (*bound <= number)
			memory->low = middle + 1;
		else
			memory->high = middle;
	}
	interval = test->first_interval + memory->low;
	return bpf_map_lookup_elem(&policy_intervals, &interval);
}

/* Looks up one length. Only for texts: no hook of a program that may sleep has an address. */
static long policy_try_length(__u32 index, struct policy_search *search)
{
	const __u32 *length = bpf_map_lookup_elem(&policy_lengths, &index);
	struct policy_memory *memory = search->memory;
	struct policy_prefix *shorter = &memory->shorter;
	const __u64 *found;
	__u32 bytes;

	if (!length || *length < 8)
		return 1;
	if (*length > memory->prefix.bits)
		return 0;
	bytes = *length / 8 - 1;
	if (bytes > POLICY_KEY_BYTES)
		return 1;
	shorter->bits = *length;
	shorter->test = memory->prefix.test;
	__builtin_memset(shorter->data, 0, sizeof(shorter->data));
	if (bpf_probe_read_kernel(shorter->data, bytes, memory->prefix.data))
		return 1;
	found = bpf_map_lookup_elem(&policy_prefixes, shorter);
	if (found)
		policy_find(memory, found);
	return found != NULL;
}

static __always_inline const __u64 *policy_longest_prefix(struct policy_memory *memory)
{
	if (policy_tries_lengths) {
		struct policy_search search = {.memory = memory};

		policy_find_none(memory);
		bpf_loop(1 + POLICY_KEY_BYTES, policy_try_length, &search, 0);
		return memory->found;
	}
	return policy_or_none(bpf_map_lookup_elem(&policy_prefixes, &memory->prefix));
}

static __always_inline const __u64 *policy_begins(struct policy_memory *memory, __u32 test)
{
	struct policy_prefix *prefix = &memory->prefix;
	__u64 start = memory->value.start & (POLICY_TEXT_END * 2 - 1);

	prefix->bits = 8 * (1 + POLICY_KEY_BYTES);
	prefix->test = test;
	if (start > POLICY_TEXT_END)
		return NULL;
	if (bpf_probe_read_kernel(prefix->data, POLICY_KEY_BYTES, &memory->text[start]))
		return NULL;
	return policy_longest_prefix(memory);
}

/* The last bytes are compared in reverse order, so that a postfix becomes a prefix. */
static __always_inline const __u64 *policy_ends(struct policy_memory *memory, __u32 test)
{
	struct policy_prefix *prefix = &memory->prefix;
	const char *end = &memory->text[POLICY_TEXT_END];

	prefix->bits = 8 * (1 + POLICY_KEY_BYTES);
	prefix->test = test;
	for (int i = 0; i < POLICY_KEY_BYTES; i++)
		prefix->data[i] = end[-1 - i];
	return policy_longest_prefix(memory);
}

static __always_inline const __u64 *policy_in_network(struct policy_memory *memory, __u32 test, __u32 part)
{
	struct policy_prefix *prefix = &memory->prefix;

	prefix->bits = 8 * (1 + 16);
	prefix->test = test;
	__builtin_memcpy(prefix->data, memory->value.addresses[part & 1], 16);
	return policy_longest_prefix(memory);
}

/* A position in a text at which a pattern may begin. */
struct policy_position {
	const struct policy_pattern *pattern;
	struct policy_memory *memory;
	__u64 start;
	bool found;
	bool ignores_case;
};

static __always_inline char policy_lower(char c)
{
	return c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c;
}

struct policy_letters {
	const struct policy_pattern *pattern;
	struct policy_memory *memory;
	__u64 start;
	bool differs;
};

static long policy_compare(__u32 index, struct policy_letters *letters)
{
	__u64 position = (letters->start + index) & (2 * POLICY_TEXT_END - 1);
	char want, have;

	if (index >= POLICY_PATTERN_BYTES)
		return 1;
	want = letters->pattern->text[index];
	have = letters->memory->text[position];
	/* `mask` 1: the pattern is in lower case, and case is ignored. */
	letters->differs = want != (letters->pattern->mask ? policy_lower(have) : have);
	return letters->differs;
}

static long policy_try_position(__u32 index, struct policy_position *position)
{
	struct policy_letters letters = {
		.pattern = position->pattern, .memory = position->memory, .start = position->start + index};

	if (letters.start + position->pattern->length > POLICY_TEXT_END)
		return 1;
	bpf_loop(position->pattern->length, policy_compare, &letters, 0);
	position->found = !letters.differs;
	return position->found;
}

static long policy_try_pattern(__u32 index, struct policy_search *search)
{
	__u32 key = search->first + index;
	const struct policy_pattern *pattern = bpf_map_lookup_elem(&policy_patterns, &key);
	bool holds;

	if (!pattern)
		return 1;
	if (search->class == POLICY_MASK) {
		holds = search->number & pattern->mask;
	} else {
		struct policy_position position = {
			.pattern = pattern, .memory = search->memory, .start = search->memory->value.start};

		bpf_loop(POLICY_TEXT_END, policy_try_position, &position, 0);
		holds = position.found;
	}
	if (holds)
		policy_find(search->memory, pattern->selectors);
	return 0;
}

/* Selectors whose pattern matches are collected in `found`. */
static __always_inline const __u64 *policy_patterns_of(struct policy_memory *memory,
						       const volatile struct policy_test *test, __u64 number)
{
	struct policy_search search = {.memory = memory, .number = number, .first = test->first, .class = test->class};

	policy_find_none(memory);
	bpf_loop(test->count, policy_try_pattern, &search, 0);
	return memory->found;
}

static __always_inline bool policy_is_address(const __u8 *address)
{
	/* All ones: no address (gadget/network/address.h). */
	return *(const __u64 *)address != ~0ULL;
}

static __always_inline const __u64 *policy_same_file(__u32 test, const struct policy_value *file)
{
	struct policy_number_key key = {.test = test, .device = file->numbers[2], .number = file->numbers[1]};

	return policy_or_none(bpf_map_lookup_elem(&policy_files, &key));
}

/* Stands for the node's own namespace in a set of namespaces. */
#define POLICY_HOST_NAMESPACE (1ULL << 32)
/* The index of the number with a bit for each namespace that is the node's own. */
#define POLICY_HOST_NUMBER 10

static __always_inline const __u64 *policy_in_namespace(struct policy_memory *memory, __u32 test, __u32 part,
							__u64 number)
{
	const __u64 *numbered = policy_in_set(test, number);
	const __u64 *own = policy_in_set(test, POLICY_HOST_NAMESPACE);

	if (!(memory->value.numbers[POLICY_HOST_NUMBER] >> part & 1))
		return numbered;
	if (!numbered || !own)
		return NULL;
	policy_find_none(memory);
	policy_find(memory, numbered);
	policy_find(memory, own);
	return memory->found;
}

/* Applies one test to the value that was just read. */
static __noinline void policy_test(struct policy_memory *memory, __u32 number_of_test)
{
	const volatile struct policy_test *test = &policy_tests[number_of_test];
	const __u64 *bits = NULL;
	__u32 part = test->part;
	__u64 number = part < POLICY_NUMBERS ? memory->value.numbers[part] : 0;

	/* The inode of a file may be known although its path could not be read. */
	if (memory->value.lacks & POLICY_UNREADABLE && !(test->class == POLICY_SAME_FILE && memory->value.numbers[1])) {
		policy_keep_unfiltered(memory, number_of_test);
		return;
	}
	if (test->flags & POLICY_BIASED)
		number ^= 1ULL << 63;
	if (test->flags & POLICY_FILE_TYPE)
		number &= 0170000;
	switch (test->class) {
	case POLICY_IN_SET:
		bits = policy_in_set(number_of_test, number);
		break;
	case POLICY_IN_INTERVAL:
		bits = policy_in_interval(memory, test, number);
		break;
	case POLICY_PREFIX:
		bits = policy_begins(memory, number_of_test);
		break;
	case POLICY_POSTFIX:
		if (!(memory->value.lacks & POLICY_CUT))
			bits = policy_ends(memory, number_of_test);
		break;
	case POLICY_NETWORK:
		if (policy_is_address(memory->value.addresses[part & 1]))
			bits = policy_in_network(memory, number_of_test, part);
		break;
	case POLICY_DESCENDS:
		bits = policy_descends(memory, number_of_test, part);
		break;
	case POLICY_SAME_FILE:
		bits = policy_same_file(number_of_test, &memory->value);
		break;
	case POLICY_IN_NAMESPACE:
		bits = policy_in_namespace(memory, number_of_test, part, number);
		break;
	case POLICY_GLOB:
		if (!(memory->value.lacks & POLICY_CUT))
			bits = policy_globs_of(memory, test);
		break;
	case POLICY_COMPUTED:
		bits = policy_expressions_of(memory, test);
		break;
	case POLICY_RAN:
		bits = policy_ran(memory, number_of_test, part);
		break;
	case POLICY_MASK:
	case POLICY_SUBSTRING:
		bits = policy_patterns_of(memory, test, number);
		break;
	}
	if (bits)
		policy_keep(memory, number_of_test, bits);
	else
		policy_keep_unfiltered(memory, number_of_test);
}

static __always_inline bool policy_any_alive(struct policy_memory *memory)
{
	__u64 any = 0;

	for (__u32 i = 0; i < POLICY_WORDS && i < policy_words; i++)
		any |= memory->alive[i];
	return any;
}

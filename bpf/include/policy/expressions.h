/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Expressions over arguments, in postfix notation: 64-bit arithmetic that wraps around, signed comparisons; a condition
 * is 0 or 1.
 *
 * The trap: only slots of numbers have an entry in slot_numbers, and only after they were read, so the slot of
 * expressions comes last.
 */
#pragma once

#include <policy/sets.h>

/* Class `Code` of kubectl_gadget/policies/compiler/tables.py. */
enum policy_operation_code {
	POLICY_PUSH = 1,
	POLICY_PUSH_SLOT,
	POLICY_NEGATE,
	POLICY_INT32,
	POLICY_UINT32,
	POLICY_INVERT,
	POLICY_NOT,
	POLICY_ADD,
	POLICY_SUBTRACT,
	POLICY_AND,
	POLICY_OR,
	POLICY_XOR,
	POLICY_BOTH,
	POLICY_EITHER,
	POLICY_EQUAL,
	POLICY_UNEQUAL,
	POLICY_LESS,
	POLICY_LESS_EQUAL,
	POLICY_GREATER,
	POLICY_GREATER_EQUAL,
};

static __always_inline __u64 policy_of_one(__u8 code, __u64 a)
{
	switch (code) {
	case POLICY_NEGATE:
		return -a;
	case POLICY_INT32:
		return (__s64)(__s32)a;
	case POLICY_UINT32:
		return (__u32)a;
	case POLICY_INVERT:
		return ~a;
	default:
		return !a;
	}
}

static __always_inline __u64 policy_of_two(__u8 code, __u64 a, __u64 b)
{
	__s64 signed_a = a, signed_b = b;

	switch (code) {
	case POLICY_ADD:
		return a + b;
	case POLICY_SUBTRACT:
		return a - b;
	case POLICY_AND:
		return a & b;
	case POLICY_OR:
		return a | b;
	case POLICY_XOR:
		return a ^ b;
	case POLICY_BOTH:
		return a && b;
	case POLICY_EITHER:
		return a || b;
	case POLICY_EQUAL:
		return a == b;
	case POLICY_UNEQUAL:
		return a != b;
	case POLICY_LESS:
		return signed_a < signed_b;
	case POLICY_LESS_EQUAL:
		return signed_a <= signed_b;
	case POLICY_GREATER:
		return signed_a > signed_b;
	default:
		return signed_a >= signed_b;
	}
}

struct policy_computation {
	const struct policy_expression *expression;
	struct policy_memory *memory;
	bool unknown;
};

static long policy_compute(__u32 index, struct policy_computation *computation)
{
	const struct policy_operation *operation =
		&computation->expression->operations[index & (POLICY_OPERATIONS - 1)];
	struct policy_memory *memory = computation->memory;
	__u64 depth = memory->depth;
	__u64 *top = &memory->stack[(depth - 1) & (POLICY_STACK - 1)];
	__u64 *below = &memory->stack[(depth - 2) & (POLICY_STACK - 1)];
	__u64 *above = &memory->stack[depth & (POLICY_STACK - 1)];
	__u8 code = operation->code;

	if (code == POLICY_PUSH) {
		*above = operation->number;
		memory->depth = depth + 1;
	} else if (code == POLICY_PUSH_SLOT) {
		__u32 slot = operation->slot;

		if (slot >= POLICY_SLOTS)
			return 1;
		computation->unknown |= memory->unknown >> slot & 1;
		*above = memory->slot_numbers[slot];
		memory->depth = depth + 1;
	} else if (code < POLICY_ADD) {
		*top = policy_of_one(code, *top);
	} else {
		*below = policy_of_two(code, *below, *top);
		memory->depth = depth - 1;
	}
	return 0;
}

static long policy_try_expression(__u32 index, struct policy_search *search)
{
	__u32 key = search->first + index;
	struct policy_memory *memory = search->memory;
	struct policy_computation computation = {.memory = memory};

	computation.expression = bpf_map_lookup_elem(&policy_expressions, &key);
	if (!computation.expression)
		return 1;
	memory->depth = 0;
	bpf_loop(computation.expression->length, policy_compute, &computation, 0);
	if (!computation.unknown && memory->stack[0])
		policy_find(memory, computation.expression->selectors);
	return 0;
}

static __always_inline const __u64 *policy_expressions_of(struct policy_memory *memory,
							  const volatile struct policy_test *test)
{
	struct policy_search search = {.memory = memory, .first = test->first};

	policy_find_none(memory);
	bpf_loop(test->count, policy_try_expression, &search, 0);
	return memory->found;
}

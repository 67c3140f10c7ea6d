/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The action Override at a function of a program: changes registers, for example so that the function returns at once.
 * Since Linux 6.18 (7384893d970e "bpf: Allow uprobe program to change context registers").
 *
 * All values are computed from the registers at the probe. The trap: the kernel accepts stores to the context only at
 * constant offsets, so all registers are written, even those that do not change.
 */
#pragma once

#include <policy/values.h>

/* The exact number, since the kernel stack ends after the registers. On arm64: 31 registers, the stack pointer and the
 * program counter. */
#if defined(__TARGET_ARCH_x86)
#define POLICY_REGISTERS (sizeof(struct policy_registers) / 8)
#else
#define POLICY_REGISTERS 33
#endif

/* Stands for no selector, as in policy_first_of(). */
#define POLICY_NO_SELECTOR (~0ULL)

enum policy_assignment_kind {
	POLICY_ASSIGN_NUMBER,
	/* The sum of a register and the number. */
	POLICY_ASSIGN_SUM,
	/* The memory at the address that is that sum. */
	POLICY_ASSIGN_MEMORY,
	/* The sum of a register and the distance from the probe to the function that the number stands for. */
	POLICY_ASSIGN_FUNCTION,
};

/* The key: the file that contains the probe (the probe's cookie), and the number of the function. */
struct policy_move_key {
	__u32 file;
	__u32 function;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1);
	__type(key, struct policy_move_key);
	__type(value, __s64);
} policy_moves SEC(".maps");

static __always_inline __u64 policy_cut_to(__u64 value, __u32 bytes)
{
	return bytes < 8 ? value & ((1ULL << bytes * 8) - 1) : value;
}

/* Computes the value. Negative result: the memory cannot be read, or the function does not exist. */
static __always_inline long policy_assigned(void *ctx, const struct policy_assignment *one, __u64 *value)
{
	*value = one->number;
	if (one->kind == POLICY_ASSIGN_FUNCTION) {
		struct policy_move_key key = {.file = bpf_get_attach_cookie(ctx), .function = one->number};
		const __s64 *move = bpf_map_lookup_elem(&policy_moves, &key);

		if (!move)
			return -ENOENT;
		*value = *move;
	}
	if (one->kind == POLICY_ASSIGN_NUMBER)
		return 0;
	*value += policy_cut_to(policy_load(ctx + (one->from % 64) * 8), one->from_bytes);
	if (one->kind != POLICY_ASSIGN_MEMORY)
		return 0;
	return bpf_probe_read_user(value, sizeof(*value), (void *)*value);
}

#define POLICY_STORE(MEMBER, INDEX) *(volatile __u64 *)&((struct policy_registers *)ctx)->MEMBER = values[INDEX]

static __always_inline void policy_store_registers(void *ctx, const __u64 *values)
{
#if defined(__TARGET_ARCH_x86)
	POLICY_STORE(r15, 0);
	POLICY_STORE(r14, 1);
	POLICY_STORE(r13, 2);
	POLICY_STORE(r12, 3);
	POLICY_STORE(bp, 4);
	POLICY_STORE(bx, 5);
	POLICY_STORE(r11, 6);
	POLICY_STORE(r10, 7);
	POLICY_STORE(r9, 8);
	POLICY_STORE(r8, 9);
	POLICY_STORE(ax, 10);
	POLICY_STORE(cx, 11);
	POLICY_STORE(dx, 12);
	POLICY_STORE(si, 13);
	POLICY_STORE(di, 14);
	POLICY_STORE(ip, 16);
	POLICY_STORE(sp, 19);
#else
#pragma unroll
	for (int i = 0; i < POLICY_REGISTERS; i++)
		*(volatile __u64 *)(ctx + i * 8) = values[i];
#endif
}

/* Carries out the assignments of a selector: all or none. False: none. */
static __noinline bool policy_set_registers(void *ctx, __u32 selector)
{
	const struct policy_assignments *assignments = bpf_map_lookup_elem(&policy_assignments, &selector);
	struct policy_memory *memory;
	__u64 *values;
	bool known = true;

	if (!assignments)
		return false;
	memory = gadget_take_slot(&policy_memory);
	if (!memory)
		return false;
	values = memory->chosen;
	known = !bpf_probe_read_kernel(values, POLICY_REGISTERS * 8, ctx);
	for (__u32 i = 0; i < POLICY_ASSIGNMENTS; i++) {
		const struct policy_assignment *one = &assignments->one[i];
		__u32 to = one->to % POLICY_WORDS;
		__u64 value;

		if (i >= assignments->count)
			break;
		known &= !policy_assigned(ctx, one, &value);
		/* A write to the lower half of a register clears its upper half; a shorter write keeps the rest. */
		if (one->to_bytes < 4)
			value = policy_cut_to(value, one->to_bytes) |
				(values[to] & ~policy_cut_to(~0ULL, one->to_bytes));
		values[to] = one->to_bytes == 4 ? (__u32)value : value;
	}
	if (known)
		policy_store_registers(ctx, values);
	gadget_give_back(memory);
	return known;
}

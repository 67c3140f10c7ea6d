/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The action Set: writes to an argument of a static probe, in the program's memory.
 *
 * Only an argument in memory can be changed. For an argument in a register or a constant, the program would not see the
 * new value.
 */
#pragma once

#include <policy/decide.h>

static __always_inline long policy_write_argument(void *ctx, const struct policy_action *action)
{
	int number = __bpf_usdt_spec_id(ctx);
	struct __bpf_usdt_spec *spec = bpf_map_lookup_elem(&__bpf_usdt_specs, &number);
	__u32 index = action->argument;
	struct __bpf_usdt_arg_spec *found;
	__u64 value = action->value;
	void *address;

	if (!spec || index >= BPF_USDT_MAX_ARG_CNT)
		return -ENOENT;
	barrier_var(index);
	if (index >= spec->arg_cnt)
		return -ENOENT;
	found = &spec->args[index];
	if (found->arg_type != BPF_USDT_ARG_REG_DEREF)
		return -EINVAL;
	address = (void *)(policy_load(ctx + found->reg_off) + found->val_off);
	switch (found->arg_bitshift) {
	case 56:
		return bpf_probe_write_user(address, &value, 1);
	case 48:
		return bpf_probe_write_user(address, &value, 2);
	case 32:
		return bpf_probe_write_user(address, &value, 4);
	case 0:
		return bpf_probe_write_user(address, &value, 8);
	}
	return -EINVAL;
}

static __noinline void policy_set_argument(struct policy_memory *memory, void *ctx)
{
	const struct policy_action *action = policy_first_of(memory, POLICY_MASK_SET);

	if (action)
		policy_count(policy_write_argument(ctx, action) ? POLICY_COUNT_UNSET : POLICY_COUNT_SET);
}

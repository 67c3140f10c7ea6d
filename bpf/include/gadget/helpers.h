/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Whether the kernel has one of its functions for programs. libbpf looks for its name in the kernel's own list.
 *
 * The trap: an object contains the whole enum that is asked for, with 213 names in <linux/bpf.h>. So this one has only
 * those that programs ask for. libbpf ignores what follows three underscores.
 */
#pragma once

#include <gadget/record.h>

#define GADGET_HELPER(NAME) BPF_FUNC_##NAME##___asked = BPF_FUNC_##NAME

enum bpf_func_id___asked {
	GADGET_HELPER(get_current_task_btf),
	GADGET_HELPER(get_func_ret),
	GADGET_HELPER(loop),
	GADGET_HELPER(skb_set_tstamp),
	GADGET_HELPER(snprintf),
	GADGET_HELPER(task_pt_regs),
};

#define gadget_has_helper(NAME) bpf_core_enum_value_exists(enum bpf_func_id___asked, BPF_FUNC_##NAME##___asked)

/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Whether the kernel has a BPF helper: libbpf looks it up by name in the kernel's own enum.
 *
 * An object contains the whole enum that it uses, and the one in <linux/bpf.h> has 213 names. So this enum has only the
 * names that programs use. libbpf ignores what follows three underscores.
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

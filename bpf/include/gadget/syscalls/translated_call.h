/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The 32-bit system call that is being handled. bpf/syscalls.bpf.c fills it in and calls the programs for the
 * equivalent 64-bit call. Both kinds of calls use the same programs, so that the verifier checks them once.
 */
#pragma once

#include <gadget/record.h>

/* A call, translated by gadget/syscalls/compat_call.h. */
struct gadget_compat_call {
	__u64 arguments[6];
	/* The number as the client shows it. */
	__u32 number;
	/* The equivalent 64-bit call. */
	__u16 native;
	/* Whether structs in the program's memory have 32-bit pointers. */
	bool has_short_pointers;
	/* True while programs for it run on this CPU. */
	bool is_current;
};

/* The call being handled on this CPU; one map for all objects of a gadget. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct gadget_compat_call);
} gadget_compat_calls_now SEC(".maps");

/* The number of CPUs on which programs run for such a call; also shared. While it is 0, no lookup is needed. */
__u32 gadget_compat_calls_count SEC(".data.compat");

static __always_inline struct gadget_compat_call *gadget_compat_call_now(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&gadget_compat_calls_now, &zero);
}

/* NULL: the program does not run for a 32-bit call. */
static __always_inline const struct gadget_compat_call *gadget_translated_call(void)
{
	const struct gadget_compat_call *call;

	if (!gadget_node_compat && !(gadget_node_any_call && gadget_compat_calls_count))
		return NULL;
	call = gadget_compat_call_now();
	return call && (gadget_node_compat || call->is_current) ? call : NULL;
}

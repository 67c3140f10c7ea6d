// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* For a test: the rows of many addresses of one file, as bpf/include/gadget/unwind.h computes them. */
#include <linux/types.h>

#define GADGET_TOTALS_FLAGS 0

#include <gadget/unwind.h>

#define ADDRESSES 262144

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, ADDRESSES);
	__type(key, __u32);
	__type(value, __s64);
} asked SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, ADDRESSES);
	__type(key, __u32);
	__type(value, struct gadget_unwind_row);
} answers SEC(".maps");

static long answer(__u32 index, struct gadget_unwind_context *context)
{
	struct gadget_unwinder *unwinder = context->unwinder;
	__s64 *address = bpf_map_lookup_elem(&asked, &index);
	struct gadget_unwind_row *row = bpf_map_lookup_elem(&answers, &index);

	if (!address || !row)
		return 1;
	unwinder->wanted = *address;
	gadget_unwind_compute(unwinder);
	*row = unwinder->row;
	return 0;
}

SEC("raw_tp")
int unwound_rows(void *ctx)
{
	struct gadget_unwinder *unwinder = gadget_take_slot(&gadget_unwind_slots);
	struct gadget_unwind_context context = {.unwinder = unwinder};
	struct gadget_unwind_mapping *mapping;
	__u32 zero = 0;

	if (!unwinder)
		return 1;
	mapping = bpf_map_lookup_elem(&gadget_unwind_mappings, &zero);
	if (mapping) {
		unwinder->mapping = *mapping;
		bpf_loop(ADDRESSES, answer, &context, 0);
	}
	gadget_give_back(unwinder);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";

// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * Resolves kernel addresses to symbols, for the agent, which runs `name` directly (BPF_PROG_TEST_RUN). Since
 * Linux 5.13. Emits nothing. The kernel formats the names, since /proc/kallsyms shows addresses only with CAP_SYSLOG.
 */
#include <linux/bpf.h>
#include <linux/types.h>
#include <bpf/bpf_helpers.h>

#define ADDRESSES 128
#define NAME_BYTES 192 /* a symbol, its module, and a NUL */

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* Read and written by kubectl_gadget/agent/symbols/kernel_symbols.py. */
struct resolved {
	__u64 address;
	char name[NAME_BYTES];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, ADDRESSES);
	__type(key, __u32);
	__type(value, struct resolved);
} resolved SEC(".maps");

/* Resolves the entries up to the first one with address 0. */
SEC("raw_tp/sys_enter")
int name(void *ctx)
{
	static const char format[] = "%pS";
	__u32 i;

	for (i = 0; i < ADDRESSES; i++) {
		__u32 key = i;
		struct resolved *entry = bpf_map_lookup_elem(&resolved, &key);
		__u64 address;

		if (!entry || !entry->address)
			break;
		address = entry->address;
		if (bpf_snprintf(entry->name, sizeof(entry->name), format, &address, sizeof(address)) <= 0)
			entry->name[0] = 0;
	}
	return i;
}

// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * Finds the maps `gadget_refused` of this node, for the agent, which fills `gadget_refusals` with them
 * (kubectl_gadget/agent/sources/shared_maps.py). Emits the id of each as a __u32.
 *
 * Hook: an iterator over all maps, since listing maps with bpf(2) requires CAP_SYS_ADMIN.
 */
#include <gadget/network/refused.h>
#include <kernel/bpf.h>
#include <kernel/iterator.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

GADGET_REFUSALS;

SEC("iter/bpf_map")
int find_refused(struct bpf_iter__bpf_map *ctx)
{
	static const char wanted[] = "gadget_refused";
	struct seq_file *seq = ctx->meta->seq;
	struct bpf_map *map = ctx->map;
	char name[sizeof(wanted)];
	__u32 id;

	if (!map)
		return 0;
	bpf_core_read(name, sizeof(name), &map->name);
	for (int i = 0; i < sizeof(wanted); i++)
		if (name[i] != wanted[i])
			return 0;
	id = BPF_CORE_READ(map, id);
	bpf_seq_write(seq, &id, sizeof(id));
	return 0;
}

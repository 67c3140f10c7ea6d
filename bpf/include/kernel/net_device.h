/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Network devices, and the hash table of a network namespace that has them. A device index is valid only in its own
 * network namespace. */
#pragma once

#include <linux/types.h>
#include <kernel/list.h>
#include <kernel/namespace.h>
#include <kernel/socket.h>

/* NETDEV_HASHENTRIES of include/net/net_namespace.h. */
#define GADGET_DEVICE_BUCKETS 256
/* The maximum number of devices examined in a bucket. */
#define GADGET_DEVICE_STEPS 16

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct net_device {
	char name[16];
	int ifindex;
	struct hlist_node index_hlist;
	possible_net_t nd_net;
	/* ARPHRD_… */
	unsigned short type;
	/* The number of layers of devices above and below, and itself. */
	unsigned char upper_level;
	unsigned char lower_level;
};

struct net {
	struct ns_common ns;
	struct hlist_head *dev_index_head;
};

#pragma clang attribute pop

/* The name of the device with this index in the socket's network namespace; empty when there is none. */
static __always_inline void gadget_device_name(char name[16], struct sock *sk, __u32 index)
{
	struct sock_common *common = (void *)sk;
	struct hlist_head *heads;
	struct hlist_node *node = NULL;

	__builtin_memset(name, 0, 16);
	if (!index)
		return;
	heads = BPF_CORE_READ(common, skc_net.net, dev_index_head);
	/* In every kernel, an element of the array is one pointer. */
	bpf_probe_read_kernel(&node, sizeof(node), (void **)heads + index % GADGET_DEVICE_BUCKETS);
	for (int step = 0; step < GADGET_DEVICE_STEPS && node; step++) {
		struct net_device *device = (void *)node - bpf_core_field_offset(struct net_device, index_hlist);

		if (BPF_CORE_READ(device, ifindex) == index) {
			bpf_core_read(name, 16, &device->name);
			return;
		}
		node = BPF_CORE_READ(node, next);
	}
}

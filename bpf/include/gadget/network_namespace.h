/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Which network namespace a socket is in, by its inode number: the number that `ls -l /proc/PID/ns/net` shows. */
#pragma once

#include <kernel/net_device.h>
#include <kernel/socket.h>

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct ns_common___numbered {
	__u32 inum;
};

struct net___numbered {
	struct ns_common___numbered ns;
};

#pragma clang attribute pop

static __always_inline __u32 gadget_network_namespace(struct sock *sk)
{
	struct net___numbered *net = (void *)BPF_CORE_READ((struct sock_common___net *)sk, skc_net.net);

	return BPF_CORE_READ(net, ns.inum);
}

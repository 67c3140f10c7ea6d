/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The inode number of a socket's network namespace, as shown by `ls -l /proc/PID/ns/net`. */
#pragma once

#include <kernel/namespace.h>
#include <kernel/net_device.h>
#include <kernel/socket.h>

static __always_inline __u32 gadget_network_namespace(struct sock *sk)
{
	struct net *net = BPF_CORE_READ((struct sock_common *)sk, skc_net.net);

	return BPF_CORE_READ(net, ns.inum);
}

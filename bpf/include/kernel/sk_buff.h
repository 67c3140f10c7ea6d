/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Packets in the kernel. The trap: where the headers are is only known once a layer has looked; before,
 * `network_header` is 0 and `transport_header` is ~0.
 */
#pragma once

#include <linux/types.h>
#include <kernel/net_device.h>
#include <kernel/socket.h>

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct net_device___of_packet {
	possible_net_t nd_net;
};

struct sk_buff {
	struct net_device *dev;
	struct sock *sk;
	char cb[48];
	unsigned int len;
	__be16 protocol;
	__u16 network_header;
	__u16 transport_header;
	unsigned char *head;
};

/* What TCP keeps in `cb`. Its flags have two bytes from 6.15 on, of which this is the lower one. */
struct tcp_skb_cb {
	__u8 tcp_flags;
};

#pragma clang attribute pop

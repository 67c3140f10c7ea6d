/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Packets in the kernel. The trap: the positions of the headers are known only after a layer has parsed them; before
 * that, `network_header` is 0 and `transport_header` is ~0.
 */
#pragma once

#include <linux/types.h>
#include <kernel/net_device.h>
#include <kernel/socket.h>

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct sk_buff {
	struct net_device *dev;
	struct sock *sk;
	char cb[48];
	unsigned int len;
	__u32 hash;
	__u32 mark;
	__u32 priority;
	__be16 protocol;
	__u16 network_header;
	__u16 transport_header;
	unsigned char *head;
};

/* TCP's data in `cb`. Since 6.15, the flags have two bytes; this is the lower one. */
struct tcp_skb_cb {
	__u8 tcp_flags;
};

/* Since 5.17. */
enum skb_drop_reason {
	SKB_CONSUMED = 1,
	SKB_DROP_REASON_NETFILTER_DROP,
	/* Since 6.5. */
	SKB_DROP_REASON_QUEUE_PURGE,
};

/* The tracepoint has the receiving socket since 6.11; before, only the packet may have it. */
typedef void (*btf_trace_kfree_skb___receiver)(void *, struct sk_buff *, void *, enum skb_drop_reason, struct sock *);
/* The tracepoint's arguments since 6.17, with the error; before, it reported only segments that could be sent. */
typedef void (*btf_trace_tcp_retransmit_skb___error)(void *, const struct sock *, const struct sk_buff *, int);

#pragma clang attribute pop

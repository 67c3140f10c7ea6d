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
	unsigned int data_len;
	/* The device that received it; 0: none, as for a packet that is being sent. */
	int skb_iif;
	__u32 hash;
	__u32 mark;
	__u32 priority;
	__be16 protocol;
	__u16 network_header;
	__u16 transport_header;
	unsigned char *head;
	unsigned char *data;
	/* Where struct skb_shared_info is: an offset from `head`, on 64-bit machines. */
	unsigned int end;
};

struct skb_frag {
	unsigned int offset;
};

struct skb_shared_info {
	/* Since 06b4feb37e64 "net: group skb_shinfo zerocopy related bits together" (5.12). */
	__u8 flags;
	__u8 tx_flags;
	void *destructor_arg;
	struct skb_frag frags[1];
};

/* Before 21d2e6737c97 "net: add netmem to skb_frag_t and use bvec" (6.9), when it was a struct bio_vec. */
struct bio_vec___skb {
	unsigned int bv_offset;
};

struct skb_shared_info___old {
	struct bio_vec___skb frags[1];
};

struct packet_sock;

/* Of a packet from the ring of a packet socket, in `destructor_arg`; stable kernels since 2026. Before, that is the
 * frame's address plus 1. */
struct tpacket_uarg {
	struct packet_sock *po;
	/* The frame. */
	void *ph;
};

/* TCP's data in `cb`. Since 6.15, the flags have two bytes; this is the lower one. */
struct tcp_skb_cb {
	__u8 tcp_flags;
};

/* Since 5.17. */
enum skb_drop_reason {
	SKB_CONSUMED = 1,
	SKB_DROP_REASON_NOT_SPECIFIED,
	SKB_DROP_REASON_NETFILTER_DROP,
	/* Since 6.5. */
	SKB_DROP_REASON_QUEUE_PURGE,
};

/* The tracepoint has the receiving socket since 6.11; before, only the packet may have it. */
typedef void (*btf_trace_kfree_skb___receiver)(void *, struct sk_buff *, void *, enum skb_drop_reason, struct sock *);
/* The tracepoint's arguments since 6.17, with the error; before, it reported only segments that could be sent. */
typedef void (*btf_trace_tcp_retransmit_skb___error)(void *, const struct sock *, const struct sk_buff *, int);

#pragma clang attribute pop

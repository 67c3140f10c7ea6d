/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * What each connection moves, summed up: for gadgets that include this, name a protocol and have both programs for
 * packets (bpf/top_tcp.bpf.c).
 *
 * The trap: packets of a handshake belong to the listening socket, and so to whoever listens. Without payload they
 * would make a row for a connection that another process may get; such packets are not counted.
 */
#pragma once

#include <gadget/packet.h>
#include <gadget/ends.h>
#include <gadget/totals.h>

#define GADGET_CONNECTIONS 65536

struct connection_key {
	gadget_cgroup cgroup;
	gadget_ip local;
	gadget_ip remote;
	gadget_port local_port;
	gadget_port remote_port;
	__u32 unused;
};

struct connection_value {
	gadget_bytes sent;
	gadget_bytes received;
	__u64 sent_packets;
	__u64 received_packets;
	gadget_comm comm;
	gadget_uid uid;
	__u32 container_pid;
	/* On the node. 0: unknown, as it is until a connection was accepted. */
	__u32 pid;
	__u32 unused;
};

struct connection_total {
	struct gadget_total interval;
	struct connection_key key;
	struct connection_value value;
};

GADGET_RECORD(connection_total);

/* Of either end. 0: any. */
const volatile __u16 filter_port = 0;

GADGET_TOTALS(connection_key, connection_value, GADGET_CONNECTIONS);
GADGET_SLOTS(slots, sizeof(struct gadget_packet));

/* Of include/net/tcp_states.h. */
#define GADGET_TCP_LISTEN 10

/* Whether the packet's socket is one of `protocol`, which a socket that only waits for late packets is not. */
static __always_inline bool gadget_is_of(struct __sk_buff *skb, __u32 protocol, bool *listens)
{
	struct bpf_sock *sk = skb->sk;

	if (!sk)
		return false;
	sk = bpf_sk_fullsock(sk);
	if (!sk || sk->protocol != protocol)
		return false;
	*listens = protocol == IPPROTO_TCP && sk->state == GADGET_TCP_LISTEN;
	return true;
}

static __always_inline void gadget_add_packet(struct __sk_buff *skb, const struct gadget_packet *packet)
{
	/* A packet that the network card cuts or has put together counts as its pieces. */
	__u32 packets = skb->gso_segs ?: 1;
	struct connection_key key = {
		.cgroup = packet->record.cgroup,
		.local_port = packet->local_port,
		.remote_port = packet->remote_port,
	};
	struct connection_value *value;

	__builtin_memcpy(key.local, packet->local, sizeof(key.local));
	__builtin_memcpy(key.remote, packet->remote, sizeof(key.remote));
	value = gadget_total(&key);
	if (!value)
		return;
	if (packet->record.pid || !value->pid) {
		__builtin_memcpy(value->comm, packet->record.comm, sizeof(value->comm));
		value->uid = packet->record.uid;
		value->pid = packet->record.pid;
		value->container_pid = packet->record.container_pid;
	}
	if (packet->outgoing) {
		gadget_add(value->sent, packet->payload_bytes);
		gadget_add(value->sent_packets, packets);
	} else {
		gadget_add(value->received, packet->payload_bytes);
		gadget_add(value->received_packets, packets);
	}
}

static __always_inline void gadget_look_at_packet(struct __sk_buff *skb, struct gadget_packet *packet, __u32 protocol,
						  bool outgoing)
{
	bool listens;

	if (!gadget_is_of(skb, protocol, &listens))
		return;
	if (!gadget_read_headers(skb, packet, outgoing) || packet->protocol != protocol ||
	    !gadget_has_port(packet, filter_port) || !gadget_wanted_addresses(packet->local, packet->remote))
		return;
	if (listens && !packet->payload_bytes)
		return;
	if (gadget_begin_packet(skb, packet))
		gadget_add_packet(skb, packet);
}

static __always_inline int gadget_count_packet(struct __sk_buff *skb, __u32 protocol, bool outgoing)
{
	struct gadget_packet *packet = gadget_take_slot(&slots);

	if (packet) {
		gadget_look_at_packet(skb, packet, protocol, outgoing);
		gadget_give_back(packet);
	}
	return GADGET_PASS;
}

/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Adds up the traffic of each connection, for gadgets whose programs for packets call gadget_count_packet() with a
 * protocol (bpf/top_tcp.bpf.c).
 *
 * Packets of a handshake belong to the listening socket, and so to the listening process, but another process may
 * accept the connection. They have no payload and are not counted. Data received before a process accepts the
 * connection is added when accept() returns, from the socket's own counters; segments that were retransmitted before
 * that count once.
 */
#pragma once

#include <gadget/record.h>

/* Declared before packet.h, whose programs call it when accept() returns. */
struct sock;
static __always_inline void gadget_count_received_before(struct sock *sk);
#define GADGET_ACCEPTED(SOCKET) gadget_count_received_before(SOCKET)

#include <gadget/network/packet.h>
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
	/* The PID on the node. 0: unknown, for example before the connection is accepted. */
	__u32 pid;
	__u32 unused;
};

struct connection_total {
	struct gadget_total interval;
	struct connection_key key;
	struct connection_value value;
};

GADGET_RECORD(connection_total);

/* The port of either end. 0: any. */
const volatile __u16 filter_port = 0;

GADGET_TOTALS(connection_key, connection_value, GADGET_CONNECTIONS);
GADGET_SLOTS(slots, sizeof(struct gadget_packet));

/* From include/net/tcp_states.h. */
#define GADGET_TCP_LISTEN 10

/* Whether the packet's socket is a full socket of `protocol`; a socket in TIME_WAIT is not. */
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

/* The row of a connection. Sets its process if that is known. NULL: there is no room. */
static __always_inline struct connection_value *gadget_connection(const struct connection_key *key,
								  const struct gadget_record *record)
{
	struct connection_value *value = gadget_total(key);

	if (value && (record->pid || !value->pid)) {
		__builtin_memcpy(value->comm, record->comm, sizeof(value->comm));
		value->uid = record->uid;
		value->pid = record->pid;
		value->container_pid = record->container_pid;
	}
	return value;
}

static __always_inline void gadget_count_received_before(struct sock *sk)
{
	const struct gadget_owner *owner = gadget_owner_of(sk);
	struct tcp_sock *tcp = (struct tcp_sock *)sk;
	struct connection_value *value;
	struct connection_key key = {};
	__u64 received;

	if (!owner || BPF_CORE_READ(sk, sk_protocol) != IPPROTO_TCP)
		return;
	received = BPF_CORE_READ(tcp, bytes_received);
	if (!received)
		return;
	key.cgroup = owner->record.cgroup;
	key.local_port = gadget_local_port(sk);
	key.remote_port = gadget_remote_port(sk);
	gadget_local_ip(key.local, sk);
	gadget_remote_ip(key.remote, sk);
	if ((filter_port && key.local_port != filter_port && key.remote_port != filter_port) ||
	    !gadget_wanted_addresses(key.local, key.remote))
		return;
	value = gadget_connection(&key, &owner->record);
	if (!value)
		return;
	gadget_add(value->received, received);
	gadget_add(value->received_packets, BPF_CORE_READ(tcp, data_segs_in));
}

static __always_inline void gadget_add_packet(struct __sk_buff *skb, const struct gadget_packet *packet)
{
	/* A packet that the network card will segment, or has merged, counts as its segments. */
	__u32 packets = skb->gso_segs ?: 1;
	struct connection_key key = {
		.cgroup = packet->record.cgroup,
		.local_port = packet->local_port,
		.remote_port = packet->remote_port,
	};
	struct connection_value *value;

	__builtin_memcpy(key.local, packet->local, sizeof(key.local));
	__builtin_memcpy(key.remote, packet->remote, sizeof(key.remote));
	value = gadget_connection(&key, &packet->record);
	if (!value)
		return;
	if (packet->outgoing) {
		gadget_add(value->sent, packet->payload_bytes);
		gadget_add(value->sent_packets, packets);
	} else {
		gadget_add(value->received, packet->payload_bytes);
		gadget_add(value->received_packets, packets);
	}
}

/* Whether the packet is counted later, when its connection is accepted. */
static __always_inline bool gadget_is_unaccepted(struct __sk_buff *skb, struct gadget_packet *packet)
{
	struct sock *sk = gadget_socket_of_packet(skb, packet);

	return sk && gadget_awaits_accept(sk) && !gadget_owner_of(sk);
}

static __always_inline void gadget_handle_packet(struct __sk_buff *skb, struct gadget_packet *packet, __u32 protocol,
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
	if (protocol == IPPROTO_TCP && !listens && gadget_is_unaccepted(skb, packet))
		return;
	if (gadget_begin_packet(skb, packet))
		gadget_add_packet(skb, packet);
}

static __always_inline int gadget_count_packet(struct __sk_buff *skb, __u32 protocol, bool outgoing)
{
	struct gadget_packet *packet = gadget_take_slot(&slots);

	if (packet) {
		gadget_handle_packet(skb, packet, protocol, outgoing);
		gadget_give_back(packet);
	}
	return GADGET_PASS;
}

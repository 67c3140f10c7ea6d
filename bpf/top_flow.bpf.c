// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * top flow: adds up packets and bytes by container, direction of the connection, remote address and destination port.
 *
 * Hooks: cgroup_skb, which sees each packet of the node's sockets once, with the socket's addresses. For TCP, the SYN
 * shows which end opened the connection; if the connection is older than the trace, a listener on the local port shows
 * it. For UDP and SCTP, it is the sender of the first packet seen. Not seen: packets that reach no socket, such as
 * those to closed ports, and other protocols.
 */
#include <gadget/network/packet.h>
#include <gadget/totals.h>

#define FLOWS 32768
/* The maximum number of connections whose direction is remembered; the least recently used are dropped, and decided
 * again. */
#define CONNECTIONS 65536

enum direction {
	DIRECTION_EGRESS = 1,
	DIRECTION_INGRESS,
};

struct flow_key {
	gadget_cgroup cgroup;
	gadget_ip local;
	gadget_ip remote;
	/* The destination port of the connection: the remote one for egress, the local one for ingress. */
	gadget_port port;
	gadget_ip_protocol protocol;
	enum direction direction;
};

struct flow_value {
	__u64 connections;
	__u64 sent_packets;
	__u64 received_packets;
	gadget_bytes sent;
	gadget_bytes received;
};

struct top_flow {
	struct gadget_total interval;
	struct flow_key key;
	struct flow_value value;
};

GADGET_RECORD(top_flow);

/* The destination port. 0: any. */
const volatile __u16 filter_port = 0;

GADGET_TOTALS(flow_key, flow_value, FLOWS);

struct connection {
	__u64 cgroup;
	gadget_ip local;
	gadget_ip remote;
	__u16 local_port;
	__u16 remote_port;
	__u32 protocol;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, CONNECTIONS);
	__type(key, struct connection);
	__type(value, __u32);
} connections SEC(".maps");

GADGET_SLOTS(slots, sizeof(struct gadget_packet));

/* Whether a socket listens at this packet's local end. The remote port is 0, so no connection is found instead. */
static __always_inline bool has_listener(struct __sk_buff *skb, const struct gadget_packet *packet)
{
	struct bpf_sock_tuple tuple = {};
	struct bpf_sock *found;
	__u32 size = sizeof(tuple.ipv6);
	bool listens;

	if (skb->protocol == bpf_htons(0x86dd)) {
		__builtin_memcpy(tuple.ipv6.daddr, packet->local, sizeof(tuple.ipv6.daddr));
		__builtin_memcpy(tuple.ipv6.saddr, packet->remote, sizeof(tuple.ipv6.saddr));
		tuple.ipv6.dport = bpf_htons(packet->local_port);
	} else {
		size = sizeof(tuple.ipv4);
		__builtin_memcpy(&tuple.ipv4.daddr, &packet->local[12], sizeof(tuple.ipv4.daddr));
		__builtin_memcpy(&tuple.ipv4.saddr, &packet->remote[12], sizeof(tuple.ipv4.saddr));
		tuple.ipv4.dport = bpf_htons(packet->local_port);
	}
	found = bpf_skc_lookup_tcp(skb, &tuple, size, BPF_F_CURRENT_NETNS, 0);
	if (!found)
		return false;
	listens = found->state == TCP_LISTEN;
	bpf_sk_release(found);
	return listens;
}

/* Which end began, judging by this packet alone. `sure`: this is more reliable than a remembered direction. */
static __always_inline enum direction judge(struct __sk_buff *skb, const struct gadget_packet *packet, bool *sure)
{
	bool outgoing = packet->outgoing;

	*sure = false;
	if (packet->protocol != IPPROTO_TCP)
		return outgoing ? DIRECTION_EGRESS : DIRECTION_INGRESS;
	if (!(packet->flags & GADGET_TCP_SYN))
		return has_listener(skb, packet) ? DIRECTION_INGRESS : DIRECTION_EGRESS;
	*sure = true;
	/* A SYN with ACK is an answer. */
	return !(packet->flags & GADGET_TCP_ACK) == outgoing ? DIRECTION_EGRESS : DIRECTION_INGRESS;
}

static __always_inline enum direction direction_of(struct __sk_buff *skb, const struct gadget_packet *packet,
						   __u64 cgroup, bool *begins)
{
	struct connection connection = {
		.cgroup = cgroup,
		.local_port = packet->local_port,
		.remote_port = packet->remote_port,
		.protocol = packet->protocol,
	};
	__u32 *known, judged;
	bool syn = packet->protocol == IPPROTO_TCP && packet->flags & GADGET_TCP_SYN, sure;

	__builtin_memcpy(connection.local, packet->local, sizeof(gadget_ip));
	__builtin_memcpy(connection.remote, packet->remote, sizeof(gadget_ip));
	known = bpf_map_lookup_elem(&connections, &connection);
	if (known && !syn) {
		*begins = false;
		return *known;
	}
	judged = judge(skb, packet, &sure);
	/* A retransmitted SYN begins no connection, and neither does its answer. */
	*begins = !known || (*known != judged && sure);
	bpf_map_update_elem(&connections, &connection, &judged, BPF_ANY);
	return judged;
}

static __always_inline bool read_packet(struct __sk_buff *skb, struct gadget_packet *packet, bool outgoing)
{
	/* SCTP: source, destination. */
	__be16 ports[2];
	__u32 offset;

	packet->flags = 0;
	offset = gadget_read_ip(skb, packet, outgoing);
	if (!offset)
		return false;
	if (packet->protocol != IPPROTO_SCTP)
		return gadget_read_ports(skb, packet, offset);
	if (bpf_skb_load_bytes(skb, offset, ports, sizeof(ports)))
		return false;
	gadget_set_ports(packet, ports[0], ports[1]);
	return true;
}

static __always_inline void count(struct __sk_buff *skb, struct gadget_packet *packet, bool outgoing)
{
	struct flow_key key = {};
	struct flow_value *value;
	__u32 packets = skb->gso_segs ?: 1;
	bool begins;

	if (!read_packet(skb, packet, outgoing) || !gadget_begin_packet(skb, packet))
		return;
	key.cgroup = packet->record.cgroup;
	key.protocol = packet->protocol;
	key.direction = direction_of(skb, packet, key.cgroup, &begins);
	key.port = key.direction == DIRECTION_EGRESS ? packet->remote_port : packet->local_port;
	if (filter_port && key.port != filter_port)
		return;
	__builtin_memcpy(key.local, packet->local, sizeof(key.local));
	__builtin_memcpy(key.remote, packet->remote, sizeof(key.remote));
	value = gadget_total(&key);
	if (!value)
		return;
	if (begins)
		gadget_add(value->connections, 1);
	if (outgoing) {
		gadget_add(value->sent_packets, packets);
		gadget_add(value->sent, skb->len);
	} else {
		gadget_add(value->received_packets, packets);
		gadget_add(value->received, skb->len);
	}
}

GADGET_PACKET_PROGRAMS_WITH_SLOT(true, count)

char LICENSE[] SEC("license") = "Dual BSD/GPL";

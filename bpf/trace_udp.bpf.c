// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * trace udp: emits a `struct trace_udp` for the first packet of each flow, at most one per second while packets come
 * and go, and one when the flow ends.
 *
 * Hooks: cgroup_skb, which sees each packet of the node's sockets once, with its real addresses, however it was sent;
 * cgroup/sock_release for the end. Not seen: packets that are dropped before they reach the socket.
 */
#include <gadget/packet.h>

#define GADGET_FLOW trace_udp
#define GADGET_FLOW_REMOTE gadget_port
#define GADGET_FLOW_PEER_BEGINS true

static __always_inline bool gadget_flow_protocol(__u32 protocol)
{
	return protocol == IPPROTO_UDP;
}

static __always_inline bool gadget_flow_headers(struct __sk_buff *skb, struct gadget_packet *packet, bool outgoing)
{
	return gadget_read_headers(skb, packet, outgoing) && packet->protocol == IPPROTO_UDP;
}

#include <gadget/datagram_flows.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

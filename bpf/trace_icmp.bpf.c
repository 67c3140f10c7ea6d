// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * trace icmp: emits a `struct trace_icmp` for the first echo request of each ping, then at most one per second while
 * there are requests and replies, and one at its end. local_port is the identifier, remote_port the type.
 *
 * Hooks: those of trace udp. Not seen: requests that the kernel itself answers, since they have no socket; and messages
 * about other packets, such as "port unreachable", which the kernel reports to the sockets of those packets as errors.
 *
 * A raw socket also receives the replies to other pings, and requests, so only sent requests begin a flow, and only
 * replies count as received.
 */
#include <linux/in.h>
#include <linux/in6.h>

#include <gadget/record.h>

static __always_inline bool gadget_flow_protocol(__u32 protocol)
{
	return protocol == IPPROTO_ICMP || protocol == IPPROTO_ICMPV6;
}

/* Owners of TCP and UDP sockets, the most frequent ones, are not recorded. */
#define GADGET_OWNED gadget_flow_protocol
/* flows_ended removes the owner, after it has sent the last rows. */
#define GADGET_FORGETS

#include <gadget/network/packet.h>

/* The type of an ICMP or ICMPv6 message. The numbers that pings use in one protocol have no other meaning in the
 * other. */
typedef __u16 gadget_icmp_type;

#define GADGET_FLOW trace_icmp
#define GADGET_FLOW_REMOTE gadget_icmp_type
#define GADGET_FLOW_PEER_BEGINS false

#define ECHO_REPLY 0
#define ECHO_REQUEST 8
#define ECHO_REQUEST_V6 128
#define ECHO_REPLY_V6 129

struct message {
	__u8 type;
	__u8 code;
	__be16 checksum;
	__be16 identifier;
	__be16 sequence;
};

static __always_inline bool gadget_flow_headers(struct __sk_buff *skb, struct gadget_packet *packet, bool outgoing)
{
	struct message message;
	__u32 offset;

	packet->flags = 0;
	packet->sequence = 0;
	packet->network_namespace = 0;
	offset = gadget_read_ip(skb, packet, outgoing);
	if (!offset || !gadget_flow_protocol(packet->protocol) ||
	    bpf_skb_load_bytes(skb, offset, &message, sizeof(message)))
		return false;
	if (message.type != (outgoing ? ECHO_REQUEST : ECHO_REPLY) &&
	    message.type != (outgoing ? ECHO_REQUEST_V6 : ECHO_REPLY_V6))
		return false;
	packet->remote_port = packet->protocol == IPPROTO_ICMP ? ECHO_REQUEST : ECHO_REQUEST_V6;
	packet->local_port = bpf_ntohs(message.identifier);
	offset += sizeof(message);
	packet->payload_bytes = skb->len > offset ? skb->len - offset : 0;
	return true;
}

#include <gadget/network/datagram_flows.h>

GADGET_PACKETS_OF("icmp icmpv6");

char LICENSE[] SEC("license") = "Dual BSD/GPL";

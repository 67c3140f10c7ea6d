/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Packets of sockets, as programs of type cgroup_skb see them: from the IP header on, of the node's sockets alone, and
 * each once. The client makes rows of what they carry (kubectl_gadget/views/).
 *
 * The traps: such a program decides on the packet, so it has to return GADGET_PASS whatever happens; the current task
 * may be any, so process and container are the socket's (gadget/packet_owner.h); a packet here may be what the network
 * card will cut into, or has put together from, forty; and an interrupt or another task may have the same program run
 * in the middle of itself, so memory is taken by slot.
 */
#pragma once

#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>

#include <gadget/address.h>
#include <gadget/network_namespace.h>
#include <gadget/output.h>
#include <gadget/packet_owner.h>
#include <gadget/slots.h>

#define GADGET_PASS 1

/* Payload of one record. A packet with more becomes several, of GADGET_PACKET_PIECES at most. */
#define GADGET_PIECE_BYTES (16 << 10)
#define GADGET_PACKET_PIECES 5

/* Headers that may stand between those of IPv6 and of what it carries. */
#define GADGET_EXTENSIONS 6

#define GADGET_TCP_FIN 1
#define GADGET_TCP_SYN 2
#define GADGET_TCP_RST 4
#define GADGET_TCP_ACK 16

/* Whether a row is about the end that asks or the one that is asked. */
enum gadget_role { GADGET_ROLE_CLIENT = 1, GADGET_ROLE_SERVER };

/* What all programs for packets send. */
struct gadget_packet {
	struct gadget_record record;
	/* The process that has the socket. */
	gadget_exec_id exec_id;
	/* The socket's cookie: no other socket ever has it. */
	__u64 socket;
	/* The socket's end, and the other one, as this packet names them. */
	gadget_ip local;
	gadget_ip remote;
	gadget_port local_port;
	gadget_port remote_port;
	gadget_ip_protocol protocol;
	/* 1: sent by the socket, 0: received. */
	__u8 outgoing;
	/* GADGET_TCP_… */
	__u8 flags;
	/* Of TCP, the number of the payload's first byte. */
	__u32 sequence;
	/* All that the packet carries, from this record's first byte on; where a further record goes on, up to there.
	 */
	__u32 payload_bytes;
	/* As much of it as this record has. */
	gadget_string payload;
	/* The inode number of the socket's network namespace; 0: unknown. */
	__u32 network_namespace;
};

/* Where programs build their records. */
#define GADGET_PACKET_SLOTS(NAME) GADGET_SLOTS(NAME, sizeof(struct gadget_packet) + GADGET_PIECE_BYTES)

/* The headers of IPv4. Returns where its payload begins, 0 when that is unknown. */
static __always_inline __u32 gadget_read_ipv4(struct __sk_buff *skb, struct gadget_packet *packet)
{
	struct iphdr ip;

	if (bpf_skb_load_bytes(skb, 0, &ip, sizeof(ip)) || ip.ihl < 5)
		return 0;
	/* A later fragment has no header of what is carried. */
	if (ip.frag_off & bpf_htons(0x1fff))
		return 0;
	gadget_ip_from_v4(packet->local, packet->outgoing ? ip.saddr : ip.daddr);
	gadget_ip_from_v4(packet->remote, packet->outgoing ? ip.daddr : ip.saddr);
	packet->protocol = ip.protocol;
	return ip.ihl * 4;
}

static __always_inline __u32 gadget_read_ipv6(struct __sk_buff *skb, struct gadget_packet *packet)
{
	__u32 offset = sizeof(struct ipv6hdr);
	struct ipv6hdr ip;
	__u8 next;

	if (bpf_skb_load_bytes(skb, 0, &ip, sizeof(ip)))
		return 0;
	__builtin_memcpy(packet->local, packet->outgoing ? &ip.saddr : &ip.daddr, sizeof(packet->local));
	__builtin_memcpy(packet->remote, packet->outgoing ? &ip.daddr : &ip.saddr, sizeof(packet->remote));
	next = ip.nexthdr;
	for (int i = 0; i < GADGET_EXTENSIONS; i++) {
		/* Of each: the next one, and the length in units of 8 bytes without the first 8. */
		__u8 head[2];

		if (next != IPPROTO_HOPOPTS && next != IPPROTO_ROUTING && next != IPPROTO_DSTOPTS)
			break;
		if (bpf_skb_load_bytes(skb, offset, head, sizeof(head)))
			return 0;
		next = head[0];
		offset += (head[1] + 1) * 8;
	}
	packet->protocol = next;
	return offset;
}

static __always_inline void gadget_set_ports(struct gadget_packet *packet, __be16 source, __be16 target)
{
	packet->local_port = bpf_ntohs(packet->outgoing ? source : target);
	packet->remote_port = bpf_ntohs(packet->outgoing ? target : source);
}

/* Reads the IP header. Returns where what it carries begins; 0: it is a later fragment, or broken. */
static __always_inline __u32 gadget_read_ip(struct __sk_buff *skb, struct gadget_packet *packet, bool outgoing)
{
	packet->outgoing = outgoing;
	return skb->protocol == bpf_htons(0x86dd) ? gadget_read_ipv6(skb, packet) : gadget_read_ipv4(skb, packet);
}

/* Reads the header of TCP or UDP, which begins at `offset`. Returns where the payload begins; 0: it is neither. */
static __always_inline __u32 gadget_read_ports(struct __sk_buff *skb, struct gadget_packet *packet, __u32 offset)
{
	if (packet->protocol == IPPROTO_UDP) {
		struct udphdr udp;

		if (bpf_skb_load_bytes(skb, offset, &udp, sizeof(udp)))
			return 0;
		gadget_set_ports(packet, udp.source, udp.dest);
		return offset + sizeof(udp);
	}
	if (packet->protocol == IPPROTO_TCP) {
		struct tcphdr tcp;

		if (bpf_skb_load_bytes(skb, offset, &tcp, sizeof(tcp)))
			return 0;
		gadget_set_ports(packet, tcp.source, tcp.dest);
		packet->flags = ((__u8 *)&tcp)[13];
		packet->sequence = bpf_ntohl(tcp.seq);
		if (packet->flags & GADGET_TCP_SYN)
			packet->sequence++;
		return offset + tcp.doff * 4;
	}
	return 0;
}

/*
 * Reads the headers of a packet of TCP or UDP into all that follows the record's head. Returns where the payload
 * begins; 0: it is of something else, or broken.
 */
static __always_inline __u32 gadget_read_headers(struct __sk_buff *skb, struct gadget_packet *packet, bool outgoing)
{
	__u32 offset;

	packet->flags = 0;
	packet->sequence = 0;
	offset = gadget_read_ip(skb, packet, outgoing);
	if (offset)
		offset = gadget_read_ports(skb, packet, offset);
	if (!offset)
		return 0;
	packet->payload_bytes = skb->len > offset ? skb->len - offset : 0;
	return offset;
}

/*
 * Whether a packet may be one of TCP or UDP with this port at one end, as most are not: without a slot and without a
 * call, where the headers are in the packet's first bytes and none stands between them. True as well when that is not
 * known.
 */
static __always_inline bool gadget_may_have_port(struct __sk_buff *skb, __u16 port)
{
	const __u8 *data = (const __u8 *)(long)skb->data, *end = (const __u8 *)(long)skb->data_end;
	__u32 offset = sizeof(struct ipv6hdr);
	__be16 wanted = bpf_htons(port);
	const __be16 *ports;
	__u8 protocol;

	if (!port || data + sizeof(struct ipv6hdr) > end)
		return true;
	if (skb->protocol == bpf_htons(0x86dd)) {
		protocol = data[offsetof(struct ipv6hdr, nexthdr)];
	} else {
		protocol = data[offsetof(struct iphdr, protocol)];
		offset = (data[0] & 15) * 4;
	}
	ports = (const __be16 *)(data + offset);
	if ((protocol != IPPROTO_TCP && protocol != IPPROTO_UDP) || (const void *)(ports + 2) > (const void *)end)
		return true;
	return ports[0] == wanted || ports[1] == wanted;
}

/* The kernel's socket behind the one that programs see, for which the verifier would let nothing else be read. */
static __always_inline struct sock *gadget_kernel_socket(void *sk)
{
	__u64 slot = (__u64)sk, address = 0;

	bpf_probe_read_kernel(&address, sizeof(address), &slot);
	return (struct sock *)address;
}

/* Whether one end has this port. 0: any has. */
static __always_inline bool gadget_has_port(const struct gadget_packet *packet, __u16 port)
{
	return !port || packet->local_port == port || packet->remote_port == port;
}

/* By way of memory, since the verifier would let nothing be read of what it takes for a struct bpf_sock. */
static __always_inline struct sock *gadget_socket_of_packet(struct __sk_buff *skb, struct gadget_packet *packet)
{
	volatile __u64 *address = &packet->socket;

	*address = (__u64)skb->sk;
	return (struct sock *)*address;
}

/* Fills in the record's head. False: the packet is not wanted. */
static __always_inline bool gadget_begin_packet(struct __sk_buff *skb, struct gadget_packet *packet)
{
	struct sock *sk = gadget_socket_of_packet(skb, packet);
	const struct gadget_owner *owner;

	if (!sk)
		return false;
	owner = gadget_owner_of(sk);
	if (!gadget_begin_for_socket(&packet->record, sk, owner))
		return false;
	gadget_exec_of_owner(&packet->exec_id, owner);
	packet->socket = bpf_get_socket_cookie(skb);
	return true;
}

/*
 * The same for packets of which the client makes rows. Where events of one process are wanted, so are packets of
 * connections that no process has accepted yet: it may be that one. The view joins them with the packets that follow,
 * and leaves out rows that never get a process.
 */
static __always_inline bool gadget_begin_viewed_packet(struct __sk_buff *skb, struct gadget_packet *packet)
{
	struct sock *sk = gadget_socket_of_packet(skb, packet);
	const struct gadget_owner *owner;

	if (!sk)
		return false;
	owner = gadget_owner_of(sk);
	if (!gadget_begin_for_socket_or_unaccepted(&packet->record, sk, owner, true))
		return false;
	gadget_exec_of_owner(&packet->exec_id, owner);
	packet->socket = bpf_get_socket_cookie(skb);
	packet->network_namespace = gadget_network_namespace(sk);
	return true;
}

/* Copies 1 to `limit` bytes of the packet. Returns how many, with bounds that the verifier knows; 0: they are not
 * there.
 */
static __always_inline __u32 gadget_load_bytes(struct __sk_buff *skb, __u32 offset, void *to, __u32 bytes, __u32 limit)
{
	/* The verifier has to see the bounds of this very register, and before Linux 6.8 a comparison with 0 does not
	 * count.
	 */
	__u32 after_first = bytes - 1;

	asm volatile("" : "+r"(after_first));
	if (after_first >= limit || bpf_skb_load_bytes(skb, offset, to, after_first + 1))
		return 0;
	return after_first + 1;
}

/* Sends `bytes` of the payload, which begin at `offset` of the packet. They are no more than GADGET_PIECE_BYTES. */
static __always_inline bool gadget_send_piece(struct __sk_buff *skb, struct gadget_packet *packet, __u32 offset,
					      __u32 bytes)
{
	if (bytes) {
		bytes = gadget_load_bytes(skb, offset, (void *)packet + sizeof(*packet), bytes, GADGET_PIECE_BYTES);
		if (!bytes)
			return false;
	}
	packet->payload.offset = sizeof(*packet);
	packet->payload.length = bytes;
	gadget_emit(&packet->record, sizeof(*packet) + bytes, 0);
	return true;
}

/* Sends a packet whose head and headers are in place, with at most `limit` bytes of its payload. */
static __always_inline void gadget_send_packet(struct __sk_buff *skb, struct gadget_packet *packet, __u32 offset,
					       __u32 limit)
{
	__u32 left = packet->payload_bytes;
	__u32 wanted = left < limit ? left : limit;

	for (int i = 0; i < GADGET_PACKET_PIECES; i++) {
		__u32 bytes = wanted < GADGET_PIECE_BYTES ? wanted : GADGET_PIECE_BYTES;

		packet->payload_bytes = bytes < wanted ? bytes : left;
		if (!gadget_send_piece(skb, packet, offset, bytes))
			return;
		wanted -= bytes;
		if (!wanted)
			return;
		offset += bytes;
		packet->sequence += bytes;
		left -= bytes;
	}
}

/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Packets of sockets, as programs of type cgroup_skb see them: from the IP header on, only those of the node's sockets,
 * and each once. The client makes rows from their contents (kubectl_gadget/views/).
 *
 * The traps: such a program decides about the packet, so it must always return GADGET_PASS; the current task may be any
 * task, so process and container are those of the socket (gadget/network/packet_owner.h); one packet here may be up to
 * forty packets on the network, which the network card segments or has merged (GSO, GRO); and an interrupt or another
 * task may run the same program before this run has ended, so memory comes from slots.
 */
#pragma once

#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>

#include <gadget/network/address.h>
#include <gadget/network/network_namespace.h>
#include <gadget/network/packet_calls.h>
#include <gadget/network/packet_owner.h>
#include <gadget/network/packet_port.h>
#include <gadget/output.h>
#include <gadget/slots.h>

/*
 * The maximum payload of one record. A longer packet becomes several records, at most GADGET_PACKET_PIECES. Together
 * they have 192 KiB, which is Cilium's limit for BIG TCP (the kernel's is 512 KiB); the rest of a packet is not sent.
 * Since Linux 6.10, TCP may send two full segments at once, each up to 64 KiB through the loopback device.
 */
#define GADGET_PIECE_BYTES (16 << 10)
#define GADGET_PACKET_PIECES 12

/* The maximum number of extension headers between the IPv6 header and the transport header. */
#define GADGET_EXTENSIONS 6

#define GADGET_TCP_FIN 1
#define GADGET_TCP_SYN 2
#define GADGET_TCP_RST 4
#define GADGET_TCP_ACK 16

/* Whether a row is about the client or about the server. */
enum gadget_role { GADGET_ROLE_CLIENT = 1, GADGET_ROLE_SERVER };

/* The record that all programs for packets send. */
struct gadget_packet {
	struct gadget_record record;
	/* The process that owns the socket. */
	gadget_exec_id exec_id;
	/* The socket's cookie, which no other socket ever has. */
	__u64 socket;
	/* The socket's end and the remote end, as in this packet's headers. */
	gadget_ip local;
	gadget_ip remote;
	gadget_port local_port;
	gadget_port remote_port;
	gadget_ip_protocol protocol;
	/* 1: sent by the socket, 0: received. */
	__u8 outgoing;
	/* GADGET_TCP_… */
	__u8 flags;
	/* For TCP, the sequence number of the payload's first byte. */
	__u32 sequence;
	/* The number of payload bytes of the packet, from this record's first byte up to the next record of the same
	 * packet or, if there is none, to the packet's end. */
	__u32 payload_bytes;
	/* The part of the payload that is in this record. */
	gadget_string payload;
	/* The inode number of the socket's network namespace; 0: unknown. */
	__u32 network_namespace;
	/* The kind of socket: gadget/network/packet_socket.h. */
	gadget_address_family family;
	__u16 unused_16;
	__u32 unused_32;
};

/* Reads the IPv4 header. Returns the offset of its payload; 0: unknown. */
static __always_inline __u32 gadget_read_ipv4(struct __sk_buff *skb, struct gadget_packet *packet)
{
	struct iphdr ip;

	if (bpf_skb_load_bytes(skb, 0, &ip, sizeof(ip)) || ip.ihl < 5)
		return 0;
	/* Only the first fragment has the transport header. */
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
		/* The type of the next header, and this header's length in units of 8 bytes without the first 8. */
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

/* Reads the IP header. Returns the offset of its payload; 0: the packet is a later fragment, or malformed. */
static __always_inline __u32 gadget_read_ip(struct __sk_buff *skb, struct gadget_packet *packet, bool outgoing)
{
	packet->outgoing = outgoing;
	return skb->protocol == bpf_htons(0x86dd) ? gadget_read_ipv6(skb, packet) : gadget_read_ipv4(skb, packet);
}

/* Reads the TCP or UDP header at `offset`. Returns the offset of the payload; 0: it is neither. */
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
 * Reads the headers of a TCP or UDP packet into the members after the record's head. Returns the offset of the payload;
 * 0: it is another protocol, or malformed.
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

/* The kernel's struct sock for the struct bpf_sock that programs see. The verifier allows no other way to read its
 * members. */
static __always_inline struct sock *gadget_kernel_socket(void *sk)
{
	__u64 slot = (__u64)sk, address = 0;

	bpf_probe_read_kernel(&address, sizeof(address), &slot);
	return (struct sock *)address;
}

/* Whether one end has this port. 0: any port. */
static __always_inline bool gadget_has_port(const struct gadget_packet *packet, __u16 port)
{
	return !port || packet->local_port == port || packet->remote_port == port;
}

/* The packet's socket. The address goes through memory, since for the verifier the pointer is a struct bpf_sock, whose
 * other members it does not allow to read. */
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
	struct gadget_owner *owner;

	if (!sk)
		return false;
	owner = gadget_owner_of(sk);
	if (!gadget_begin_for_socket(&packet->record, sk, owner))
		return false;
	gadget_exec_of_owner(&packet->exec_id, owner);
	packet->socket = bpf_get_socket_cookie(skb);
	packet->family = gadget_read_at(struct sock, sk, __sk_common.skc_family);
	return true;
}

/*
 * The same for packets from which the client's view makes rows. If only one process is wanted, packets of connections
 * that are not accepted yet are wanted too, since that process may accept them. The view joins them with the following
 * packets, and drops rows that never get a process.
 */
static __always_inline bool gadget_begin_viewed_packet(struct __sk_buff *skb, struct gadget_packet *packet)
{
	struct sock *sk = gadget_socket_of_packet(skb, packet);
	struct gadget_owner *owner;

	if (!sk)
		return false;
	owner = gadget_owner_of(sk);
	if (!gadget_begin_for_socket_or_unaccepted(&packet->record, sk, owner, true))
		return false;
	gadget_exec_of_owner(&packet->exec_id, owner);
	packet->socket = bpf_get_socket_cookie(skb);
	packet->network_namespace = gadget_network_namespace(sk);
	packet->family = gadget_read_at(struct sock, sk, __sk_common.skc_family);
	packet->unused_16 = packet->unused_32 = 0;
	return true;
}

/* Copies 1 to `limit` bytes of the packet. Returns the number of bytes, with bounds known to the verifier; 0: the
 * packet is too short. */
static __always_inline __u32 gadget_load_bytes(struct __sk_buff *skb, __u32 offset, void *to, __u32 bytes, __u32 limit)
{
	/* The register that is compared must be the one that is passed to the helper, and before Linux 6.8 the verifier
	 * ignores a comparison with 0. */
	__u32 after_first = bytes - 1;

	asm volatile("" : "+r"(after_first));
	if (after_first >= limit || bpf_skb_load_bytes(skb, offset, to, after_first + 1))
		return 0;
	return after_first + 1;
}

/* Sends `bytes` of the payload from `offset` of the packet, at most GADGET_PIECE_BYTES. */
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

/*
 * Memory in which programs build their records, and gadget_send_packet(), which sends a packet whose record has its
 * head and the packet's headers, with at most `limit` bytes of the payload. Sending a piece is neither inlined nor
 * static, so that the verifier checks it once, and not for each piece.
 */
#define GADGET_PACKET_SLOTS(NAME)                                                                                      \
	GADGET_SLOTS(NAME, sizeof(struct gadget_packet) + GADGET_PIECE_BYTES);                                         \
                                                                                                                       \
	__noinline bool NAME##_send_piece(struct __sk_buff *skb, __u32 slot, __u32 offset, __u32 bytes)                \
	{                                                                                                              \
		struct gadget_packet *packet = gadget_slot(&NAME, slot);                                               \
                                                                                                                       \
		return packet && gadget_send_piece(skb, packet, offset, bytes);                                        \
	}                                                                                                              \
                                                                                                                       \
	static __always_inline void gadget_send_packet(struct __sk_buff *skb, struct gadget_packet *packet,            \
						       __u32 offset, __u32 limit)                                      \
	{                                                                                                              \
		__u32 left = packet->payload_bytes;                                                                    \
		__u32 wanted = left < limit ? left : limit;                                                            \
                                                                                                                       \
		for (int i = 0; i < GADGET_PACKET_PIECES; i++) {                                                       \
			__u32 bytes = wanted < GADGET_PIECE_BYTES ? wanted : GADGET_PIECE_BYTES;                       \
                                                                                                                       \
			packet->payload_bytes = bytes < wanted ? bytes : left;                                         \
			if (!NAME##_send_piece(skb, gadget_slot_number(packet), offset, bytes))                        \
				return;                                                                                \
			wanted -= bytes;                                                                               \
			if (!wanted)                                                                                   \
				return;                                                                                \
			offset += bytes;                                                                               \
			packet->sequence += bytes;                                                                     \
			left -= bytes;                                                                                 \
		}                                                                                                      \
	}

/* The programs of a gadget that sees packets. RUN is an expression of `skb` and `outgoing` that returns GADGET_PASS. */
#define GADGET_PACKET_PROGRAMS(RUN)                                                                                    \
	SEC("cgroup_skb/ingress")                                                                                      \
	int packet_received(struct __sk_buff *skb)                                                                     \
	{                                                                                                              \
		const bool outgoing = false;                                                                           \
                                                                                                                       \
		return RUN;                                                                                            \
	}                                                                                                              \
                                                                                                                       \
	SEC("cgroup_skb/egress")                                                                                       \
	int packet_sent(struct __sk_buff *skb)                                                                         \
	{                                                                                                              \
		const bool outgoing = true;                                                                            \
                                                                                                                       \
		return RUN;                                                                                            \
	}

/* The same for HANDLE(skb, memory, outgoing) with one of the `slots`, for packets for which WANTED is true. */
#define GADGET_PACKET_PROGRAMS_WITH_SLOT(WANTED, HANDLE)                                                               \
	static __always_inline int with_slot(struct __sk_buff *skb, bool outgoing)                                     \
	{                                                                                                              \
		void *memory = (WANTED) ? gadget_take_slot(&slots) : NULL;                                             \
                                                                                                                       \
		if (memory) {                                                                                          \
			HANDLE(skb, memory, outgoing);                                                                 \
			gadget_give_back(memory);                                                                      \
		}                                                                                                      \
		return GADGET_PASS;                                                                                    \
	}                                                                                                              \
                                                                                                                       \
	GADGET_PACKET_PROGRAMS(with_slot(skb, outgoing))

// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * trace dns: emits one `struct gadget_packet` for each UDP or TCP packet from or to the servers' port. From these, the
 * client makes one `struct trace_dns` for each question: kubectl_gadget/protocols/dns.py.
 *
 * Hooks: cgroup_skb at the node's root; for packets of packet sockets and AF_XDP, where a device takes them
 * (gadget/network/packet_socket.h). Not seen: questions that never leave their process, such as those that a cache
 * answers, and DNS over TLS, HTTPS or QUIC.
 */
#include <gadget/record.h>

const volatile __u16 filter_port = 53;

#define GADGET_HANDLES_PORT(PORT) (!filter_port || (PORT) == filter_port)

#define GADGET_RAW_BYTES GADGET_PIECE_BYTES

#include <gadget/network/packet.h>
#include <gadget/network/packet_socket.h>
#include <gadget/ends.h>

typedef __u16 gadget_dns_type;
/* -1: there was no answer. -2: not a DNS message. */
typedef __s32 gadget_dns_rcode;
/* Bytes 2 and 3 of a message. */
typedef __u16 gadget_dns_flags;

struct trace_dns {
	struct gadget_record record;
	/* The process and program that own the socket. */
	gadget_exec_id exec_id;
	/* From the first query to the answer; without an answer, the time waited for it. ~0: unknown. */
	gadget_duration latency;
	/* The size of the answer; ~0: there is none. */
	gadget_bytes size;
	gadget_ip server;
	gadget_ip client;
	gadget_port server_port;
	gadget_port client_port;
	gadget_ip_protocol protocol;
	gadget_dns_type type;
	gadget_dns_rcode rcode;
	enum gadget_role role;
	/* How many times the query was repeated before there was an answer. */
	__u32 retries;
	__u16 id;
	gadget_dns_flags flags;
	/* The kind of socket. */
	gadget_address_family family;
	__u16 unused_16;
	gadget_string name;
	gadget_strings addresses;
	gadget_strings answers;
};

GADGET_RECORD(gadget_packet);
GADGET_ROW(trace_dns);
GADGET_PACKETS_OF("other port");

GADGET_PACKET_SLOTS(slots);

static __always_inline void handle_packet(struct __sk_buff *skb, struct gadget_packet *packet, bool outgoing)
{
	__u32 offset;

	offset = gadget_read_headers(skb, packet, outgoing);
	if (!offset || !gadget_has_port(packet, filter_port) || !gadget_wanted_addresses(packet->local, packet->remote))
		return;
	if (!packet->payload_bytes && !(packet->flags & GADGET_TCP_SYN))
		return;
	if (gadget_begin_viewed_packet(skb, packet))
		gadget_send_packet(skb, packet, offset, packet->protocol == IPPROTO_UDP ? GADGET_PIECE_BYTES : ~0U);
}

static __always_inline void gadget_handle_raw(struct gadget_raw *raw)
{
	struct gadget_packet *packet = raw->packet;
	__u32 bytes = packet->payload_bytes < raw->readable ? packet->payload_bytes : raw->readable;

	if (!gadget_has_port(packet, filter_port) || !gadget_wanted_addresses(packet->local, packet->remote))
		return;
	if (!packet->payload_bytes && !(packet->flags & GADGET_TCP_SYN))
		return;
	if (bytes > GADGET_PIECE_BYTES)
		bytes = GADGET_PIECE_BYTES;
	/* The verifier of Linux 6.1 forgets the limit where the compiler copies the register before the comparison. */
	asm volatile("" : "+r"(bytes));
	if (bytes > GADGET_PIECE_BYTES)
		return;
	if (bytes && bpf_probe_read_kernel((void *)packet + sizeof(*packet), bytes, (const void *)raw->payload))
		bytes = 0;
	packet->unused_16 = packet->unused_32 = 0;
	packet->payload.offset = sizeof(*packet);
	packet->payload.length = bytes;
	gadget_emit(&packet->record, sizeof(*packet) + bytes, 0);
}

GADGET_PACKET_PROGRAMS_WITH_SLOT(gadget_may_have_port(skb, filter_port), handle_packet)

char LICENSE[] SEC("license") = "Dual BSD/GPL";

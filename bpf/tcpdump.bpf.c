// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * tcpdump: emits one `struct tcpdump` for each packet that a socket sends or receives, with the packet itself, from its
 * IP header on.
 *
 * Hooks: cgroup_skb at the node's root. Not seen: packets without a socket (forwarded packets, resets from closed
 * ports), and protocols other than IP.
 */
#include <gadget/network/packet.h>
#include <gadget/network/pcap_filter.h>

/* The direction, as seen by the socket. */
enum direction { DIRECTION_IN = 1, DIRECTION_OUT };
/* Bytes that are not text. */
typedef struct gadget_text gadget_data;

struct tcpdump {
	struct gadget_record record;
	gadget_ip source;
	gadget_ip destination;
	gadget_port source_port;
	gadget_port destination_port;
	gadget_ip_protocol protocol;
	__u16 unused_16;
	enum direction direction;
	/* The length of the whole packet, with its headers. */
	__u32 length;
	gadget_tcp_flags flags;
	/* For TCP. */
	__u32 sequence;
	__u32 acknowledged;
	__u32 window;
	/* The packet from its IP header on, up to the requested length. */
	gadget_data packet;
	__u32 unused_32;
};

GADGET_RECORD(tcpdump);

#define MOST_BYTES (16 << 10)

/* The maximum number of bytes of each packet that are sent, at most MOST_BYTES. */
const volatile __u32 snapshot_bytes = MOST_BYTES;

/* The headers that were read, followed by the record that is sent. */
struct scratch {
	struct gadget_packet headers;
	struct tcpdump row;
};

GADGET_SLOTS(slots, sizeof(struct scratch) + MOST_BYTES);

static __always_inline void set_ends(struct tcpdump *row, const struct gadget_packet *headers, bool outgoing)
{
	__builtin_memcpy(row->source, outgoing ? headers->local : headers->remote, sizeof(row->source));
	__builtin_memcpy(row->destination, outgoing ? headers->remote : headers->local, sizeof(row->destination));
	row->source_port = outgoing ? headers->local_port : headers->remote_port;
	row->destination_port = outgoing ? headers->remote_port : headers->local_port;
	row->protocol = headers->protocol;
	row->direction = outgoing ? DIRECTION_OUT : DIRECTION_IN;
}

static __always_inline void set_tcp(struct __sk_buff *skb, struct tcpdump *row, __u32 offset)
{
	struct tcphdr tcp;

	row->flags = row->sequence = row->acknowledged = row->window = 0;
	if (row->protocol != IPPROTO_TCP || !offset || bpf_skb_load_bytes(skb, offset, &tcp, sizeof(tcp)))
		return;
	row->flags = ((__u8 *)&tcp)[13];
	row->sequence = bpf_ntohl(tcp.seq);
	row->acknowledged = bpf_ntohl(tcp.ack_seq);
	row->window = bpf_ntohs(tcp.window);
}

static __always_inline void send(struct __sk_buff *skb, struct tcpdump *row)
{
	__u32 bytes = row->length < snapshot_bytes ? row->length : snapshot_bytes;

	if (bytes > MOST_BYTES)
		bytes = MOST_BYTES;
	if (!gadget_load_bytes(skb, 0, (void *)row + sizeof(*row), bytes, MOST_BYTES))
		return;
	row->packet.offset = sizeof(*row);
	row->packet.length = bytes;
	if (bytes < row->length)
		row->packet.length |= GADGET_CUT;
	row->unused_16 = row->unused_32 = 0;
	gadget_emit(&row->record, sizeof(*row) + bytes, 0);
}

static __always_inline void handle_packet(struct __sk_buff *skb, struct scratch *scratch, bool outgoing)
{
	struct gadget_packet *headers;
	struct tcpdump *row;
	__u32 transport;

	headers = &scratch->headers;
	row = &scratch->row;
	if (!gadget_begin_packet(skb, headers))
		return;
	row->record = headers->record;
	transport = gadget_read_ip(skb, headers, outgoing);
	if (!transport)
		return;
	headers->local_port = headers->remote_port = 0;
	gadget_read_ports(skb, headers, transport);
	set_ends(row, headers, outgoing);
	set_tcp(skb, row, transport);
	row->length = skb->len;
	send(skb, row);
}

GADGET_PACKET_PROGRAMS_WITH_SLOT(gadget_pcap_matches(skb), handle_packet)

char LICENSE[] SEC("license") = "Dual BSD/GPL";

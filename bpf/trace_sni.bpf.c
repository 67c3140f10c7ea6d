// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * trace sni: emits the first packets of TLS connections as `struct gadget_packet`: over TCP, the segments of the
 * ClientHello, on any port; over UDP, the Initial packets of QUIC. From these, the client makes one `struct trace_sni`
 * for each hello: kubectl_gadget/protocols/tls.py.
 *
 * Hooks: cgroup_skb at the node's root. Not seen: over TCP, a hello whose segments arrive out of order, or that does
 * not begin at the start of a segment.
 */
#include <gadget/network/packet.h>
#include <gadget/ends.h>
#include <gadget/network/socket_state.h>

/* The highest version that the client offers, as numbered by TLS. */
typedef __u16 gadget_tls_version;

struct trace_sni {
	struct gadget_record record;
	gadget_ip local;
	gadget_ip remote;
	gadget_port local_port;
	gadget_port remote_port;
	gadget_ip_protocol protocol;
	gadget_tls_version version;
	enum gadget_role role;
	gadget_string name;
	gadget_strings alpn;
	/* The client offers an encrypted hello (ECH), so the name may not be the real one. */
	bool ech;
	bool unused_8[3];
};

GADGET_RECORD(gadget_packet);
GADGET_ROW(trace_sni);
GADGET_PACKETS_OF("other port");

/* The server's or the client's. 0: any. */
const volatile __u16 filter_port = 0;

#define RECORD_HEAD 5
#define HANDSHAKE 22
#define CLIENT_HELLO 1

/* The maximum number of bytes of a hello that are sent. With post-quantum keys, a hello has about 1,800 bytes. */
#define HELLO_BYTES (16 << 10)
/* The number of bytes sent when the first segment is too short to contain the length of the hello. */
#define UNKNOWN_HELLO_BYTES (4 << 10)

/* An incomplete hello: sequence numbers. */
struct hello {
	__u32 begin;
	__u32 end;
};

GADGET_SOCKET_STATE(hello, 16384);

GADGET_PACKET_SLOTS(slots);

/* The length of the hello that begins with this payload; 0: it is not a hello. */
static __always_inline __u32 hello_bytes(struct __sk_buff *skb, const struct gadget_packet *packet, __u32 offset)
{
	/* The TLS record's type, version and length, then the handshake's type and length. */
	__u8 head[RECORD_HEAD + 4];
	__u32 bytes;

	if (packet->payload_bytes < sizeof(head)) {
		if (bpf_skb_load_bytes(skb, offset, head, 1) || head[0] != HANDSHAKE)
			return 0;
		return UNKNOWN_HELLO_BYTES;
	}
	if (bpf_skb_load_bytes(skb, offset, head, sizeof(head)))
		return 0;
	if (head[0] != HANDSHAKE || head[1] != 3 || head[2] > 4 || head[5] != CLIENT_HELLO || head[6])
		return 0;
	bytes = sizeof(head) + (head[7] << 8 | head[8]);
	/* If the hello is split into several TLS records, each has a head. */
	bytes += RECORD_HEAD * 8;
	return bytes < HELLO_BYTES ? bytes : HELLO_BYTES;
}

/* How many bytes of this TCP payload may belong to a hello. Remembers the hello until it is complete. */
static __always_inline __u32 hello_in(struct __sk_buff *skb, const struct gadget_packet *packet, __u32 offset)
{
	__u64 socket = gadget_socket_key(skb);
	struct hello *known = gadget_socket_state_of(socket);
	__u32 bytes;

	if (known && packet->sequence - known->begin < known->end - known->begin) {
		__u32 left = known->end - packet->sequence;

		if (packet->payload_bytes >= left)
			gadget_socket_remove_state(socket);
		return left;
	}
	bytes = hello_bytes(skb, packet, offset);
	known = bytes > packet->payload_bytes ? gadget_make_socket_state(skb, socket) : NULL;
	if (known) {
		known->begin = packet->sequence;
		known->end = packet->sequence + bytes;
	}
	return bytes;
}

/* Whether the payload begins with an Initial packet of QUIC, version 1 or 2. */
static __always_inline bool opens_quic(struct __sk_buff *skb, const struct gadget_packet *packet, __u32 offset)
{
	__u8 head[5];

	/* RFC 9000 requires clients to pad them to 1200 bytes. */
	if (packet->payload_bytes < 1200 || bpf_skb_load_bytes(skb, offset, head, sizeof(head)))
		return false;
	if (!head[1] && !head[2] && !head[3] && head[4] == 1)
		return (head[0] & 0xf0) == 0xc0;
	return head[1] == 0x6b && head[2] == 0x33 && head[3] == 0x43 && head[4] == 0xcf && (head[0] & 0xf0) == 0xd0;
}

static __always_inline void handle_packet(struct __sk_buff *skb, struct gadget_packet *packet, bool outgoing)
{
	__u32 offset, wanted;

	offset = gadget_read_headers(skb, packet, outgoing);
	if (!offset || !packet->payload_bytes || !gadget_has_port(packet, filter_port) ||
	    !gadget_wanted_addresses(packet->local, packet->remote))
		return;
	if (packet->protocol == IPPROTO_UDP)
		wanted = opens_quic(skb, packet, offset) ? GADGET_PIECE_BYTES : 0;
	else
		wanted = hello_in(skb, packet, offset);
	if (wanted && gadget_begin_viewed_packet(skb, packet))
		gadget_send_packet(skb, packet, offset, wanted);
}

GADGET_PACKET_PROGRAMS_WITH_SLOT(gadget_may_have_port(skb, filter_port), handle_packet)

char LICENSE[] SEC("license") = "Dual BSD/GPL";

// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * trace tls: emits the packets of TLS handshakes over TCP as `struct gadget_packet`, on any port, from the ClientHello
 * on. From these, the client makes one `struct trace_tls` for each handshake: kubectl_gadget/protocols/handshake.py.
 *
 * Hooks: cgroup_skb at the node's root. What follows a handshake does not leave the node, but for the first 4 KiB in
 * each direction, which is encrypted: it shows how the handshake ended. Not seen: QUIC, and a handshake whose hello
 * does not begin at the start of a segment.
 */
#include <gadget/network/packet.h>
#include <gadget/network/socket_state.h>
#include <gadget/ends.h>

/* As numbered by TLS. */
typedef __u16 gadget_tls_version;

/* Which end. */
enum tls_end { TLS_END_CLIENT = 1, TLS_END_SERVER };

enum result {
	RESULT_ESTABLISHED = 1,
	/* An alert in clear ended it. */
	RESULT_ALERT,
	/* An alert ended it whose contents are encrypted. */
	RESULT_ENCRYPTED_ALERT,
	/* The connection was closed before it was established. */
	RESULT_CLOSED,
	RESULT_RESET,
	/* It was not established in time. */
	RESULT_NO_ANSWER,
};

struct trace_tls {
	struct gadget_record record;
	/* The process and program that own the socket. */
	gadget_exec_id exec_id;
	/* From the hello to the result. */
	gadget_duration duration;
	gadget_ip local;
	gadget_ip remote;
	gadget_port local_port;
	gadget_port remote_port;
	/* The one that the server chose; before that, the highest that the client offers. */
	gadget_tls_version version;
	__u16 unused_16;
	enum gadget_role role;
	enum result result;
	/* Which end sent the alert, or ended the connection. 0: none. */
	enum tls_end ended_by;
	gadget_string name;
	gadget_string alert;
	gadget_string cipher;
	gadget_strings ciphers;
	gadget_strings alpn;
	/* Of the server's certificate, if it is in clear. */
	gadget_strings certificate;
	gadget_string subject;
	gadget_string issuer;
	gadget_string not_before;
	gadget_string not_after;
	__u32 unused_32;
};

GADGET_RECORD(gadget_packet);
GADGET_ROW(trace_tls);
GADGET_PACKETS_OF("other port");

/* The server's or the client's. 0: any. */
const volatile __u16 filter_port = 0;

#define CHANGE_CIPHER_SPEC 20
#define HANDSHAKE 22
#define APPLICATION_DATA 23
#define CLIENT_HELLO 1

/* The maximum number of bytes that are sent of a handshake in each direction: certificates may be long. And of what
 * follows once the client has encrypted. */
#define HANDSHAKE_BYTES (32 << 10)
#define LATER_BYTES 4096

struct handshake {
	/* How many more bytes are sent: of received packets, of sent ones. */
	__u32 left[2];
	/* Whether the socket is the client's. */
	__u32 is_client;
};

GADGET_SOCKET_STATE(handshake, 16384);

GADGET_PACKET_SLOTS(slots);

/* The first byte of the payload, if a TLS record of version 3.x may begin there; else 0. `head` gets its beginning. */
static __always_inline __u8 record_type(struct __sk_buff *skb, const struct gadget_packet *packet, __u32 offset,
					__u8 head[6])
{
	if (packet->payload_bytes < 6 || bpf_skb_load_bytes(skb, offset, head, 6) || head[1] != 3 || head[2] > 4)
		return 0;
	return head[0];
}

/* How many bytes of this payload are sent. */
static __always_inline __u32 handshake_in(struct __sk_buff *skb, const struct gadget_packet *packet, __u32 offset)
{
	__u64 socket = gadget_socket_key(skb);
	struct handshake *known = gadget_socket_state_of(socket);
	__u8 head[6] = {}, type = record_type(skb, packet, offset, head);
	__u32 way = packet->outgoing & 1, bytes;

	if (type == HANDSHAKE && head[5] == CLIENT_HELLO) {
		if (!known)
			known = gadget_make_socket_state(skb, socket);
		if (!known)
			return 0;
		known->left[0] = known->left[1] = HANDSHAKE_BYTES;
		known->is_client = way;
	}
	if (!known)
		return 0;
	/* The client encrypts, so the handshake is nearly over. */
	if ((type == APPLICATION_DATA || type == CHANGE_CIPHER_SPEC) && way == known->is_client) {
		for (int i = 0; i < 2; i++) {
			if (known->left[i] > LATER_BYTES)
				known->left[i] = LATER_BYTES;
		}
	}
	bytes = packet->payload_bytes < known->left[way] ? packet->payload_bytes : known->left[way];
	known->left[way] -= bytes;
	return bytes;
}

static __always_inline void handle_packet(struct __sk_buff *skb, struct gadget_packet *packet, bool outgoing)
{
	__u32 offset, wanted = 0;

	offset = gadget_read_headers(skb, packet, outgoing);
	if (!offset || packet->protocol != IPPROTO_TCP || !gadget_has_port(packet, filter_port) ||
	    !gadget_wanted_addresses(packet->local, packet->remote))
		return;
	if (packet->payload_bytes)
		wanted = handshake_in(skb, packet, offset);
	else if (!(packet->flags & (GADGET_TCP_FIN | GADGET_TCP_RST)) ||
		 !gadget_socket_state_of(gadget_socket_key(skb)))
		return;
	if (!wanted && !(packet->flags & (GADGET_TCP_FIN | GADGET_TCP_RST)))
		return;
	if (gadget_begin_viewed_packet(skb, packet))
		gadget_send_packet(skb, packet, offset, wanted);
}

GADGET_PACKET_PROGRAMS_WITH_SLOT(gadget_may_have_port(skb, filter_port), handle_packet)

char LICENSE[] SEC("license") = "Dual BSD/GPL";

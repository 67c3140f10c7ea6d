// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * trace http: emits packets of TCP connections as `struct gadget_packet`, from the first packet on that begins like an
 * HTTP/1 message, an HTTP/2 connection or HTTP/2 headers. From these, the client makes one `struct trace_http` for each
 * request: kubectl_gadget/protocols/http.py.
 *
 * Hooks: cgroup_skb at the node's root. Not seen: HTTP over TLS. Bodies do not leave the node, except for small packets
 * and, of HTTP/1, the part in the same packet as a head and the first bytes of other packets. While the position of
 * HTTP/2 frames is unknown (gadget/network/http2.h), packets are sent whole, up to a megabyte per second and socket.
 */
#include <gadget/network/http2.h>
#include <gadget/network/socket_state.h>
#include <gadget/ends.h>

typedef __u32 gadget_http_status;
typedef __u64 gadget_grpc_status;

struct trace_http {
	struct gadget_record record;
	/* The process and program that own the socket. */
	gadget_exec_id exec_id;
	/* From the request to the beginning of the answer; without an answer, the time waited for it. ~0: unknown. */
	gadget_duration latency;
	/* HTTP/1: how long nothing was sent or received on the connection before the request. ~0: it is the first one,
	 * or unknown. */
	gadget_duration idle;
	/* According to the headers. ~0: they do not say. */
	gadget_bytes request_bytes;
	gadget_bytes response_bytes;
	/* ~0: not gRPC, or unknown. */
	gadget_grpc_status grpc_status;
	gadget_ip local;
	gadget_ip remote;
	gadget_port local_port;
	gadget_port remote_port;
	enum gadget_role role;
	/* 0: there was no answer. ~0: unknown. */
	gadget_http_status status;
	/* Why there was no answer: the connection was reset by the other end or by this one. 0: another reason. */
	gadget_errno errno;
	__u32 unused_32;
	gadget_string method;
	gadget_string target;
	gadget_string host;
	gadget_string agent;
	gadget_string content_type;
	gadget_string location;
	gadget_string protocol;
	gadget_string grpc_message;
	gadget_string reset;
	/* The request's W3C trace context. */
	gadget_string traceparent;
};

GADGET_RECORD(gadget_packet);
GADGET_ROW(trace_http);
GADGET_PACKETS_OF("other port");

/* The server's or the client's. 0: any. */
const volatile __u16 filter_port = 0;

/* How many bytes are sent: of a packet that begins with a head, of a small packet, which may contain the rest of a
 * head, and of any other HTTP/1 packet. */
#define HEAD_BYTES GADGET_PIECE_BYTES
#define SMALL_PACKET 4096
#define BEGINNING 256
/* The maximum number of frames that are parsed in a packet, and of pieces into which it is split. */
#define MOST_FRAMES 24
#define MOST_PIECES (MOST_FRAMES + GADGET_PACKET_PIECES)

enum http_version {
	NO_HTTP,
	HTTP_1,
	HTTP_2,
};

/* While the position of frames is unknown, large packets are sent whole, up to this many bytes per second and socket.
 * More would fill the ring. Of further packets, only the headers are sent, until one begins like a frame. */
#define BODY_BYTES (1 << 20)
#define BODY_NS 1000000000ULL

struct http_socket {
	/* The start of the second in which `bytes` of large packets were sent. */
	__u64 since;
	__u32 bytes;
	/* enum http_version */
	__u32 version;
	/* For HTTP/2: the state of both directions. */
	struct gadget_http2 received;
	struct gadget_http2 sent;
};

/* Sockets on which HTTP was seen. One container may have half of them. */
GADGET_SOCKET_STATE(http_socket, 32768);

/* A packet that is being sent in pieces. */
struct sending {
	struct gadget_packet packet;
	char piece[GADGET_PIECE_BYTES];
	struct gadget_payload payload;
	/* The maximum number of bytes to send; 0 for a large HTTP/2 packet, which is split. */
	__u32 limit;
	/* The number of pieces so far. */
	__u32 pieces;
	/* The packet's flags. */
	__u8 flags;
};

GADGET_SLOTS(slots, sizeof(struct sending));

#define WORD(A, B, C, D) ((__u32)(A) | (__u32)(B) << 8 | (__u32)(C) << 16 | (__u32)(D) << 24)

#define END_HEADERS 0x04
#define HEADERS_FLAGS 0x2d

/* Whether the payload is long enough for a HEADERS frame, and begins like one. */
static __always_inline bool begins_headers(struct __sk_buff *skb, __u32 offset)
{
	struct gadget_http2_head head;
	__u32 length;

	if (bpf_skb_load_bytes(skb, offset, &head, sizeof(head)))
		return false;
	length = gadget_http2_length(&head);
	return head.type == GADGET_HTTP2_HEADERS && head.flags & END_HEADERS && !(head.flags & ~HEADERS_FLAGS) &&
	       length && length <= GADGET_HTTP2_USUAL && skb->len - offset >= sizeof(head) + length &&
	       gadget_http2_may_be_head(&head, false);
}

/* The shortest request is ABC / HTTP/1.1 and two ends of lines. */
#define SHORTEST_REQUEST 18

static __always_inline bool is_of_method(char letter)
{
	return (letter >= 'A' && letter <= 'Z') || letter == '-';
}

/* Whether the payload begins with a method of 3 to 16 capital letters and hyphens, such as PROPFIND, and with a path,
 * an http URL or an asterisk. */
static __always_inline bool begins_request(struct __sk_buff *skb, __u32 offset)
{
	char line[SHORTEST_REQUEST];

	if (bpf_skb_load_bytes(skb, offset, line, sizeof(line)))
		return false;
	for (int i = 0; i < SHORTEST_REQUEST - 1; i++) {
		if (is_of_method(line[i]))
			continue;
		return i >= 3 && line[i] == ' ' && (line[i + 1] == '/' || line[i + 1] == 'h' || line[i + 1] == '*');
	}
	return false;
}

/* Whether the payload begins with a method, a response's version, or the connection preface of HTTP/2. */
static __always_inline enum http_version begins_message(struct __sk_buff *skb, __u32 offset)
{
	__u32 word;

	if (bpf_skb_load_bytes(skb, offset, &word, sizeof(word)))
		return NO_HTTP;
	if (word == WORD('P', 'R', 'I', ' '))
		return HTTP_2;
	if (word == WORD('H', 'T', 'T', 'P') || word == WORD('G', 'E', 'T', ' ') || word == WORD('P', 'O', 'S', 'T') ||
	    word == WORD('P', 'U', 'T', ' ') || word == WORD('H', 'E', 'A', 'D') || word == WORD('D', 'E', 'L', 'E') ||
	    word == WORD('O', 'P', 'T', 'I') || word == WORD('P', 'A', 'T', 'C') || word == WORD('C', 'O', 'N', 'N') ||
	    word == WORD('T', 'R', 'A', 'C'))
		return HTTP_1;
	if (is_of_method(word) && is_of_method(word >> 8) && is_of_method(word >> 16) && begins_request(skb, offset))
		return HTTP_1;
	return NO_HTTP;
}

/* Whether a large packet is sent whole. Packets of one socket may be handled concurrently, so the limit is not exact.
 */
static __always_inline bool is_within_budget(struct http_socket *http, __u32 bytes)
{
	__u64 now = bpf_ktime_get_boot_ns();

	if (now - http->since > BODY_NS) {
		http->since = now;
		http->bytes = 0;
	}
	if (http->bytes > BODY_BYTES)
		return false;
	http->bytes += bytes;
	return true;
}

/* The socket's entry, if this packet or an earlier one shows that it uses HTTP. */
static __always_inline struct http_socket *http_socket_of(struct __sk_buff *skb, const struct gadget_packet *packet,
							  __u32 offset, enum http_version *begins)
{
	__u64 socket = gadget_socket_key(skb);
	struct http_socket *known = gadget_socket_state_of(socket);

	*begins = NO_HTTP;
	if (!packet->payload_bytes || (known && known->version == HTTP_2))
		return known;
	*begins = begins_message(skb, offset);
	if (!*begins && !known && begins_headers(skb, offset))
		*begins = HTTP_2;
	if (*begins && !(known && known->version == *begins)) {
		known = gadget_make_socket_state(skb, socket);
		if (known) {
			__builtin_memset(known, 0, sizeof(*known));
			known->version = *begins;
		}
	}
	return known;
}

/* Parses the frames of a small packet, which is sent whole: separate records for its frames would be longer. */
static __always_inline void parse_small(struct __sk_buff *skb, struct gadget_http2 *frames,
					struct gadget_payload *payload)
{
	__u32 sequence = payload->sequence, offset = payload->offset, left = payload->left;

	gadget_http2_place(skb, frames, payload);
	for (int i = 0; i < MOST_FRAMES; i++) {
		asm volatile("" ::: "memory");
		if (!payload->left || !gadget_http2_parse(skb, frames, payload))
			break;
	}
	if (payload->left)
		frames->is_synchronized = false;
	payload->sequence = sequence;
	payload->offset = offset;
	payload->left = left;
}

static __always_inline void pass_piece(struct __sk_buff *skb, struct http_socket *http, struct gadget_http2 *frames,
				       struct sending *sending)
{
	struct gadget_payload *payload = &sending->payload;
	__u32 bytes, pieces = sending->pieces++;

	if (sending->limit) {
		if (http->version == HTTP_2)
			parse_small(skb, frames, payload);
		gadget_advance(payload, payload->left < sending->limit ? payload->left : sending->limit, payload->left);
		return;
	}
	payload->piece = 0;
	if (!pieces)
		gadget_http2_place(skb, frames, payload);
	if (payload->piece)
		return;
	if (pieces < MOST_FRAMES && gadget_http2_parse(skb, frames, payload))
		return;
	frames->is_synchronized = false;
	bytes = payload->left < GADGET_PIECE_BYTES ? payload->left : GADGET_PIECE_BYTES;
	if (pieces < MOST_PIECES - 1 && is_within_budget(http, bytes))
		gadget_advance(payload, bytes, bytes);
	else
		gadget_advance(payload, 0, payload->left);
}

/* Sends the next piece of a packet. False: it was the last one. Not inlined and not static, so that the verifier checks
 * it once. */
__noinline bool send_next_piece(struct __sk_buff *skb, __u32 slot, __u32 outgoing)
{
	struct sending *sending = gadget_slot(&slots, slot);
	struct http_socket *http;

	if (!sending)
		return false;
	http = gadget_socket_state_of(gadget_socket_key(skb));
	if (!http)
		return false;
	pass_piece(skb, http, outgoing ? &http->sent : &http->received, sending);
	sending->packet.sequence = sending->payload.sequence - sending->payload.piece;
	sending->packet.payload_bytes = sending->payload.piece;
	/* Only the last piece has the FIN. */
	sending->packet.flags = sending->payload.left ? sending->flags & ~GADGET_TCP_FIN : sending->flags;
	gadget_send_piece(skb, &sending->packet, sending->payload.offset - sending->payload.piece,
			  sending->payload.sent);
	return sending->payload.left;
}

static __always_inline void send_pieces(struct __sk_buff *skb, struct sending *sending, bool outgoing)
{
	for (int i = 0; i < MOST_PIECES; i++) {
		if (!send_next_piece(skb, gadget_slot_number(sending), outgoing))
			return;
	}
}

static __always_inline void handle_packet(struct __sk_buff *skb, struct sending *sending, bool outgoing)
{
	struct gadget_packet *packet = &sending->packet;
	struct http_socket *http;
	enum http_version begins;
	bool is_small;
	__u32 offset;

	offset = gadget_read_headers(skb, packet, outgoing);
	if (!offset || packet->protocol != IPPROTO_TCP || !gadget_has_port(packet, filter_port) ||
	    !gadget_wanted_addresses(packet->local, packet->remote))
		return;
	if (!packet->payload_bytes && !(packet->flags & (GADGET_TCP_FIN | GADGET_TCP_RST)))
		return;
	http = http_socket_of(skb, packet, offset, &begins);
	if (!http || !gadget_begin_viewed_packet(skb, packet))
		return;
	is_small = packet->payload_bytes <= SMALL_PACKET;
	if (http->version == HTTP_2)
		sending->limit = is_small ? SMALL_PACKET : 0;
	else
		sending->limit = begins ? HEAD_BYTES : is_small ? SMALL_PACKET : BEGINNING;
	sending->payload.sequence = packet->sequence;
	sending->payload.offset = offset;
	sending->payload.left = packet->payload_bytes;
	sending->pieces = 0;
	sending->flags = packet->flags;
	send_pieces(skb, sending, outgoing);
}

GADGET_PACKET_PROGRAMS_WITH_SLOT(gadget_may_have_port(skb, filter_port), handle_packet)

char LICENSE[] SEC("license") = "Dual BSD/GPL";

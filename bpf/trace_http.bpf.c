// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * trace http: emits packets of TCP connections as `struct gadget_packet`, from the first packet that begins like a
 * message of HTTP/1, like a connection of HTTP/2 or like HTTP/2 headers. From them the client makes one `struct
 * trace_http` for each request: kubectl_gadget/views/protocols/http.py.
 *
 * Hooks: cgroup_skb at the node's root. Not seen: HTTP over TLS. Bodies of HTTP/1 do not leave the node, except for the
 * part in the same packet as a head, and the first bytes of other packets. HTTP/2 is sent as a whole, up to a megabyte
 * per second and socket, since only the frames themselves show where in a packet the next headers begin.
 */
#include <gadget/packet.h>
#include <gadget/ends.h>

typedef __u32 gadget_http_status;
typedef __u64 gadget_grpc_status;

struct trace_http {
	struct gadget_record record;
	/* The process and program that own the socket. */
	gadget_exec_id exec_id;
	/* From the request to the beginning of the answer; without an answer, the time waited for it. ~0: unknown. */
	gadget_duration latency;
	/* According to the heads. ~0: they do not say. */
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
	gadget_string method;
	gadget_string target;
	gadget_string host;
	gadget_string agent;
	gadget_string content_type;
	gadget_string location;
	gadget_string protocol;
	gadget_string grpc_message;
	gadget_string reset;
};

GADGET_RECORD(gadget_packet);
GADGET_ROW(trace_http);
GADGET_PACKETS_OF("other port");

/* The server's or the client's. 0: any. */
const volatile __u16 filter_port = 0;

/* How many bytes are sent of a packet that begins with a head, of another one that may contain the rest of a head, and
 * of a large one. */
#define HEAD_BYTES GADGET_PIECE_BYTES
#define SMALL_PACKET 4096
#define BEGINNING 256
#define MOST_BYTES (GADGET_PACKET_PIECES * GADGET_PIECE_BYTES)

enum talk {
	NO_HTTP,
	HTTP_1,
	HTTP_2,
};

/*
 * For HTTP/2, large packets are sent whole up to this many bytes per second and socket. A larger body would fill the
 * ring with useless data; its packets are only counted then, until a packet begins with headers.
 */
#define BODY_BYTES (1 << 20)
#define BODY_NS 1000000000ULL

struct talker {
	/* The start of the second in which `bytes` of large packets were sent. */
	__u64 since;
	__u32 bytes;
	/* enum talk */
	__u32 talk;
};

/* Sockets on which HTTP was seen. The least recently used ones are dropped. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, __u64);
	__type(value, struct talker);
} talkers SEC(".maps");

GADGET_PACKET_SLOTS(slots);

#define WORD(A, B, C, D) ((__u32)(A) | (__u32)(B) << 8 | (__u32)(C) << 16 | (__u32)(D) << 24)

/* Frames of HTTP/2: RFC 9113, sections 4.1 and 6.2. */
struct frame_head {
	__u8 length[3];
	__u8 type;
	__u8 flags;
	__u8 stream[4];
};

#define FRAME_HEADERS 1
#define END_HEADERS 0x04
#define HEADERS_FLAGS 0x2d
#define USUAL_FRAME (16 << 10)

/* Whether the payload is long enough for a HEADERS frame, and begins like one. */
static __always_inline bool begins_headers(struct __sk_buff *skb, __u32 offset)
{
	struct frame_head head;
	__u32 length;

	if (bpf_skb_load_bytes(skb, offset, &head, sizeof(head)))
		return false;
	length = head.length[0] << 16 | head.length[1] << 8 | head.length[2];
	return head.type == FRAME_HEADERS && head.flags & END_HEADERS && !(head.flags & ~HEADERS_FLAGS) && length &&
	       length <= USUAL_FRAME && skb->len - offset >= sizeof(head) + length && !(head.stream[0] & 0x80) &&
	       (head.stream[0] || head.stream[1] || head.stream[2] || head.stream[3]);
}

/* What the payload begins with: a method, a response's version, or the connection preface of HTTP/2. */
static __always_inline enum talk begins_message(struct __sk_buff *skb, __u32 offset)
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
	return NO_HTTP;
}

/* Whether a packet of HTTP/2 is sent whole. Packets of one socket may be handled concurrently, so the limit is not
 * exact. */
static __always_inline bool is_within_budget(struct __sk_buff *skb, struct talker *talker,
					     const struct gadget_packet *packet, __u32 offset)
{
	__u64 now = bpf_ktime_get_boot_ns();

	if (packet->payload_bytes <= SMALL_PACKET || begins_headers(skb, offset))
		return true;
	if (now - talker->since > BODY_NS) {
		talker->since = now;
		talker->bytes = 0;
	}
	if (talker->bytes > BODY_BYTES)
		return false;
	talker->bytes += packet->payload_bytes;
	return true;
}

/* How many bytes of the payload are sent; -1: nothing at all. */
static __always_inline int wanted_bytes(struct __sk_buff *skb, const struct gadget_packet *packet, __u32 offset)
{
	__u64 socket;
	struct talker *known;
	__u32 before, talk;

	if (!packet->payload_bytes && !(packet->flags & (GADGET_TCP_FIN | GADGET_TCP_RST)))
		return -1;
	socket = bpf_get_socket_cookie(skb);
	known = bpf_map_lookup_elem(&talkers, &socket);
	before = talk = known ? known->talk : NO_HTTP;
	if (packet->payload_bytes && before != HTTP_2) {
		__u32 begins = begins_message(skb, offset);

		if (begins)
			talk = begins;
		else if (before == NO_HTTP && begins_headers(skb, offset))
			talk = HTTP_2;
		if (talk != before) {
			struct talker talker = {.talk = talk};

			bpf_map_update_elem(&talkers, &socket, &talker, BPF_ANY);
		}
		if (begins == HTTP_1)
			return HEAD_BYTES;
	}
	switch (talk) {
	case HTTP_2:
		return !known || is_within_budget(skb, known, packet, offset) ? MOST_BYTES : 0;
	case HTTP_1:
		return packet->payload_bytes > SMALL_PACKET ? BEGINNING : SMALL_PACKET;
	default:
		return -1;
	}
}

static __always_inline void look_at(struct __sk_buff *skb, struct gadget_packet *packet, bool outgoing)
{
	__u32 offset;
	int bytes;

	offset = gadget_read_headers(skb, packet, outgoing);
	if (!offset || packet->protocol != IPPROTO_TCP || !gadget_has_port(packet, filter_port) ||
	    !gadget_wanted_addresses(packet->local, packet->remote))
		return;
	bytes = wanted_bytes(skb, packet, offset);
	if (bytes >= 0 && gadget_begin_viewed_packet(skb, packet))
		gadget_send_packet(skb, packet, offset, bytes);
}

static __always_inline int in_slot(struct __sk_buff *skb, bool outgoing)
{
	struct gadget_packet *packet = gadget_may_have_port(skb, filter_port) ? gadget_take_slot(&slots) : NULL;

	if (packet) {
		look_at(skb, packet, outgoing);
		gadget_give_back(packet);
	}
	return GADGET_PASS;
}

SEC("cgroup_skb/ingress")
int packet_received(struct __sk_buff *skb)
{
	return in_slot(skb, false);
}

SEC("cgroup_skb/egress")
int packet_sent(struct __sk_buff *skb)
{
	return in_slot(skb, true);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";

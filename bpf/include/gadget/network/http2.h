/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Parses the frames of HTTP/2 (RFC 9113, section 4.1) in one direction of a connection, so that bodies need not leave
 * the node: only header blocks and the 9-byte heads of all frames are sent.
 *
 * A frame's head may be split between two packets. And packets may be lost or reordered; then the position of the next
 * head is unknown until a packet begins like a frame.
 */
#pragma once

#include <gadget/network/packet.h>

#define GADGET_HTTP2_HEAD 9
#define GADGET_HTTP2_PREFACE 24
/* The default of SETTINGS_MAX_FRAME_SIZE: longer frames need an agreement between both ends. */
#define GADGET_HTTP2_USUAL (16 << 10)

enum gadget_http2_type {
	GADGET_HTTP2_DATA,
	GADGET_HTTP2_HEADERS,
	GADGET_HTTP2_PRIORITY,
	GADGET_HTTP2_RST_STREAM,
	GADGET_HTTP2_SETTINGS,
	GADGET_HTTP2_PUSH_PROMISE,
	GADGET_HTTP2_PING,
	GADGET_HTTP2_GOAWAY,
	GADGET_HTTP2_WINDOW_UPDATE,
	GADGET_HTTP2_CONTINUATION,
	GADGET_HTTP2_TYPES,
	/* Types below this may be those of extensions. */
	GADGET_HTTP2_LIKELY_TYPES = 32,
};

#define GADGET_HTTP2_PADDED 0x08
/* Longer header blocks are not sent. */
#define GADGET_HTTP2_BLOCK (64 << 10)

struct gadget_http2_head {
	__u8 length[3];
	__u8 type;
	__u8 flags;
	__u8 stream[4];
};

/* The rest of a packet's payload, and the piece before it. */
struct gadget_payload {
	__u32 sequence;
	__u32 offset;
	__u32 left;
	/* How many of the piece's bytes are sent, from the first one on, and how many it has. */
	__u32 sent;
	__u32 piece;
};

/* The state of one direction. */
struct gadget_http2 {
	/* The sequence number of the next expected byte. */
	__u32 next;
	/* The rest of the current frame: bytes to be sent, and after them bytes of a body. */
	__u32 wanted;
	__u32 body;
	/* A frame's head, and how many bytes of it have arrived, if the rest is in the next packet. The buffer has
	 * twice the size, since the verifier knows the bounds of offset and length, but not of their sum. */
	__u8 head[2 * GADGET_HTTP2_HEAD];
	__u8 head_bytes;
	/* Whether the position of the next frame is known, so that the members above are valid. */
	__u8 is_synchronized;
};

static __always_inline __u32 gadget_http2_length(const struct gadget_http2_head *head)
{
	return head->length[0] << 16 | head->length[1] << 8 | head->length[2];
}

/* Whether this may be a frame's head. If `is_synchronized` is false, it may be any data, so the check is stricter. */
static __always_inline bool gadget_http2_may_be_head(const struct gadget_http2_head *head, bool is_synchronized)
{
	bool of_connection = head->type == GADGET_HTTP2_SETTINGS || head->type == GADGET_HTTP2_PING ||
			     head->type == GADGET_HTTP2_GOAWAY;
	bool has_stream = head->stream[1] || head->stream[2] || head->stream[3] || head->stream[0];

	if (head->stream[0] & 0x80 || head->type >= (is_synchronized ? GADGET_HTTP2_LIKELY_TYPES : GADGET_HTTP2_TYPES))
		return false;
	if (!is_synchronized && gadget_http2_length(head) > GADGET_HTTP2_USUAL)
		return false;
	return head->type == GADGET_HTTP2_WINDOW_UPDATE || head->type >= GADGET_HTTP2_TYPES ||
	       has_stream != of_connection;
}

/* Whether the frame's payload is sent. */
static __always_inline bool gadget_http2_is_wanted(const struct gadget_http2_head *head)
{
	return gadget_http2_length(head) <= GADGET_HTTP2_BLOCK &&
	       (head->type == GADGET_HTTP2_HEADERS || head->type == GADGET_HTTP2_CONTINUATION ||
		head->type == GADGET_HTTP2_PUSH_PROMISE || head->type == GADGET_HTTP2_RST_STREAM);
}

/* Reads the head of the next frame, as far as it is in this packet. False: there is none. */
static __always_inline bool gadget_http2_begin(struct __sk_buff *skb, struct gadget_http2 *frames,
					       const struct gadget_payload *payload)
{
	const struct gadget_http2_head *head = (void *)frames->head;
	__u32 before = frames->head_bytes & 15, bytes = GADGET_HTTP2_HEAD - before, length;

	if (before >= GADGET_HTTP2_HEAD)
		return false;
	if (bytes > payload->left)
		bytes = payload->left;
	bytes = gadget_load_bytes(skb, payload->offset, frames->head + before, bytes, GADGET_HTTP2_HEAD);
	if (!bytes)
		return false;
	frames->wanted = bytes;
	if (before + bytes < GADGET_HTTP2_HEAD) {
		frames->head_bytes = before + bytes;
		return true;
	}
	frames->head_bytes = 0;
	if (!gadget_http2_may_be_head(head, true))
		return false;
	length = gadget_http2_length(head);
	if (gadget_http2_is_wanted(head)) {
		frames->wanted += length;
	} else if (head->type == GADGET_HTTP2_DATA && length && head->flags & GADGET_HTTP2_PADDED) {
		frames->wanted++;
		frames->body = length - 1;
	} else {
		frames->body = length;
	}
	return true;
}

/* Whether a frame seems to begin at the packet's first byte; used when the earlier packets are unknown. */
static __always_inline bool gadget_http2_synchronize(struct __sk_buff *skb, struct gadget_http2 *frames,
						     const struct gadget_payload *payload)
{
	struct gadget_http2_head head;

	frames->is_synchronized = false;
	if (bpf_skb_load_bytes(skb, payload->offset, &head, sizeof(head)))
		return false;
	frames->next = payload->sequence;
	frames->wanted = frames->body = 0;
	frames->head_bytes = 0;
	if (head.length[0] == 'P' && head.length[1] == 'R' && head.length[2] == 'I' && head.type == ' ')
		frames->wanted = GADGET_HTTP2_PREFACE;
	else if (!gadget_http2_may_be_head(&head, false))
		return false;
	frames->is_synchronized = true;
	return true;
}

/* Advances by `bytes`: these are the next piece, of which the first `sent` bytes are sent. */
static __always_inline void gadget_advance(struct gadget_payload *payload, __u32 sent, __u32 bytes)
{
	payload->sent = sent;
	payload->piece = bytes;
	payload->sequence += bytes;
	payload->offset += bytes;
	payload->left -= bytes;
}

/*
 * Finds the position of a packet in the stream, before its frames are parsed. Repeated bytes are skipped. If bytes are
 * missing before the packet, the position remains known only if they all belong to a body.
 */
static __always_inline void gadget_http2_place(struct __sk_buff *skb, struct gadget_http2 *frames,
					       struct gadget_payload *payload)
{
	__u32 behind = frames->next - payload->sequence, ahead = -behind;

	if (frames->is_synchronized && behind < 1U << 31) {
		gadget_advance(payload, 0, behind < payload->left ? behind : payload->left);
	} else if (frames->is_synchronized && !frames->wanted && ahead <= frames->body) {
		frames->body -= ahead;
		frames->next += ahead;
	} else {
		gadget_http2_synchronize(skb, frames, payload);
	}
}

/*
 * Advances by the next frame or the part of it that is in this packet; at most GADGET_PIECE_BYTES of it are sent.
 * False: the position of the next frame is unknown.
 */
static __always_inline bool gadget_http2_parse(struct __sk_buff *skb, struct gadget_http2 *frames,
					       struct gadget_payload *payload)
{
	__u32 wanted, body = 0;

	if (!frames->is_synchronized)
		return false;
	if (!frames->wanted && !frames->body && !gadget_http2_begin(skb, frames, payload)) {
		frames->is_synchronized = false;
		return false;
	}
	wanted = frames->wanted < payload->left ? frames->wanted : payload->left;
	if (wanted > GADGET_PIECE_BYTES)
		wanted = GADGET_PIECE_BYTES;
	frames->wanted -= wanted;
	if (!frames->wanted)
		body = frames->body < payload->left - wanted ? frames->body : payload->left - wanted;
	frames->body -= body;
	frames->next += wanted + body;
	gadget_advance(payload, wanted, wanted + body);
	return true;
}

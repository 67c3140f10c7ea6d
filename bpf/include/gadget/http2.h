/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Follows the frames of HTTP/2 (RFC 9113, section 4.1) in one direction of a connection, so that bodies need not leave
 * the node: headers are sent, and the heads of all other frames.
 *
 * The traps: a frame's head may be in two packets. Packets may be missing or come in another order; the place of the
 * next head is then unknown, until a packet begins like a frame.
 */
#pragma once

#include <gadget/packet.h>

#define GADGET_HTTP2_HEAD 9
#define GADGET_HTTP2_PREFACE 24
/* Frames longer than this need an agreement between both ends. */
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
	/* Extensions have such types. */
	GADGET_HTTP2_LIKELY_TYPES = 32,
};

#define GADGET_HTTP2_PADDED 0x08
/* A longer block of headers is not read. */
#define GADGET_HTTP2_BLOCK (64 << 10)

struct gadget_http2_head {
	__u8 length[3];
	__u8 type;
	__u8 flags;
	__u8 stream[4];
};

/* The part of a packet's payload that has not been passed over, and the piece before it. */
struct gadget_payload {
	__u32 sequence;
	__u32 offset;
	__u32 left;
	/* How many bytes from the piece's first one on are sent, and how many it has. */
	__u32 sent;
	__u32 piece;
};

/* What is known of one direction. */
struct gadget_http2 {
	/* The sequence number of what comes next. */
	__u32 next;
	/* What is left of the current frame: bytes that are wanted, and after them bytes of a body. */
	__u32 wanted;
	__u32 body;
	/* A frame's head, and how many bytes of it have come, if the rest is in the next packet. Twice as long, since
	 * the verifier knows the limits of place and length, and not of their sum. */
	__u8 head[2 * GADGET_HTTP2_HEAD];
	__u8 head_bytes;
	/* Whether the members above are valid. */
	__u8 in_step;
};

static __always_inline __u32 gadget_http2_length(const struct gadget_http2_head *head)
{
	return head->length[0] << 16 | head->length[1] << 8 | head->length[2];
}

/* Whether this may be a frame's head. Without `in_step`, it may be anything. */
static __always_inline bool gadget_http2_may_be_head(const struct gadget_http2_head *head, bool in_step)
{
	bool of_connection = head->type == GADGET_HTTP2_SETTINGS || head->type == GADGET_HTTP2_PING ||
			     head->type == GADGET_HTTP2_GOAWAY;
	bool has_stream = head->stream[1] || head->stream[2] || head->stream[3] || head->stream[0];

	if (head->stream[0] & 0x80 || head->type >= (in_step ? GADGET_HTTP2_LIKELY_TYPES : GADGET_HTTP2_TYPES))
		return false;
	if (!in_step && gadget_http2_length(head) > GADGET_HTTP2_USUAL)
		return false;
	return head->type == GADGET_HTTP2_WINDOW_UPDATE || head->type >= GADGET_HTTP2_TYPES ||
	       has_stream != of_connection;
}

/* Whether what follows the head is sent. */
static __always_inline bool gadget_http2_is_wanted(const struct gadget_http2_head *head)
{
	return gadget_http2_length(head) <= GADGET_HTTP2_BLOCK &&
	       (head->type == GADGET_HTTP2_HEADERS || head->type == GADGET_HTTP2_CONTINUATION ||
		head->type == GADGET_HTTP2_PUSH_PROMISE || head->type == GADGET_HTTP2_RST_STREAM);
}

/* Reads the head of the frame that begins next, as far as it is in this packet. False: there is none. */
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

/* Whether a frame begins at the packet's first byte, as far as can be known without what came before. */
static __always_inline bool gadget_http2_falls_in_step(struct __sk_buff *skb, struct gadget_http2 *frames,
						       const struct gadget_payload *payload)
{
	struct gadget_http2_head head;

	frames->in_step = false;
	if (bpf_skb_load_bytes(skb, payload->offset, &head, sizeof(head)))
		return false;
	frames->next = payload->sequence;
	frames->wanted = frames->body = 0;
	frames->head_bytes = 0;
	if (head.length[0] == 'P' && head.length[1] == 'R' && head.length[2] == 'I' && head.type == ' ')
		frames->wanted = GADGET_HTTP2_PREFACE;
	else if (!gadget_http2_may_be_head(&head, false))
		return false;
	frames->in_step = true;
	return true;
}

/* Passes over the next `bytes` of the payload, of which the first `sent` are to be sent. */
static __always_inline void gadget_pass(struct gadget_payload *payload, __u32 sent, __u32 bytes)
{
	payload->sent = sent;
	payload->piece = bytes;
	payload->sequence += bytes;
	payload->offset += bytes;
	payload->left -= bytes;
}

/*
 * Finds the place of a packet in the stream, before its frames are followed. What it repeats is passed over. If
 * something is missing before it, that may only be a part of a body.
 */
static __always_inline void gadget_http2_place(struct __sk_buff *skb, struct gadget_http2 *frames,
					       struct gadget_payload *payload)
{
	__u32 behind = frames->next - payload->sequence, ahead = -behind;

	if (frames->in_step && behind < 1U << 31) {
		gadget_pass(payload, 0, behind < payload->left ? behind : payload->left);
	} else if (frames->in_step && !frames->wanted && ahead <= frames->body) {
		frames->body -= ahead;
		frames->next += ahead;
	} else {
		gadget_http2_falls_in_step(skb, frames, payload);
	}
}

/*
 * Passes over the next frame, as far as it is in this packet, in pieces of which at most GADGET_PIECE_BYTES are sent.
 * False: nothing is known from here on.
 */
static __always_inline bool gadget_http2_follow(struct __sk_buff *skb, struct gadget_http2 *frames,
						struct gadget_payload *payload)
{
	__u32 wanted, body = 0;

	if (!frames->in_step)
		return false;
	if (!frames->wanted && !frames->body && !gadget_http2_begin(skb, frames, payload)) {
		frames->in_step = false;
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
	gadget_pass(payload, wanted, wanted + body);
	return true;
}

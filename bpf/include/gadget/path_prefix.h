/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Whether a gadget_path begins with a text.
 *
 * The trap: its names stand leaf first, so the comparison goes from name to name, each forwards, and the names from the
 * last to the first. Where it is stands in memory, for the reason given in string.h.
 */
#pragma once

#include <gadget/path.h>

/* Bytes of a text to compare with, with its NUL. */
#define GADGET_PREFIX_BYTES 256

/* Lies behind the record, as the walk did that wrote the path. */
struct gadget_prefix_walk {
	__u64 start;
	/* The name that is compared: its first byte, its NUL, and where the comparison is. */
	__u64 name;
	__u64 end;
	__u64 at;
	/* Of the prefix. */
	__u64 byte;
	__u64 is_searching;
};

enum gadget_prefix_step {
	GADGET_PREFIX_ON,
	GADGET_PREFIX_IS,
	GADGET_PREFIX_IS_NOT,
};

/* One byte, either backwards to where a name begins, or forwards through it. */
static __noinline enum gadget_prefix_step gadget_prefix_step(struct gadget_prefix_walk *walk, const char *record,
							     __u64 room, const volatile char *prefix)
{
	__u64 byte = walk->byte, at = walk->at;

	if (byte >= GADGET_PREFIX_BYTES || !prefix[byte])
		return GADGET_PREFIX_IS;
	if (at >= room)
		return GADGET_PREFIX_IS_NOT;
	if (walk->is_searching) {
		__u64 before = at - 1;

		/* A name begins here, or the path's text does, unless there is a byte of a name before this one. The
		 * verifier of Linux 6.1 does not see that the number is not negative. */
		asm volatile("" : "+r"(before));
		if (at > walk->start && before < room && record[before]) {
			walk->at = before;
			return GADGET_PREFIX_ON;
		}
		walk->is_searching = false;
		walk->name = at;
		walk->byte = byte + 1;
		return prefix[byte] == '/' ? GADGET_PREFIX_ON : GADGET_PREFIX_IS_NOT;
	}
	if (at == walk->end) {
		if (walk->name <= walk->start)
			return GADGET_PREFIX_IS_NOT;
		walk->end = walk->at = walk->name - 1;
		walk->is_searching = true;
		return GADGET_PREFIX_ON;
	}
	if (record[at] != prefix[byte])
		return GADGET_PREFIX_IS_NOT;
	walk->at = at + 1;
	walk->byte = byte + 1;
	return GADGET_PREFIX_ON;
}

#define GADGET_PREFIX_ROUNDS (2 * GADGET_PREFIX_BYTES + GADGET_NAME_BYTES)

struct gadget_prefix_rounds {
	struct gadget_prefix_walk *walk;
	const char *record;
	__u64 room;
	const volatile char *prefix;
	__u64 last;
};

/* The verifier looks at it once (Linux 5.17). */
static long gadget_prefix_round(__u32 round, void *data)
{
	struct gadget_prefix_rounds *rounds = data;

	rounds->last = gadget_prefix_step(rounds->walk, rounds->record, rounds->room, rounds->prefix);
	return rounds->last != GADGET_PREFIX_ON;
}

/* `text` was written last but for texts behind it. PREFIX is GADGET_PREFIX_BYTES of .rodata. A path that could not be
 * read does not begin with anything; of one that was cut it is not known, so it does. */
static __always_inline bool gadget_path_begins_with(const struct gadget_writer *writer, const struct gadget_text *text,
						    const volatile char *prefix)
{
	struct gadget_prefix_walk *walk = writer->record + writer->room + GADGET_WALK_OFFSET;
	__u64 length = text->length & ~GADGET_CUT;

	_Static_assert(GADGET_WALK_OFFSET + sizeof(*walk) <= GADGET_WORKSPACE,
		       "the comparison does not fit behind the record");
	if (!text->offset)
		return false;
	if (text->length & GADGET_CUT)
		return true;
	if (!length)
		return prefix[0] == '/' && !prefix[1];
	walk->start = text->offset;
	walk->name = walk->start + length;
	walk->end = walk->at = walk->name - 1;
	walk->byte = 0;
	walk->is_searching = true;
	/* Each byte of the prefix, backwards and forwards, and one name that it lies in. */
	if (bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_loop)) {
		struct gadget_prefix_rounds rounds = {walk, writer->record, writer->room, prefix, GADGET_PREFIX_ON};

		bpf_loop(GADGET_PREFIX_ROUNDS, gadget_prefix_round, &rounds, 0);
		return rounds.last == GADGET_PREFIX_IS;
	}
	for (int i = 0; i < GADGET_PREFIX_ROUNDS; i++) {
		enum gadget_prefix_step step = gadget_prefix_step(walk, writer->record, writer->room, prefix);

		if (step != GADGET_PREFIX_ON)
			return step == GADGET_PREFIX_IS;
	}
	return false;
}

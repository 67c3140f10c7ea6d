/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Whether a gadget_path begins with a text.
 *
 * Its names are stored leaf first, so the comparison goes through the names from the last to the first, but forwards
 * within each name. The state is in memory for the reason given in string.h.
 */
#pragma once

#include <gadget/helpers.h>
#include <gadget/path.h>

/* The maximum length of the text to compare with, including its NUL. */
#define GADGET_PREFIX_BYTES 256

/* The state of the comparison. It replaces that of the walk that wrote the path. */
struct gadget_prefix_walk {
	__u64 start;
	/* Offsets in the record: of the compared name's first byte, its NUL, and the current byte. */
	__u64 name;
	__u64 end;
	__u64 at;
	/* The position in the prefix. */
	__u64 byte;
	__u64 is_searching;
};

enum gadget_prefix_step {
	GADGET_PREFIX_ON,
	GADGET_PREFIX_IS,
	GADGET_PREFIX_IS_NOT,
};

/* One step: one byte backwards to the beginning of a name, or forwards through the name. */
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

		/* The name begins here if the text does, or if the byte before is a NUL. The barrier is needed since
		 * the verifier of Linux 6.1 does not see that the number is not negative. */
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

/* `text` is the last path that was written to the record; only other texts may follow it. `prefix` is
 * GADGET_PREFIX_BYTES of .rodata. False for a path that could not be read; true for one that was cut, since its
 * beginning is unknown. */
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
	/* Enough steps for each byte of the prefix, backwards and forwards, and for the rest of the name in which it
	 * ends. */
	for (int i = 0; i < GADGET_PREFIX_ROUNDS; i++) {
		enum gadget_prefix_step step = gadget_prefix_step(walk, writer->record, writer->room, prefix);

		if (step != GADGET_PREFIX_ON)
			return step == GADGET_PREFIX_IS;
	}
	return false;
}

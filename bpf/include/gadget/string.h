/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Texts at the end of a record, one after the other without gaps.
 *
 * The trap: the verifier must see that each text fits, so the writer holds the size of the memory as a constant; a text
 * for which there is no room any more is marked as one that could not be read.
 */
#pragma once

#include <gadget/record.h>

/* Longest path that a system call takes, without its NUL. */
#define GADGET_PATH_BYTES 4095

/* A record in the making. It lives in registers, all that takes it is inlined. */
struct gadget_writer {
	void *record;
	/* Bytes written so far. 64 bits wide, since the verifier loses track of bounds when 32 of them are widened. */
	__u64 length;
	/* Bytes of memory at `record`, a constant. In a GADGET_SCRATCH, GADGET_WORKSPACE bytes follow them. */
	__u64 room;
	/* Texts that were cut so far. */
	__u32 cuts;
};

/* Texts follow the first `length` bytes of the record. */
static __always_inline struct gadget_writer gadget_write(void *record, __u64 length, __u64 room)
{
	return (struct gadget_writer){.record = record, .length = length, .room = room};
}

static __always_inline void gadget_no_text(struct gadget_text *text)
{
	text->offset = 0;
	text->length = 0;
}

/* Whether `bytes` more fit. The compiler must not know better than the verifier, hence the asm. */
static __always_inline bool gadget_fits(struct gadget_writer *writer, __u64 bytes)
{
	asm volatile("" : "+r"(writer->length));
	return writer->length <= writer->room - bytes;
}

static __always_inline void gadget_append_string(struct gadget_writer *writer, struct gadget_text *text,
						 const void *from, __u32 limit, bool user)
{
	void *to;
	/* One character more than wanted shows whether there was more; and the NUL. */
	__u32 most = limit + 2;
	long read;

	gadget_no_text(text);
	if (!gadget_fits(writer, most))
		return;
	to = writer->record + writer->length;
	read = user ? bpf_probe_read_user_str(to, most, from) : bpf_probe_read_kernel_str(to, most, from);
	if (read <= 0 || read > most)
		return;
	text->offset = writer->length;
	text->length = read - 1;
	if (read == most) {
		text->length = limit | GADGET_CUT;
		writer->cuts++;
	}
	writer->length += text->length & ~GADGET_CUT;
}

/* Appends a text from the caller's memory, at most `limit` bytes of it. */
static __always_inline void gadget_append_user_string(struct gadget_writer *writer, struct gadget_text *text,
						      const void *from, __u32 limit)
{
	gadget_append_string(writer, text, from, limit, true);
}

/* The same from the kernel's memory. */
static __always_inline void gadget_append_kernel_string(struct gadget_writer *writer, struct gadget_text *text,
							const void *from, __u32 limit)
{
	gadget_append_string(writer, text, from, limit, false);
}

/* Appends `size` bytes from the caller's memory, and no more than `limit`. */
static __always_inline void gadget_append_user_bytes(struct gadget_writer *writer, struct gadget_text *text,
						     const void *from, __u64 size, __u32 limit)
{
	bool cut = size > limit;
	__u32 bytes = cut ? limit : size;

	asm volatile("" : "+r"(bytes));
	if (!gadget_fits(writer, limit) || bytes > limit ||
	    bpf_probe_read_user(writer->record + writer->length, bytes, from)) {
		gadget_no_text(text);
		return;
	}
	text->offset = writer->length;
	text->length = bytes;
	writer->length += bytes;
	if (cut) {
		text->length |= GADGET_CUT;
		writer->cuts++;
	}
}

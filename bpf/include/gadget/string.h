/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Texts at the end of a record, one after the other without gaps.
 *
 * The trap: the current length of the record is kept in memory, not in a register. The verifier knows nothing about
 * values loaded from memory, so it checks the following code once. With a register, it would distinguish texts that
 * were cut, were not cut and could not be read, and check the following code again for each combination (for a loop
 * over 96 directories, that took 0.3 s).
 */
#pragma once

#include <gadget/output.h>
#include <gadget/record.h>

/* The longest path that a system call accepts, without its NUL. */
#define GADGET_PATH_BYTES 4095

/* After the record in a GADGET_SCRATCH. */
struct gadget_progress {
	/* Bytes written so far. */
	__u64 length;
	/* Texts that were cut so far. */
	__u64 cuts;
};

#define GADGET_WALK_OFFSET sizeof(struct gadget_progress)

/* A record that is being written. */
struct gadget_writer {
	void *record;
	/* The size of the record's buffer, a constant from GADGET_ROOM(). */
	__u64 room;
	struct gadget_progress *progress;
};

/* The size of a buffer for a record and texts of that many bytes in total, plus the two bytes by which a cut text is
 * recognized. */
#define GADGET_ROOM(BYTES) (((BYTES) + 2 + 7) / 8 * 8)

/* Texts follow the first `length` bytes of the record. */
static __always_inline struct gadget_writer gadget_write(void *record, __u64 length, __u64 room)
{
	struct gadget_progress *progress = record + room;

	progress->length = length;
	progress->cuts = 0;
	return (struct gadget_writer){.record = record, .room = room, .progress = progress};
}

/* Sends the record with everything appended to it. False: it is lost. */
static __always_inline bool gadget_send(const struct gadget_writer *writer)
{
	__u64 length = writer->progress->length;

	/* One register, or the verifier of Linux 6.1 forgets the limit of its copy. */
	asm volatile("" : "+r"(length));
	return length <= writer->room && gadget_emit(writer->record, length, writer->progress->cuts);
}

/* Marks a text that could not be read. */
static __always_inline void gadget_unread(struct gadget_text *text)
{
	text->offset = 0;
	text->length = 0;
}

/* Marks a text that the event does not have, or that was not requested. */
static __always_inline void gadget_no_text(struct gadget_text *text)
{
	text->offset = 0;
	text->length = 1;
}

static __always_inline bool gadget_is_unread(const struct gadget_text *text)
{
	return !text->offset && !text->length;
}

/* Makes `text` refer to the bytes written from `start` on. */
static __always_inline void gadget_wrote(struct gadget_writer *writer, struct gadget_text *text, __u64 start,
					 __u64 length, bool cut)
{
	text->offset = start;
	text->length = length;
	if (cut) {
		text->length |= GADGET_CUT;
		writer->progress->cuts++;
	}
	writer->progress->length = start + length;
}

/* For an empty text, bpf_probe_read_user_str() returns 1, as documented, on Linux 6.18, but 0 on 6.12. */
static __always_inline long gadget_read_user_string(char *to, __u64 bytes, const void *from)
{
	long read = bpf_probe_read_user_str(to, bytes, from);

	if (read)
		return read;
	*to = 0;
	return 1;
}

static __always_inline void gadget_append_string(struct gadget_writer *writer, struct gadget_text *text,
						 const void *from, __u64 limit, bool user)
{
	__u64 start = writer->progress->length;
	/* One character more shows whether the text is longer; and the NUL. */
	__u64 most = limit + 2;
	long read;

	gadget_unread(text);
	if (start > writer->room - most)
		return;
	read = user ? gadget_read_user_string(writer->record + start, most, from)
		    : bpf_probe_read_kernel_str(writer->record + start, most, from);
	if (read <= 0)
		return;
	if (read == most)
		gadget_wrote(writer, text, start, limit, true);
	else
		gadget_wrote(writer, text, start, read - 1, false);
}

/* Appends a text from the caller's memory, at most `limit` bytes of it. */
static __always_inline void gadget_append_user_string(struct gadget_writer *writer, struct gadget_text *text,
						      const void *from, __u64 limit)
{
	gadget_append_string(writer, text, from, limit, true);
}

/* The same from the kernel's memory. */
static __always_inline void gadget_append_kernel_string(struct gadget_writer *writer, struct gadget_text *text,
							const void *from, __u64 limit)
{
	gadget_append_string(writer, text, from, limit, false);
}

/* Appends `size` bytes from the caller's memory, but at most `limit`, a constant. */
static __always_inline void gadget_append_user_bytes(struct gadget_writer *writer, struct gadget_text *text,
						     const void *from, __u64 size, __u64 limit)
{
	__u64 start = writer->progress->length;
	__u64 bytes = size > limit ? limit : size;

	gadget_unread(text);
	/* The compiler knows that this is at most the limit, but the verifier does not. */
	asm volatile("" : "+r"(bytes));
	if (start > writer->room - limit || bytes > limit)
		return;
	if (!bpf_probe_read_user(writer->record + start, bytes, from))
		gadget_wrote(writer, text, start, bytes, size > limit);
}

/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * A path as the caller passed it, and the directory where it starts: the arguments of system calls like openat(). The
 * client joins them.
 *
 * The field of type gadget_path_at is followed by a gadget_path of the same name with `_base`, which is set when the
 * path is relative or empty. If the call failed, the file descriptor may be any number.
 */
#pragma once

#include <gadget/files/open_file.h>
#include <gadget/path.h>
#include <gadget/string.h>
#include <gadget/task.h>

#define AT_FDCWD -100

/* The characters of `text` in the record, which end with a NUL or at the end of the record's buffer. NULL: it could not
 * be read. */
static __always_inline const char *gadget_written(const struct gadget_writer *writer, const struct gadget_text *text)
{
	__u64 offset = text->offset;

	if (!offset)
		return NULL;
	/* Keeps the compiler from merging the two comparisons into one that the verifier does not understand. */
	asm volatile("" : "+r"(offset));
	if (offset > writer->room - GADGET_PATH_BYTES)
		return NULL;
	return writer->record + offset;
}

/* Appends the path of `fd` or, for AT_FDCWD, of the working directory. */
static __always_inline void gadget_append_base(struct gadget_writer *writer, struct gadget_text *base, __s32 fd)
{
	const struct path *from = NULL;
	struct file *file;

	gadget_unread(base);
	if (fd == AT_FDCWD) {
		from = &gadget_read(gadget_task(), fs)->pwd;
	} else {
		file = gadget_file_of(fd);
		if (file)
			from = &file->f_path;
	}
	/* One call for both, since the verifier checks each walk separately. */
	if (from)
		gadget_append_path(writer, base, from);
}

/* `is_open`: the call takes only a file descriptor, and the path is empty. */
static __always_inline void gadget_append_path_or_open(struct gadget_writer *writer, struct gadget_text *path,
						       struct gadget_text *base, __s32 fd, const void *from,
						       bool is_open)
{
	const char *text = NULL;

	if (is_open) {
		gadget_wrote(writer, path, writer->progress->length, 0, false);
	} else {
		gadget_append_user_string(writer, path, from, GADGET_PATH_BYTES);
		text = gadget_written(writer, path);
	}
	gadget_no_text(base);
	if (!text || *text != '/')
		gadget_append_base(writer, base, fd);
}

static __always_inline void gadget_append_path_at(struct gadget_writer *writer, struct gadget_text *path,
						  struct gadget_text *base, __s32 fd, const void *from)
{
	gadget_append_path_or_open(writer, path, base, fd, from, false);
}

/* For a call that takes only a file descriptor. */
static __always_inline void gadget_append_path_of(struct gadget_writer *writer, struct gadget_text *path,
						  struct gadget_text *base, __s32 fd)
{
	gadget_append_path_or_open(writer, path, base, fd, NULL, true);
}

/* Whether the text begins with `prefix`, SIZE bytes of .rodata that end with a NUL. Always true for an empty prefix,
 * and for a text that could not be read: otherwise a program could hide calls by unmapping the memory. */
#define gadget_begins_with(writer, text, prefix, SIZE)                                                                 \
	({                                                                                                             \
		const char *written = gadget_written(writer, text);                                                    \
		bool begins = !(prefix)[0] || written || gadget_is_unread(text);                                       \
                                                                                                                       \
		for (int i = 0; begins && written && i < (SIZE) && (prefix)[i]; i++)                                   \
			begins = written[i] == (prefix)[i];                                                            \
		begins;                                                                                                \
	})

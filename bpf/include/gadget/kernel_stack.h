/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The kernel stack of an event, as names of functions. The node's kernel resolves the names, since the client may run
 * on another kernel.
 *
 * Before 5.13, there is no bpf_snprintf(), and so no stack.
 */
#pragma once

#include <gadget/helpers.h>
#include <gadget/output.h>
#include <gadget/string.h>

#define GADGET_FRAMES 32
/* The frames of the program itself and of its caller. */
#define GADGET_OWN_FRAMES 2
/* The size of one name, with its NUL. */
#define GADGET_FRAME_BYTES 96
#define GADGET_STACK_BYTES (GADGET_FRAMES * GADGET_FRAME_BYTES)

struct gadget_frames {
	__u64 addresses[GADGET_FRAMES];
	__u64 start;
	__u64 end;
};

/* Shared by all programs of an object, so programs that use it must not interrupt each other. */
GADGET_SCRATCH(gadget_frames_scratch, sizeof(struct gadget_frames));

static __noinline bool gadget_append_frame(struct gadget_frames *frames, void *record, __u64 room, __u32 number)
{
	static const char format[] = "%pB";
	__u64 end = frames->end;
	__u64 address;
	long written;

	if (number >= GADGET_FRAMES || end > room - GADGET_FRAME_BYTES)
		return false;
	address = frames->addresses[number];
	if (!address)
		return false;
	written = bpf_snprintf(record + end, GADGET_FRAME_BYTES, format, &address, sizeof(address));
	if (written <= 0)
		return false;
	frames->end = end + (written < GADGET_FRAME_BYTES ? written : GADGET_FRAME_BYTES);
	return true;
}

/* Appends the functions, innermost first, as a list of texts. `context` is the program's. */
static __always_inline void gadget_append_kernel_stack(struct gadget_writer *writer, struct gadget_text *text,
						       void *context)
{
	struct gadget_frames *frames = gadget_scratch(&gadget_frames_scratch);

	gadget_unread(text);
	if (!frames || !gadget_has_helper(snprintf))
		return;
	__builtin_memset(frames->addresses, 0, sizeof(frames->addresses));
	if (bpf_get_stack(context, frames->addresses, sizeof(frames->addresses), GADGET_OWN_FRAMES) <= 0)
		return;
	frames->start = frames->end = writer->progress->length;
	for (int i = 0; i < GADGET_FRAMES; i++)
		if (!gadget_append_frame(frames, writer->record, writer->room, i))
			break;
	gadget_wrote(writer, text, frames->start, frames->end - frames->start, false);
}

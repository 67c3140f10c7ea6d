// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * `kubectl gadget run FILE.bpf.c` links this with a program that has no YAML: sends the output of bpf_printk(), and of
 * the program's own ring buffers and perf buffers, to the client, with process and container.
 *
 * It has neither hooks nor programs. The trap: it must not have a license section, since the linked program has one.
 */
#include <gadget/output.h>
#include <gadget/process.h>
#include <gadget/single_file.h>

_Static_assert(sizeof(struct gadget_record) == GADGET_HEAD_BYTES, "gadget/single_file.h has another size");

struct printed_line {
	struct gadget_record record;
	gadget_string message;
	__u32 unused;
};

GADGET_RECORD(printed_line);

static __always_inline struct gadget_record *begin(struct gadget_sent *sent)
{
	struct gadget_record *record = (void *)sent->head;

	return gadget_begin(record) ? record : NULL;
}

int gadget_send_struct(struct gadget_sent *sent)
{
	struct gadget_record *record;
	__u32 length;

	if (!sent)
		return 0;
	length = sent->length;
	record = begin(sent);
	if (!record || length > GADGET_SENT_BYTES)
		return 0;
	gadget_emit(record, sizeof(*record) + length, 0);
	return 0;
}

GADGET_SCRATCH(line_scratch, sizeof(struct printed_line) + GADGET_SENT_BYTES);

int gadget_send_line(struct gadget_sent *sent)
{
	struct printed_line *line = gadget_scratch(&line_scratch);
	__u32 length, cut;

	if (!sent || !line)
		return 0;
	length = sent->length;
	cut = sent->cut;
	if (!gadget_begin(&line->record))
		return 0;
	if (!length || length > GADGET_SENT_BYTES)
		return 0;
	bpf_probe_read_kernel(line + 1, length, sent->data);
	/* Many programs end their lines with a newline, for the trace pipe. */
	if (((char *)(line + 1))[length - 1] == '\n')
		length--;
	line->message.offset = sizeof(*line);
	line->message.length = length | (cut ? GADGET_CUT : 0);
	line->unused = 0;
	gadget_emit(&line->record, sizeof(*line) + length, cut);
	return 0;
}

int gadget_lose_sent(void)
{
	gadget_count_map_full();
	return 0;
}

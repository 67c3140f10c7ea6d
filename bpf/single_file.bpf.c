// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * Linked by `kubectl gadget run FILE.bpf.c` with a program that has no YAML: sends the output of bpf_printk(), and of
 * the program's own ring buffers and perf buffers, to the client, with process and container.
 *
 * It has no hook and no program. The trap: it must have no license section either, since the program has one, and no
 * section may be in both.
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
	/* Many programs end their lines with a newline, which the trace pipe needs. */
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

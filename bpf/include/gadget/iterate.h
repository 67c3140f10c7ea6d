/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Output of iterators: records in the format of the ring buffer, written with bpf_seq_write().
 *
 * The trap: when the kernel's buffer of 32 KiB is full, it drops the output for this object and runs the program for it
 * again at the next read. So the output for one object must fit, and it must be safe to run the program twice.
 */
#pragma once

#include <gadget/output.h>
#include <gadget/string.h>
#include <kernel/iterator.h>

/* False: there was no room, and the kernel runs the program again for this object. */
static __always_inline bool gadget_iterate_emit(struct bpf_iter_meta *meta, struct gadget_record *record, __u64 length,
						__u64 cuts)
{
	struct seq_file *seq = meta->seq;
	/* The ring buffer's own header. */
	__u64 header = length;
	const __u64 zeros = 0;
	struct gadget_cpu *cpu = gadget_this_cpu();

	record->timestamp = bpf_ktime_get_boot_ns();
	if (bpf_seq_write(seq, &header, sizeof(header)) || bpf_seq_write(seq, record, length) ||
	    bpf_seq_write(seq, &zeros, -length & 7) || !cpu)
		return false;
	gadget_count(&cpu->events, 1);
	gadget_count(&cpu->bytes, length);
	if (cuts)
		gadget_count(&cpu->cut_strings, cuts);
	return true;
}

/* Like gadget_send(), from an iterator. */
static __always_inline void gadget_iterate_send(struct bpf_iter_meta *meta, const struct gadget_writer *writer)
{
	__u64 length = writer->progress->length;

	if (length <= writer->room)
		gadget_iterate_emit(meta, writer->record, length, writer->progress->cuts);
}

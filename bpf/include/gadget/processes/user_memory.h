/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Reads the command-line arguments of any task from that task's memory.
 *
 * The memory may have to be paged in, so only a sleepable program can read it (SEC("iter.s/task"), Linux 5.18).
 */
#pragma once

#include <gadget/string.h>
#include <gadget/task.h>

/* Appends at most `limit` bytes, a constant, of the task's arguments. A kernel thread has none. */
static __always_inline void gadget_append_arguments_of(struct gadget_writer *writer, struct gadget_text *text,
						       struct task_struct *task, __u64 limit)
{
	struct mm_struct *mm = BPF_CORE_READ(task, mm);
	__u64 begin = BPF_CORE_READ(mm, arg_start);
	__u64 size = BPF_CORE_READ(mm, arg_end) - begin;
	__u64 bytes = size > limit ? limit : size;
	__u64 start = writer->progress->length;

	if (!mm)
		return;
	gadget_unread(text);
	/* The compiler knows that this is at most the limit, but the verifier does not. */
	asm volatile("" : "+r"(bytes));
	if (start > writer->room - limit || bytes > limit)
		return;
	if (!bpf_copy_from_user_task(writer->record + start, bytes, (const void *)begin, task, 0))
		gadget_wrote(writer, text, start, bytes, size > limit);
}

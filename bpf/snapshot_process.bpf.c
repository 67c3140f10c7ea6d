// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * snapshot process: emits one `struct snapshot_process` for each existing process or thread, once.
 *
 * Hook: an iterator over all tasks. The arguments are in the process's own memory, which only a sleepable program can
 * read (Linux 5.18); before, they are missing.
 */
#include <gadget/iterate.h>
#include <gadget/other_task.h>
#include <gadget/output.h>
#include <gadget/processes/user_memory.h>
#include <gadget/string.h>
#include <kernel/task_state.h>

#define ARGUMENT_BYTES 4096
#define PROCESS_BYTES GADGET_ROOM(sizeof(struct snapshot_process) + ARGUMENT_BYTES)

/* TASK_… and EXIT_… of include/linux/sched.h. */
typedef __u32 gadget_task_state;

struct snapshot_process {
	struct gadget_record record;
	gadget_timestamp started;
	gadget_bytes memory;
	gadget_task_state state;
	__u32 threads;
	__s32 nice;
	gadget_strings args;
};

GADGET_RECORD(snapshot_process);

/* Each thread, not only each process. */
const volatile bool show_threads = false;

GADGET_SCRATCH(scratch, PROCESS_BYTES);

static __always_inline struct snapshot_process *describe(struct task_struct *task)
{
	struct snapshot_process *row;

	if (!task || (!show_threads && task->pid != task->tgid))
		return NULL;
	row = gadget_scratch(&scratch);
	if (!row || !gadget_begin_for_task(&row->record, task))
		return NULL;
	row->started = BPF_CORE_READ(task, start_boottime);
	row->memory = gadget_memory_of(task);
	row->state = gadget_state_of(task);
	row->threads = gadget_threads_of(task);
	row->nice = gadget_nice_of(task);
	gadget_no_text(&row->args);
	return row;
}

SEC("iter.s/task")
int processes(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	struct snapshot_process *row = describe(task);
	struct gadget_writer writer;

	if (!row)
		return 0;
	writer = gadget_write(row, sizeof(*row), PROCESS_BYTES);
	gadget_append_arguments_of(&writer, &row->args, task, ARGUMENT_BYTES);
	gadget_iterate_send(ctx->meta, &writer);
	return 0;
}

SEC("iter/task")
int processes_alone(struct bpf_iter__task *ctx)
{
	struct snapshot_process *row = describe(ctx->task);

	if (row)
		gadget_iterate_emit(ctx->meta, &row->record, sizeof(*row), 0);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";

// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * trace exec: emits one `struct trace_exec` for each executed program, and for each failed attempt.
 *
 * Hooks: the tracepoint sched_process_exec, where the new program's memory has been set up, and the exits of execve and
 * execveat for failed calls.
 */
#include <gadget/output.h>
#include <gadget/path.h>
#include <gadget/process.h>
#include <gadget/processes/runtime.h>
#include <gadget/result.h>
#include <gadget/string.h>
#include <gadget/syscall.h>
#include <kernel/tracepoint.h>

/* The maximum size of all arguments together, with their NULs; longer lists are cut. */
#define ARGUMENT_BYTES 16384
/* The maximum number of arguments of a failed attempt, which are read one by one. */
#define ARGUMENTS 64
#define ARGUMENT_LENGTH 4095

struct trace_exec {
	struct gadget_record record;
	gadget_errno errno;
	/* The file to be executed, as the caller passed it. */
	gadget_string path;
	gadget_strings args;
	/* The file that the kernel executes: for a script, its interpreter. None if the call failed. */
	gadget_path exe;
	gadget_path cwd;
	__u32 unused;
};

GADGET_RECORD(trace_exec);

/* Path, arguments, exe and cwd. */
#define EXEC_BYTES GADGET_ROOM(sizeof(struct trace_exec) + GADGET_PATH_BYTES + ARGUMENT_BYTES + 2 * GADGET_PATH_BYTES)

GADGET_SCRATCH(exec_scratch, EXEC_BYTES);
GADGET_SCRATCH(failed_scratch, EXEC_BYTES);

SEC("tp_btf/sched_process_exec")
int BPF_PROG(executed, struct task_struct *task, int old_pid, struct linux_binprm *program)
{
	struct trace_exec *exec;
	struct gadget_writer writer;
	struct mm_struct *memory;
	struct file *file;
	__u64 start;

	if (filter_failed || filter_errno)
		return 0;
	exec = gadget_scratch(&exec_scratch);
	if (!exec || !gadget_begin(&exec->record) || gadget_is_runtime_executed())
		return 0;
	memory = task->mm;
	file = memory->exe_file;
	start = memory->arg_start;
	exec->errno = 0;
	exec->unused = 0;
	writer = gadget_write(exec, sizeof(*exec), EXEC_BYTES);
	gadget_append_kernel_string(&writer, &exec->path, program->filename, GADGET_PATH_BYTES);
	gadget_append_user_bytes(&writer, &exec->args, (const void *)start, memory->arg_end - start, ARGUMENT_BYTES);
	gadget_append_path(&writer, &exec->exe, &file->f_path);
	gadget_append_path(&writer, &exec->cwd, &gadget_read(gadget_task(), fs)->pwd);
	gadget_send(&writer);
	return 0;
}

/* In memory after the record, for the reason given in gadget/string.h. */
struct argument_list {
	__u64 start;
	__u64 end;
};

enum argument {
	ARGUMENT_READ,
	ARGUMENT_WAS_LAST,
	/* It could not be read, or only in part. */
	ARGUMENT_CUT,
};

static __noinline enum argument append_argument(struct argument_list *list, void *record, const char *const *from,
						__u32 index, __u32 pointer_bytes)
{
	const char *argument = NULL;
	__u64 end = list->end;
	long read;

	if (gadget_read_user_pointer(&argument, from, index, pointer_bytes))
		return ARGUMENT_CUT;
	if (!argument)
		return ARGUMENT_WAS_LAST;
	if (index == ARGUMENTS || end - list->start > ARGUMENT_BYTES - ARGUMENT_LENGTH - 1 ||
	    end > EXEC_BYTES - ARGUMENT_LENGTH - 1)
		return ARGUMENT_CUT;
	read = gadget_read_user_string(record + end, ARGUMENT_LENGTH + 1, argument);
	if (read <= 0)
		return ARGUMENT_CUT;
	list->end = end + read;
	/* An argument of exactly this length also counts as cut. */
	return read > ARGUMENT_LENGTH ? ARGUMENT_CUT : ARGUMENT_READ;
}

/* Reads the arguments one by one: if an exec fails, the kernel may not have copied them to one place. */
static __always_inline void append_arguments(struct gadget_writer *writer, struct gadget_text *text,
					     const char *const *arguments)
{
	struct argument_list *list = writer->record + writer->room + GADGET_WALK_OFFSET;
	__u32 pointer_bytes = gadget_pointer_bytes();
	enum argument last = ARGUMENT_CUT;

	gadget_unread(text);
	list->start = list->end = writer->progress->length;
	/* The last turn only finds out whether there are more. */
	for (int i = 0; i <= ARGUMENTS; i++) {
		last = append_argument(list, writer->record, arguments, i, pointer_bytes);
		if (last != ARGUMENT_READ)
			break;
	}
	/* Nothing could be read, which is not the same as an empty list. */
	if (list->end == list->start && last == ARGUMENT_CUT)
		return;
	gadget_wrote(writer, text, list->start, list->end - list->start, last != ARGUMENT_WAS_LAST);
}

static __always_inline int failed(long result, const char *path, const char *const *arguments)
{
	struct trace_exec *exec;
	struct gadget_writer writer;

	exec = gadget_scratch(&failed_scratch);
	if (!exec || !gadget_begin_outside_runtime(&exec->record))
		return 0;
	exec->errno = -result;
	exec->unused = 0;
	gadget_no_text(&exec->exe);
	writer = gadget_write(exec, sizeof(*exec), EXEC_BYTES);
	gadget_append_user_string(&writer, &exec->path, path, GADGET_PATH_BYTES);
	append_arguments(&writer, &exec->args, arguments);
	gadget_append_path(&writer, &exec->cwd, &gadget_read(gadget_task(), fs)->pwd);
	gadget_send(&writer);
	return 0;
}

SEC("tracepoint/syscalls/sys_exit_execve")
int execve_failed(struct trace_event_raw_sys_exit *ctx)
{
	struct pt_regs *registers = gadget_call_registers(ctx);
	long result = gadget_result(ctx);

	if (result >= 0 || !gadget_wanted_result(result))
		return 0;
	return failed(result, (void *)gadget_argument(registers, 0), (void *)gadget_argument(registers, 1));
}

SEC("tracepoint/syscalls/sys_exit_execveat")
int execveat_failed(struct trace_event_raw_sys_exit *ctx)
{
	struct pt_regs *registers = gadget_call_registers(ctx);
	long result = gadget_result(ctx);

	if (result >= 0 || !gadget_wanted_result(result))
		return 0;
	return failed(result, (void *)gadget_argument(registers, 1), (void *)gadget_argument(registers, 2));
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";

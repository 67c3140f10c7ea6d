// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * trace process: emits one `struct trace_process` for each process that is forked, for each program that a process
 * executes, for each process that ends and, once at start, for each existing process.
 *
 * Hooks: the tracepoints sched_process_fork, sched_process_exec and sched_process_exit, and an iterator over all tasks,
 * which runs after the other programs are attached, so that no process is missed. A process that is forked or executes
 * a program while the iterator runs is reported twice, with the same identity. The arguments of existing processes are
 * in their own memory, which only a sleepable program can read (Linux 5.18); before, they are missing.
 */
#include <gadget/credentials.h>
#include <gadget/operation.h>
#include <gadget/other_task.h>
#include <gadget/output.h>
#include <gadget/path.h>
#include <gadget/process.h>
#include <gadget/process_identity.h>
#include <gadget/processes/process_exit.h>
#include <gadget/processes/sandbox.h>
#include <gadget/processes/user_memory.h>
#include <gadget/string.h>
#include <kernel/fs.h>
#include <kernel/iterator.h>
#include <kernel/privilege.h>

/* The maximum size of all arguments together, with their NULs; longer lists are cut. */
#define ARGUMENT_BYTES 16384

#define NAME_BYTES 255

/* Bits for the way in which a program gained privileges at its exec. */
enum {
	SET_UID = 1,
	SET_GID = 2,
	/* In another way: by file capabilities, or by a security module. */
	SECURE = 4,
};

struct trace_process {
	struct gadget_record record;
	gadget_operation operation;
	gadget_exec_id exec_id;
	gadget_exec_id parent_exec_id;
	/* When it was forked. */
	gadget_timestamp started;
	struct gadget_credentials credentials;
	struct gadget_namespaces namespaces;
	/* The inode of the executed file. 0: unknown. */
	__u64 inode;
	__u32 links;
	__u32 gained;
	gadget_exit_code code;
	gadget_signal signal;
	/* The executed file is a script, and `exe` is its interpreter. */
	bool interpreted;
	__u8 unused_interpreted[7];
	/* The file to be executed, as the caller passed it. */
	gadget_string path;
	gadget_strings args;
	/* The file that the kernel executes: for a script, its interpreter. */
	gadget_path exe;
	gadget_path cwd;
};

GADGET_RECORD(trace_process);

#define PROCESS_BYTES                                                                                                  \
	GADGET_ROOM(sizeof(struct trace_process) + GADGET_PATH_BYTES + ARGUMENT_BYTES + 2 * GADGET_PATH_BYTES)

GADGET_SCRATCH(fork_scratch, PROCESS_BYTES);
GADGET_SCRATCH(exec_scratch, PROCESS_BYTES);
GADGET_SCRATCH(exit_scratch, PROCESS_BYTES);
GADGET_SCRATCH(running_scratch, PROCESS_BYTES);

static const gadget_operation FORK = "fork", EXEC = "exec", EXIT = "exit", RUNNING = "running";

/* Fills in everything except the head and the texts. */
static __always_inline void describe(struct trace_process *process, struct task_struct *task,
				     const gadget_operation operation)
{
	__builtin_memcpy(process->operation, operation, sizeof(gadget_operation));
	gadget_exec_of(&process->exec_id, task);
	gadget_exec_of_parent(&process->parent_exec_id, task);
	process->started = gadget_read(task, group_leader, start_boottime);
	gadget_describe_credentials(&process->credentials, task);
	gadget_describe_namespaces_of(&process->namespaces, task, true);
	process->inode = process->links = process->gained = 0;
	process->code = -1;
	process->signal = 0;
	process->interpreted = false;
	__builtin_memset(process->unused_interpreted, 0, sizeof(process->unused_interpreted));
	gadget_no_text(&process->path);
	gadget_no_text(&process->args);
	gadget_no_text(&process->exe);
	gadget_no_text(&process->cwd);
}

static __always_inline struct file *executed_file(struct task_struct *task)
{
	return (struct file *)gadget_read(task, mm, exe_file);
}

static __always_inline void describe_file(struct trace_process *process, const struct file *file)
{
	process->inode = gadget_read(file, f_inode, i_ino);
	process->links = gadget_read(file, f_inode, i_nlink);
}

static __always_inline void append_places(struct gadget_writer *writer, struct trace_process *process,
					  struct task_struct *task)
{
	struct file *file = (struct file *)executed_file(task);

	if (file) {
		gadget_append_path_for(writer, &process->exe, &file->f_path, task);
		/* A file without a path, such as a memfd, has only a name. */
		if (!process->exe.offset)
			gadget_append_kernel_string(writer, &process->exe,
						    BPF_CORE_READ(file, f_path.dentry, d_name.name), NAME_BYTES);
	}
	gadget_append_path_for(writer, &process->cwd, &gadget_read(task, fs)->pwd, task);
}

SEC("tp_btf/sched_process_fork")
int BPF_PROG(forked, struct task_struct *parent, struct task_struct *child)
{
	struct trace_process *process;
	struct gadget_writer writer;

	/* This is a thread. */
	if (child->pid != child->tgid)
		return 0;
	process = gadget_scratch(&fork_scratch);
	if (!process || !gadget_begin_for_task(&process->record, child))
		return 0;
	describe(process, child, FORK);
	describe_file(process, executed_file(child));
	writer = gadget_write(process, sizeof(*process), PROCESS_BYTES);
	append_places(&writer, process, child);
	gadget_send(&writer);
	return 0;
}

static __always_inline __u32 gained(const struct linux_binprm *program, const struct file *file,
				    const struct trace_process *process)
{
	__u16 mode = gadget_read(file, f_inode, i_mode);
	__u32 gained = 0;

	if (mode & S_ISUID && process->credentials.euid != process->record.uid)
		gained |= SET_UID;
	if (mode & S_ISGID && process->credentials.egid != process->record.gid)
		gained |= SET_GID;
	if (!gained && BPF_CORE_READ_BITFIELD_PROBED(program, secureexec))
		gained = SECURE;
	return gained;
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(executed, struct task_struct *task, int old_pid, struct linux_binprm *program)
{
	struct trace_process *process;
	struct file *file;
	struct gadget_writer writer;
	struct mm_struct *memory;
	__u64 start;

	process = gadget_scratch(&exec_scratch);
	if (!process || !gadget_begin(&process->record))
		return 0;
	memory = task->mm;
	file = memory->exe_file;
	start = memory->arg_start;
	describe(process, task, EXEC);
	describe_file(process, file);
	process->gained = gained(program, file, process);
	process->interpreted = program->interp != program->filename;
	writer = gadget_write(process, sizeof(*process), PROCESS_BYTES);
	gadget_append_kernel_string(&writer, &process->path, program->filename, GADGET_PATH_BYTES);
	gadget_append_user_bytes(&writer, &process->args, (const void *)start, memory->arg_end - start, ARGUMENT_BYTES);
	append_places(&writer, process, task);
	gadget_send(&writer);
	return 0;
}

SEC("tp_btf/sched_process_exit")
int ended(__u64 *ctx)
{
	struct task_struct *task = gadget_task();
	struct trace_process *process;
	__u32 status;

	if (!gadget_ends_process(ctx, task))
		return 0;
	process = gadget_scratch(&exit_scratch);
	if (!process || !gadget_begin(&process->record) || gadget_is_sandbox_end(task, process->record.cgroup))
		return 0;
	describe(process, task, EXIT);
	status = gadget_exit_status(task);
	process->signal = status & 0x7f;
	process->code = process->signal ? -1 : (status >> 8) & 0xff;
	gadget_emit(&process->record, sizeof(*process), 0);
	return 0;
}

/* NULL: not wanted, not a thread group leader, a kernel thread, or the process has ended. */
static __always_inline struct trace_process *running(struct task_struct *task)
{
	struct trace_process *process;

	if (!task || task->pid != task->tgid || !task->mm)
		return NULL;
	process = gadget_scratch(&running_scratch);
	if (!process || !gadget_begin_for_task(&process->record, task))
		return NULL;
	describe(process, task, RUNNING);
	describe_file(process, executed_file(task));
	return process;
}

SEC("iter.s/task")
int find_running(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	struct trace_process *process = running(task);
	struct gadget_writer writer;

	if (!process)
		return 0;
	writer = gadget_write(process, sizeof(*process), PROCESS_BYTES);
	gadget_append_arguments_of(&writer, &process->args, task, ARGUMENT_BYTES);
	append_places(&writer, process, task);
	gadget_send(&writer);
	return 0;
}

SEC("iter/task")
int find_running_alone(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	struct trace_process *process = running(task);
	struct gadget_writer writer;

	if (!process)
		return 0;
	writer = gadget_write(process, sizeof(*process), PROCESS_BYTES);
	append_places(&writer, process, task);
	gadget_send(&writer);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";

// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * snapshot process: emits one `struct snapshot_process` for each existing process or thread, once, with what it waits
 * for and who holds that.
 *
 * Hooks: iterators over all tasks and all open files. Programs whose names begin with note_ run before the others
 * (gadget/processes/waits.h). Memory of a process, such as its arguments, can only be read by a sleepable program
 * (Linux 5.18); before, what lies there is missing.
 */
#include <gadget/iterate.h>
#include <gadget/other_task.h>
#include <gadget/output.h>
#include <gadget/processes/user_memory.h>
#include <gadget/processes/waits.h>
#include <gadget/stacks.h>
#include <gadget/string.h>
#include <kernel/signal.h>
#include <kernel/task_state.h>

#define ARGUMENT_BYTES 4096
#define PROCESS_BYTES GADGET_ROOM(sizeof(struct snapshot_process) + ARGUMENT_BYTES)
#define CALL_ARGUMENTS 6
#define SIGNALS 64
#define SIGTERM 15

/* TASK_… and EXIT_… of include/linux/sched.h. */
typedef __u32 gadget_task_state;
/* A set of signals: bit 0 is signal 1. */
typedef __u64 gadget_signals;
/* The client derives it from the stack. */
typedef __u64 gadget_innermost;

/* As in gadget/syscalls/every_syscall.h, without texts. */
typedef struct {
	__u64 values[CALL_ARGUMENTS];
	struct gadget_text texts[CALL_ARGUMENTS];
} gadget_syscall_arguments;

/* What SIGTERM would do. */
enum on_sigterm {
	ON_SIGTERM_CAUGHT = 1,
	ON_SIGTERM_IGNORED,
	ON_SIGTERM_BLOCKED,
	/* The process ends. */
	ON_SIGTERM_ENDS,
	/* A PID 1 without a handler. */
	ON_SIGTERM_NO_EFFECT,
};

struct snapshot_process {
	struct gadget_record record;
	gadget_timestamp started;
	gadget_bytes memory;
	gadget_duration waiting;
	__u64 wait_inode;
	gadget_signals signals_caught;
	gadget_signals signals_ignored;
	gadget_signals signals_blocked;
	gadget_syscall_arguments arguments;
	gadget_cgroup holder;
	gadget_stack kernel_stack;
	/* Filled in by the client. */
	gadget_innermost function;
	gadget_ip remote;
	gadget_comm holder_comm;
	gadget_task_state state;
	__u32 threads;
	__s32 nice;
	/* The call that it is in. -1: none. */
	gadget_in_syscall syscall;
	enum gadget_wait waits_for;
	gadget_fd wait_fd;
	gadget_pid holder_pid;
	gadget_pid holder_tid;
	gadget_pid holder_container_pid;
	__u32 holders;
	enum gadget_certainty certainty;
	enum on_sigterm on_sigterm;
	gadget_port remote_port;
	__u16 unused_16;
	gadget_strings args;
};

GADGET_RECORD(snapshot_process);

/* Each thread, not only each process. */
const volatile bool show_threads = false;

GADGET_SCRATCH(scratch, PROCESS_BYTES);

/* Handlers of a process's signals. */
__noinline int set_signals(void)
{
	struct snapshot_process *row = gadget_scratch(&scratch);
	const struct gadget_waiting *waiting = gadget_waiting_now();
	__u32 size = bpf_core_type_size(struct k_sigaction);
	__u32 offset = bpf_core_field_offset(struct k_sigaction, sa.sa_handler);
	__u64 handler;
	struct task_struct___waits *waits;
	struct sighand_struct *handlers;
	struct task_struct *task;
	const void *actions;

	if (!row || !waiting)
		return 0;
	task = (void *)waiting->task;
	waits = (void *)task;
	handlers = BPF_CORE_READ(task, sighand);
	actions = (const void *)&handlers->action;
	/* It has ended, and was not reaped. */
	if (!handlers || gadget_state_of(task) & GADGET_STATES_OF_ENDED)
		return 0;
	/* The bits are collected in memory: the verifier would follow each combination. */
	for (int i = 0; i < SIGNALS; i++) {
		handler = 0;
		bpf_probe_read_kernel(&handler, sizeof(handler), actions + i * size + offset);
		if (handler > 1)
			row->signals_caught |= 1ULL << i;
		/* SIG_IGN; 0 is SIG_DFL. */
		else if (handler)
			row->signals_ignored |= 1ULL << i;
	}
	row->signals_blocked = BPF_CORE_READ(waits, blocked.sig[0]);
	/* A kernel thread. */
	if (!BPF_CORE_READ(task, mm))
		return 0;
	if (row->signals_ignored >> (SIGTERM - 1) & 1)
		row->on_sigterm = ON_SIGTERM_IGNORED;
	else if (row->signals_blocked >> (SIGTERM - 1) & 1)
		row->on_sigterm = ON_SIGTERM_BLOCKED;
	else if (row->signals_caught >> (SIGTERM - 1) & 1)
		row->on_sigterm = ON_SIGTERM_CAUGHT;
	else
		row->on_sigterm =
			BPF_CORE_READ(task, signal, flags) & SIGNAL_UNKILLABLE ? ON_SIGTERM_NO_EFFECT : ON_SIGTERM_ENDS;
	return 0;
}

static __always_inline bool is_shown(struct task_struct *task)
{
	return task && (show_threads || task->pid == task->tgid);
}

static __always_inline struct snapshot_process *describe(struct task_struct *task)
{
	struct gadget_waiting *waiting = gadget_waiting_now();
	struct snapshot_process *row;

	if (!waiting || !is_shown(task))
		return NULL;
	row = gadget_scratch(&scratch);
	if (!row || !gadget_begin_for_task(&row->record, task))
		return NULL;
	row->started = BPF_CORE_READ(task, start_boottime);
	row->memory = gadget_memory_of(task);
	row->state = gadget_state_of(task);
	row->threads = gadget_threads_of(task);
	row->nice = gadget_nice_of(task);
	row->waiting = ~0ULL;
	row->wait_inode = 0;
	row->holder = 0;
	row->kernel_stack = GADGET_NO_STACK;
	row->function = 0;
	row->syscall = -1;
	row->waits_for = GADGET_WAIT_NONE;
	row->wait_fd = -1;
	row->holder_pid = row->holder_tid = row->holder_container_pid = row->holders = 0;
	row->certainty = GADGET_HOLDER_NONE;
	row->remote_port = row->unused_16 = 0;
	gadget_no_ip(row->remote);
	__builtin_memset(&row->arguments, 0, sizeof(row->arguments));
	__builtin_memset(row->holder_comm, 0, sizeof(row->holder_comm));
	gadget_no_text(&row->args);
	waiting->task = (__u64)task;
	row->signals_caught = row->signals_ignored = row->signals_blocked = 0;
	row->on_sigterm = 0;
	return row;
}

/* Takes over what is described, with its holder. False: another descriptor may have one. */
__noinline int set_wait(void)
{
	struct snapshot_process *row = gadget_scratch(&scratch);
	const struct gadget_waiting *waiting = gadget_waiting_now();
	const struct gadget_holder *holder = NULL;

	if (!row || !waiting)
		return false;
	if (waiting->key.kind)
		holder = bpf_map_lookup_elem(&gadget_awaited, &waiting->key);
	row->waits_for = waiting->kind;
	row->wait_fd = waiting->fd;
	row->wait_inode = waiting->inode;
	__builtin_memcpy(row->remote, waiting->remote, sizeof(row->remote));
	row->remote_port = waiting->remote_port;
	if (!holder || !holder->process)
		return false;
	row->holder = holder->cgroup;
	row->holder_pid = holder->pid;
	row->holder_tid = holder->tid;
	row->holder_container_pid = holder->container_pid;
	row->holders = holder->count;
	row->certainty = waiting->holder.is_guess || holder->is_likely ? GADGET_HOLDER_LIKELY : GADGET_HOLDER_KNOWN;
	__builtin_memcpy(row->holder_comm, holder->comm, sizeof(row->holder_comm));
	if (waiting->key.kind == AWAITED_THREAD)
		row->waits_for = GADGET_WAIT_MUTEX;
	if (waiting->key.kind == AWAITED_END)
		row->waits_for = GADGET_WAIT_THREAD;
	if (waiting->key.kind == AWAITED_LEASE)
		row->waits_for = GADGET_WAIT_LEASE;
	return holder->pid != row->record.pid;
}

static __always_inline void describe_wait(struct snapshot_process *row, struct task_struct *task, bool sleeps)
{
	struct gadget_waiting *waiting = gadget_waiting_now();
	__u32 polled;
	bool many;

	set_signals();
	/* TASK_RUNNING: what it did last is of no use. */
	if (!row->state)
		return;
	row->waiting = gadget_off_cpu_time(task);
	if (!gadget_sleeps(row->state) || !waiting)
		return;
	row->kernel_stack = gadget_kernel_stack_of(task);
	gadget_describe_waiting(waiting, task, sleeps);
	row->syscall = waiting->call.number;
	if (row->syscall >= 0) {
		row->record.marks |= gadget_marks_of_call(row->syscall);
		__builtin_memcpy(row->arguments.values, waiting->call.arguments, sizeof(row->arguments.values));
	}
	polled = waiting->polled;
	many = polled > 1;
	if (!polled)
		set_wait();
	for (int i = 0; i < GADGET_POLLED; i++) {
		if (i >= polled)
			break;
		gadget_wait_for_fd(i);
		if (set_wait())
			break;
		/* Nobody else is known: any of them may wake it. */
		if (many && i == polled - 1) {
			row->waits_for = GADGET_WAIT_EVENTS;
			row->wait_fd = -1;
			row->wait_inode = 0;
			row->remote_port = 0;
			gadget_no_ip(row->remote);
		}
	}
}

static __always_inline int note_wait(struct task_struct *task, bool sleeps)
{
	struct gadget_waiting *waiting = gadget_waiting_now();
	struct gadget_record record;

	if (!is_shown(task) || !waiting || !gadget_sleeps(gadget_state_of(task)) ||
	    !gadget_begin_for_task(&record, task))
		return 0;
	gadget_describe_waiting(waiting, task, sleeps);
	if (!waiting->polled)
		gadget_note_awaited(waiting, task);
	for (int i = 0; i < GADGET_POLLED; i++) {
		if (i >= waiting->polled)
			break;
		gadget_wait_for_fd(i);
		gadget_note_awaited(waiting, task);
	}
	return 0;
}

SEC("iter.s/task")
int note_waits(struct bpf_iter__task *ctx)
{
	return note_wait(ctx->task, true);
}

SEC("iter/task")
int note_waits_alone(struct bpf_iter__task *ctx)
{
	return note_wait(ctx->task, false);
}

SEC("iter/task")
int note_threads(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;

	if (task)
		gadget_note_thread(task);
	return 0;
}

SEC("iter/task_file")
int note_files(struct bpf_iter__task_file *ctx)
{
	struct task_struct *task = ctx->task;
	struct file *file = ctx->file;

	if (task && file)
		gadget_note_file(task, file);
	return 0;
}

SEC("iter.s/task")
int processes(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	struct snapshot_process *row = describe(task);
	struct gadget_writer writer;

	if (!row)
		return 0;
	describe_wait(row, task, true);
	writer = gadget_write(row, sizeof(*row), PROCESS_BYTES);
	gadget_append_arguments_of(&writer, &row->args, task, ARGUMENT_BYTES);
	gadget_iterate_send(ctx->meta, &writer);
	return 0;
}

SEC("iter/task")
int processes_alone(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	struct snapshot_process *row = describe(task);

	if (!row)
		return 0;
	describe_wait(row, task, false);
	gadget_iterate_emit(ctx->meta, &row->record, sizeof(*row), 0);
	return 0;
}

/* For kernels that do not take the programs above. */

SEC("iter.s/task")
int processes_without_waits(struct bpf_iter__task *ctx)
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
int processes_without_both(struct bpf_iter__task *ctx)
{
	struct snapshot_process *row = describe(ctx->task);

	if (row)
		gadget_iterate_emit(ctx->meta, &row->record, sizeof(*row), 0);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";

// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * traceloop: stores a `struct traceloop` for each of the latest system calls of each cgroup, and for each process that
 * a signal ends. After a crash, the recording is shown.
 *
 * Hooks: the raw tracepoints of all system calls (gadget/syscalls/every_syscall.h), and sched_process_exit. Records
 * have a fixed size, so texts are cut earlier than in trace syscalls.
 */
#include <gadget/processes/process_exit.h>
#include <gadget/record.h>

#define GADGET_RECORDED_BYTES 1008
#include <gadget/recorder.h>

#define CALL traceloop
#define CALL_FIELDS struct gadget_recording recording;
#define PATH_BYTES 200
#define NAME_BYTES 200
#define MOST_DATA_BYTES 64
#define ELEMENTS 16
#define ELEMENT_BYTES 63
#define LIST_BYTES (3 * (ELEMENT_BYTES + 1))
#include <gadget/syscalls/every_syscall.h>

_Static_assert(CALL_BYTES <= GADGET_RECORDED_BYTES, "a call has no room in a recording");

/* Stands for a signal that ends the process, instead of a call number. The arguments are the signal, and whether a core
 * is dumped. */
#define KILLED (~0U)

/* Signals that indicate a program error (include/linux/signal.h, SIG_KERNEL_COREDUMP_MASK): SIGQUIT, SIGILL, SIGTRAP,
 * SIGABRT, SIGBUS, SIGFPE, SIGSEGV, SIGXCPU, SIGXFSZ and SIGSYS. */
#define CRASHES                                                                                                        \
	(1ULL << 3 | 1ULL << 4 | 1ULL << 5 | 1ULL << 6 | 1ULL << 7 | 1ULL << 8 | 1ULL << 11 | 1ULL << 24 |             \
	 1ULL << 25 | 1ULL << 31)

/* Set by the agent. */
const volatile bool gadget_recorder_on_crash = false;
const volatile bool gadget_recorder_on_kill = false;

struct ending {
	struct gadget_trigger trigger;
	char call[GADGET_ROOM(sizeof(struct traceloop))];
};

GADGET_SCRATCH(ending_scratch, sizeof(struct ending));

static __always_inline bool deliver(const struct gadget_writer *writer)
{
	struct traceloop *call = writer->record;

	gadget_keep(writer, &call->recording);
	return true;
}

SEC("tp_btf/sched_process_exit")
int process_ended(__u64 *ctx)
{
	struct task_struct *task = gadget_task();
	struct gadget_writer writer;
	struct ending *ending;
	struct traceloop *call;
	__u32 status, signal;
	bool crash;

	if (!gadget_ends_process(ctx, task))
		return 0;
	status = gadget_exit_status(task);
	signal = status & 0x7f;
	ending = gadget_scratch(&ending_scratch);
	if (!signal || !ending)
		return 0;
	call = (struct traceloop *)ending->call;
	if (!gadget_begin(&call->record))
		return 0;
	__builtin_memset(&call->arguments, 0, sizeof(call->arguments));
	call->arguments.values[0] = signal;
	call->arguments.values[1] = !!(status & CORE_DUMPED);
	call->result = NEVER;
	call->duration = ~0ULL;
	call->syscall = KILLED;
	call->errno = 0;
	writer = gadget_write(call, sizeof(*call), sizeof(ending->call));
	gadget_keep(&writer, &call->recording);

	crash = CRASHES >> signal & 1;
	if (!(crash ? gadget_recorder_on_crash : gadget_recorder_on_kill))
		return 0;
	ending->trigger.record = call->record;
	ending->trigger.because = crash ? GADGET_BECAUSE_CRASH : GADGET_BECAUSE_KILL;
	ending->trigger.signal = signal;
	gadget_show_recording(&ending->trigger);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";

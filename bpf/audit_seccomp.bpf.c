// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * audit seccomp: emits one `struct audit_seccomp` for each system call that a seccomp filter denied.
 *
 * Hooks: the raw tracepoints sys_enter and sys_exit. For a call that the filter does not allow, sys_enter does not run
 * (syscall_trace_enter() of kernel/entry/common.c), but sys_exit does: an exit without an entry means that the call was
 * denied. The kernel's audit log has such calls only if the filter requests it, and the filters of containers do not.
 * Kills come from signal_generate and sched_process_exit; calls that are only logged, from audit_seccomp(), where the
 * kernel has fentry or kprobes.
 *
 * The first event of a thread may be the exit of a call whose entry was not seen (the fork, in the child; the call that
 * installed the filter), so it is ignored.
 */
#include <gadget/output.h>
#include <gadget/process.h>
#include <gadget/processes/signal.h>
#include <gadget/syscalls/compat_call.h>
#include <gadget/syscalls/syscall_table.h>
#include <kernel/signal.h>
#include <kernel/task.h>

/* The outcome of the call. */
enum action {
	/* It failed with an errno from the filter, or from the supervisor that the filter notifies. */
	ACTION_ERRNO = 1,
	/* The supervisor that the filter notifies has returned a result. */
	ACTION_EMULATED,
	/* The program's own handler of SIGSYS was called. */
	ACTION_TRAP,
	ACTION_KILL_PROCESS,
	ACTION_KILL_THREAD,
	/* Allowed, but logged. */
	ACTION_LOG,
};

typedef __u32 gadget_syscall;

struct audit_seccomp {
	struct gadget_record record;
	gadget_syscall syscall;
	enum action action;
	gadget_errno errno;
	__u32 unused;
};

GADGET_RECORD(audit_seccomp);

const volatile bool filter_killed = false;

/* The state of a thread that has a filter. */
struct thread {
	bool entered;
	/* The current call was trapped, which signal_generate has reported. */
	bool trapped;
};

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct thread);
} threads SEC(".maps");

static __always_inline int mode_of(struct task_struct *task)
{
	return gadget_read(task, seccomp.mode);
}

static __always_inline bool has_filter(struct task_struct *task)
{
	return mode_of(task) == SECCOMP_MODE_FILTER;
}

/* The equivalent 64-bit call, for the lookup in the table of wanted calls. */
static __always_inline __u32 native_of(struct task_struct *task, struct pt_regs *registers, __s32 number)
{
	return gadget_is_compat_call(task, registers) ? gadget_possible_call(number) : number;
}

static __always_inline void report(struct task_struct *task, struct pt_regs *registers, __s32 number,
				   enum action action, int errno)
{
	struct audit_seccomp denied = {};

	if (filter_killed && action != ACTION_KILL_PROCESS && action != ACTION_KILL_THREAD)
		return;
	if (number < 0 || !gadget_wants_syscall(native_of(task, registers, number)) || !gadget_begin(&denied.record))
		return;
	denied.syscall = gadget_shown_number(task, registers, number);
	denied.action = action;
	denied.errno = errno;
	gadget_emit(&denied.record, sizeof(denied), 0);
}

SEC("tp_btf/sys_enter")
int enters(void *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct thread *thread;

	if (!has_filter(task))
		return 0;
	thread = bpf_task_storage_get(&threads, task, NULL, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (thread)
		thread->entered = true;
	else
		gadget_count_map_full();
	return 0;
}

SEC("tp_btf/sys_exit")
int exits(__u64 *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct pt_regs *registers;
	struct thread *thread;
	long result = ctx[1];
	__s32 number;

	if (!has_filter(task))
		return 0;
	thread = bpf_task_storage_get(&threads, task, NULL, 0);
	if (!thread) {
		bpf_task_storage_get(&threads, task, NULL, BPF_LOCAL_STORAGE_GET_F_CREATE);
		return 0;
	}
	if (thread->entered || thread->trapped) {
		thread->entered = thread->trapped = false;
		return 0;
	}
	registers = gadget_registers(task);
	number = gadget_syscall_number(registers);
	if (result < 0 && result >= -4095)
		report(task, registers, number, ACTION_ERRNO, -result);
	else
		report(task, registers, number, ACTION_EMULATED, 0);
	return 0;
}

/* The kernel sends SIGSYS to the caller during the call. If it kills, the kernel removes the handler first. */
SEC("tp_btf/signal_generate")
int BPF_PROG(signalled, int signal, struct kernel_siginfo *info, struct task_struct *receiver)
{
	struct thread *thread;
	void *handler;

	if (signal != SIGSYS || (unsigned long)info <= 2 || BPF_CORE_READ(info, si_code) != SYS_SECCOMP)
		return 0;
	/* The kernel sends it to the current thread, before sys_exit; then sys_enter has not run. The process itself
	 * may send the same signal from a call that is allowed. */
	thread = bpf_task_storage_get(&threads, bpf_get_current_task_btf(), NULL, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (thread && thread->entered)
		return 0;
	if (thread)
		thread->trapped = true;
	handler = gadget_read(receiver, sighand, action[SIGSYS - 1].sa.sa_handler);
	report(receiver, gadget_registers(gadget_task()), BPF_CORE_READ(info, _sifields._sigsys._syscall),
	       handler ? ACTION_TRAP : ACTION_KILL_PROCESS, 0);
	return 0;
}

SEC("tp_btf/sched_process_exit")
int thread_ended(__u64 *ctx)
{
	struct task_struct *task = gadget_task();
	struct pt_regs *registers;

	if (gadget_read(task, exit_code) != SIGSYS || gadget_read(task, signal, flags) & SIGNAL_GROUP_EXIT ||
	    mode_of(task) < SECCOMP_MODE_FILTER)
		return 0;
	registers = gadget_registers(task);
	report(task, registers, gadget_syscall_number(registers), ACTION_KILL_THREAD, 0);
	return 0;
}

static __always_inline int noted(__s32 number, __u32 code)
{
	struct task_struct *task = gadget_task();

	if ((code & 0xffff0000) == SECCOMP_RET_LOG)
		report(task, gadget_registers(task), number, ACTION_LOG, 0);
	return 0;
}

SEC("?fentry/audit_seccomp")
int logged(__u64 *ctx)
{
	return noted(ctx[0], ctx[2]);
}

SEC("?kprobe/audit_seccomp")
int logged_by_kprobe(struct pt_regs *ctx)
{
	return noted(BPF_CORE_READ(ctx, GADGET_FUNCTION_ARGUMENT_0), BPF_CORE_READ(ctx, GADGET_FUNCTION_ARGUMENT_2));
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";

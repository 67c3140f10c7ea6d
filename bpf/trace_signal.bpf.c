// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * trace signal: emits one `struct trace_signal` for each signal that is generated for a process, with sender and
 * receiver, and for each call that failed to send one.
 *
 * Hooks: the tracepoint signal_generate, and the exits of kill, tkill, tgkill, rt_sigqueueinfo, rt_tgsigqueueinfo and
 * pidfd_send_signal, for failed calls. A timer's signal may be generated while any task is current.
 */
#include <gadget/other_task.h>
#include <gadget/output.h>
#include <gadget/process.h>
#include <gadget/processes/sandbox.h>
#include <gadget/processes/signal.h>
#include <gadget/result.h>
#include <gadget/syscall.h>
#include <kernel/credentials.h>
#include <kernel/tracepoint.h>

struct trace_signal {
	/* The sender. */
	struct gadget_record record;
	/* The receiver; all 0 when the call failed. */
	gadget_cgroup receiver;
	gadget_pid receiver_pid;
	__u32 receiver_tid;
	gadget_pid receiver_container_pid;
	gadget_uid receiver_uid;
	gadget_comm receiver_comm;
	gadget_signal signal;
	gadget_signal_code code;
	enum gadget_signal_result result;
	gadget_errno errno;
	/* The target argument of the failed call: a process, a thread, a group (negative), or a file descriptor. */
	gadget_signal_target target;
	/* The signal is for the whole process. */
	bool group;
	__u8 unused[3];
};

GADGET_RECORD(trace_signal);

const volatile bool filter_kill_only = false;
/* 0: any. */
const volatile __u32 filter_signal = 0;
const volatile __u32 filter_receiver_pid = 0;

GADGET_SCRATCH(generate_scratch, sizeof(struct trace_signal));
GADGET_SCRATCH(failed_scratch, sizeof(struct trace_signal));

/* Whether a timer sent the signal. Then any task may be current; the receiver has set the timer. */
static __always_inline bool is_of_timer(__u32 signal, __s32 code)
{
	if (code == SI_TIMER)
		return true;
	return code == SI_KERNEL && (signal == SIGALRM || signal == SIGVTALRM || signal == SIGPROF);
}

/* Whether a container runtime forwards a signal that Go's scheduler sent to one of the runtime's own threads: runc
 * waits for a container's process and hands on what it gets. Only a runtime is the parent of a process in a PID
 * namespace and a cgroup that it is not in itself. */
static __always_inline bool is_runtimes_own(__u32 signal, __s32 code, struct task_struct *receiver)
{
	struct task_struct *sender = gadget_task(), *parent;

	if (gadget_show_runtime || signal != SIGURG || code != SI_USER)
		return false;
	parent = gadget_read(receiver, real_parent);
	return gadget_read(parent, tgid) == gadget_read(sender, tgid) &&
	       BPF_CORE_READ(receiver, thread_pid, level) > BPF_CORE_READ(sender, thread_pid, level) &&
	       gadget_cgroup_id_of(receiver) != gadget_current_cgroup();
}

/* Whether the runtime ends a pod's sandbox by the signal, or learns by it that the sandbox has ended. */
static __always_inline bool is_of_sandbox_end(__u32 signal, __s32 code, struct task_struct *receiver)
{
	if (gadget_show_runtime)
		return false;
	/* A process that traces the sandbox gets the same signal with another code. */
	if (signal == SIGCHLD && (code == CLD_EXITED || code == CLD_KILLED))
		return gadget_is_host_cgroup(gadget_cgroup_id_of(receiver)) &&
		       gadget_is_sandbox_end(gadget_task(), gadget_current_cgroup());
	return (signal == SIGTERM || signal == SIGKILL) && gadget_is_host_cgroup(gadget_current_cgroup()) &&
	       gadget_is_sandbox(gadget_read(receiver, group_leader), gadget_cgroup_id_of(receiver));
}

static __always_inline bool is_wanted(__u32 signal, __s32 code)
{
	if (filter_signal && signal != filter_signal)
		return false;
	return !filter_kill_only || code == SI_USER || code == SI_QUEUE || code == SI_TKILL;
}

SEC("tp_btf/signal_generate")
int BPF_PROG(generated, int number, struct kernel_siginfo *info, struct task_struct *receiver, int group, int result)
{
	struct trace_signal *signal;
	__s32 code = gadget_code_of_signal(info);

	if (filter_failed || filter_errno || !is_wanted(number, code))
		return 0;
	if (filter_receiver_pid && gadget_node_pid(receiver) != filter_receiver_pid)
		return 0;
	if (is_runtimes_own(number, code, receiver) || is_of_sandbox_end(number, code, receiver))
		return 0;
	signal = gadget_scratch(&generate_scratch);
	if (!signal)
		return 0;
	if (is_of_timer(number, code) ? !gadget_begin_for_task(&signal->record, receiver)
				      : !gadget_begin_with(&signal->record, receiver))
		return 0;
	signal->receiver = gadget_cgroup_id_of(receiver);
	signal->receiver_pid = gadget_node_pid(receiver);
	signal->receiver_tid = gadget_node_tid(receiver);
	signal->receiver_container_pid = gadget_own_pid(receiver, signal->receiver_pid);
	signal->receiver_uid = gadget_read(receiver, cred, uid.val);
	gadget_comm_of(receiver, signal->receiver_comm);
	signal->signal = number;
	signal->code = code;
	signal->result = GADGET_SIGNAL_DELIVERED + result;
	signal->errno = 0;
	signal->target = GADGET_NO_SIGNAL_TARGET;
	signal->group = group;
	__builtin_memset(signal->unused, 0, sizeof(signal->unused));
	gadget_emit(&signal->record, sizeof(*signal), 0);
	return 0;
}

static __always_inline int failed(long result, __s32 code, __s32 target, __u32 number)
{
	struct trace_signal *signal;

	if (result >= 0 || !gadget_wanted_result(result) || filter_receiver_pid || !is_wanted(number, code))
		return 0;
	signal = gadget_scratch(&failed_scratch);
	if (!signal || !gadget_begin(&signal->record))
		return 0;
	__builtin_memset(&signal->receiver, 0, sizeof(*signal) - offsetof(struct trace_signal, receiver));
	signal->signal = number;
	signal->code = code;
	signal->result = GADGET_SIGNAL_FAILED;
	signal->errno = -result;
	signal->target = target;
	gadget_emit(&signal->record, sizeof(*signal), 0);
	return 0;
}

#define ON_FAILURE(CALL, CODE, TARGET, SIGNAL)                                                                         \
	SEC("tracepoint/syscalls/sys_exit_" #CALL)                                                                     \
	int CALL##_failed(struct trace_event_raw_sys_exit *ctx)                                                        \
	{                                                                                                              \
		struct pt_regs *registers = gadget_call_registers(ctx);                                                \
                                                                                                                       \
		return failed(gadget_result(ctx), CODE, gadget_argument(registers, TARGET),                            \
			      gadget_argument(registers, SIGNAL));                                                     \
	}

ON_FAILURE(kill, SI_USER, 0, 1)
ON_FAILURE(tkill, SI_TKILL, 0, 1)
ON_FAILURE(tgkill, SI_TKILL, 1, 2)
ON_FAILURE(rt_sigqueueinfo, SI_QUEUE, 0, 1)
ON_FAILURE(rt_tgsigqueueinfo, SI_QUEUE, 1, 2)
ON_FAILURE(pidfd_send_signal, SI_USER, 0, 1)

char LICENSE[] SEC("license") = "Dual BSD/GPL";

// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * trace privilege: emits one `struct trace_privilege` for each call that changes users, groups, capabilities or
 * namespaces, or takes control of another process, with the privileges before and after; for each exec that gains
 * privileges; for each process that leaves its container's cgroup; and for each socket of AF_PACKET or AF_XDP, which
 * sends packets that pass by IP.
 *
 * Hooks: entry and exit of the system calls below, and the tracepoints task_newtask, sched_process_exec and
 * cgroup_attach_task. Most calls of clone and prctl are not of interest and must cost almost nothing.
 */
#include <gadget/network/socket_file.h>
#include <gadget/operation.h>
#include <gadget/output.h>
#include <gadget/process.h>
#include <gadget/processes/runtime.h>
#include <gadget/processes/thread_state.h>
#include <gadget/result.h>
#include <gadget/string.h>
#include <gadget/syscall.h>
#include <gadget/syscalls/compat.h>
#include <kernel/privilege.h>

struct trace_privilege {
	struct gadget_record record;
	gadget_operation operation;
	/* The thread's capabilities, before and after. */
	gadget_capabilities old_capabilities;
	gadget_capabilities new_capabilities;
	gadget_uid old_uid;
	gadget_uid new_uid;
	gadget_uid old_euid;
	gadget_uid new_euid;
	gadget_gid old_egid;
	gadget_gid new_egid;
	gadget_namespaces namespaces;
	/* For ptrace and prctl. */
	gadget_ptrace_request request;
	gadget_prctl_option option;
	/* The argument of the call: a process, a file descriptor, a capability or bits. */
	__s32 target;
	gadget_errno errno;
	__u32 unused_end;
};

GADGET_RECORD(trace_privilege);

const volatile bool filter_changed = false;
/* Also prctl() calls that drop capabilities from the bounding or ambient set; each new container makes dozens of
 * them. */
const volatile bool with_given_up = false;

/* The privileges of a thread. */
struct rights {
	__u64 capabilities;
	__u32 uid;
	__u32 euid;
	__u32 egid;
	/* Those before the call that is in progress. 0: none is. */
	__u32 in_call;
};

GADGET_THREAD_STATE(rights);

GADGET_SCRATCH(privilege_scratch, sizeof(struct trace_privilege));

static __always_inline struct rights current_rights(void)
{
	struct task_struct *task = gadget_task();
	const struct cred *cred = gadget_read(task, cred);
	struct rights rights = {};

	/* Two words before 6.3 (f122a08b197d "capability: just use a 'u64' instead of a 'u32[2]' array"). */
	bpf_core_read(&rights.capabilities, sizeof(rights.capabilities), &cred->cap_effective);
	rights.uid = BPF_CORE_READ(cred, uid.val);
	rights.euid = BPF_CORE_READ(cred, euid.val);
	rights.egid = BPF_CORE_READ(cred, egid.val);
	return rights;
}

static __always_inline void keep_rights(void)
{
	struct rights *kept = gadget_make_thread_state();

	if (!kept)
		return;
	*kept = current_rights();
	kept->in_call = 1;
}

/* NULL: not wanted. If the call began before the gadget did, the current privileges are shown as those before the
 * call. */
static __always_inline struct trace_privilege *begin(long result, const gadget_operation operation)
{
	struct rights *kept = gadget_thread_state();
	struct rights now = current_rights();
	struct rights before = kept && kept->in_call ? *kept : now;
	struct trace_privilege *privilege;

	if (kept)
		kept->in_call = 0;
	if ((!gadget_wanted_result(result)) || !gadget_wanted_operation(operation))
		return NULL;
	privilege = gadget_scratch(&privilege_scratch);
	if (!privilege || !gadget_begin_outside_runtime(&privilege->record))
		return NULL;
	__builtin_memcpy(privilege->operation, operation, sizeof(gadget_operation));
	privilege->old_capabilities = before.capabilities;
	privilege->new_capabilities = now.capabilities;
	privilege->old_uid = before.uid;
	privilege->new_uid = now.uid;
	privilege->old_euid = before.euid;
	privilege->new_euid = now.euid;
	privilege->old_egid = before.egid;
	privilege->new_egid = now.egid;
	privilege->namespaces = 0;
	privilege->request = privilege->option = ~0U;
	privilege->target = 0;
	privilege->errno = result < 0 ? -result : 0;
	privilege->unused_end = 0;
	return privilege;
}

static __always_inline int end(struct trace_privilege *privilege)
{
	if (filter_changed && privilege->old_capabilities == privilege->new_capabilities &&
	    privilege->old_uid == privilege->new_uid && privilege->old_euid == privilege->new_euid &&
	    privilege->old_egid == privilege->new_egid)
		return 0;
	gadget_emit(&privilege->record, sizeof(*privilege), 0);
	return 0;
}

#define ON_ENTRY(CALL)                                                                                                 \
	SEC("tracepoint/syscalls/sys_enter_" #CALL)                                                                    \
	int CALL##_starts(void *ctx)                                                                                   \
	{                                                                                                              \
		keep_rights();                                                                                         \
		return 0;                                                                                              \
	}

#define BEGIN(WORD)                                                                                                    \
	const gadget_operation word = WORD;                                                                            \
	struct trace_privilege *privilege = begin(result, word);                                                       \
                                                                                                                       \
	_Static_assert(sizeof(WORD) <= sizeof(word), "the word is too long");                                          \
	if (!privilege)                                                                                                \
	return 0

/* A call for which only its effect and one numeric argument are shown. */
#define ON_CALL(CALL, TARGET)                                                                                          \
	ON_ENTRY(CALL)                                                                                                 \
	GADGET_ON_EXIT(CALL)                                                                                           \
	{                                                                                                              \
		BEGIN(#CALL);                                                                                          \
		privilege->target = TARGET;                                                                            \
		return end(privilege);                                                                                 \
	}

#define FIRST gadget_argument(registers, 0)

ON_CALL(setuid, FIRST)
ON_CALL(setgid, FIRST)
ON_CALL(setreuid, gadget_argument(registers, 1))
ON_CALL(setregid, gadget_argument(registers, 1))
ON_CALL(setresuid, gadget_argument(registers, 1))
ON_CALL(setresgid, gadget_argument(registers, 1))
/* The number of groups. */
ON_CALL(setgroups, FIRST)
ON_CALL(capset, 0)
ON_CALL(chroot, 0)

/* The family of the socket, not of the arguments: SOCK_PACKET of AF_INET makes one of AF_PACKET. */
GADGET_ON_EXIT(socket)
{
	struct sock *sk = result >= 0 ? gadget_socket_of_fd(result) : NULL;
	__u16 family = sk ? BPF_CORE_READ(sk, __sk_common.skc_family) : FIRST;

	if (family == AF_PACKET) {
		BEGIN("packet_socket");
		privilege->target = result >= 0 ? result : gadget_argument(registers, 1);
		return end(privilege);
	}
	if (family == AF_XDP) {
		BEGIN("xdp_socket");
		privilege->target = result >= 0 ? result : gadget_argument(registers, 1);
		return end(privilege);
	}
	return 0;
}

/* These calls return the previous id, whether they succeed or not. */
ON_ENTRY(setfsuid)
GADGET_ON_EXIT(setfsuid)
{
	BEGIN("setfsuid");
	privilege->target = FIRST;
	privilege->errno = 0;
	return end(privilege);
}

ON_ENTRY(setfsgid)
GADGET_ON_EXIT(setfsgid)
{
	BEGIN("setfsgid");
	privilege->target = FIRST;
	privilege->errno = 0;
	return end(privilege);
}

ON_ENTRY(unshare)
GADGET_ON_EXIT(unshare)
{
	BEGIN("unshare");
	privilege->namespaces = FIRST & GADGET_NAMESPACES;
	if (!privilege->namespaces)
		return 0;
	return end(privilege);
}

ON_ENTRY(setns)
GADGET_ON_EXIT(setns)
{
	BEGIN("setns");
	privilege->target = FIRST;
	privilege->namespaces = gadget_argument(registers, 1) & GADGET_NAMESPACES;
	return end(privilege);
}

/*
 * A child in new namespaces; `target` is the child. The flags come from the kernel: at the exit of the call, a tracer
 * (PTRACE_EVENT_CLONE) may have put another call into the registers, and the flags of clone3 are in the program's
 * memory. At this tracepoint, the caller has not stopped for a tracer yet, so the call's number is still the original
 * one.
 */
SEC("tp_btf/task_newtask")
int BPF_PROG(new_child, struct task_struct *task, unsigned long clone_flags)
{
	__u32 namespaces = clone_flags & GADGET_NAMESPACES;
	gadget_operation operation = "clone";
	struct trace_privilege *privilege;
	__u32 number, level;

	if (!namespaces)
		return 0;
	number = gadget_syscall_number(gadget_registers(gadget_task()));
	if ((number & ~GADGET_X32) == GADGET_CLONE3)
		operation[sizeof("clone") - 1] = '3';
	privilege = begin(0, operation);
	if (!privilege)
		return 0;
	privilege->namespaces = namespaces;
	/* As returned by the call: in the caller's PID namespace. */
	level = gadget_read(gadget_task(), thread_pid, level);
	privilege->target = gadget_pid_at_level(BPF_CORE_READ(task, thread_pid), level);
	return end(privilege);
}

/* Only failed calls, which create no child and do not stop for a tracer. */
GADGET_ON_EXIT(clone)
{
	if (result >= 0 || !(FIRST & GADGET_NAMESPACES & ~CLONE_NEWTIME))
		return 0;
	BEGIN("clone");
	/* The lower bits are the signal that the parent gets. */
	privilege->namespaces = FIRST & GADGET_NAMESPACES & ~CLONE_NEWTIME;
	return end(privilege);
}

GADGET_ON_EXIT(clone3)
{
	__u64 flags = 0;

	if (result >= 0 || bpf_probe_read_user(&flags, sizeof(flags), (const void *)FIRST) ||
	    !(flags & GADGET_NAMESPACES))
		return 0;
	BEGIN("clone3");
	privilege->namespaces = flags & GADGET_NAMESPACES;
	return end(privilege);
}

/* Only requests that take control of another process: those that follow read its memory and let it continue, thousands
 * of times. */
GADGET_ON_EXIT(ptrace)
{
	__u32 request = FIRST;

	if (request != PTRACE_TRACEME && request != PTRACE_ATTACH && request != PTRACE_SEIZE)
		return 0;
	BEGIN("ptrace");
	privilege->request = request;
	privilege->target = request == PTRACE_TRACEME ? 0 : gadget_argument(registers, 1);
	return end(privilege);
}

static __always_inline bool is_of_interest(__u32 option)
{
	return option == PR_CAPBSET_DROP || option == PR_SET_SECUREBITS || option == PR_SET_NO_NEW_PRIVS ||
	       option == PR_CAP_AMBIENT || option == PR_SET_SECCOMP || option == PR_SET_KEEPCAPS ||
	       option == PR_SET_DUMPABLE || option == PR_SET_PTRACER;
}

GADGET_ON_EXIT(prctl)
{
	__u32 option = FIRST;
	bool gives_up = option == PR_CAPBSET_DROP ||
			(option == PR_CAP_AMBIENT && gadget_argument(registers, 1) != PR_CAP_AMBIENT_RAISE);

	if (!is_of_interest(option) || (gives_up && !result && !with_given_up))
		return 0;
	BEGIN("prctl");
	privilege->option = option;
	if (option == PR_CAP_AMBIENT)
		privilege->target = gadget_argument(registers, 2);
	else
		privilege->target = gadget_argument(registers, 1);
	return end(privilege);
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(executed, struct task_struct *task, int old_pid, struct linux_binprm *program)
{
	long result = 0;

	if (!BPF_CORE_READ_BITFIELD_PROBED(program, secureexec))
		return 0;
	BEGIN("exec");
	/* The real user is still the caller's. The caller's other privileges are no longer known. */
	privilege->old_euid = privilege->old_uid;
	privilege->old_egid = privilege->record.gid;
	privilege->old_capabilities = ~0ULL;
	return end(privilege);
}

/* `target` is the moved process; another process may have moved it. bpf/containers.bpf.c has handled the event
 * before. */
SEC("tp_btf/cgroup_attach_task")
int BPF_PROG(moved, struct cgroup *cgroup, const char *path, struct task_struct *task, bool threadgroup)
{
	long result = 0;

	if (BPF_CORE_READ(cgroup, root, hierarchy_id) || !gadget_any_moved() || !gadget_origin_of(task->tgid))
		return 0;
	BEGIN("leave_cgroup");
	privilege->target = gadget_node_pid(task);
	return end(privilege);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";

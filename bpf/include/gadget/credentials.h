/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The credentials and namespaces of a thread at the time of the event: users, groups, capabilities and namespaces.
 *
 * The trap: a thread has two sets of credentials. `cred` decides what it may do, `real_cred` what others may do to it.
 */
#pragma once

#include <gadget/record.h>
#include <gadget/task.h>
#include <kernel/credentials.h>
#include <kernel/net_device.h>

/* In addition to uid and gid of gadget_record, which are the real ones. */
struct gadget_credentials {
	gadget_capabilities cap_permitted;
	gadget_capabilities cap_effective;
	gadget_capabilities cap_inheritable;
	gadget_uid euid;
	gadget_uid suid;
	gadget_uid fsuid;
	gadget_gid egid;
	gadget_gid sgid;
	gadget_gid fsgid;
	/* The user who logged in; ~0: none, or unknown to the kernel. */
	gadget_uid auid;
	__u32 securebits;
};

/* A bit for each of the namespaces below in which the init process is; ~0: unknown. */
typedef __u32 gadget_namespace_kinds;

/* Inode numbers, as in /proc/PID/ns; 0: unknown, or the kernel does not have such namespaces. */
struct gadget_namespaces {
	__u32 ns_uts;
	__u32 ns_ipc;
	__u32 ns_mnt;
	__u32 ns_pid;
	__u32 ns_pid_for_children;
	__u32 ns_net;
	__u32 ns_time;
	__u32 ns_time_for_children;
	__u32 ns_cgroup;
	__u32 ns_user;
	gadget_namespace_kinds ns_host;
	__u32 unused_namespaces;
};

/* The maximum number of ancestors examined to find the init process. */
#define GADGET_ANCESTORS 64

/* The namespaces of the init process (PID 1 of the initial PID namespace). Some of these numbers are constants in the
 * kernel, but before Linux 6.18 those of mnt and net are not. */
struct gadget_namespaces gadget_first_namespaces;

static __always_inline void gadget_describe_credentials(struct gadget_credentials *to, struct task_struct *task)
{
	const struct cred *cred = gadget_read(task, cred);

	/* Two words before 6.3 (f122a08b197d "capability: just use a 'u64' instead of a 'u32[2]' array"). */
	bpf_core_read(&to->cap_permitted, sizeof(to->cap_permitted), &cred->cap_permitted);
	bpf_core_read(&to->cap_effective, sizeof(to->cap_effective), &cred->cap_effective);
	bpf_core_read(&to->cap_inheritable, sizeof(to->cap_inheritable), &cred->cap_inheritable);
	to->euid = gadget_read(cred, euid.val);
	to->suid = gadget_read(cred, suid.val);
	to->fsuid = gadget_read(cred, fsuid.val);
	to->egid = gadget_read(cred, egid.val);
	to->sgid = gadget_read(cred, sgid.val);
	to->fsgid = gadget_read(cred, fsgid.val);
	to->securebits = gadget_read(cred, securebits);
	to->auid = ~0U;
	if (bpf_core_field_exists(task->loginuid))
		to->auid = gadget_read(task, loginuid.val);
}

#define GADGET_READ_IF(TYPED, POINTER, ...)                                                                            \
	((TYPED) ? gadget_read(POINTER, __VA_ARGS__) : BPF_CORE_READ(POINTER, __VA_ARGS__))
#define GADGET_NAMESPACE_OF(PROXY, MEMBER) GADGET_READ_IF(typed, PROXY, MEMBER, ns.inum)

/* Sets everything except ns_host. `typed`: gadget_read() may read the task. */
static __always_inline void gadget_read_namespaces_of(struct gadget_namespaces *to, struct task_struct *task,
						      bool typed)
{
	const struct cred *cred = GADGET_READ_IF(typed, task, cred);
	struct nsproxy *proxy = GADGET_READ_IF(typed, task, nsproxy);
	/* Read without a type, since old verifiers reject additions to a typed pointer. */
	struct pid *numbers = BPF_CORE_READ(task, thread_pid);
	const struct upid *own =
		(void *)&numbers->numbers + BPF_CORE_READ(numbers, level) * bpf_core_type_size(struct upid);
	struct pid_namespace *pid_namespace = NULL;

	/* A thread that is ending has no nsproxy any more; then all of these read as 0. */
	to->ns_uts = GADGET_NAMESPACE_OF(proxy, uts_ns);
	to->ns_ipc = GADGET_NAMESPACE_OF(proxy, ipc_ns);
	to->ns_mnt = GADGET_NAMESPACE_OF(proxy, mnt_ns);
	to->ns_pid_for_children = GADGET_NAMESPACE_OF(proxy, pid_ns_for_children);
	to->ns_net = GADGET_NAMESPACE_OF(proxy, net_ns);
	to->ns_cgroup = GADGET_NAMESPACE_OF(proxy, cgroup_ns);
	to->ns_time = to->ns_time_for_children = 0;
	if (bpf_core_field_exists(proxy->time_ns)) {
		to->ns_time = GADGET_NAMESPACE_OF(proxy, time_ns);
		to->ns_time_for_children = GADGET_NAMESPACE_OF(proxy, time_ns_for_children);
	}
	bpf_probe_read_kernel(&pid_namespace, sizeof(pid_namespace), (void *)own + bpf_core_field_offset(own->ns));
	to->ns_pid = BPF_CORE_READ(pid_namespace, ns.inum);
	to->ns_user = GADGET_NAMESPACE_OF(cred, user_ns);
}

static __always_inline void gadget_read_namespaces(struct gadget_namespaces *to, struct task_struct *task)
{
	gadget_read_namespaces_of(to, task, false);
}

/* The init process is an ancestor of all others. The trap: the parent may be any thread of it, so TGIDs are compared.
 * Not inlined, so that the verifier checks it once. */
static __noinline int gadget_find_first_namespaces(void)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();

	for (int i = 0; i < GADGET_ANCESTORS && BPF_CORE_READ(task, tgid) > 1; i++)
		task = BPF_CORE_READ(task, real_parent);
	if (BPF_CORE_READ(task, tgid) == 1)
		gadget_read_namespaces(&gadget_first_namespaces, task);
	return 0;
}

/* Without a branch: with ten branches, the verifier would see a thousand different results, and check the following
 * code for each. */
static __always_inline __u32 gadget_is_zero(__u32 number)
{
	__u64 wide = number;

	asm volatile("" : "+r"(wide));
	return (wide - 1) >> 63;
}

#define GADGET_NAMESPACE_IS_FIRST(FIELD)                                                                               \
	(gadget_is_zero(to->FIELD ^ gadget_first_namespaces.FIELD) & ~gadget_is_zero(to->FIELD))

static __always_inline void gadget_describe_namespaces_of(struct gadget_namespaces *to, struct task_struct *task,
							  bool typed)
{
	if (!gadget_first_namespaces.ns_user)
		gadget_find_first_namespaces();
	gadget_read_namespaces_of(to, task, typed);
	to->unused_namespaces = 0;
	to->ns_host = ~0U;
	if (!gadget_first_namespaces.ns_user)
		return;
	to->ns_host = GADGET_NAMESPACE_IS_FIRST(ns_uts) | GADGET_NAMESPACE_IS_FIRST(ns_ipc) << 1 |
		      GADGET_NAMESPACE_IS_FIRST(ns_mnt) << 2 | GADGET_NAMESPACE_IS_FIRST(ns_pid) << 3 |
		      GADGET_NAMESPACE_IS_FIRST(ns_pid_for_children) << 4 | GADGET_NAMESPACE_IS_FIRST(ns_net) << 5 |
		      GADGET_NAMESPACE_IS_FIRST(ns_time) << 6 | GADGET_NAMESPACE_IS_FIRST(ns_time_for_children) << 7 |
		      GADGET_NAMESPACE_IS_FIRST(ns_cgroup) << 8 | GADGET_NAMESPACE_IS_FIRST(ns_user) << 9;
}

static __always_inline void gadget_describe_namespaces(struct gadget_namespaces *to, struct task_struct *task)
{
	gadget_describe_namespaces_of(to, task, false);
}

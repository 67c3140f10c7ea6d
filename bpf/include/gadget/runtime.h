/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * What the container runtime does in a container before it executes the container's program, as for each kubectl exec.
 *
 * It is told apart by what nobody in the container can be, and not by its name, which anybody may take. It has executed
 * nothing since it was forked; its parent is a process of the host, in a PID namespace above; and its program was
 * executed with CAP_SYS_ADMIN of the node's own users, which making a container takes. What the container's processes
 * fork has its parent in the container, and whose parent ends there gets the container's first process. The traps:
 * threads and, with CLONE_PARENT, siblings of a program that the runtime started have a parent of the host, too, and
 * have executed nothing; a thread is told by its process, and a sibling by the program. So only a container that has
 * CAP_SYS_ADMIN itself could hide in here. In doubt it is none, as where the pod has the node's PID namespace, or the
 * agent does not know the parent's cgroup.
 */
#pragma once

#include <gadget/containers.h>
#include <gadget/task.h>
#include <kernel/cgroup.h>
#include <kernel/credentials.h>

/* include/linux/sched.h: forked, and executed nothing since. */
#define PF_FORKNOEXEC 0x40

#define CAP_SYS_ADMIN 21

/* Set by --runtime: such events are wanted. */
const volatile bool gadget_show_runtime = false;

/* Whether events of the current task are left out for it. */
static __always_inline bool gadget_is_runtime(void)
{
	struct task_struct *task = gadget_task();
	const struct cred___whole *opener;
	struct file___opened *program;
	struct task_struct *parent;
	enum gadget_verdict verdict;
	__u64 capabilities = 0;

	if (gadget_show_runtime || !(gadget_read(task, group_leader, flags) & PF_FORKNOEXEC))
		return false;
	parent = BPF_CORE_READ(task, real_parent);
	if (BPF_CORE_READ(parent, thread_pid, level) >= BPF_CORE_READ(task, thread_pid, level))
		return false;
	program = (void *)BPF_CORE_READ(task, mm, exe_file);
	opener = BPF_CORE_READ(program, f_cred);
	bpf_core_read(&capabilities, sizeof(capabilities), &opener->cap_effective);
	if (!(capabilities & 1ULL << CAP_SYS_ADMIN) || BPF_CORE_READ(opener, user_ns, level))
		return false;
	verdict = gadget_verdict_on(BPF_CORE_READ(parent, cgroups, dfl_cgrp, kn, id));
	return verdict == GADGET_WANTED_HOST || verdict == GADGET_UNWANTED_HOST;
}

/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Excludes what the container runtime does in a container before it executes the container's program, for example at
 * each kubectl exec.
 *
 * The runtime is recognized by properties that no process of the container can have, not by its name, which any process
 * may take. Its parent is a process of the host, and both run the same program: it is either a forked copy of its
 * parent (crun, youki), or runc, which executes itself once (from 1.2) or twice, with CAP_SYS_ADMIN in the node's user
 * namespace. The kernel counts the execs of each line of processes, and never decreases the count: programs that the
 * container executes, and their children, have a higher count than the runtime, even with CLONE_PARENT, threads,
 * subreapers or interpreters of binfmt_misc. And the counts do not match if the parent has ended and another process
 * has adopted the child. The runtime's processes in the container's namespaces have executed nothing since they were
 * forked; a runc that has executed itself is still in its parent's namespaces, where no program of the container is.
 *
 * With containerd and CRI-O, one runc creates a container and ends, and another one starts it. Until then, a process of
 * the runtime waits with the shim as its parent. It is recognized because it was seen before, as long as it has
 * executed nothing since: bpf/containers.bpf.c marks it when it enters the container. Without these marks (before Linux
 * 5.11), a gadget that did not see it before attributes it to the container.
 *
 * The traps: a process that came from a container never counts as a process of the host (gadget/processes/moved.h). In
 * case of doubt, a process does not count as the runtime, for example if the agent does not know the parent's cgroup.
 * One attack remains: taking over the runtime itself while it is in the container, by ptrace() or process_vm_writev(),
 * which needs CAP_SYS_PTRACE in the node's user namespace.
 */
#pragma once

#include <gadget/filter.h>
#include <gadget/process.h>
#include <gadget/processes/runtime_processes.h>
#include <gadget/task.h>
#include <kernel/cgroup.h>
#include <kernel/credentials.h>
#include <kernel/fs.h>

/* Whether `task` is still in its parent's namespaces: no program of a container is in the node's mount namespace, and
 * none can leave the PID namespace of its container, if that has one. */
static __always_inline bool gadget_is_beside(struct task_struct *task, struct task_struct *parent)
{
	return BPF_CORE_READ(task, nsproxy, mnt_ns) == BPF_CORE_READ(parent, nsproxy, mnt_ns) &&
	       BPF_CORE_READ(task, thread_pid, level) == BPF_CORE_READ(parent, thread_pid, level);
}

/* Whether `task` runs its parent's program: as a forked copy, or after the one or two execs with which runc executes
 * itself. */
static __always_inline bool gadget_runs_itself(struct task_struct *task, struct task_struct *parent)
{
	struct file *program = BPF_CORE_READ(task, mm, exe_file);
	struct file *above = BPF_CORE_READ(parent, mm, exe_file);
	struct task_struct *line = task, *before = parent;
	/* 32 bits before 5.7 (d1e7fd6462ca "exec: Always set cap_ambient in cap_bprm_set_creds" and related). */
	__u64 own = BPF_CORE_READ(line, self_exec_id), parents = BPF_CORE_READ(before, self_exec_id);
	const struct cred *opener = BPF_CORE_READ(program, f_cred);
	__u64 capabilities = 0;

	if (program == above)
		return program && own == parents && !gadget_has_executed(task);
	if (BPF_CORE_READ(line, parent_exec_id) != parents || !gadget_is_runc(parent))
		return false;
	if (gadget_has_executed(task) && !gadget_is_beside(task, parent))
		return false;
	bpf_core_read(&capabilities, sizeof(capabilities), &opener->cap_effective);
	if (!(capabilities & 1ULL << CAP_SYS_ADMIN) || BPF_CORE_READ(opener, user_ns, level))
		return false;
	if (BPF_CORE_READ(program, f_inode, i_size) != BPF_CORE_READ(above, f_inode, i_size))
		return false;
	/* Since 1.2, runc executes a copy of itself, in memory or through an overlay. Before, it executed itself twice,
	 * the second time from memory or through a mount that is gone. */
	return own == parents + 1 ||
	       (own == parents + 2 && (BPF_CORE_READ(program, f_inode, i_sb, s_flags) & SB_KERNMOUNT ||
				       BPF_CORE_READ(program, f_inode) == BPF_CORE_READ(above, f_inode)));
}

/* Whether the current process is in a container, its parent is a process of the host, and both run the same program. */
static __always_inline bool gadget_is_child_of_runtime(struct task_struct *process)
{
	struct task_struct *parent = gadget_read(process, real_parent);
	__u64 cgroup = gadget_reported_cgroup(bpf_get_current_cgroup_id(), gadget_cgroup_of(process));
	enum gadget_verdict here = gadget_verdict_on(cgroup), verdict;

	if (here == GADGET_WANTED_HOST || here == GADGET_UNWANTED_HOST || !gadget_runs_itself(process, parent))
		return false;
	/* A cgroup that the agent has not reported yet may belong to the host, whose processes also fork copies of
	 * themselves. */
	if (here == GADGET_UNKNOWN && BPF_CORE_READ(process, mm, exe_file) == BPF_CORE_READ(parent, mm, exe_file) &&
	    BPF_CORE_READ(process, thread_pid, level) <= BPF_CORE_READ(parent, thread_pid, level))
		return false;
	verdict = gadget_verdict_on(gadget_cgroup_id_of(parent));
	return verdict == GADGET_WANTED_HOST || verdict == GADGET_UNWANTED_HOST;
}

/* The same, or whether it was so when the process was seen before. */
static __always_inline bool gadget_is_of_runtime(struct task_struct *process)
{
	bool is_child = gadget_is_child_of_runtime(process);
	__u32 tgid = bpf_get_current_pid_tgid() >> 32;
	__u64 now = gadget_run_of(process);

	if (gadget_hides_run(tgid, now, gadget_cgroup_id_of(process)))
		return true;
	if (is_child)
		bpf_map_update_elem(&gadget_runtimes, &tgid, &now, BPF_ANY);
	return is_child;
}

/* Whether events of `task`, the current one, are excluded because it is the runtime. */
static __always_inline bool gadget_is_runtime(struct task_struct *task)
{
	struct task_struct *process = gadget_read(task, group_leader);

	if (gadget_show_runtime)
		return false;
	/* For most processes, this check costs two loads. */
	if (gadget_has_executed(process) && !gadget_is_runc(gadget_read(process, real_parent)))
		return false;
	return gadget_is_of_runtime(process);
}

/* Like gadget_begin(), but false for the runtime, also if it is not marked. */
static __always_inline bool gadget_begin_outside_runtime(struct gadget_record *record)
{
	struct task_struct *task = gadget_task();

	return gadget_begin_in(record, task) && !gadget_is_runtime(task);
}

/* Like gadget_begin(), for an exec that failed: also true for the runtime if it has left its parent's namespaces, since
 * what it then tries to execute is the container's program. */
static __always_inline bool gadget_begin_failed_exec(struct gadget_record *record)
{
	struct task_struct *task = gadget_task();
	struct task_struct *process = gadget_read(task, group_leader);

	if (!gadget_begin_of_any(record, task))
		return false;
	return !gadget_is_runtime(task) || !gadget_is_beside(process, gadget_read(process, real_parent));
}

/* The same at the end of an exec: whether the runtime has just executed itself. */
static __always_inline bool gadget_is_runtime_executed(void)
{
	return !gadget_show_runtime && gadget_is_of_runtime(gadget_task());
}

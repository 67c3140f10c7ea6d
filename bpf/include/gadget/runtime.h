/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * What the container runtime does in a container before it executes the container's program, as for each kubectl exec.
 *
 * It is recognised by what nothing in the container can be, and not by its name there, which anybody may take. Its
 * parent is the process of the host that began it; and it runs what that one runs: either its very copy (crun, youki),
 * or runc, which executes itself, once (from 1.2) or twice, with CAP_SYS_ADMIN of the node's own users. The kernel
 * counts the execs of each line of processes, and never back: what the container executes, and all that it forks, has
 * one more than that, whatever it does with CLONE_PARENT, threads, subreapers or interpreters of binfmt_misc. And the
 * counts fit no longer when the parent has ended and another one took over. What works in the container's namespaces
 * has executed nothing since it was forked; what runc has executed of itself is in its parent's, which the container's
 * programs are not.
 *
 * containerd and CRI-O have a container created by one runc, which ends, and started by another one: what is left of
 * the runtime then waits with the shim as its parent. It is recognised by what was seen of it before, as long as it has
 * executed nothing since. A gadget that sees nothing of it before that moment takes it for the container's.
 *
 * The traps: a process that came from a container is not the host's, wherever it is now (gadget/moved.h). In doubt it
 * is none, as where the agent does not know the parent's cgroup. Left is who takes hold of the runtime itself while it
 * is in the container, by ptrace() or process_vm_writev(), which takes CAP_SYS_PTRACE of the node's own users.
 */
#pragma once

#include <gadget/filter.h>
#include <gadget/runtime_processes.h>
#include <gadget/task.h>
#include <kernel/cgroup.h>
#include <kernel/credentials.h>
#include <kernel/fs.h>

/* Set by --runtime: such events are wanted. */
const volatile bool gadget_show_runtime = false;

/* Whether this process of the host executes itself to make containers. */
static __always_inline bool gadget_is_runc(struct task_struct *task)
{
	const char runc[4] = "runc";
	__u32 name = 0;

	if (GADGET_TYPED)
		name = *(__u32 *)&task->comm[0];
	else
		bpf_core_read(&name, sizeof(name), &task->comm);
	return name == *(const __u32 *)runc;
}

static __always_inline bool gadget_has_executed(struct task_struct *task)
{
	return !(gadget_read(task, flags) & PF_FORKNOEXEC);
}

/* Whether `task` is still where its parent is: no container's program is in the node's mount namespace, and none of a
 * container with PIDs of its own can get out of these. */
static __always_inline bool gadget_is_beside(struct task_struct *task, struct task_struct *parent)
{
	return BPF_CORE_READ(task, nsproxy, mnt_ns) == BPF_CORE_READ(parent, nsproxy, mnt_ns) &&
	       BPF_CORE_READ(task, thread_pid, level) == BPF_CORE_READ(parent, thread_pid, level);
}

/* Whether `task` runs what its parent runs, as many execs later as runc takes to execute itself. */
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
	/* From 1.2 on of a copy, in memory or by an overlay; before, once more, by a mount that is gone or in memory.
	 */
	return own == parents + 1 ||
	       (own == parents + 2 && (BPF_CORE_READ(program, f_inode, i_sb, s_flags) & SB_KERNMOUNT ||
				       BPF_CORE_READ(program, f_inode) == BPF_CORE_READ(above, f_inode)));
}

/* Whether the current process is in a container, its parent is the host's, and both run the same. */
static __always_inline bool gadget_is_child_of_runtime(struct task_struct *process)
{
	struct task_struct *parent = gadget_read(process, real_parent);
	enum gadget_verdict here = gadget_verdict_on(bpf_get_current_cgroup_id()), verdict;

	if (here == GADGET_WANTED_HOST || here == GADGET_UNWANTED_HOST || !gadget_runs_itself(process, parent))
		return false;
	/* A cgroup that the agent has not reported yet may be the host's, whose processes fork copies of themselves,
	 * too. */
	if (here == GADGET_UNKNOWN && BPF_CORE_READ(process, mm, exe_file) == BPF_CORE_READ(parent, mm, exe_file) &&
	    BPF_CORE_READ(process, thread_pid, level) <= BPF_CORE_READ(parent, thread_pid, level))
		return false;
	verdict = gadget_verdict_on(gadget_cgroup_id_of(parent));
	return verdict == GADGET_WANTED_HOST || verdict == GADGET_UNWANTED_HOST;
}

/* The same, or whether it was so when this process was seen before. */
static __always_inline bool gadget_is_of_runtime(struct task_struct *process)
{
	bool is_child = gadget_is_child_of_runtime(process);
	__u32 tgid = bpf_get_current_pid_tgid() >> 32;
	const __u64 *before = bpf_map_lookup_elem(&gadget_runtimes, &tgid);
	__u64 now;

	if (!is_child && !before)
		return false;
	now = BPF_CORE_READ(process, start_boottime) + BPF_CORE_READ(process, self_exec_id);
	if (before && *before == now)
		return true;
	if (is_child)
		bpf_map_update_elem(&gadget_runtimes, &tgid, &now, BPF_ANY);
	return is_child;
}

/* Whether events of the current task are left out for it. */
static __always_inline bool gadget_is_runtime(void)
{
	struct task_struct *process = gadget_read(gadget_task(), group_leader);

	if (gadget_show_runtime)
		return false;
	/* What most processes are asked costs two loads. */
	if (gadget_has_executed(process) && !gadget_is_runc(gadget_read(process, real_parent)))
		return false;
	return gadget_is_of_runtime(process);
}

/* The same at the end of an exec: whether the runtime has just executed itself. */
static __always_inline bool gadget_is_runtime_executed(void)
{
	return !gadget_show_runtime && gadget_is_of_runtime(gadget_task());
}

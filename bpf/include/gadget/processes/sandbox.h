/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The end of a pod's sandbox, which the container runtime brings about when the pod is deleted: its program does
 * nothing but hold the pod's namespaces. It is excluded unless --runtime is given.
 *
 * Only the quiet end of the program that the runtime started is excluded: the first process of a PID namespace whose
 * parent is a process of the node outside of that namespace. What else runs in a sandbox, or has entered its
 * namespaces, is shown with its end, and so is an end by an error or by another signal.
 */
#pragma once

#include <gadget/processes/containers.h>
#include <gadget/processes/process_exit.h>
#include <gadget/processes/runtime_processes.h>
#include <kernel/signal.h>

static __always_inline bool gadget_is_host_cgroup(__u64 cgroup)
{
	enum gadget_verdict verdict = gadget_verdict_on(cgroup);

	return verdict == GADGET_WANTED_HOST || verdict == GADGET_UNWANTED_HOST;
}

/* Whether `process`, the first thread of a process in this cgroup, is what the runtime runs in a sandbox. A process
 * that has left the sandbox's cgroup is not. */
static __always_inline bool gadget_is_sandbox(struct task_struct *process, __u64 cgroup)
{
	const __u32 *value = bpf_map_lookup_elem(&gadget_containers, &cgroup);
	struct task_struct *parent;
	__u32 level;

	if (!value || !(*value & GADGET_SANDBOX))
		return false;
	level = BPF_CORE_READ(process, thread_pid, level);
	if (gadget_pid_at_level(gadget_read(process, thread_pid), level) != 1)
		return false;
	parent = gadget_read(process, real_parent);
	return BPF_CORE_READ(parent, thread_pid, level) < level && gadget_is_host_cgroup(gadget_cgroup_id_of(parent));
}

/* Whether the current process, which ends, is a sandbox whose end is excluded. `cgroup` is that of its events. */
static __always_inline bool gadget_is_sandbox_end(struct task_struct *task, __u64 cgroup)
{
	__u32 status;

	if (gadget_show_runtime || !gadget_is_sandbox(gadget_read(task, group_leader), cgroup))
		return false;
	status = gadget_exit_status(task);
	/* No other signal without a handler ends the first process of a PID namespace, but its own error. */
	return !status || status == SIGKILL;
}

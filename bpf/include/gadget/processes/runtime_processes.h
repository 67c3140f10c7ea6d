/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Processes of the container runtime that have not executed the container's program yet. Shared by all objects, so that
 * all hooks know a process that one of them has seen.
 *
 * bpf/containers.bpf.c marks what the runtime forks, and what a process of the node moves into a container or forks
 * into one; what a marked process forks is marked, too. No container can do either. gadget/processes/runtime.h adds
 * those that it recognizes by other properties. A mark is for one run of the program: what the process executes in the
 * container is the container's. It has no effect in cgroups of the host, where these processes are the node's.
 */
#pragma once

#include <gadget/processes/containers.h>
#include <gadget/record.h>
#include <gadget/task.h>

/* By the PID in the initial PID namespace. The value identifies the run of the program, as in
 * gadget/process_identity.h. If there are too many, old marks are dropped, and these processes are shown. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, __u64);
} gadget_runtimes SEC(".maps");

/* Set by --runtime: events of the runtime are wanted. */
const volatile bool gadget_show_runtime = false;

/* Whether this process has the name of runc, which executes itself to create containers. Any process may take the name,
 * so this is only a first check. */
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

/* The number of the run of the program. It only grows: with each exec, and in later processes with the same PID. */
static __always_inline __u64 gadget_run_of(struct task_struct *process)
{
	return BPF_CORE_READ(process, start_boottime) + BPF_CORE_READ(process, self_exec_id);
}

static __always_inline bool gadget_mark_is_of(__u32 tgid, __u64 run)
{
	const __u64 *marked = bpf_map_lookup_elem(&gadget_runtimes, &tgid);

	return marked && *marked == run;
}

/* Not inlined and not static, so that the verifier checks them once. They call no other function, since the stack of
 * some programs has no room for a third one. */
__noinline bool gadget_is_marked_run(__u32 tgid, __u64 run)
{
	return gadget_mark_is_of(tgid, run);
}

__noinline bool gadget_hides_run(__u32 tgid, __u64 run, __u64 cgroup)
{
	enum gadget_verdict verdict = gadget_verdict_on(cgroup);

	return verdict != GADGET_WANTED_HOST && verdict != GADGET_UNWANTED_HOST && gadget_mark_is_of(tgid, run);
}

/* Whether the process of any task may be marked. For most processes, this costs two loads: only runc executes itself.
 */
static __always_inline bool gadget_may_be_marked(struct task_struct *process)
{
	return !gadget_has_executed(process) || gadget_is_runc(gadget_read(process, real_parent));
}

static __always_inline bool gadget_is_marked(struct task_struct *task)
{
	struct task_struct *process = gadget_read(task, group_leader);

	return gadget_may_be_marked(process) &&
	       gadget_is_marked_run(gadget_read(process, tgid), gadget_run_of(process));
}

/* Whether events of the task are excluded because it is the runtime. `cgroup` is that of its events. */
static __always_inline bool gadget_hides(struct task_struct *task, __u64 cgroup)
{
	struct task_struct *process = gadget_read(task, group_leader);

	return !gadget_show_runtime && gadget_may_be_marked(process) &&
	       gadget_hides_run(gadget_read(process, tgid), gadget_run_of(process), cgroup);
}

/* The same for any address of a task, which gadget_read() may not follow. */
static __always_inline bool gadget_hides_at(struct task_struct *task, __u64 cgroup)
{
	struct task_struct *process = BPF_CORE_READ(task, group_leader);

	return !gadget_show_runtime && gadget_hides_run(BPF_CORE_READ(process, tgid), gadget_run_of(process), cgroup);
}

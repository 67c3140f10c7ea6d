// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * Follows cgroups and the processes that leave them, for the agent:
 *
 * - notifies it at once of each cgroup v2 that is created or removed outside of containers (a struct cgroup_change in
 *   gadget_events). Hooks: the tracepoints cgroup_mkdir and cgroup_rmdir. Once at start, the agent runs `locate`
 *   directly, to find its own PID namespace
 * - remembers the container that each process came from, and maintains the list of processes outside of their container
 *   (gadget/processes/moved.h). Hooks: the tracepoints cgroup_attach_task, sched_process_fork and sched_process_free,
 * and an iterator over all tasks, which emits a struct process_found for each existing process; the agent runs `adopt`
 *   directly, for processes that it finds by itself
 *
 * - marks processes of the container runtime that enter a container, until they execute a program
 *   (gadget/processes/runtime_processes.h), by the same hooks and the tracepoint sched_process_exec
 *
 * These records do not leave the node, so they do not begin with a struct gadget_record. One object for both tasks,
 * since libbpf reads the kernel's whole BTF for each object. The trap: cgroup_attach_task runs after the move, when the
 * old cgroup is no longer known. So the container of each thread is in its task storage (Linux 5.11), which cannot be
 * full and is freed with the thread; without task storage, the agent loads only the programs of the first kind.
 */
#include <gadget/processes/containers.h>
#include <gadget/counters.h>
#include <gadget/processes/runtime.h>
#include <gadget/task.h>
#include <kernel/cgroup.h>
#include <kernel/credentials.h>
#include <kernel/iterator.h>
#include <bpf/bpf_tracing.h>

#define NAME_BYTES 256 /* NAME_MAX and a NUL */

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* Read by kubectl_gadget/agent/containers/container_programs.py. Not sent through gadget_emit(), since each record must
 * wake the agent. */
struct cgroup_change {
	__u64 cgroup;
	__u64 parent;
	__u32 pid;  /* the process that did it, in the agent's pid namespace; 0 when it is not visible there */
	__u32 made; /* 1 made, 0 removed */
	char name[NAME_BYTES];
};

/* The nesting level of the agent's PID namespace. Set by `locate` before the programs are attached. */
__u32 agent_pid_level;

static __always_inline __u32 pid_seen_by_agent(void)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct pid *pid = BPF_CORE_READ(task, group_leader, thread_pid);
	__u32 level = agent_pid_level;

	if (BPF_CORE_READ(pid, level) < level)
		return 0;
	return gadget_pid_at_level(pid, level);
}

/* A container may make and remove any number of cgroups below its own. The agent is not told, once it knows the
 * container. */
static __always_inline bool is_below_container(struct cgroup *cgroup)
{
	return gadget_container_of((__u64)BPF_CORE_READ(cgroup, self.parent, cgroup));
}

static __always_inline int emit(struct cgroup *cgroup, __u32 made)
{
	struct cgroup_change *change;
	struct gadget_cpu *cpu = gadget_this_cpu();

	/* 0 is the default hierarchy, which is cgroup v2; hybrid hosts also create v1 cgroups. */
	if (!cpu || BPF_CORE_READ(cgroup, root, hierarchy_id) || is_below_container(cgroup))
		return 0;
	gadget_count(&cpu->in_flight, 1);
	change = bpf_ringbuf_reserve(&gadget_events, sizeof(*change), 0);
	if (!change) {
		gadget_count(&cpu->lost_ring_full, 1);
		goto out;
	}
	change->cgroup = BPF_CORE_READ(cgroup, kn, id);
	change->parent = BPF_CORE_READ(cgroup, self.parent, cgroup, kn, id);
	change->pid = pid_seen_by_agent();
	change->made = made;
	change->name[0] = 0;
	bpf_probe_read_kernel_str(change->name, sizeof(change->name), BPF_CORE_READ(cgroup, kn, name));
	bpf_ringbuf_submit(change, BPF_RB_FORCE_WAKEUP);
	gadget_count(&cpu->events, 1);
out:
	gadget_count(&cpu->in_flight, -1);
	return 0;
}

SEC("tp_btf/cgroup_mkdir")
int BPF_PROG(made, struct cgroup *cgroup, const char *path)
{
	return emit(cgroup, 1);
}

SEC("tp_btf/cgroup_rmdir")
int BPF_PROG(removed, struct cgroup *cgroup, const char *path)
{
	return emit(cgroup, 0);
}

/* Runs in the agent's own context: the agent cannot see the nesting level of its PID namespace from inside. */
SEC("raw_tp")
int locate(void *ctx)
{
	struct task_struct *task = (void *)bpf_get_current_task();

	agent_pid_level = BPF_CORE_READ(task, thread_pid, level);
	return agent_pid_level;
}

/* The container's own cgroup, by thread. */
struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, __u64);
} origins SEC(".maps");

/* Read by kubectl_gadget/agent/containers/container_programs.py. */
struct process_found {
	__u64 started;
	/* 0: no container. */
	__u64 container;
	__u32 tgid;
	/* The nesting level of the PID namespace, and the inode numbers of PID and mount namespace. */
	__u32 level;
	__u32 pid_namespace;
	__u32 mount_namespace;
	/* The same inode numbers of the parent. */
	__u32 mount_namespace_above;
	__u32 pid_namespace_above;
};

/* The process for which `adopt` runs. */
struct adopted {
	__u64 started;
	__u64 container;
	__u32 tgid;
	__u32 unused;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct adopted);
} adopted SEC(".maps");

/* Whether a cgroup is in this container, or is it. */
__noinline __u64 is_within(__u64 address, __u64 container)
{
	struct cgroup *cgroup = (struct cgroup *)address;
	int own = BPF_CORE_READ(cgroup, level);

	for (int level = 0; level < GADGET_CGROUP_LEVELS && level <= own; level++)
		if (gadget_cgroup_at(cgroup, level) == container)
			return true;
	return false;
}

static __always_inline void count(__s64 processes, __s64 lost)
{
	__u32 zero = 0;
	struct gadget_moved_counts *counts = bpf_map_lookup_elem(&gadget_moved_counts, &zero);

	if (!counts)
		return;
	__sync_fetch_and_add(&counts->processes, processes);
	__sync_fetch_and_add(&counts->lost, lost);
}

static __always_inline void keep(__u32 tgid, __u64 started, __u64 container)
{
	struct gadget_moved_process moved = {.cgroup = container | GADGET_ELSEWHERE, .started = started};

	if (!bpf_map_update_elem(&gadget_moved, &tgid, &moved, BPF_NOEXIST))
		count(1, 0);
	else if (!bpf_map_lookup_elem(&gadget_moved, &tgid))
		count(0, 1);
}

static __always_inline void forget(__u32 tgid)
{
	if (!bpf_map_delete_elem(&gadget_moved, &tgid))
		count(-1, 0);
}

/* Processes that the agent found at its start have no task storage. */
static __always_inline __u64 listed(__u32 tgid)
{
	return gadget_any_moved() ? gadget_origin_of(tgid) & ~GADGET_ELSEWHERE : 0;
}

static __always_inline void mark(struct task_struct *process)
{
	__u32 tgid = BPF_CORE_READ(process, tgid);
	__u64 run = gadget_run_of(process);

	bpf_map_update_elem(&gadget_runtimes, &tgid, &run, BPF_ANY);
}

/* Whether a process of the node has the name of a runtime. What others fork in the host's cgroups is not marked, so
 * that the list stays short. */
static __always_inline bool is_named_as_runtime(struct task_struct *task)
{
	const char names[3][4] = {"runc", "crun", "youk"};
	__u32 name = 0;

	bpf_core_read(&name, sizeof(name), &task->comm);
	return name == *(const __u32 *)names[0] || name == *(const __u32 *)names[1] || name == *(const __u32 *)names[2];
}

/* Whether a task is of the node: it came from no container, and its cgroup is the host's. */
static __always_inline bool is_of_node(struct task_struct *task, const __u64 *origin)
{
	enum gadget_verdict verdict = gadget_verdict_on(BPF_CORE_READ(task, cgroups, dfl_cgrp, kn, id));

	return !origin && !listed(BPF_CORE_READ(task, tgid)) &&
	       (verdict == GADGET_WANTED_HOST || verdict == GADGET_UNWANTED_HOST);
}

/* Whether a cgroup may be a container's. The runtime enters a new one before the agent knows it; then the name of the
 * runtime, which is a process of the node, decides. */
static __always_inline bool may_be_container(struct cgroup *cgroup, __u64 container, struct task_struct *runtime)
{
	return container ||
	       (gadget_verdict_on(BPF_CORE_READ(cgroup, kn, id)) == GADGET_UNKNOWN && is_named_as_runtime(runtime));
}

SEC("tp_btf/cgroup_attach_task")
int BPF_PROG(attached, struct cgroup *cgroup, const char *path, struct task_struct *task, bool threadgroup)
{
	__u64 container, *origin = bpf_task_storage_get(&origins, task, NULL, 0);
	/* The cgroup's address as a number, which can be passed to functions that are not static. */
	__u64 there = (__u64)BPF_CORE_READ(cgroup, self.cgroup);
	struct task_struct *mover, *process;
	__u32 tgid = task->tgid;
	__u64 from;

	/* 0 is the default hierarchy, which is cgroup v2. */
	if (BPF_CORE_READ(cgroup, root, hierarchy_id))
		return 0;
	from = origin ? *origin : listed(tgid);
	if (from && !is_within(there, from)) {
		keep(tgid, task->start_boottime, from);
		return 0;
	}
	if (from && gadget_any_moved())
		forget(tgid);
	/* The runtime moves the process into the container, or it moves to a container inside its own. */
	container = gadget_container_of(there);
	/* What a process of the node moves is the runtime if it is still in the node's namespaces, as its mover is: no
	 * program of a container is. A process that moves itself is in the container by now. */
	mover = bpf_get_current_task_btf();
	process = gadget_read(task, group_leader);
	if (!from && is_of_node(mover, bpf_task_storage_get(&origins, mover, NULL, 0)) &&
	    gadget_is_beside(process, mover) &&
	    may_be_container((struct cgroup *)there, container, gadget_read(process, real_parent)))
		mark(process);
	if (!origin && container)
		origin = bpf_task_storage_get(&origins, task, &container, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (origin && container)
		*origin = container;
	return 0;
}

/* `parent` is the process that forks, even with CLONE_PARENT. */
SEC("tp_btf/sched_process_fork")
int BPF_PROG(forked, struct task_struct *parent, struct task_struct *child)
{
	__u64 *origin = bpf_task_storage_get(&origins, parent, NULL, 0);
	__u64 from = origin ? *origin : listed(parent->tgid), its_cgroup;
	struct cgroup *cgroup = BPF_CORE_READ(child, cgroups, dfl_cgrp);
	enum gadget_verdict verdict;
	bool is_process = child->tgid != parent->tgid;

	if (is_process && gadget_is_marked(parent))
		mark(child);
	if (!from) {
		its_cgroup = BPF_CORE_READ(cgroup, kn, id);
		verdict = gadget_verdict_on(its_cgroup);
		if (verdict == GADGET_WANTED_HOST || verdict == GADGET_UNWANTED_HOST) {
			/* It may enter a container's namespaces, and run threads, before it is moved. */
			if (is_process && is_named_as_runtime(parent) && is_of_node(parent, origin))
				mark(child);
			return 0;
		}
		from = gadget_container_of((__u64)cgroup);
		/* With CLONE_INTO_CGROUP. */
		if (is_process && is_of_node(parent, origin) && may_be_container(cgroup, from, parent))
			mark(child);
	}
	if (!from)
		return 0;
	bpf_task_storage_get(&origins, child, &from, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!is_process)
		return 0;
	/* In a cgroup chosen with CLONE_INTO_CGROUP, or in one to which its creator has moved. */
	if ((cgroup != BPF_CORE_READ(parent, cgroups, dfl_cgrp) || listed(parent->tgid)) &&
	    !is_within((__u64)cgroup, from))
		keep(child->tgid, child->start_boottime, from);
	return 0;
}

/* The runtime may execute itself, or another program of the node, before it is in the container. Once it is there,
 * gadget/processes/runtime.h recognizes whether it has executed itself. */
SEC("tp_btf/sched_process_exec")
int BPF_PROG(executed, struct task_struct *task, int old_pid, struct linux_binprm *program)
{
	if (!gadget_is_marked_run(task->tgid, gadget_run_of(task) - 1))
		return 0;
	if (is_of_node(task, bpf_task_storage_get(&origins, task, NULL, 0)) &&
	    gadget_is_beside(task, gadget_read(gadget_task(), real_parent)))
		mark(task);
	else
		gadget_is_of_runtime(gadget_task());
	return 0;
}

SEC("tp_btf/sched_process_free")
int BPF_PROG(freed, struct task_struct *task)
{
	const struct gadget_moved_process *moved;
	__u32 tgid = task->tgid;

	if (!gadget_any_moved() || task->pid != task->tgid)
		return 0;
	moved = bpf_map_lookup_elem(&gadget_moved, &tgid);
	if (moved && moved->started == task->start_boottime)
		forget(tgid);
	return 0;
}

/* The inode number of the PID namespace of this struct upid. */
static __always_inline __u32 number_of(void *upid)
{
	struct pid_namespace *namespace = NULL;

	bpf_probe_read_kernel(&namespace, sizeof(namespace), upid + bpf_core_field_offset(struct upid, ns));
	return BPF_CORE_READ(namespace, ns.inum);
}

static __always_inline __u32 mount_namespace_of(struct task_struct *task)
{
	return BPF_CORE_READ(task, nsproxy, mnt_ns, ns.inum);
}

/* Sets `level` to the nesting level of the namespace. */
static __always_inline __u32 pid_namespace_of(const struct task_struct *task, __u32 *level)
{
	struct pid *pid = BPF_CORE_READ(task, thread_pid);

	*level = BPF_CORE_READ(pid, level);
	return number_of((void *)pid + bpf_core_field_offset(struct pid, numbers) +
			 *level * bpf_core_type_size(struct upid));
}

SEC("iter/task")
int running(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	struct process_found found = {};
	struct task_struct *above;
	__u32 level;

	/* Kernel threads have no memory. */
	if (!task || !task->mm)
		return 0;
	found.container = gadget_container_of((__u64)BPF_CORE_READ(task, cgroups, dfl_cgrp));
	if (found.container && !bpf_task_storage_get(&origins, task, NULL, 0))
		bpf_task_storage_get(&origins, task, &found.container, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (task->pid != task->tgid)
		return 0;
	above = BPF_CORE_READ(task, real_parent);
	found.started = task->start_boottime;
	found.tgid = task->tgid;
	found.pid_namespace = pid_namespace_of(task, &found.level);
	found.mount_namespace = mount_namespace_of(task);
	found.mount_namespace_above = mount_namespace_of(above);
	found.pid_namespace_above = pid_namespace_of(above, &level);
	bpf_seq_write(ctx->meta->seq, &found, sizeof(found));
	return 0;
}

SEC("raw_tp")
int adopt(void *ctx)
{
	__u32 zero = 0;
	const struct adopted *one = bpf_map_lookup_elem(&adopted, &zero);

	if (one)
		keep(one->tgid, one->started, one->container);
	return 0;
}

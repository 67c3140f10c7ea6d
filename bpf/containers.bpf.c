// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
// Notifies the agent at once of every cgroup v2 that is created or removed, and once at start where the agent itself
// runs. Hooks: the raw tracepoints cgroup_mkdir and cgroup_rmdir; `locate` is only ever run by hand
// (BPF_PROG_TEST_RUN). Emits struct cgroup_change into gadget_events. It never leaves the node, so it is not a struct
// gadget_record.
#include <gadget/counters.h>
#include <gadget/task.h>
#include <kernel/cgroup.h>
#include <bpf/bpf_tracing.h>

#define NAME_BYTES 256 /* NAME_MAX and a NUL */

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* Read by kubectl_gadget/agent/containers/cgroup_watcher.py. Not sent through gadget_emit(), since each record must
 * wake the agent. */
struct cgroup_change {
	__u64 cgroup;
	__u64 parent;
	__u32 pid;  /* the process that did it, in the agent's pid namespace; 0 when it is not visible there */
	__u32 made; /* 1 made, 0 removed */
	char name[NAME_BYTES];
};

/* The nesting level of the agent's PID namespace. Set by `locate` before anything is attached. */
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

static __always_inline int emit(struct cgroup *cgroup, __u32 made)
{
	struct cgroup_change *change;
	struct gadget_cpu *cpu = gadget_this_cpu();

	/* 0 is the default hierarchy, which is cgroup v2; hybrid hosts also create v1 cgroups. */
	if (!cpu || BPF_CORE_READ(cgroup, root, hierarchy_id))
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

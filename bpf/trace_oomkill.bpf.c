// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * trace oomkill: emits one `struct trace_oomkill` for each process that the kernel kills when memory runs out, and the
 * process whose allocation caused it.
 *
 * Hooks: the tracepoint mark_victim, which has the victim since 6.9; else the function oom_kill_process, by fentry,
 * which does not see the other processes of a group that is killed as a whole. The record describes the victim, but the
 * current task is the process that caused the kill.
 */
#include <gadget/other_task.h>
#include <gadget/output.h>
#include <gadget/string.h>
#include <kernel/memory.h>

/* The maximum number of nested cgroups with a limit. */
#define LEVELS 16
/* A charge may request this many pages at once (MEMCG_CHARGE_BATCH), so a cgroup counts as full a little earlier. */
#define CHARGE_PAGES 64
/* The maximum length of a cgroup's name. */
#define NAME_BYTES 255

struct trace_oomkill {
	/* The victim. */
	struct gadget_record record;
	/* The process that caused the kill. */
	gadget_cgroup trigger;
	gadget_pid trigger_pid;
	__u32 trigger_tid;
	gadget_pid trigger_container_pid;
	gadget_uid trigger_uid;
	gadget_comm trigger_comm;
	gadget_bytes total_vm;
	gadget_bytes anon_rss;
	gadget_bytes file_rss;
	gadget_bytes shmem_rss;
	/* The limit of the full cgroup; ~0 when there is none, and the node itself has no memory left. */
	gadget_bytes limit;
	gadget_bytes usage;
	/* The cgroup's name, the last part of its path. */
	gadget_string limited;
	__s32 oom_score_adj;
};

GADGET_RECORD(trace_oomkill);

#define KILL_BYTES GADGET_ROOM(sizeof(struct trace_oomkill) + NAME_BYTES)

GADGET_SCRATCH(kill_scratch, KILL_BYTES);

static __always_inline struct mem_cgroup *memory_cgroup_of(struct task_struct *task)
{
	struct css_set *set = BPF_CORE_READ(task, cgroups);
	struct cgroup_subsys_state *state = NULL;
	__u32 index;

	if (!bpf_core_enum_value_exists(enum cgroup_subsys_id, memory_cgrp_id))
		return NULL;
	index = bpf_core_enum_value(enum cgroup_subsys_id, memory_cgrp_id);
	bpf_probe_read_kernel(&state, sizeof(state),
			      (void *)set + bpf_core_field_offset(struct css_set, subsys) + index * sizeof(state));
	return state ? (void *)state - bpf_core_field_offset(struct mem_cgroup, css) : NULL;
}

/* Finds the victim's nearest cgroup that has used up its limit. */
static __always_inline void find_limit(struct gadget_writer *writer, struct trace_oomkill *kill,
				       struct task_struct *victim)
{
	struct mem_cgroup *memory = memory_cgroup_of(victim);

	kill->limit = kill->usage = ~0ULL;
	gadget_no_text(&kill->limited);
	for (int level = 0; level < LEVELS && memory; level++) {
		struct cgroup_subsys_state *above = BPF_CORE_READ(memory, css.parent);
		__u64 limit = BPF_CORE_READ(memory, memory.max);
		__u64 usage = BPF_CORE_READ(memory, memory.usage.counter);

		if (!above)
			return;
		if (usage + CHARGE_PAGES >= limit) {
			struct kernfs_node *node = BPF_CORE_READ(memory, css.cgroup, kn);

			kill->limit = limit * gadget_node_page_bytes;
			kill->usage = usage * gadget_node_page_bytes;
			gadget_append_kernel_string(writer, &kill->limited, BPF_CORE_READ(node, name), NAME_BYTES);
			return;
		}
		memory = (void *)above - bpf_core_field_offset(struct mem_cgroup, css);
	}
}

static __always_inline int killed(struct task_struct *victim)
{
	struct task_struct *trigger = gadget_task();
	__u64 trigger_cgroup = gadget_current_cgroup();
	struct mm_struct *memory = BPF_CORE_READ(victim, mm);
	struct signal_struct *signal = BPF_CORE_READ(victim, signal);
	struct trace_oomkill *kill = gadget_scratch(&kill_scratch);
	struct gadget_writer writer;
	bool trigger_is_wanted;

	if (!kill)
		return 0;
	trigger_is_wanted = gadget_wanted_cgroup(&kill->record, trigger_cgroup);
	if (!gadget_begin_for_task_or(&kill->record, victim, trigger_is_wanted, false))
		return 0;
	kill->trigger = trigger_cgroup;
	kill->trigger_pid = gadget_node_pid(trigger);
	kill->trigger_tid = gadget_node_tid(trigger);
	kill->trigger_container_pid = gadget_own_pid(trigger, kill->trigger_pid);
	kill->trigger_uid = (__u32)bpf_get_current_uid_gid();
	gadget_comm_of(trigger, kill->trigger_comm);
	kill->total_vm = BPF_CORE_READ(memory, total_vm) * gadget_node_page_bytes;
	kill->anon_rss = gadget_pages(memory, MM_ANONPAGES) * gadget_node_page_bytes;
	kill->file_rss = gadget_pages(memory, MM_FILEPAGES) * gadget_node_page_bytes;
	kill->shmem_rss = gadget_pages(memory, MM_SHMEMPAGES) * gadget_node_page_bytes;
	kill->oom_score_adj = BPF_CORE_READ(signal, oom_score_adj);
	writer = gadget_write(kill, sizeof(*kill), KILL_BYTES);
	find_limit(&writer, kill, victim);
	gadget_send(&writer);
	return 0;
}

/* The tracepoint's argument since 6.9 (72ba14deb40a "mm: update mark_victim tracepoints fields"); before, it was a PID.
 */
SEC("tp_btf/mark_victim")
int BPF_PROG(marked, struct task_struct *victim, unsigned int uid)
{
	return killed(victim);
}

SEC("fentry/oom_kill_process")
int BPF_PROG(killed_fentry, struct oom_control *control, const char *message)
{
	return killed(control->chosen);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Which events are sent: those of wanted containers, and of them those that pass the filters that all gadgets have.
 *
 * The agent fills `gadget_containers` with a verdict for each cgroup of its node. A cgroup made a moment ago may lack
 * in it; then the nearest container above decides. With none, the event is sent with a mark and the client decides, so
 * that no filter can lose a race. The trap: a verdict on a cgroup of the host is not inherited, or the cgroup above all
 * pods would decide on pods not named yet.
 */
#pragma once

#include <gadget/chosen_process.h>
#include <gadget/containers.h>
#include <gadget/record.h>
#include <gadget/task.h>
#include <kernel/cgroup.h>

/* Levels of cgroups that are looked at. Kubernetes in kind in a container has about ten. */
#define GADGET_CGROUP_LEVELS 24

/*
 * Set for a session that may see one namespace only: a cgroup of which the agent has not told is not sent, since the
 * client cannot be left to decide on it.
 */
const volatile bool gadget_node_named_only = false;

/* Filters that all gadgets have. What is off costs nothing: the verifier removes it. */

/* ~0: any. */
const volatile __u32 gadget_filter_uid = ~0U;
/* Empty: any. */
const volatile char gadget_filter_comm[16] __attribute__((aligned(8))) = "";

/*
 * For a cgroup that the agent has not told of: whether to send, and with which mark. The helper for a task's ancestors
 * is for tracing programs only since Linux 5.15.
 */
static __always_inline bool gadget_wanted_by_ancestor(struct gadget_record *record, struct cgroup *cgroup)
{
	__u32 *on_this_node = &record->unused;

	*on_this_node = !gadget_node_cgroup;
	for (int level = 0; level < GADGET_CGROUP_LEVELS && cgroup; level++) {
		__u64 id = BPF_CORE_READ(cgroup, kn, id);
		enum gadget_verdict verdict = gadget_verdict_on(id);

		if (id == gadget_node_cgroup)
			*on_this_node = true;
		/* The nearest container decides. */
		if (verdict == GADGET_UNWANTED)
			return false;
		if (verdict == GADGET_WANTED) {
			record->marks = 0;
			return true;
		}
		cgroup = BPF_CORE_READ(cgroup, self.parent, cgroup);
	}
	record->marks = GADGET_MARK_UNKNOWN_CGROUP;
	return *on_this_node && !gadget_node_named_only;
}

static __always_inline struct cgroup *gadget_cgroup_of(struct task_struct *task)
{
	return BPF_CORE_READ(task, cgroups, dfl_cgrp);
}

/* The cgroup that a task's events belong to, which may have left its container's. */
static __always_inline __u64 gadget_cgroup_id_of(struct task_struct *task)
{
	__u64 origin = 0;

	if (gadget_any_moved())
		origin = gadget_origin_of(BPF_CORE_READ(task, tgid));
	return origin ? origin : BPF_CORE_READ(gadget_cgroup_of(task), kn, id);
}

/* Whether events of this cgroup, which is the current task's, are wanted. Sets the record's marks. */
static __always_inline bool gadget_wanted_cgroup(struct gadget_record *record, __u64 cgroup)
{
	enum gadget_verdict verdict = gadget_verdict_on(cgroup);

	if (verdict == GADGET_UNKNOWN && cgroup & GADGET_ELSEWHERE) {
		record->marks = GADGET_MARK_UNKNOWN_CGROUP;
		return !gadget_node_named_only;
	}
	if (verdict == GADGET_UNKNOWN)
		return gadget_wanted_by_ancestor(record, gadget_cgroup_of(gadget_task()));
	record->marks = 0;
	return gadget_is_wanted(verdict);
}

/* Whether events of the current task are wanted, by pid, uid and comm. */
static __always_inline bool gadget_wanted_task(struct task_struct *task)
{
	if (!gadget_is_chosen_process(task))
		return false;
	if (gadget_filter_uid != ~0U && (__u32)bpf_get_current_uid_gid() != gadget_filter_uid)
		return false;
	if (gadget_filter_comm[0]) {
		const volatile __u64 *wanted = (const volatile __u64 *)gadget_filter_comm;
		__u64 comm[2];

		/* Pads with zeros (strscpy_pad), as the agent does with the filter. */
		bpf_get_current_comm(comm, sizeof(comm));
		if (comm[0] != wanted[0] || comm[1] != wanted[1])
			return false;
	}
	return true;
}

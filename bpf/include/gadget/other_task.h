/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Tasks and cgroups that are not the current ones: the receiver of a signal, the owner of a socket.
 *
 * An event of two parties is wanted when either of them is, which gadget_begin_with() asks; its record has a second
 * gadget_cgroup. The trap: filters by pid, uid and comm mean the record's own task, never the other one.
 */
#pragma once

#include <gadget/filter.h>
#include <gadget/process.h>
#include <gadget/record.h>
#include <gadget/task.h>
#include <kernel/cgroup.h>

/* As gadget_wanted_cgroup(), for a cgroup that is not the current task's. Sets the record's cgroup, too. */
static __always_inline bool gadget_wanted_other_cgroup(struct gadget_record *record, struct cgroup *cgroup)
{
	__u32 *on_this_node = &record->unused;
	const __u32 *verdict;

	record->cgroup = BPF_CORE_READ(cgroup, kn, id);
	record->marks = 0;
	verdict = bpf_map_lookup_elem(&gadget_containers, &record->cgroup);
	if (verdict)
		return *verdict == GADGET_WANTED || *verdict == GADGET_WANTED_HOST;
	*on_this_node = !gadget_node_cgroup;
	for (int level = 0; level < GADGET_CGROUP_LEVELS && cgroup; level++) {
		__u64 id = BPF_CORE_READ(cgroup, kn, id);

		if (id == gadget_node_cgroup)
			*on_this_node = true;
		verdict = bpf_map_lookup_elem(&gadget_containers, &id);
		/* The nearest container decides. */
		if (verdict && *verdict == GADGET_UNWANTED)
			return false;
		if (verdict && *verdict == GADGET_WANTED)
			return true;
		cgroup = BPF_CORE_READ(cgroup, self.parent, cgroup);
	}
	record->marks = GADGET_MARK_UNKNOWN_CGROUP;
	return *on_this_node;
}

static __always_inline bool gadget_has_wanted_comm(const struct gadget_record *record)
{
	const volatile __u64 *wanted = (const volatile __u64 *)gadget_filter_comm;
	const __u64 *comm = (const __u64 *)record->comm;

	return !gadget_filter_comm[0] || (comm[0] == wanted[0] && comm[1] == wanted[1]);
}

/* Fills in the head of a record about any task, in its own context or not. False: it is not wanted. */
static __always_inline bool gadget_begin_for_task_or(struct gadget_record *record, struct task_struct *task,
						     bool other_is_wanted)
{
	struct task_struct *parent;

	record->pid = gadget_node_pid(task);
	record->uid = gadget_read(task, cred, uid.val);
	record->gid = gadget_read(task, cred, gid.val);
	gadget_comm_of(task, record->comm);
	if ((gadget_filter_pid && record->pid != gadget_filter_pid) ||
	    (gadget_filter_uid != ~0U && record->uid != gadget_filter_uid) || !gadget_has_wanted_comm(record))
		return false;
	if (!gadget_wanted_other_cgroup(record, gadget_read(task, cgroups, dfl_cgrp))) {
		if (!other_is_wanted)
			return false;
		record->marks = 0;
	}
	record->tid = gadget_node_tid(task);
	record->container_pid = gadget_own_pid(task, record->pid);
	record->unused = 0;
	parent = gadget_read(task, real_parent);
	record->ppid = gadget_node_pid(parent);
	gadget_comm_of(parent, record->parent_comm);
	return true;
}

static __always_inline bool gadget_begin_for_task(struct gadget_record *record, struct task_struct *task)
{
	return gadget_begin_for_task_or(record, task, false);
}

static __always_inline struct cgroup *gadget_cgroup_of(struct task_struct *task)
{
	return BPF_CORE_READ(task, cgroups, dfl_cgrp);
}

/* As gadget_begin(), and true as well when the other party is wanted, which may be NULL. */
static __always_inline bool gadget_begin_with(struct gadget_record *record, struct task_struct *other)
{
	__u64 cgroup = bpf_get_current_cgroup_id();
	struct task_struct *task = gadget_task();
	bool other_is_wanted = other && gadget_wanted_other_cgroup(record, gadget_cgroup_of(other));

	if (!gadget_wanted_cgroup(record, cgroup)) {
		if (!other_is_wanted)
			return false;
		/* What the client has to decide it decides on both. */
		record->marks = 0;
	}
	if (!gadget_wanted_task(task))
		return false;
	gadget_describe(record, task, cgroup);
	return true;
}

/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Tasks and cgroups other than the current ones, such as the receiver of a signal or the owner of a socket.
 *
 * An event with two processes is wanted if either of them is (gadget_begin_with()); its record has a second
 * gadget_cgroup. Filters by pid, uid and comm apply to the record's own task, never to the other one.
 */
#pragma once

#include <gadget/filter.h>
#include <gadget/process.h>
#include <gadget/record.h>
#include <gadget/task.h>
#include <kernel/credentials.h>

/* Like gadget_wanted_cgroup(), for a cgroup other than the current task's. Also sets the record's cgroup. */
static __always_inline bool gadget_wanted_other_cgroup(struct gadget_record *record, struct cgroup *cgroup)
{
	enum gadget_verdict verdict;

	record->cgroup = gadget_reported_cgroup(gadget_read_at(struct cgroup, cgroup, kn, id), cgroup);
	verdict = gadget_verdict_on(record->cgroup);
	if (verdict == GADGET_UNKNOWN)
		return gadget_wanted_by_ancestor(record, cgroup);
	record->marks = 0;
	return gadget_is_wanted(verdict);
}

/* The same for a task, which may have left its container's cgroup. */
static __always_inline bool gadget_wanted_other_task(struct gadget_record *record, struct task_struct *task)
{
	__u64 origin = 0;

	if (gadget_any_moved())
		origin = gadget_origin_of(BPF_CORE_READ(task, tgid));
	if (!origin)
		return gadget_wanted_other_cgroup(record, gadget_cgroup_of(task));
	record->cgroup = origin;
	return gadget_wanted_cgroup(record, origin);
}

static __always_inline bool gadget_has_wanted_comm(const struct gadget_record *record)
{
	const volatile __u64 *wanted = (const volatile __u64 *)gadget_filter_comm;
	const __u64 *comm = (const __u64 *)record->comm;

	return !gadget_filter_comm[0] || (comm[0] == wanted[0] && comm[1] == wanted[1]);
}

/*
 * Fills in the head of a record about any task. False: it is not wanted. `other_is_wanted`: the event is wanted because
 * of another process. `any_name`: the caller applies the filter by name.
 */
static __always_inline bool gadget_begin_for_task_or(struct gadget_record *record, struct task_struct *task,
						     bool other_is_wanted, bool any_name)
{
	struct task_struct *parent;

	record->pid = gadget_node_pid(task);
	record->uid = gadget_read(task, cred, uid.val);
	record->gid = gadget_read(task, cred, gid.val);
	gadget_comm_of(task, record->comm);
	if (!gadget_is_chosen_process(task) || (gadget_filter_uid != ~0U && record->uid != gadget_filter_uid) ||
	    (!any_name && !gadget_has_wanted_comm(record)))
		return false;
	if (!gadget_wanted_other_task(record, task)) {
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
	return gadget_begin_for_task_or(record, task, false, false) && !gadget_hides(task, record->cgroup);
}

/* The same without the filter by name. */
static __always_inline bool gadget_begin_with_any_name(struct gadget_record *record, struct task_struct *task)
{
	return gadget_begin_for_task_or(record, task, false, true);
}

/* Like gadget_begin(), but also true if the other process is wanted. `other` may be NULL. */
static __always_inline bool gadget_begin_with(struct gadget_record *record, struct task_struct *other)
{
	__u64 cgroup = gadget_current_cgroup();
	struct task_struct *task = gadget_task();
	bool other_is_wanted =
		other && gadget_wanted_other_task(record, other) && !gadget_hides_at(other, record->cgroup);
	bool is_of_container = other_is_wanted && gadget_verdict_on(record->cgroup) != GADGET_WANTED_HOST;

	if (!gadget_wanted_cgroup(record, cgroup)) {
		if (!other_is_wanted)
			return false;
		/* If the client has to decide, it checks both processes. */
		record->marks = 0;
	}
	if (!gadget_wanted_task(task))
		return false;
	/* What the runtime does to a process of a container is shown. */
	if (!is_of_container && gadget_hides(task, cgroup))
		return false;
	gadget_describe(record, task, cgroup);
	return true;
}

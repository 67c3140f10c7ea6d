/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * gadget_begin(): the first line of every program. It asks all filters, and fills in the record's head if they agree.
 * The time follows when the record is sent.
 *
 * The trap: it describes the current task. A program that runs in another task's name (a timer, a softirq) must not use
 * it.
 */
#pragma once

#include <gadget/filter.h>
#include <gadget/record.h>
#include <gadget/task.h>

/* Of a call that is not one of a 64-bit program. */
static __always_inline __u32 gadget_compat_marks(struct task_struct *task)
{
#if defined(__TARGET_ARCH_x86)
	/* TS_COMPAT; x32 is recognised by its numbers alone. */
	if (!(gadget_read(task, thread_info.status) & 2))
		return GADGET_MARK_COMPAT | GADGET_MARK_X32;
#endif
	return GADGET_MARK_COMPAT;
}

/* Fills in the record's head, but for the marks, which the filter sets. */
static __always_inline void gadget_describe(struct gadget_record *record, struct task_struct *task, __u64 cgroup)
{
	__u64 ids = bpf_get_current_uid_gid();
	struct task_struct *parent;

	record->cgroup = cgroup;
	record->pid = gadget_node_pid(task);
	record->tid = gadget_node_tid(task);
	record->container_pid = gadget_own_pid(task, record->pid);
	record->uid = (__u32)ids;
	record->gid = ids >> 32;
	record->unused = 0;
	if (gadget_node_compat)
		record->marks |= gadget_compat_marks(task);
	gadget_comm_of(task, record->comm);
	parent = gadget_read(task, real_parent);
	record->ppid = gadget_node_pid(parent);
	gadget_comm_of(parent, record->parent_comm);
}

/* False: not wanted, and the record's contents are meaningless. */
static __always_inline bool gadget_begin(struct gadget_record *record)
{
	__u64 cgroup = gadget_current_cgroup();
	struct task_struct *task;

	if (!gadget_wanted_cgroup(record, cgroup))
		return false;
	task = gadget_task();
	if (!gadget_wanted_task(task))
		return false;
	gadget_describe(record, task, cgroup);
	return true;
}

/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * gadget_begin(), with which programs begin: it applies all filters and, if the event is wanted, fills in the record's
 * head. The time is set when the record is sent. What the container runtime does in a container is not wanted, unless
 * --runtime is given.
 *
 * The trap: it describes the current task. A program that runs on behalf of another task (in a timer or softirq) must
 * not use it.
 */
#pragma once

#include <gadget/filter.h>
#include <gadget/processes/runtime_processes.h>
#include <gadget/record.h>
#include <gadget/syscalls/translated_call.h>
#include <gadget/task.h>

/* The marks of a call that is not a 64-bit call. */
static __always_inline __u32 gadget_compat_marks(struct task_struct *task)
{
#if defined(__TARGET_ARCH_x86)
	/* TS_COMPAT; x32 is recognized by its call numbers alone. */
	if (!(gadget_read(task, thread_info.status) & 2))
		return GADGET_MARK_COMPAT | GADGET_MARK_X32;
#endif
	return GADGET_MARK_COMPAT;
}

/* Fills in the record's head except for the marks, which the filter sets. */
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
	if (gadget_translated_call())
		record->marks |= gadget_compat_marks(task);
	gadget_comm_of(task, record->comm);
	parent = gadget_read(task, real_parent);
	record->ppid = gadget_node_pid(parent);
	gadget_comm_of(parent, record->parent_comm);
}

/* As gadget_begin_in(), also for the container runtime. */
static __always_inline bool gadget_begin_of_any(struct gadget_record *record, struct task_struct *task)
{
	__u64 cgroup = gadget_current_cgroup();

	if (!gadget_wanted_cgroup(record, cgroup) || !gadget_wanted_task(task))
		return false;
	gadget_describe(record, task, cgroup);
	return true;
}

/* As gadget_begin(), for programs that have the current task already. */
static __always_inline bool gadget_begin_in(struct gadget_record *record, struct task_struct *task)
{
	return gadget_begin_of_any(record, task) && !gadget_hides(task, record->cgroup);
}

/* False: not wanted, and the record's contents are undefined. */
static __always_inline bool gadget_begin(struct gadget_record *record)
{
	return gadget_begin_in(record, gadget_task());
}

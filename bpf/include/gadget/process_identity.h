/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Identifies one run of a program: a process from one exec to the next. With it, the client (kubectl_gadget/observe)
 * joins records with the record of the exec, which has the program, its arguments and its ancestors.
 *
 * It needs no map that could be full or late: the kernel counts the execs of a process (self_exec_id, which a fork
 * inherits) and stores the time of the fork. The trap: `started` is the sum of both, so that it changes with each exec.
 * It is the time of the fork plus a few nanoseconds, not the time of the exec.
 */
#pragma once

#include <gadget/record.h>
#include <gadget/task.h>

struct gadget_exec {
	/* Boot time in ns; see above. 0: no process, or one outside of the node's PID namespace. */
	__u64 started;
	/* The PID on the node. */
	__u32 pid;
	__u32 unused;
};

/* Shown as base64 of NODE:STARTED:PID. */
typedef struct gadget_exec gadget_exec_id;

/* For any task that gadget_read() may read: gadget_task(), or the argument of a tp_btf program or of an iterator. */
static __always_inline void gadget_exec_of(gadget_exec_id *exec, struct task_struct *task)
{
	exec->started = exec->pid = exec->unused = 0;
	if (gadget_node_pid_level && gadget_read(task, group_leader, thread_pid, level) < gadget_node_pid_level)
		return;
	exec->pid = gadget_node_pid(task);
	exec->started = gadget_read(task, group_leader, start_boottime) + gadget_read(task, self_exec_id);
}

/* Distinguishes the successive programs of one process in keys of totals: after an exec, there is a new row with the
 * new program's name. */
static __always_inline __u64 gadget_program_of(struct task_struct *task)
{
	return gadget_read(task, self_exec_id);
}

/* For the task's current parent: if the process that forked it has ended, this is the process that adopted it. */
static __always_inline void gadget_exec_of_parent(gadget_exec_id *exec, struct task_struct *task)
{
	gadget_exec_of(exec, gadget_read(task, real_parent));
}

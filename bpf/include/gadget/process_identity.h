/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Which run of a program: a process from one exec to the next. Records that carry it are joined with the program, its
 * arguments and its ancestors by the client (kubectl_gadget/observe), which had them in the record of the exec.
 *
 * Nothing is kept for it, so nothing can be full, lost or late: the kernel itself counts the execs of a process
 * (self_exec_id, which a fork inherits), and notes when it was forked. The trap: the sum of both is used as one number
 * that differs from exec to exec; it is the time of the fork to within as many nanoseconds, not that of the exec.
 */
#pragma once

#include <gadget/record.h>
#include <gadget/task.h>

struct gadget_exec {
	/* Boot time in ns; see above. 0: nobody, or outside of the node's PID namespace. */
	__u64 started;
	/* As the node numbers it. */
	__u32 pid;
	__u32 unused;
};

/* Shown as base64 of NODE:STARTED:PID. */
typedef struct gadget_exec gadget_exec_id;

/* Of any task that gadget_read() may read: gadget_task(), the argument of a tp_btf program or of an iterator. */
static __always_inline void gadget_exec_of(gadget_exec_id *exec, struct task_struct *task)
{
	exec->started = exec->pid = exec->unused = 0;
	if (gadget_node_pid_level && gadget_read(task, group_leader, thread_pid, level) < gadget_node_pid_level)
		return;
	exec->pid = gadget_node_pid(task);
	exec->started = gadget_read(task, group_leader, start_boottime) + gadget_read(task, self_exec_id);
}

/* Distinguishes the programs that one process runs one after another, for keys of totals: what an exec begins is
 * another row, with the new program's name. */
static __always_inline __u64 gadget_program_of(struct task_struct *task)
{
	return gadget_read(task, self_exec_id);
}

/* Of the task's parent as it is now: after the one that forked it has ended, the process that took over. */
static __always_inline void gadget_exec_of_parent(gadget_exec_id *exec, struct task_struct *task)
{
	gadget_exec_of(exec, gadget_read(task, real_parent));
}

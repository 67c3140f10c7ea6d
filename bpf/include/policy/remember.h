/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The programs that fill in the data of policy/processes.h: at each exec and fork and, once at start, for existing
 * processes. Loaded once for all hooks of a session.
 *
 * The trap: the iterators run after the other two programs are attached, so that no exec or fork is missed. So they
 * must not overwrite data.
 */
#pragma once

#include <kernel/iterator.h>
#include <policy/match.h>
#include <policy/values.h>

/* Policies follow programs. Then the prefixes of test 0 are the paths of these programs, each with its NUL; the result
 * is the number of the program, from 1. */
const volatile bool policy_follows = false;

/* If policies follow the program that the task runs, sets its bit. */
static __always_inline void policy_mark_program(struct policy_process *process, struct task_struct *task)
{
	struct policy_memory *memory;
	const __u64 *number;
	struct file *file = BPF_CORE_READ(task, mm, exe_file);

	if (!policy_follows || !file)
		return;
	memory = gadget_take_slot(&policy_memory);
	if (!memory)
		return;
	memory->value.lacks = 0;
	policy_read_path(memory, BPF_CORE_READ(file, f_path.mnt), BPF_CORE_READ(file, f_path.dentry));
	number = memory->value.lacks ? NULL : policy_begins(memory, 0);
	if (number && *number)
		process->ran[(*number - 1) / 64 & (POLICY_FOLLOWED_WORDS - 1)] |= 1ULL << ((*number - 1) & 63);
	gadget_give_back(memory);
}

SEC("?tp_btf/sched_process_exec")
int on_exec(void *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct policy_process now = {}, *process;

	policy_describe_process(&now, task);
	process = bpf_task_storage_get(&policy_processes, task, &now, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!process) {
		gadget_count_map_full();
		return 0;
	}
	process->namespaces = now.namespaces;
	__builtin_memcpy(process->capabilities, now.capabilities, sizeof(now.capabilities));
	policy_mark_program(process, task);
	return 0;
}

SEC("?tp_btf/sched_process_fork")
int BPF_PROG(on_fork, struct task_struct *parent, struct task_struct *child)
{
	struct policy_process now = {}, *known = bpf_task_storage_get(&policy_processes, parent, NULL, 0);

	if (!known) {
		/* The iterator has not reached the parent yet. */
		policy_describe_process(&now, child);
		known = &now;
	}
	if (!bpf_task_storage_get(&policy_processes, child, known, BPF_LOCAL_STORAGE_GET_F_CREATE))
		gadget_count_map_full();
	return 0;
}

/* The state that an existing process had at its exec is unknown, so the current state is used. */
SEC("?iter/task")
int on_running(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	struct policy_process now = {}, *process;

	if (!task)
		return 0;
	policy_describe_process(&now, task);
	process = bpf_task_storage_get(&policy_processes, task, &now, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (process)
		policy_mark_program(process, task);
	else
		gadget_count_map_full();
	return 0;
}

/* Runs after the iterator above, so that the data of all living ancestors is there. */
SEC("?iter/task")
int on_descendant(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	struct policy_process *process;

	if (!task)
		return 0;
	process = bpf_task_storage_get(&policy_processes, task, NULL, 0);
	if (!process)
		return 0;
	for (int i = 0; i < POLICY_ANCESTORS; i++) {
		const struct policy_process *above;

		if (task->pid <= 1)
			break;
		task = task->real_parent;
		above = bpf_task_storage_get(&policy_processes, task, NULL, 0);
		if (above)
			for (int word = 0; word < POLICY_FOLLOWED_WORDS; word++)
				process->ran[word] |= above->ran[word];
	}
	return 0;
}

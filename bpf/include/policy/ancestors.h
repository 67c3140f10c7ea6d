/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Tests of a process's ancestors: their PIDs, and the programs that they have run.
 *
 * A process whose parent ends gets another parent, and only current ancestors are examined. The programs that former
 * ancestors have run are remembered (policy/processes.h).
 */
#pragma once

#include <gadget/task.h>
#include <policy/processes.h>
#include <policy/sets.h>

/* The maximum number of ancestors examined. */
#define POLICY_ANCESTORS 64

struct policy_ancestry {
	struct policy_memory *memory;
	struct task_struct *task;
	/* The innermost PID namespace of the process itself. */
	void *namespace;
	__u32 test;
	bool in_namespace;
};

static __always_inline void *policy_pid_namespace(struct pid *pid, __u32 level, __u32 *number)
{
	struct upid *upid = (void *)&pid->numbers + level * bpf_core_type_size(struct upid);
	void *namespace = NULL;

	bpf_probe_read_kernel(number, sizeof(*number), upid);
	bpf_probe_read_kernel(&namespace, sizeof(namespace), (void *)upid + bpf_core_field_offset(upid->ns));
	return namespace;
}

/* Tests one ancestor. An ancestor outside of the process's PID namespace has no PID in it. */
static long policy_try_ancestor(__u32 index, struct policy_ancestry *ancestry)
{
	struct task_struct *task = ancestry->task;
	struct pid *pid = BPF_CORE_READ(task, group_leader, thread_pid);
	__u32 level = BPF_CORE_READ(pid, level);
	__u32 number = 0;

	if (!ancestry->in_namespace) {
		policy_pid_namespace(pid, gadget_node_pid_level, &number);
	} else if (level != gadget_node_pid_level) {
		void *namespace = policy_pid_namespace(pid, level, &number);

		if (!index)
			ancestry->namespace = namespace;
		if (namespace != ancestry->namespace)
			number = 0;
	}
	if (number || !index) {
		const __u64 *bits = policy_in_set(ancestry->test, number);

		if (bits)
			policy_find(ancestry->memory, bits);
	}
	if (BPF_CORE_READ(task, tgid) <= 1)
		return 1;
	ancestry->task = BPF_CORE_READ(task, real_parent);
	return 0;
}

static __always_inline const __u64 *policy_descends(struct policy_memory *memory, __u32 test, __u32 part)
{
	struct policy_ancestry ancestry = {
		.memory = memory,
		.task = (struct task_struct *)bpf_get_current_task(),
		.test = test,
		.in_namespace = part,
	};

	policy_find_none(memory);
	bpf_loop(POLICY_ANCESTORS, policy_try_ancestor, &ancestry, 0);
	return memory->found;
}

struct policy_programs {
	struct policy_memory *memory;
	__u64 left;
	__u32 test;
	__u32 word;
};

static long policy_try_program(__u32 index, struct policy_programs *programs)
{
	const __u64 *bits;

	if (!programs->left)
		return 1;
	bits = policy_in_set(programs->test, programs->word * 64 + __builtin_ctzll(programs->left));
	programs->left &= programs->left - 1;
	if (bits)
		policy_find(programs->memory, bits);
	return 0;
}

/* For the process or, with `part`, for its parent. NULL: unknown. */
static __always_inline const __u64 *policy_ran(struct policy_memory *memory, __u32 test, __u32 part)
{
	struct task_struct *task = bpf_get_current_task_btf();
	const struct policy_process *process;

	if (part)
		task = task->real_parent;
	process = BPF_CORE_READ(task, mm) ? bpf_task_storage_get(&policy_processes, task, NULL, 0) : NULL;
	if (!process)
		return NULL;
	policy_find_none(memory);
	for (__u32 word = 0; word < POLICY_FOLLOWED_WORDS; word++) {
		struct policy_programs programs = {
			.memory = memory, .left = process->ran[word], .test = test, .word = word};

		if (programs.left)
			bpf_loop(64, policy_try_program, &programs, 0);
	}
	return memory->found;
}

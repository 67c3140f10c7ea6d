/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Data about a process: its namespaces and capabilities at its last exec, and which of the programs that policies
 * follow have been run by it or its ancestors.
 *
 * It is in the task storage of each thread, which cannot be full and is freed with the thread. New threads and
 * processes start with a copy of their creator's data. Filled by the programs in policy/remember.h, which are loaded
 * once for all hooks if a policy needs them. The trap: a thread that calls exec becomes the first thread, so data in
 * the task storage of the first thread alone would be lost.
 */
#pragma once

#include <gadget/credentials.h>
#include <policy/memory.h>

/* The maximum number of programs that policies can follow, in words of 64 bits. */
#define POLICY_FOLLOWED_WORDS 16

struct policy_process {
	struct gadget_namespaces namespaces;
	/* Permitted, effective, inheritable. */
	__u64 capabilities[3];
	/* A bit for each followed program that the process or an ancestor has run. */
	__u64 ran[POLICY_FOLLOWED_WORDS];
};

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct policy_process);
} policy_processes SEC(".maps");

static __always_inline void policy_read_capabilities(__u64 to[3], struct task_struct *task)
{
	const struct cred *cred = BPF_CORE_READ(task, cred);

	bpf_core_read(&to[0], sizeof(__u64), &cred->cap_permitted);
	bpf_core_read(&to[1], sizeof(__u64), &cred->cap_effective);
	bpf_core_read(&to[2], sizeof(__u64), &cred->cap_inheritable);
}

/* Fills in everything except the programs. */
static __always_inline void policy_describe_process(struct policy_process *to, struct task_struct *task)
{
	gadget_read_namespaces(&to->namespaces, task);
	to->namespaces.ns_host = to->namespaces.unused_namespaces = 0;
	policy_read_capabilities(to->capabilities, task);
}

/* Number: a bit for each kind of namespace that has changed since the exec. */
static __always_inline void policy_read_namespace_changes(struct policy_memory *memory)
{
	struct task_struct *task = bpf_get_current_task_btf();
	const struct policy_process *then = bpf_task_storage_get(&policy_processes, task, NULL, 0);
	/* In the buffer that strings are read to, since the stack has no room. */
	struct gadget_namespaces *now = (void *)&memory->event[POLICY_EVENT_BYTES - POLICY_TEXT_END];
	const __u32 *before, *after = (const __u32 *)now;

	if (!then) {
		memory->value.lacks = POLICY_UNREADABLE;
		return;
	}
	before = (const __u32 *)&then->namespaces;
	gadget_read_namespaces(now, task);
	/* 0 means unknown. */
	for (int i = 0; i < 10; i++)
		if (before[i] && after[i] && before[i] != after[i])
			memory->value.numbers[0] |= 1ULL << i;
}

/* Numbers: the permitted, effective and inheritable capabilities that have changed since the exec. */
static __always_inline void policy_read_capability_changes(struct policy_memory *memory)
{
	struct task_struct *task = bpf_get_current_task_btf();
	const struct policy_process *then = bpf_task_storage_get(&policy_processes, task, NULL, 0);

	if (!then) {
		memory->value.lacks = POLICY_UNREADABLE;
		return;
	}
	policy_read_capabilities(memory->value.numbers, task);
	for (int i = 0; i < 3; i++)
		memory->value.numbers[i] ^= then->capabilities[i];
}

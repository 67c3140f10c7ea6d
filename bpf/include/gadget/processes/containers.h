/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The agent's entry for each container and each cgroup of the host: its verdict, and its container's share of the ring
 * (gadget/fairness.h).
 *
 * A container may make any number of cgroups below its own, with any names, so these have no entries: whatever happens
 * in them has the cgroup of the nearest container above. The trap: a verdict on a cgroup of the host is not inherited.
 * Otherwise the cgroup above all pods would decide about pods that have no verdict yet.
 */
#pragma once

#include <gadget/processes/moved.h>
#include <gadget/record.h>
#include <gadget/task.h>
#include <kernel/cgroup.h>

enum gadget_verdict {
	/* The agent has not reported the cgroup, or does not know the container's names. */
	GADGET_UNKNOWN = 0,
	/* A container. */
	GADGET_WANTED = 1,
	GADGET_UNWANTED = 2,
	/* A cgroup of the host. */
	GADGET_WANTED_HOST = 3,
	GADGET_UNWANTED_HOST = 4,
};

/* A value consists of the verdict, a bit for sandboxes of pods, one for all containers, and above them the number of
 * the share. */
#define GADGET_VERDICT_MASK 0x3f
#define GADGET_SANDBOX 0x40
#define GADGET_CONTAINER 0x80
#define GADGET_SHARE_SHIFT 8

/* The maximum number of cgroup levels above a container. Kubernetes in kind in a container has about ten. */
#define GADGET_CGROUP_LEVELS 24

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, __u64);
	__type(value, __u32);
} gadget_containers SEC(".maps");

/* GADGET_UNKNOWN when the agent has not reported it. */
static __always_inline enum gadget_verdict gadget_verdict_on(__u64 cgroup)
{
	const __u32 *found;

	cgroup &= ~GADGET_ELSEWHERE;
	found = bpf_map_lookup_elem(&gadget_containers, &cgroup);
	return found ? *found & GADGET_VERDICT_MASK : GADGET_UNKNOWN;
}

static __always_inline bool gadget_is_wanted(enum gadget_verdict verdict)
{
	return verdict == GADGET_WANTED || verdict == GADGET_WANTED_HOST;
}

/* The id of the cgroup at this level above a cgroup, or of itself. The level must not be below its own. */
static __always_inline __u64 gadget_cgroup_at(struct cgroup *cgroup, __u32 level)
{
	void *ancestors;

	/* The kernel has one of both. Reading where the other one would be is refused, unless no path leads there. */
	if (bpf_core_field_exists(struct cgroup___ids, ancestor_ids)) {
		ancestors = (void *)cgroup + bpf_core_field_offset(struct cgroup___ids, ancestor_ids);
		return gadget_word_at(ancestors + level * sizeof(__u64));
	}
	ancestors = (void *)cgroup + bpf_core_field_offset(struct cgroup, ancestors);
	return BPF_CORE_READ((struct cgroup *)gadget_word_at(ancestors + level * sizeof(__u64)), kn, id);
}

/* How functions for one level of cgroups are declared. A gadget whose programs have no room on the stack for one more
 * call defines it as `static __always_inline`, which takes the verifier longer. */
#ifndef GADGET_LEVEL_FUNCTION
#define GADGET_LEVEL_FUNCTION __noinline
#endif

/* The container that is at this level above a cgroup; 0: it is none. */
GADGET_LEVEL_FUNCTION __u64 gadget_container_at(__u64 address, __u32 level)
{
	__u64 id = gadget_cgroup_at((struct cgroup *)address, level);
	const __u32 *value = bpf_map_lookup_elem(&gadget_containers, &id);

	return value && *value & GADGET_CONTAINER ? id : 0;
}

/*
 * The container that a cgroup is in, or is; 0: none is known. Goes down from the root, since a container is never in
 * another one, and may make more levels of cgroups than a loop can go up.
 *
 * This function and what its loop calls are neither inlined nor static, as are other functions that take the address of
 * a cgroup, so that the verifier checks each once, and not for each path and turn that leads to it.
 */
__noinline __u64 gadget_container_of(__u64 address)
{
	int own = BPF_CORE_READ((struct cgroup *)address, level);

	for (int level = 0; level < GADGET_CGROUP_LEVELS && level <= own; level++) {
		__u64 container = gadget_container_at(address, level);

		if (container)
			return container;
	}
	return 0;
}

/* The cgroup that events in this one have: its container's, or itself. `id` is its id. */
static __always_inline __u64 gadget_reported_cgroup(__u64 id, struct cgroup *cgroup)
{
	__u64 container = 0;

	if (!bpf_map_lookup_elem(&gadget_containers, &id))
		container = gadget_container_of((__u64)cgroup);
	return container ? container : id;
}

/* The cgroup that a task is in. */
static __always_inline struct cgroup *gadget_cgroup_of(struct task_struct *task)
{
	void *set = (void *)gadget_read_at(struct task_struct, task, cgroups);

	return (struct cgroup *)gadget_word_at(set + bpf_core_field_offset(struct css_set, dfl_cgrp));
}

/* The cgroup for the task's events. A task that has left its container's cgroup still belongs to it. */
static __always_inline __u64 gadget_cgroup_id_of(struct task_struct *task)
{
	struct cgroup *cgroup = gadget_cgroup_of(task);
	__u64 origin = 0;

	if (gadget_any_moved())
		origin = gadget_origin_of(BPF_CORE_READ(task, tgid));
	return origin ? origin : gadget_reported_cgroup(BPF_CORE_READ(cgroup, kn, id), cgroup);
}

/* The same for the current task. */
static __always_inline __u64 gadget_current_cgroup(void)
{
	__u64 origin = 0;

	if (gadget_any_moved())
		origin = gadget_origin_of(bpf_get_current_pid_tgid() >> 32);
	return origin ? origin : gadget_reported_cgroup(bpf_get_current_cgroup_id(), gadget_cgroup_of(gadget_task()));
}

/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Which events are sent: those of wanted containers, and of them those that pass the filters that all gadgets have.
 *
 * The agent fills `gadget_containers` with a verdict for each cgroup of its node. A cgroup made a moment ago may lack
 * in it; then the nearest container above decides. With none, the event is sent with a mark and the client decides, so
 * that no filter can lose a race. The trap: a verdict on a cgroup of the host is not inherited, or the cgroup above all
 * pods would decide on pods not named yet.
 */
#pragma once

#include <gadget/record.h>
#include <gadget/task.h>

enum gadget_verdict {
	GADGET_UNKNOWN = 0,
	/* A container. Cgroups below it inherit the verdict. */
	GADGET_WANTED = 1,
	GADGET_UNWANTED = 2,
	/* A cgroup of the host. Not inherited. */
	GADGET_WANTED_HOST = 3,
	GADGET_UNWANTED_HOST = 4,
};

/* Levels of cgroups that are looked at. Kubernetes in kind in a container has about ten. */
#define GADGET_CGROUP_LEVELS 24

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, __u64);
	__type(value, __u32);
} gadget_containers SEC(".maps");

/* Filters that all gadgets have. What is off costs nothing: the verifier removes it. */

/* Number on the node. 0: any. */
const volatile __u32 gadget_filter_pid = 0;
/* ~0: any. */
const volatile __u32 gadget_filter_uid = ~0U;
/* Empty: any. */
const volatile char gadget_filter_comm[16] __attribute__((aligned(8))) = "";

/*
 * For a cgroup that the agent has not told of: whether to send, and with which mark. What is known so far is kept in
 * the record: the verifier does not follow the values of memory, so it looks at each round of the loop once, instead of
 * once for each way through the rounds before.
 */
static __always_inline bool gadget_wanted_by_ancestor(struct gadget_record *record)
{
	__u32 *nearest = &record->marks;
	__u32 *on_this_node = &record->unused;

	*nearest = GADGET_UNKNOWN;
	*on_this_node = !gadget_node_cgroup;
	/* From the root down, since the current cgroup's own level is not known. */
	for (int level = 0; level < GADGET_CGROUP_LEVELS; level++) {
		__u64 ancestor = bpf_get_current_ancestor_cgroup_id(level);
		const __u32 *verdict;

		if (!ancestor)
			break;
		if (ancestor == gadget_node_cgroup)
			*on_this_node = true;
		verdict = bpf_map_lookup_elem(&gadget_containers, &ancestor);
		if (verdict && (*verdict == GADGET_WANTED || *verdict == GADGET_UNWANTED))
			*nearest = *verdict;
	}
	if (!*on_this_node || *nearest == GADGET_UNWANTED)
		return false;
	record->marks = *nearest == GADGET_UNKNOWN ? GADGET_MARK_UNKNOWN_CGROUP : 0;
	return true;
}

/* Whether events of this cgroup are wanted. Sets the record's marks. */
static __always_inline bool gadget_wanted_cgroup(struct gadget_record *record, __u64 cgroup)
{
	const __u32 *verdict = bpf_map_lookup_elem(&gadget_containers, &cgroup);

	if (!verdict)
		return gadget_wanted_by_ancestor(record);
	record->marks = 0;
	return *verdict == GADGET_WANTED || *verdict == GADGET_WANTED_HOST;
}

/* Whether events of the current task are wanted, by pid, uid and comm. */
static __always_inline bool gadget_wanted_task(struct task_struct *task)
{
	if (gadget_filter_pid && gadget_node_pid(task) != gadget_filter_pid)
		return false;
	if (gadget_filter_uid != ~0U && (__u32)bpf_get_current_uid_gid() != gadget_filter_uid)
		return false;
	if (gadget_filter_comm[0]) {
		const volatile __u64 *wanted = (const volatile __u64 *)gadget_filter_comm;
		__u64 comm[2];

		/* Pads with zeros (strscpy_pad), as the agent does with the filter. */
		bpf_get_current_comm(comm, sizeof(comm));
		if (comm[0] != wanted[0] || comm[1] != wanted[1])
			return false;
	}
	return true;
}

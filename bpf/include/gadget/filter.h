/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Selects the events to send: those of wanted containers that pass the filters that all gadgets have.
 *
 * The agent fills `gadget_containers` with a verdict for each container of its node and each cgroup of the host. What
 * happens in a cgroup below a container is the container's. A new cgroup in no known container has no entry yet; then
 * the event is sent with a mark and the client decides, so that no filter can lose a race. A verdict on a cgroup of the
 * host is not inherited (gadget/processes/containers.h).
 */
#pragma once

#include <gadget/processes/chosen_process.h>
#include <gadget/processes/containers.h>
#include <gadget/record.h>
#include <gadget/task.h>
#include <kernel/cgroup.h>

/*
 * Set for a session that may see one namespace only: events of cgroups that the agent has not reported are not sent,
 * since that client may not see them even to decide.
 */
const volatile bool gadget_node_named_only = false;

/* Filters that all gadgets have. An unused filter costs nothing: the verifier removes it. */

/* ~0: any. */
const volatile __u32 gadget_filter_uid = ~0U;
/* Empty: any. */
const volatile char gadget_filter_comm[16] __attribute__((aligned(8))) = "";

/* Without a branch, after which the verifier would check the following code twice. */
static __always_inline __u64 gadget_is_same(__u64 one, __u64 other)
{
	__u64 differs = one ^ other;

	asm volatile("" : "+r"(differs));
	return ~(differs | -differs) >> 63;
}

/* A result of gadget_verdict_above() that is not a verdict. */
#define GADGET_OF_OTHER_NODE 5

/* The verdict on the cgroup at this level above another, and a bit if it is the root of this node's cgroups. */
#define GADGET_ON_THIS_NODE 0x100

GADGET_LEVEL_FUNCTION __u32 gadget_verdict_at(__u64 address, __u32 level)
{
	__u64 id = gadget_cgroup_at((struct cgroup *)address, level);
	__u32 verdict = gadget_verdict_on(id);

	return verdict | gadget_is_same(id, gadget_node_cgroup) * GADGET_ON_THIS_NODE;
}

/*
 * The verdict on the container that a cgroup is in. GADGET_UNKNOWN: there is none, or it has no names yet;
 * GADGET_OF_OTHER_NODE: neither a container nor the node's root cgroup is above it. Reads ancestors itself, since
 * tracing programs may use bpf_get_current_ancestor_cgroup_id() only since Linux 5.15.
 */
__noinline __u32 gadget_verdict_above(__u64 address)
{
	__u32 on_this_node = gadget_node_cgroup ? 0 : GADGET_ON_THIS_NODE;
	int own = BPF_CORE_READ((struct cgroup *)address, level);

	for (int level = 0; level < GADGET_CGROUP_LEVELS && level <= own; level++) {
		__u32 found = gadget_verdict_at(address, level);
		__u32 verdict = found & GADGET_VERDICT_MASK;

		on_this_node |= found;
		if (verdict == GADGET_UNWANTED || verdict == GADGET_WANTED)
			return verdict;
	}
	return on_this_node & GADGET_ON_THIS_NODE ? GADGET_UNKNOWN : GADGET_OF_OTHER_NODE;
}

/* Whether events of a cgroup that the agent has not reported are sent. Sets the record's marks. */
static __always_inline bool gadget_wanted_by_ancestor(struct gadget_record *record, struct cgroup *cgroup)
{
	__u32 verdict = gadget_verdict_above((__u64)cgroup);

	record->marks = verdict == GADGET_WANTED ? 0 : GADGET_MARK_UNKNOWN_CGROUP;
	return verdict == GADGET_WANTED || (verdict == GADGET_UNKNOWN && !gadget_node_named_only);
}

/* Whether events of this cgroup, that of the current task, are wanted. Sets the record's marks. */
static __always_inline bool gadget_wanted_cgroup(struct gadget_record *record, __u64 cgroup)
{
	enum gadget_verdict verdict = gadget_verdict_on(cgroup);

	if (verdict == GADGET_UNKNOWN && cgroup & GADGET_ELSEWHERE) {
		record->marks = GADGET_MARK_UNKNOWN_CGROUP;
		return !gadget_node_named_only;
	}
	if (verdict == GADGET_UNKNOWN)
		return gadget_wanted_by_ancestor(record, gadget_cgroup_of(gadget_task()));
	record->marks = 0;
	return gadget_is_wanted(verdict);
}

/* Whether events of the current task are wanted, by pid, uid and comm. */
static __always_inline bool gadget_wanted_task(struct task_struct *task)
{
	if (!gadget_is_chosen_process(task))
		return false;
	if (gadget_filter_uid != ~0U && (__u32)bpf_get_current_uid_gid() != gadget_filter_uid)
		return false;
	if (gadget_filter_comm[0]) {
		const volatile __u64 *wanted = (const volatile __u64 *)gadget_filter_comm;
		__u64 comm[2];

		/* The helper pads with zeros (strscpy_pad), as the agent does in the filter. In the task itself, the
		 * rest of an earlier, longer name may follow the NUL. */
		bpf_get_current_comm(comm, sizeof(comm));
		if (comm[0] != wanted[0] || comm[1] != wanted[1])
			return false;
	}
	return true;
}

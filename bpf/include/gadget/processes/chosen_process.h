/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The processes that --pid selects: one process or, with --descendants, also all its descendants, including those that
 * init adopted. Excludes the agent and its client.
 *
 * bpf/descendants.bpf.c maintains the set, once for all gadgets of a session. An unused filter costs nothing: the
 * verifier removes it. The key is the TGID in the initial PID namespace, the only number that a reaped process still
 * has when its entry is removed.
 */
#pragma once

#include <gadget/record.h>
#include <gadget/task.h>

/* The PID on the node. 0: any. */
const volatile __u32 gadget_filter_pid = 0;
/* Also selects its descendants. */
const volatile bool gadget_filter_descendants = false;
/* On a machine without a cluster: PIDs of processes that are excluded unless the user selects them. 0: none. */
const volatile __u32 gadget_node_agent = 0;
const volatile __u32 gadget_node_client = 0;

/* The fork time of each process, by TGID. The agent replaces this map with the one of the same name in
 * bpf/descendants.bpf.c. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} gadget_descendants SEC(".maps");

static __always_inline bool gadget_descends(struct task_struct *task)
{
	__u32 process = gadget_read(task, tgid);

	return bpf_map_lookup_elem(&gadget_descendants, &process);
}

static __always_inline bool gadget_is_chosen_process(struct task_struct *task)
{
	if (gadget_node_agent) {
		__u32 pid = gadget_node_pid(task);

		if (pid == gadget_node_agent || pid == gadget_node_client)
			return false;
	}
	if (!gadget_filter_pid)
		return true;
	return gadget_filter_descendants ? gadget_descends(task) : gadget_node_pid(task) == gadget_filter_pid;
}

/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * A cgroup and its ancestors. On hosts with both versions, a task is in one cgroup of each hierarchy. Gadgets always
 * use the cgroup of the default hierarchy, which is cgroup v2.
 */
#pragma once

#include <linux/types.h>

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct kernfs_node {
	__u64 id;
	const char *name;
};

struct cgroup;

struct cgroup_subsys_state {
	struct cgroup *cgroup;
	struct cgroup_subsys_state *parent;
};

/* A hierarchy. Cgroup v2 has number 0. */
struct cgroup_root {
	int hierarchy_id;
};

struct cgroup {
	struct cgroup_subsys_state self;
	struct kernfs_node *kn;
	struct cgroup_root *root;
	int level;
	/* Since 7f203bc89eb6 "cgroup: Replace cgroup->ancestor_ids[] with ->ancestors[]" (6.1): the cgroup's ancestors
	 * by level, and itself. */
	struct cgroup *ancestors[1];
};

/* Before: their ids. */
struct cgroup___ids {
	__u64 ancestor_ids[1];
};

struct css_set {
	struct cgroup *dfl_cgrp;
	struct cgroup_subsys_state *subsys[16];
};

#pragma clang attribute pop

/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Credentials and namespaces of a task, as far as gadgets read them. The PID namespace of a task is not in `struct
 * nsproxy`, which has only the PID namespace for its children. */
#pragma once

#include <linux/types.h>
#include <kernel/namespace.h>
#include <kernel/task.h>

#define CAP_SYS_ADMIN 21

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct uts_namespace {
	struct ns_common ns;
};

struct ipc_namespace {
	struct ns_common ns;
};

struct mnt_namespace {
	struct ns_common ns;
};

struct pid_namespace {
	struct ns_common ns;
};

struct time_namespace {
	struct ns_common ns;
};

struct cgroup_namespace {
	struct ns_common ns;
};

struct user_namespace {
	int level;
	kuid_t owner;
	kgid_t group;
	struct ns_common ns;
};

struct net;

struct nsproxy {
	struct uts_namespace *uts_ns;
	struct ipc_namespace *ipc_ns;
	struct mnt_namespace *mnt_ns;
	struct pid_namespace *pid_ns_for_children;
	struct net *net_ns;
	struct time_namespace *time_ns;
	struct time_namespace *time_ns_for_children;
	struct cgroup_namespace *cgroup_ns;
};

struct cred {
	kuid_t uid;
	kgid_t gid;
	kuid_t suid;
	kgid_t sgid;
	kuid_t euid;
	kgid_t egid;
	kuid_t fsuid;
	kgid_t fsgid;
	unsigned int securebits;
	/* The contents differ between kernels, the size does not. */
	struct {
		__u64 bits;
	} cap_inheritable, cap_permitted, cap_effective;
	struct user_namespace *user_ns;
};

#pragma clang attribute pop

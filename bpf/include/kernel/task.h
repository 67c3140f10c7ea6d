/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * A task and what hangs on it, as far as gadgets read it. Offsets come from the running kernel's BTF (CO-RE), so the
 * order and completeness here mean nothing. The trap: a struct whose fields are not listed has size 0 here; use
 * bpf_core_type_size() where a size is needed.
 */
#pragma once

#include <linux/types.h>

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct pid_namespace;

struct upid {
	int nr;
	struct pid_namespace *ns;
};

struct pid {
	unsigned int level;
	struct upid numbers[1];
};

struct path;
struct file;

struct mm_struct {
	unsigned long start_stack;
	unsigned long arg_start;
	unsigned long arg_end;
	struct file *exe_file;
};

struct fdtable {
	unsigned int max_fds;
	struct file **fd;
};

struct files_struct {
	struct fdtable *fdt;
};

struct fs_struct;
struct css_set;

typedef struct {
	__u32 val;
} kuid_t;

typedef struct {
	__u32 val;
} kgid_t;

struct signal_struct {
	unsigned int flags;
	int group_exit_code;
	/* In pages. */
	unsigned long maxrss;
	struct {
		int counter;
	} live;
};

struct cred {
	kuid_t uid;
	kgid_t gid;
};

struct task_struct {
	void *stack;
	unsigned int flags;
	int pid;
	int tgid;
	struct task_struct *real_parent;
	struct task_struct *group_leader;
	struct pid *thread_pid;
	char comm[16];
	struct mm_struct *mm;
	struct fs_struct *fs;
	struct files_struct *files;
	const struct cred *cred;
	struct css_set *cgroups;
	struct signal_struct *signal;
	__u64 start_boottime;
	__u64 self_exec_id;
	int exit_code;
};

struct linux_binprm {
	const char *filename;
	/* The same pointer, unless it is a script or binfmt_misc has an interpreter for it. */
	const char *interp;
};

#pragma clang attribute pop

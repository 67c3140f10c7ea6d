/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * A task and the structs that it points to, as far as gadgets read them. Offsets come from the running kernel's BTF
 * (CO-RE), so the order and completeness of members do not matter. The trap: sizeof() is wrong for these structs; use
 * bpf_core_type_size() where a size is needed.
 */
#pragma once

#include <linux/types.h>

#include <kernel/list.h>

/* include/linux/sched.h: the task was forked and has not executed a program since. */
#define PF_FORKNOEXEC 0x40
/* States, from the same header. */
#define TASK_RUNNING 0
#define TASK_INTERRUPTIBLE 1
#define TASK_UNINTERRUPTIBLE 2
#define TASK_DEAD 0x80
/* The whole process ends, by exit_group() or a signal (include/linux/sched/signal.h). */
#define SIGNAL_GROUP_EXIT 0x4

/* From enum pid_type: the thread group leader. */
#define PIDTYPE_TGID 1

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct cred;
struct css_set;
struct file;
struct files_struct;
struct fs_struct;
struct nsproxy;
struct pid_namespace;
struct sighand_struct;

struct upid {
	int nr;
	struct pid_namespace *ns;
};

struct pid {
	unsigned int level;
	struct hlist_head tasks[4];
	struct upid numbers[1];
};

struct mm_struct {
	unsigned long total_vm;
	unsigned long start_stack;
	unsigned long arg_start;
	unsigned long arg_end;
	struct file *exe_file;
	/* CONFIG_MEMCG. */
	struct task_struct *owner;
};

struct vm_area_struct {
	struct file *vm_file;
};

typedef struct {
	__u32 val;
} kuid_t;

typedef struct {
	__u32 val;
} kgid_t;

/* The index of RLIMIT_NOFILE (asm-generic/resource.h). */
#define GADGET_RLIMIT_NOFILE 7

struct rlimit {
	unsigned long rlim_cur;
};

struct signal_struct {
	unsigned int flags;
	int group_exit_code;
	int nr_threads;
	/* In pages. */
	unsigned long maxrss;
	short oom_score_adj;
	struct {
		int counter;
	} live;
	struct rlimit rlim[16];
};

/* x86 only. */
struct thread_info {
	__u32 status;
};

struct seccomp {
	int mode;
};

struct task_struct {
	struct thread_info thread_info;
	unsigned int __state;
	void *stack;
	unsigned int flags;
	unsigned int ptrace;
	int prio;
	int static_prio;
	int exit_state;
	int exit_code;
	unsigned int in_iowait : 1;
	int pid;
	int tgid;
	struct task_struct *real_parent;
	struct task_struct *group_leader;
	struct pid *thread_pid;
	struct hlist_node pid_links[4];
	__u64 start_boottime;
	__u64 parent_exec_id;
	__u64 self_exec_id;
	char comm[16];
	struct mm_struct *mm;
	struct fs_struct *fs;
	struct files_struct *files;
	struct nsproxy *nsproxy;
	const struct cred *cred;
	/* CONFIG_AUDIT */
	kuid_t loginuid;
	struct css_set *cgroups;
	struct signal_struct *signal;
	struct sighand_struct *sighand;
	struct seccomp seccomp;
};

/* Before 2f064a59a11f "sched: Change task_struct::state" (5.14). */
struct task_struct___old_state {
	volatile long state;
};

struct linux_binprm {
	unsigned int secureexec : 1;
	struct file *file;
	struct cred *cred;
	const char *filename;
	/* The same pointer, except for scripts and for files that binfmt_misc has an interpreter for. */
	const char *interp;
	/* The first bytes of the file. */
	char buf[256];
};

/* The tracepoint's arguments since 6.16; before, they did not say whether the thread is the last one. */
typedef void (*btf_trace_sched_process_exit___with_last)(void *, struct task_struct *, bool);

#pragma clang attribute pop

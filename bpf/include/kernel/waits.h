/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * What threads wait for: locks of files, epoll, and when a thread last left its CPU. The members of a lock have moved
 * into `struct file_lock_core` (6.9, 587a67b6830b "filelock: drop the IS_* macros").
 */
#pragma once

#include <linux/types.h>
#include <kernel/fs.h>
#include <kernel/task.h>

/* include/uapi/asm-generic/fcntl.h */
#define F_SETLKW 7
#define F_OFD_SETLKW 38
#define F_RDLCK 0
#define F_WRLCK 1
#define LOCK_EX 2

/* include/linux/sched/signal.h: a PID 1, which signals without a handler do not end. */
#define SIGNAL_UNKILLABLE 0x40

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct list_head {
	struct list_head *next;
};

struct file_lock_core {
	struct list_head flc_list;
	struct list_head flc_blocked_requests;
	struct list_head flc_blocked_member;
	void *flc_owner;
	unsigned char flc_type;
	int flc_pid;
	struct file *flc_file;
};

struct file_lock {
	struct file_lock_core c;
	long long fl_start;
	long long fl_end;
};

/* Before 6.9. */
struct file_lock___flat {
	struct list_head fl_list;
	struct list_head fl_blocked_requests;
	struct list_head fl_blocked_member;
	void *fl_owner;
	unsigned char fl_type;
	unsigned int fl_pid;
	struct file *fl_file;
	long long fl_start;
	long long fl_end;
};

struct file_lock_context {
	struct list_head flc_flock;
	struct list_head flc_posix;
	struct list_head flc_lease;
};

struct inode___locked {
	struct file_lock_context *i_flctx;
};

struct rb_node {
	struct rb_node *rb_right;
	struct rb_node *rb_left;
};

struct rb_root {
	struct rb_node *rb_node;
};

struct rb_root_cached {
	struct rb_root rb_root;
};

struct eventpoll {
	struct rb_root_cached rbr;
};

struct epoll_filefd {
	struct file *file;
	int fd;
};

struct epitem {
	struct rb_node rbn;
	struct epoll_filefd ffd;
};

struct sched_info {
	unsigned long long last_arrival;
};

struct sched_entity {
	__u64 sum_exec_runtime;
	__u64 prev_sum_exec_runtime;
};

/* A thread's times, and its address for the end of the thread. */
struct task_struct___waits {
	struct sched_info sched_info;
	struct sched_entity se;
	unsigned int policy;
	int *clear_child_tid;
	struct {
		unsigned long sig[1];
	} blocked;
};

#pragma clang attribute pop

/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The context of an iterator. After the last object, the program runs once more, with NULL for the objects. */
#pragma once

#include <kernel/bpf.h>
#include <kernel/task.h>

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct seq_file;
struct sock_common;

struct bpf_iter_meta {
	struct seq_file *seq;
	/* Differs for each run of an iterator. */
	__u64 session_id;
};

struct bpf_iter__task {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
};

struct bpf_iter__task_file {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
	__u32 fd;
	struct file *file;
};

struct bpf_iter__bpf_map {
	struct bpf_iter_meta *meta;
	struct bpf_map *map;
};

struct bpf_iter__bpf_map_elem {
	struct bpf_iter_meta *meta;
	struct bpf_map *map;
	void *key;
	void *value;
};

struct bpf_iter__tcp {
	struct bpf_iter_meta *meta;
	struct sock_common *sk_common;
};

#pragma clang attribute pop

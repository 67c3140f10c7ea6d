/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What the kernel hands to an iterator. The trap: at the end it is called once more, with NULL for everything. */
#pragma once

#include <kernel/task.h>

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct bpf_iter__task_file {
	struct task_struct *task;
	__u32 fd;
	struct file *file;
};

#pragma clang attribute pop

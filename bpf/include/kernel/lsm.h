/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What the hooks of Linux's security modules are given. The trap: a mapping or a program may have no file. */
#pragma once

#include <kernel/fs.h>
#include <kernel/socket.h>
#include <kernel/task.h>

#define AF_UNIX 1

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct linux_binprm___file {
	struct file *file;
	const char *filename;
};

struct vm_area_struct {
	struct file *vm_file;
};

struct file___flags {
	unsigned int f_flags;
};

#pragma clang attribute pop

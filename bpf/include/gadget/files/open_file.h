/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Finds the open file of a file descriptor of the current task.
 *
 * Another thread may close the descriptor at any time, so data that is read here may belong to another file.
 */
#pragma once

#include <gadget/task.h>
#include <kernel/fs.h>

/* NULL when the descriptor is invalid. Read the result with BPF_CORE_READ. */
static __always_inline struct file *gadget_file_of(long fd)
{
	struct fdtable *table = gadget_read(gadget_task(), files, fdt);
	struct file **files = gadget_read(table, fd);

	if (fd < 0 || fd >= gadget_read(table, max_fds))
		return NULL;
	return (struct file *)gadget_word_at(&files[fd]);
}

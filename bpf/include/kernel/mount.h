/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The kernel's data of mounts, as far as gadgets read it, and the kinds of flags of the calls. Each call has its own
 * flags, so the upper half of a gadget_mount_flags says which call they belong to. The client's names are in
 * linux/names.py.
 */
#pragma once

#include <linux/types.h>
#include <kernel/fs.h>

enum gadget_mount_flags_of {
	GADGET_MOUNT_FLAGS = 1,
	GADGET_UMOUNT_FLAGS,
	GADGET_FSOPEN_FLAGS,
	GADGET_FSPICK_FLAGS,
	GADGET_FSCONFIG_COMMAND,
	GADGET_MOUNT_ATTRIBUTES,
	GADGET_MOVE_MOUNT_FLAGS,
	GADGET_OPEN_TREE_FLAGS,
};

/* Commands of fsconfig() whose value is a text (include/uapi/linux/mount.h). */
#define FSCONFIG_SET_STRING 1
#define FSCONFIG_SET_PATH 3
#define MOVE_MOUNT_F_EMPTY_PATH 0x4

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct fs_context {
	struct file_system_type *fs_type;
	const char *source;
};

#pragma clang attribute pop

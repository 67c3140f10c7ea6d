/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Mounting, as far as gadgets read it, and what the flags of its calls belong to. The trap: each call has flags of its
 * own, so a gadget_mount_flags says in its upper half whose they are; the client's names are in events/linux/mount.py.
 */
#pragma once

#include <linux/types.h>

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

/* Commands of fsconfig whose value is a text (include/uapi/linux/mount.h). */
#define FSCONFIG_SET_STRING 1
#define FSCONFIG_SET_PATH 3
#define MOVE_MOUNT_F_EMPTY_PATH 0x4

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct file_system_type {
	const char *name;
};

struct super_block {
	struct file_system_type *s_type;
};

struct vfsmount___source {
	struct super_block *mnt_sb;
};

struct mount___source {
	const char *mnt_devname;
	struct vfsmount___source mnt;
};

struct fs_context {
	struct file_system_type *fs_type;
	const char *source;
};

#pragma clang attribute pop

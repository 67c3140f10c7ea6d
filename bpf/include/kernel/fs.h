/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Files, dentries and mounts, as far as gadgets read them. The trap: `struct vfsmount` lies inside `struct mount`. */
#pragma once

#include <linux/types.h>

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct qstr {
	const unsigned char *name;
};

struct dentry {
	struct dentry *d_parent;
	struct qstr d_name;
};

struct vfsmount {
	struct dentry *mnt_root;
};

struct mount {
	struct mount *mnt_parent;
	struct dentry *mnt_mountpoint;
	struct vfsmount mnt;
};

struct path {
	struct vfsmount *mnt;
	struct dentry *dentry;
};

struct file {
	struct path f_path;
	void *private_data;
};

struct fs_struct {
	struct path root;
	struct path pwd;
};

struct filename {
	const char *name;
};

struct open_how {
	__u64 flags;
	__u64 mode;
};

#pragma clang attribute pop

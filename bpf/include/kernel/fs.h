/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Files, inodes, dentries and mounts, as far as gadgets read them. `struct vfsmount` is a member of `struct mount`; and
 * the path of an open file may now name another file, since the open one may have been removed or replaced.
 */
#pragma once

#include <linux/types.h>
#include <bpf/bpf_core_read.h>

/* include/uapi/linux/stat.h: the type of a file, in its mode. */
#define S_IFMT 0170000
#define S_IFSOCK 0140000
#define S_IFREG 0100000
#define S_IFDIR 0040000
#define S_IFCHR 0020000
#define S_ISUID 04000
#define S_ISGID 02000

/* include/uapi/asm-generic/fcntl.h: flags of an open, the same on both architectures. */
#define O_CREAT 00000100
#define O_WRONLY 00000001
#define O_ACCMODE 00000003
#define O_TRUNC 00001000
#define O_PATH 010000000
/* O_TMPFILE without O_DIRECTORY, whose value differs between architectures. */
#define O_TMPFILE_BIT 020000000

/* include/linux/fs.h: an internal mount of the kernel, such as that of memfd_create(). */
#define SB_KERNMOUNT (1 << 22)
/* include/uapi/linux/magic.h: files without a path, such as those of inotify and fanotify. */
#define ANON_INODE_FS_MAGIC 0x09041934
#define FUSE_SUPER_MAGIC 0x65735546
/* include/linux/fs.h: set, for example, on file systems mounted in a user namespace other than the node's. */
#define SB_I_NODEV 0x00000004
/* fs/mount.h: stands for the mount namespace of the kernel's internal mounts. */
#define MNT_NS_INTERNAL ((void *)-22)

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct cred;

struct file_system_type {
	const char *name;
};

struct super_block {
	/* 12 bits of major number, 20 bits of minor number. */
	__u32 s_dev;
	unsigned long s_flags;
	unsigned long s_iflags;
	unsigned long s_magic;
	struct file_system_type *s_type;
};

struct inode {
	unsigned short i_mode;
	/* kuid_t and kgid_t. */
	struct {
		__u32 val;
	} i_uid, i_gid;
	/* The names that the kernel knows of it. */
	struct {
		void *first;
	} i_dentry;
	unsigned int i_nlink;
	struct super_block *i_sb;
	unsigned long i_ino;
	__u32 i_rdev;
	long long i_size;
};

struct qstr {
	struct {
		__u32 hash;
		__u32 len;
	};
	const unsigned char *name;
};

struct dentry {
	struct dentry *d_parent;
	struct qstr d_name;
	struct inode *d_inode;
	union {
		struct {
			void *next;
		} d_alias;
	} d_u;
};

struct vfsmount {
	struct dentry *mnt_root;
	struct super_block *mnt_sb;
};

/* 5.12 to 6.1. */
struct vfsmount___userns {
	void *mnt_userns;
};

/* Since 6.2. */
struct vfsmount___idmapped {
	void *mnt_idmap;
};

struct mount {
	struct mount *mnt_parent;
	struct dentry *mnt_mountpoint;
	struct vfsmount mnt;
	const char *mnt_devname;
	void *mnt_ns;
};

struct path {
	struct vfsmount *mnt;
	struct dentry *dentry;
};

struct file {
	struct path f_path;
	struct inode *f_inode;
	unsigned int f_flags;
	long long f_pos;
	const struct cred *f_cred;
	void *private_data;
};

/* Before 6.13. */
struct file___counted {
	struct {
		long counter;
	} f_count;
};

/* Since 6.13 (90ee6ed776c0 "fs: port files to file_ref"); 0 stands for one reference. */
struct file___referenced {
	struct {
		struct {
			long counter;
		} refcnt;
	} f_ref;
};

struct fdtable {
	unsigned int max_fds;
	struct file **fd;
	/* A bit for each descriptor. */
	unsigned long *open_fds;
};

struct files_struct {
	struct {
		int counter;
	} count;
	struct fdtable *fdt;
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

/* A read or a write in progress. */
struct kiocb {
	struct file *ki_filp;
	long long ki_pos;
	int ki_flags;
};

#pragma clang attribute pop

static __always_inline struct mount *gadget_mount_of(struct vfsmount *vfsmount)
{
	return (void *)vfsmount - bpf_core_field_offset(struct mount, mnt);
}

/* What a step of a walk from a file to the root has come to. */
enum gadget_step {
	GADGET_STEP_ON,
	/* The path is complete. */
	GADGET_STEP_TOP,
	/* The file has no path, such as a pipe or a socket, or it cannot be read. */
	GADGET_STEP_NOWHERE,
	GADGET_STEP_TOO_LONG,
};

/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The path of a file as its process sees it: from the file up to the process's root, across mounts.
 *
 * Names are written leaf first, in the order in which they are found; the client reverses them. Nothing is locked, so a
 * concurrent rename may result in a path that never existed.
 */
#pragma once

#include <gadget/output.h>
#include <gadget/string.h>
#include <gadget/task.h>
#include <kernel/fs.h>

/* The maximum number of names and mounts on the way up. Longer paths are cut. */
#define GADGET_PATH_STEPS 96
#define GADGET_NAME_BYTES 255

/* The state of the walk. It is in memory, after the record, for the reason given in string.h. */
struct gadget_walk {
	struct dentry *dentry;
	struct mount *mount;
	struct dentry *mount_root;
	struct dentry *root;
	struct mount *root_mount;
	__u64 start;
	__u64 end;
};

static __always_inline struct mount *gadget_mount_of(struct vfsmount *vfsmount)
{
	return (void *)vfsmount - bpf_core_field_offset(struct mount, mnt);
}

static __always_inline void gadget_enter_mount(struct gadget_walk *walk, struct mount *mount)
{
	walk->mount = mount;
	walk->mount_root = BPF_CORE_READ(mount, mnt.mnt_root);
}

enum gadget_step {
	GADGET_STEP_ON,
	/* The path is complete. */
	GADGET_STEP_TOP,
	/* The file has no path, such as a pipe or a socket, or it cannot be read. */
	GADGET_STEP_NOWHERE,
	GADGET_STEP_TOO_LONG,
};

/* Goes from the root of a mount to its mount point. */
static __always_inline enum gadget_step gadget_step_across(struct gadget_walk *walk)
{
	struct mount *mount = walk->mount;
	struct mount *above = BPF_CORE_READ(mount, mnt_parent);

	/* The root mount: the file is outside of the process's root. */
	if (above == mount)
		return GADGET_STEP_TOP;
	walk->dentry = BPF_CORE_READ(mount, mnt_mountpoint);
	gadget_enter_mount(walk, above);
	return GADGET_STEP_ON;
}

/* A file without a path. For a memfd, its name is used, which the kernel shows as "/memfd:NAME". */
static __always_inline enum gadget_step gadget_step_memory(struct gadget_walk *walk, struct dentry *dentry,
							   void *record, __u64 room)
{
	__u64 end = walk->end;
	const char *name;
	long read;

	if (end != walk->start || end > room - (GADGET_NAME_BYTES + 1))
		return GADGET_STEP_NOWHERE;
	name = record + end;
	read = bpf_probe_read_kernel_str(record + end, GADGET_NAME_BYTES + 1, BPF_CORE_READ(dentry, d_name.name));
	if (read < sizeof("memfd:") || name[0] != 'm' || name[1] != 'e' || name[2] != 'm' || name[5] != ':')
		return GADGET_STEP_NOWHERE;
	walk->end = end + read;
	return GADGET_STEP_TOP;
}

/* Writes a name and goes to its directory. */
static __always_inline enum gadget_step gadget_step_up(struct gadget_walk *walk, void *record, __u64 room)
{
	struct dentry *dentry = walk->dentry;
	struct dentry *parent = BPF_CORE_READ(dentry, d_parent);
	__u64 end = walk->end;
	long read;

	if (!parent || parent == dentry)
		return gadget_step_memory(walk, dentry, record, room);
	if (end - walk->start > GADGET_PATH_BYTES - GADGET_NAME_BYTES || end > room - (GADGET_NAME_BYTES + 1))
		return GADGET_STEP_TOO_LONG;
	read = bpf_probe_read_kernel_str(record + end, GADGET_NAME_BYTES + 1, BPF_CORE_READ(dentry, d_name.name));
	if (read <= 0)
		return GADGET_STEP_NOWHERE;
	walk->end = end + read;
	walk->dentry = parent;
	return GADGET_STEP_ON;
}

/* One step. Not inlined, so that all iterations look alike to the verifier. */
static __noinline enum gadget_step gadget_step(struct gadget_walk *walk, void *record, __u64 room)
{
	if (walk->dentry == walk->root && walk->mount == walk->root_mount)
		return GADGET_STEP_TOP;
	if (walk->dentry == walk->mount_root)
		return gadget_step_across(walk);
	return gadget_step_up(walk, record, room);
}

static __always_inline enum gadget_step gadget_walk_to_root(struct gadget_walk *walk, void *record, __u64 room)
{
	for (int i = 0; i < GADGET_PATH_STEPS; i++) {
		enum gadget_step step = gadget_step(walk, record, room);

		if (step != GADGET_STEP_ON)
			return step;
	}
	return GADGET_STEP_TOO_LONG;
}

/* `root`: the directory at which the path starts; NULL: the root of the mount namespace. */
static __always_inline void gadget_append_walk_below(struct gadget_writer *writer, struct gadget_text *text,
						     struct dentry *dentry, struct vfsmount *mnt,
						     const struct path *root)
{
	struct gadget_walk *walk = writer->record + writer->room + GADGET_WALK_OFFSET;
	enum gadget_step last;

	_Static_assert(GADGET_WALK_OFFSET + sizeof(*walk) <= GADGET_WORKSPACE,
		       "the walk does not fit behind the record");
	gadget_unread(text);
	walk->root = root ? BPF_CORE_READ(root, dentry) : NULL;
	walk->root_mount = root ? gadget_mount_of(BPF_CORE_READ(root, mnt)) : NULL;
	walk->dentry = dentry;
	gadget_enter_mount(walk, gadget_mount_of(mnt));
	walk->start = walk->end = writer->progress->length;

	last = gadget_walk_to_root(walk, writer->record, writer->room);
	if (last != GADGET_STEP_NOWHERE)
		gadget_wrote(writer, text, walk->start, walk->end - walk->start, last == GADGET_STEP_TOO_LONG);
}

static __always_inline void gadget_append_walk(struct gadget_writer *writer, struct gadget_text *text,
					       struct dentry *dentry, struct vfsmount *mnt, struct task_struct *task)
{
	gadget_append_walk_below(writer, text, dentry, mnt, &gadget_read(task, fs)->root);
}

/*
 * Appends the path of `where`, a `struct path` in kernel memory, as seen from the root of `task`. The record must be in
 * a GADGET_SCRATCH.
 */
static __always_inline void gadget_append_path_for(struct gadget_writer *writer, struct gadget_text *text,
						   const struct path *where, struct task_struct *task)
{
	gadget_append_walk(writer, text, BPF_CORE_READ(where, dentry), BPF_CORE_READ(where, mnt), task);
}

/* Appends the mount point of a file system, as the current task sees it. */
static __always_inline void gadget_append_mount_path(struct gadget_writer *writer, struct gadget_text *text,
						     struct vfsmount *mnt)
{
	gadget_append_walk(writer, text, BPF_CORE_READ(mnt, mnt_root), mnt, gadget_task());
}

/* The same, as seen from the current task's root. */
static __always_inline void gadget_append_path(struct gadget_writer *writer, struct gadget_text *text,
					       const struct path *where)
{
	gadget_append_path_for(writer, text, where, gadget_task());
}

/*
 * The same, from the root of the process's mount namespace: chroot() does not change these paths. If the container
 * runtime uses chroot instead of pivot_root, they are paths of the node.
 */
static __always_inline void gadget_append_whole_path(struct gadget_writer *writer, struct gadget_text *text,
						     const struct path *where)
{
	gadget_append_walk_below(writer, text, BPF_CORE_READ(where, dentry), BPF_CORE_READ(where, mnt), NULL);
}

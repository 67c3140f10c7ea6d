/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The path of a file as its process sees it: from the file up to the process's root, across mounts.
 *
 * Names are written leaf first, in the order in which they are found; the client reverses them. Nothing is locked, so a
 * concurrent rename may result in a path that never existed.
 */
#pragma once

#include <gadget/output.h>
#include <gadget/slots.h>
#include <gadget/string.h>
#include <gadget/task.h>
#include <kernel/fs.h>

/* The maximum number of names and mounts on the way up. Longer paths are cut. */
#define GADGET_PATH_STEPS 96
#define GADGET_NAME_BYTES 255

/*
 * A walk to the root, with the names so far. It has memory of its own, not the record's, so that the walk is a function
 * that the verifier checks once: kernels before 5.12 pass such functions numbers only, no pointers to a record.
 */
struct gadget_walk {
	__u64 dentry;
	__u64 mount;
	__u64 mount_root;
	__u64 root;
	__u64 root_mount;
	__u64 length;
	char names[GADGET_PATH_BYTES + 1];
};

GADGET_SLOTS(gadget_walks, sizeof(struct gadget_walk));

static __always_inline void gadget_enter_mount(struct gadget_walk *walk, struct mount *mount)
{
	walk->mount = (__u64)mount;
	walk->mount_root = gadget_word_at((void *)mount + bpf_core_field_offset(struct mount, mnt.mnt_root));
}

/* Goes from the root of a mount to its mount point. */
static __always_inline enum gadget_step gadget_step_across(struct gadget_walk *walk)
{
	void *mount = (void *)walk->mount;
	void *above = (void *)gadget_word_at(mount + bpf_core_field_offset(struct mount, mnt_parent));

	/* The root mount: the file is outside of the process's root. */
	if (above == mount)
		return GADGET_STEP_TOP;
	walk->dentry = gadget_word_at(mount + bpf_core_field_offset(struct mount, mnt_mountpoint));
	gadget_enter_mount(walk, above);
	return GADGET_STEP_ON;
}

/* A file without a path. For a memfd, its name is used, which the kernel shows as "/memfd:NAME". */
static __always_inline enum gadget_step gadget_step_memory(struct gadget_walk *walk, struct dentry *dentry)
{
	const char *name = walk->names;
	long read;

	if (walk->length)
		return GADGET_STEP_NOWHERE;
	read = bpf_probe_read_kernel_str(walk->names, GADGET_NAME_BYTES + 1, BPF_CORE_READ(dentry, d_name.name));
	if (read < sizeof("memfd:") || name[0] != 'm' || name[1] != 'e' || name[2] != 'm' || name[5] != ':')
		return GADGET_STEP_NOWHERE;
	walk->length = read;
	return GADGET_STEP_TOP;
}

/* Writes a name and goes to its directory. */
static __always_inline enum gadget_step gadget_step_up(struct gadget_walk *walk)
{
	struct dentry *dentry = (struct dentry *)walk->dentry;
	__u64 parent = gadget_word_at((void *)dentry + bpf_core_field_offset(struct dentry, d_parent));
	__u64 length = walk->length;
	const void *name;
	long read;

	if (!parent || parent == walk->dentry)
		return gadget_step_memory(walk, dentry);
	if (length > GADGET_PATH_BYTES - GADGET_NAME_BYTES)
		return GADGET_STEP_TOO_LONG;
	name = (const void *)gadget_word_at((void *)dentry + bpf_core_field_offset(struct dentry, d_name.name));
	read = bpf_probe_read_kernel_str(walk->names + length, GADGET_NAME_BYTES + 1, name);
	if (read <= 0)
		return GADGET_STEP_NOWHERE;
	walk->length = length + read;
	walk->dentry = parent;
	return GADGET_STEP_ON;
}

/* One step of the walk in this slot. This and the next function are neither inlined nor static, so that the verifier
 * checks one step and one walk, and not all. */
__noinline int gadget_step(__u32 slot)
{
	struct gadget_walk *walk = gadget_slot(&gadget_walks, slot);

	if (!walk)
		return GADGET_STEP_NOWHERE;
	if (walk->dentry == walk->root && walk->mount == walk->root_mount)
		return GADGET_STEP_TOP;
	if (walk->dentry == walk->mount_root)
		return gadget_step_across(walk);
	return gadget_step_up(walk);
}

__noinline int gadget_walk_to_root(__u32 slot)
{
	for (int i = 0; i < GADGET_PATH_STEPS; i++) {
		int step = gadget_step(slot);

		if (step != GADGET_STEP_ON)
			return step;
	}
	return GADGET_STEP_TOO_LONG;
}

static __always_inline void gadget_append_names(struct gadget_writer *writer, struct gadget_text *text,
						const struct gadget_walk *walk, bool is_cut)
{
	__u64 start = writer->progress->length;
	__u64 bytes = walk->length;

	/* The verifier does not know the length, which is in memory, nor that the compiler's copies are the same. */
	asm volatile("" : "+r"(start), "+r"(bytes));
	if (start > writer->room - sizeof(walk->names) || bytes > sizeof(walk->names))
		return;
	if (!bpf_probe_read_kernel(writer->record + start, bytes, walk->names))
		gadget_wrote(writer, text, start, bytes, is_cut);
}

/* `root`: the directory at which the path starts; NULL: the root of the mount namespace. */
static __always_inline void gadget_append_walk_below(struct gadget_writer *writer, struct gadget_text *text,
						     struct dentry *dentry, struct vfsmount *mnt,
						     const struct path *root)
{
	struct gadget_walk *walk = gadget_take_slot(&gadget_walks);
	int last;

	gadget_unread(text);
	if (!walk)
		return;
	walk->root = root ? (__u64)BPF_CORE_READ(root, dentry) : 0;
	walk->root_mount = root ? (__u64)gadget_mount_of(BPF_CORE_READ(root, mnt)) : 0;
	walk->dentry = (__u64)dentry;
	gadget_enter_mount(walk, gadget_mount_of(mnt));
	walk->length = 0;

	last = gadget_walk_to_root(gadget_slot_number(walk));
	if (last != GADGET_STEP_NOWHERE)
		gadget_append_names(writer, text, walk, last == GADGET_STEP_TOO_LONG);
	gadget_give_back(walk);
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

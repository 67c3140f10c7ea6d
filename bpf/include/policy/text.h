/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Texts in the form that tests need: they end at POLICY_TEXT_END, with a NUL before and after. Paths are written
 * backwards from there, leaf first, as in the kernel's d_path().
 *
 * The verifier does not know where a text begins, so every use masks the offset.
 */
#pragma once

#include <gadget/string.h>
#include <kernel/fs.h>
#include <policy/memory.h>

#define POLICY_TEXT_MASK (POLICY_TEXT_END - 1)

static __always_inline void policy_begin_text(struct policy_memory *memory)
{
	memory->value.start = POLICY_TEXT_END;
	memory->text[POLICY_TEXT_END] = 0;
}

/* Writes a NUL before the text, if there is room; otherwise the text was cut. */
static __always_inline void policy_end_text(struct policy_memory *memory)
{
	__u64 start = memory->value.start;

	if (start)
		memory->text[(start - 1) & POLICY_TEXT_MASK] = 0;
}

/* Writes a name and goes to its directory. A file in no directory, such as a memfd, has only its name. */
static __always_inline enum gadget_step policy_step_up(struct policy_memory *memory)
{
	struct policy_walk *walk = &memory->walk;
	struct dentry *dentry = walk->dentry;
	struct dentry *parent = BPF_CORE_READ(dentry, d_parent);
	__u64 length = BPF_CORE_READ(dentry, d_name.len) & 0xff;
	__u64 start = memory->value.start;

	if (!parent || (parent == dentry && start != POLICY_TEXT_END))
		return GADGET_STEP_NOWHERE;
	/* One byte is left for the NUL. */
	if (start < length + 2)
		return GADGET_STEP_TOO_LONG;
	start = (start - length - 1) & POLICY_TEXT_MASK;
	memory->text[start] = '/';
	if (bpf_probe_read_kernel(&memory->text[start + 1], length, BPF_CORE_READ(dentry, d_name.name)))
		return GADGET_STEP_NOWHERE;
	/* The root of a file system, or a file that was opened without its directory. */
	if (parent == dentry && memory->text[(start + 1) & POLICY_TEXT_MASK] == '/')
		return GADGET_STEP_NOWHERE;
	memory->value.start = start;
	walk->dentry = parent;
	return parent == dentry ? GADGET_STEP_TOP : GADGET_STEP_ON;
}

static __always_inline enum gadget_step policy_step_across(struct policy_walk *walk)
{
	struct mount *mount = walk->mount;
	struct mount *above = BPF_CORE_READ(mount, mnt_parent);

	if (above == mount)
		return GADGET_STEP_TOP;
	walk->dentry = BPF_CORE_READ(mount, mnt_mountpoint);
	walk->mount = above;
	walk->mount_root = BPF_CORE_READ(above, mnt.mnt_root);
	return GADGET_STEP_ON;
}

/* With bpf_loop(), the verifier checks one step instead of all of them. */
static long policy_step(__u32 index, struct policy_memory **context)
{
	struct policy_memory *memory = *context;
	struct policy_walk *walk = &memory->walk;
	enum gadget_step step;

	if (walk->dentry == walk->mount_root)
		step = policy_step_across(walk);
	else
		step = policy_step_up(memory);
	memory->low = step;
	return step != GADGET_STEP_ON;
}

static __always_inline void policy_walk(struct policy_memory *memory)
{
	struct policy_memory *context = memory;

	policy_begin_text(memory);
	memory->low = GADGET_STEP_ON;
	bpf_loop(POLICY_TEXT_END / 2, policy_step, &context, 0);
	if (memory->low == GADGET_STEP_NOWHERE)
		memory->value.lacks = POLICY_UNREADABLE;
	else if (memory->low != GADGET_STEP_TOP)
		/* The upper part is missing, so the beginning of the path is unknown. */
		memory->value.lacks = POLICY_CUT | POLICY_UNREADABLE;
	if (memory->value.start == POLICY_TEXT_END) {
		memory->value.start = POLICY_TEXT_END - 1;
		memory->text[POLICY_TEXT_END - 1] = '/';
	}
	policy_end_text(memory);
}

/*
 * The path of `dentry` on `vfsmount` from the root of the container's mount namespace. Not from the process's root, as
 * in the kernel's own paths: otherwise a program that may call chroot() could choose the path by which a policy sees a
 * file.
 */
static __always_inline void policy_read_path(struct policy_memory *memory, struct vfsmount *vfsmount,
					     struct dentry *dentry)
{
	struct policy_walk *walk = &memory->walk;

	if (!dentry || !vfsmount) {
		memory->value.lacks = POLICY_UNREADABLE;
		return;
	}
	walk->dentry = dentry;
	walk->mount = gadget_mount_of(vfsmount);
	walk->mount_root = BPF_CORE_READ(vfsmount, mnt_root);
	policy_walk(memory);
}

/* The path of `dentry` within its file system, when the mount is unknown. */
static __always_inline void policy_read_dentry(struct policy_memory *memory, struct dentry *dentry)
{
	struct policy_walk *walk = &memory->walk;

	if (!dentry) {
		memory->value.lacks = POLICY_UNREADABLE;
		return;
	}
	walk->dentry = dentry;
	walk->mount_root = NULL;
	walk->mount = NULL;
	policy_walk(memory);
	/* The root of a file system is its own parent. */
	if (memory->low == GADGET_STEP_NOWHERE && memory->value.lacks == POLICY_UNREADABLE)
		memory->value.lacks = 0;
}

/* Moves `length` bytes from the end of the event's buffer to where tests need them. */
static __always_inline void policy_move_text(struct policy_memory *memory, const char *from, __u64 length)
{
	__u64 start;

	policy_begin_text(memory);
	if (length >= POLICY_TEXT_END) {
		length = POLICY_TEXT_END - 1;
		memory->value.lacks = POLICY_CUT;
	}
	asm volatile("" : "+r"(length));
	length &= POLICY_TEXT_MASK;
	start = (POLICY_TEXT_END - length) & POLICY_TEXT_MASK;
	if (length && bpf_probe_read_kernel(&memory->text[start], length, from))
		memory->value.lacks = POLICY_UNREADABLE;
	memory->value.start = POLICY_TEXT_END - length;
	policy_end_text(memory);
}

/* Reads a NUL-terminated text from the kernel's memory or the caller's. */
static __always_inline void policy_read_string(struct policy_memory *memory, const void *from, bool user)
{
	char *room = &memory->event[POLICY_EVENT_BYTES - POLICY_TEXT_END];
	long read;

	if (user)
		read = gadget_read_user_string(room, POLICY_TEXT_END, from);
	else
		read = bpf_probe_read_kernel_str(room, POLICY_TEXT_END, from);
	if (read <= 0) {
		memory->value.lacks = POLICY_UNREADABLE;
		return;
	}
	if (read == POLICY_TEXT_END)
		memory->value.lacks = POLICY_CUT;
	policy_move_text(memory, room, read - 1);
}

static __always_inline void policy_read_bytes(struct policy_memory *memory, const void *from, __u64 size, bool user)
{
	char *room = &memory->event[POLICY_EVENT_BYTES - POLICY_TEXT_END];
	__u64 bytes = size;
	long failed;

	memory->value.numbers[0] = size;

	if (size >= POLICY_TEXT_END) {
		bytes = POLICY_TEXT_END - 1;
		memory->value.lacks = POLICY_CUT;
	}
	asm volatile("" : "+r"(bytes));
	bytes &= POLICY_TEXT_MASK;
	failed = user ? bpf_probe_read_user(room, bytes, from) : bpf_probe_read_kernel(room, bytes, from);
	if (failed) {
		memory->value.lacks = POLICY_UNREADABLE;
		return;
	}
	policy_move_text(memory, room, bytes);
}

/* The maximum number of buffers of one read or write that are examined. */
#define POLICY_BUFFERS 16

struct policy_iovec {
	void *base;
	__u64 length;
};

struct policy_gather {
	struct policy_memory *memory;
	const struct policy_iovec *buffers;
	/* Bytes to skip in the first buffer. */
	__u64 skip;
	/* Bytes collected so far, and bytes in all buffers. */
	__u64 length;
	__u64 total;
	bool user;
	bool user_list;
};

/* Reads one of several buffers. When no room is left, its bytes are only counted. */
static long policy_gather_one(__u32 index, struct policy_gather *gather)
{
	struct policy_iovec buffer = {};
	__u64 at = gather->length, bytes;
	long failed;

	if (gather->user_list)
		failed = bpf_probe_read_user(&buffer, sizeof(buffer), &gather->buffers[index]);
	else
		failed = bpf_probe_read_kernel(&buffer, sizeof(buffer), &gather->buffers[index]);
	if (failed) {
		gather->memory->value.lacks = POLICY_UNREADABLE;
		return 1;
	}
	if (!index) {
		buffer.base += gather->skip;
		buffer.length = buffer.length > gather->skip ? buffer.length - gather->skip : 0;
	}
	gather->total += buffer.length;
	if (at >= POLICY_TEXT_END - 1)
		return 0;
	bytes = buffer.length < POLICY_TEXT_END - 1 - at ? buffer.length : POLICY_TEXT_END - 1 - at;
	asm volatile("" : "+r"(bytes), "+r"(at));
	bytes &= POLICY_TEXT_MASK;
	at &= POLICY_TEXT_MASK;
	/* `text` has twice the size, so the write stays within it. */
	if (gather->user)
		failed = bpf_probe_read_user(&gather->memory->text[at], bytes, buffer.base);
	else
		failed = bpf_probe_read_kernel(&gather->memory->text[at], bytes, buffer.base);
	if (failed) {
		gather->memory->value.lacks = POLICY_UNREADABLE;
		return 1;
	}
	gather->length += bytes;
	return 0;
}

/* Reads several buffers as one text. Number: their size in bytes. */
static __always_inline void policy_read_buffers(struct policy_gather *gather, __u64 count)
{
	struct policy_memory *memory = gather->memory;
	char *room = &memory->event[POLICY_EVENT_BYTES - POLICY_TEXT_END];
	__u64 length;

	bpf_loop(count < POLICY_BUFFERS ? count : POLICY_BUFFERS, policy_gather_one, gather, 0);
	memory->value.numbers[0] = gather->total;
	if (memory->value.lacks)
		return;
	length = gather->length;
	asm volatile("" : "+r"(length));
	length &= POLICY_TEXT_MASK;
	if (bpf_probe_read_kernel(room, length, memory->text)) {
		memory->value.lacks = POLICY_UNREADABLE;
		return;
	}
	policy_move_text(memory, room, length);
	if (count > POLICY_BUFFERS || gather->length < gather->total)
		memory->value.lacks |= POLICY_CUT;
}

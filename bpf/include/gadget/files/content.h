/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Contents of shared libraries: gadget_content_of() stores which file it is and returns its id, which goes into a
 * record as a `gadget_content`. The agent reads the file, and sends the SHA-256 of its contents before the record.
 *
 * The id is a hash of a secret and the file, so no program can forge it. The agent reads the file after the program has
 * opened it. It checks that it is the same file, but another program may have changed its contents by then, which is a
 * write that trace open shows.
 */
#pragma once

#include <linux/errno.h>

#include <gadget/output.h>
#include <gadget/path.h>
#include <gadget/slots.h>
#include <gadget/task.h>
#include <kernel/fs.h>

/* The maximum number of files between two reads by the agent, and of bytes of a path. Longer paths have no content. */
#define GADGET_CONTENTS 1024
#define GADGET_CONTENT_PATH 512
/* A name is looked through up to here for the ending. */
#define GADGET_LIBRARY_NAME 64

#define GADGET_NO_CONTENT 0

/* Set by the parameter --hash. */
const volatile bool gadget_hash = false;

/* Read by kubectl_gadget/agent/sources/contents.py. */
struct gadget_kept_content {
	/* Processes on the node that see the file: the one that opened it, and its parent, which may live longer. */
	__u32 pids[2];
	__u64 inode;
	__u32 device;
	__u32 length;
	/* As in a gadget_path: names from the file up to the root, each with a NUL. */
	char path[GADGET_CONTENT_PATH];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, GADGET_CONTENTS);
	__type(key, __u64);
	__type(value, struct gadget_kept_content);
} gadget_contents SEC(".maps");

GADGET_SLOTS(gadget_content_slots, sizeof(struct gadget_kept_content));

/* Whether the name of a file ends with .so, or with .so and a version. */
static __noinline int gadget_is_library(const struct gadget_kept_content *content)
{
	/* The number of bytes of .so before the current one. */
	__u32 found = 0;

	for (int i = 0; i < GADGET_LIBRARY_NAME; i++) {
		char byte = *(volatile const char *)&content->path[i];

		if (found == 3 && (!byte || byte == '.'))
			return 1;
		if (!byte)
			return 0;
		if (byte == '.')
			found = 1;
		else if ((found == 1 && byte == 's') || (found == 2 && byte == 'o'))
			found++;
		else
			found = 0;
	}
	return 0;
}

static __always_inline __u64 gadget_content_mix(__u64 hash, __u64 word)
{
	hash = (hash ^ word) * 0x9e3779b97f4a7c15ULL;
	return hash ^ (hash >> 29);
}

/* The secret: random in each run. */
const volatile __u64 gadget_node_random = 0;

static __always_inline __u64 gadget_content_id(struct gadget_kept_content *content, struct file *file)
{
	struct inode *inode = BPF_CORE_READ(file, f_inode);
	__u64 id = gadget_content_mix(gadget_node_random, BPF_CORE_READ(inode, i_size));

	content->inode = BPF_CORE_READ(inode, i_ino);
	content->device = BPF_CORE_READ(inode, i_sb, s_dev);
	id = gadget_content_mix(id, content->inode);
	id = gadget_content_mix(id, content->device);
	return id ? id : 1;
}

/* `path`: the last path that was written to the record. */
static __always_inline __u64 gadget_content_of(const struct gadget_writer *writer, const struct gadget_text *path,
					       struct file *file)
{
	struct gadget_kept_content *content;
	struct task_struct *task = gadget_task();
	__u64 id = GADGET_NO_CONTENT;
	__u32 length = path->length;

	if (!path->offset)
		return GADGET_NO_CONTENT;
	content = gadget_take_slot(&gadget_content_slots);
	if (!content)
		return GADGET_NO_CONTENT;
	/* The compiler would otherwise compare another register than the one that is used. */
	asm volatile("" : "+r"(length));
	if (!length || length > GADGET_CONTENT_PATH)
		goto out;
	content->length = length;
	if (!bpf_probe_read_kernel(content->path, length, writer->record + path->offset) &&
	    gadget_is_library(content)) {
		id = gadget_content_id(content, file);
		content->pids[0] = gadget_node_pid(task);
		content->pids[1] = gadget_node_pid(gadget_read(task, real_parent));
		if (!bpf_map_lookup_elem(&gadget_contents, &id) &&
		    bpf_map_update_elem(&gadget_contents, &id, content, BPF_NOEXIST) == -E2BIG)
			gadget_count_map_full();
	}
out:
	gadget_give_back(content);
	return id;
}

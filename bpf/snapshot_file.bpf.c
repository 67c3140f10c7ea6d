// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * snapshot file: emits one `struct snapshot_file` for each file that a process has open, once.
 *
 * Hook: an iterator over all open files, which needs neither kprobes nor the container's namespaces. Threads that share
 * the descriptors of their process are not reported again.
 */
#include <gadget/iterate.h>
#include <gadget/other_task.h>
#include <gadget/output.h>
#include <gadget/path.h>
#include <gadget/string.h>
#include <kernel/fs.h>

#define FILE_BYTES GADGET_ROOM(sizeof(struct snapshot_file) + GADGET_PATH_BYTES + 1)

/* The bits of S_IFMT in an inode's mode. */
typedef __u32 gadget_file_type;
/* 12 bits of major number, 20 bits of minor number. */
typedef __u32 gadget_device_number;

struct snapshot_file {
	struct gadget_record record;
	__u64 inode;
	/* ~0 for files without a size. */
	gadget_bytes size;
	__u64 position;
	gadget_fd fd;
	gadget_file_type type;
	gadget_open_flags flags;
	gadget_device_number device;
	/* The file has no name any more, and exists only as long as it is open. */
	bool deleted;
	bool unused_padding[3];
	gadget_path path;
};

GADGET_RECORD(snapshot_file);

/* Only files that have no name any more. */
const volatile bool filter_deleted = false;

GADGET_SCRATCH(scratch, FILE_BYTES);

SEC("iter/task_file")
int open_files(struct bpf_iter__task_file *ctx)
{
	struct task_struct *task = ctx->task;
	struct file *file = ctx->file;
	struct inode *inode;
	struct snapshot_file *row;
	struct gadget_writer writer;
	__u32 mode;

	if (!task || !file)
		return 0;
	inode = BPF_CORE_READ(file, f_inode);
	mode = BPF_CORE_READ(inode, i_mode);
	row = gadget_scratch(&scratch);
	if (!row)
		return 0;
	row->deleted = (mode & S_IFMT) == S_IFREG && !BPF_CORE_READ(inode, i_nlink);
	if ((filter_deleted && !row->deleted) || !gadget_begin_for_task(&row->record, task))
		return 0;
	row->inode = BPF_CORE_READ(inode, i_ino);
	row->size = (mode & S_IFMT) == S_IFREG ? BPF_CORE_READ(inode, i_size) : ~0ULL;
	row->position = BPF_CORE_READ(file, f_pos);
	row->fd = ctx->fd;
	row->type = mode & S_IFMT;
	row->flags = BPF_CORE_READ(file, f_flags);
	row->device = BPF_CORE_READ(inode, i_sb, s_dev);
	row->unused_padding[0] = row->unused_padding[1] = row->unused_padding[2] = false;
	writer = gadget_write(row, sizeof(*row), FILE_BYTES);
	gadget_append_path_for(&writer, &row->path, &file->f_path, task);
	gadget_iterate_send(ctx->meta, &writer);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";

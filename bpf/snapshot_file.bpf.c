// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * snapshot file: emits one `struct snapshot_file` for each file that a process has open, once.
 *
 * Hook: an iterator over all open files, which needs neither kprobes nor the container's namespaces. Threads that share
 * the descriptors of their process are not reported again. The kernel does not keep the number of open descriptors, so
 * the bits of the table of descriptors are counted, once for each process.
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
	/* The process's open descriptors, and how many it may have (RLIMIT_NOFILE, the soft limit). ~0: unknown. */
	gadget_number open_files;
	gadget_number open_files_limit;
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
/* One row for each process, without a file. */
const volatile bool only_count = false;

/* Bits of the table that are counted at a time, and the most descriptors that are counted: the usual value of
 * fs.nr_open. */
#define CHUNK_WORDS 64
#define MOST_FDS (1 << 20)

GADGET_SCRATCH(scratch, FILE_BYTES);
GADGET_SCRATCH(words_scratch, CHUNK_WORDS * sizeof(__u64));

/* The last process whose descriptors were counted on this CPU. */
struct counted {
	__u64 session;
	__u64 process;
	__u64 open_files;
};

GADGET_SCRATCH(counted_scratch, sizeof(struct counted));

/* Adds to the count the bits of one chunk of a table of `words` words. Not static, and with the count in memory, so
 * that the verifier checks it once and not for each chunk. False: it could not be read. */
__noinline int count_chunk(__u64 table, __u32 chunk, __u32 words)
{
	__u64 *bits = gadget_scratch(&words_scratch);
	struct counted *counted = gadget_scratch(&counted_scratch);
	__u32 left = words - chunk * CHUNK_WORDS, count = 0;

	if (!bits || !counted)
		return 0;
	__builtin_memset(bits, 0, CHUNK_WORDS * sizeof(__u64));
	if (left > CHUNK_WORDS)
		left = CHUNK_WORDS;
	if (bpf_probe_read_kernel(bits, left * sizeof(__u64), (void *)table + chunk * CHUNK_WORDS * sizeof(__u64)))
		return 0;
	for (int i = 0; i < CHUNK_WORDS; i++) {
		__u64 word = bits[i];

		word -= (word >> 1) & 0x5555555555555555;
		word = (word & 0x3333333333333333) + ((word >> 2) & 0x3333333333333333);
		word = (word + (word >> 4)) & 0x0f0f0f0f0f0f0f0f;
		count += word * 0x0101010101010101 >> 56;
	}
	counted->open_files += count;
	return 1;
}

/* Sets the number of open descriptors; ~0: unknown. */
static __always_inline void count_files(struct counted *counted, struct task_struct *task)
{
	struct fdtable *table = BPF_CORE_READ(task, files, fdt);
	__u64 bits = (__u64)BPF_CORE_READ(table, open_fds);
	__u32 words = BPF_CORE_READ(table, max_fds) / 64;

	counted->open_files = 0;
	if (bits && words <= MOST_FDS / 64) {
		for (__u32 i = 0; i < MOST_FDS / 64 / CHUNK_WORDS; i++) {
			if (i * CHUNK_WORDS >= words)
				return;
			if (!count_chunk(bits, i, words))
				goto unknown;
		}
		return;
	}
unknown:
	counted->open_files = ~0ULL;
}

/* The iterator shows the files of a process together. */
static __always_inline void set_count(struct snapshot_file *row, struct bpf_iter_meta *meta, struct task_struct *task)
{
	struct counted *last = gadget_scratch(&counted_scratch);

	row->open_files = ~0ULL;
	row->open_files_limit = BPF_CORE_READ(task, signal, rlim[GADGET_RLIMIT_NOFILE].rlim_cur);
	if (!last)
		return;
	if (last->session != meta->session_id || last->process != (__u64)task) {
		last->session = meta->session_id;
		last->process = (__u64)task;
		count_files(last, task);
	}
	row->open_files = last->open_files;
}

/* One row for each process, for --count. */
SEC("iter/task")
int processes(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	struct snapshot_file *row = gadget_scratch(&scratch);
	struct gadget_writer writer;

	if (!task || !row || BPF_CORE_READ(task, group_leader) != task || !BPF_CORE_READ(task, files) ||
	    !gadget_begin_for_task(&row->record, task))
		return 0;
	set_count(row, ctx->meta, task);
	row->inode = row->position = 0;
	row->size = ~0ULL;
	row->fd = -1;
	row->type = row->flags = row->device = 0;
	row->deleted = false;
	row->unused_padding[0] = row->unused_padding[1] = row->unused_padding[2] = false;
	writer = gadget_write(row, sizeof(*row), FILE_BYTES);
	gadget_no_text(&row->path);
	gadget_iterate_send(ctx->meta, &writer);
	return 0;
}

SEC("iter/task_file")
int open_files(struct bpf_iter__task_file *ctx)
{
	struct task_struct *task = ctx->task;
	struct file *file = ctx->file;
	struct inode *inode;
	struct snapshot_file *row;
	struct gadget_writer writer;
	__u32 mode;

	if (!task || !file || only_count)
		return 0;
	inode = BPF_CORE_READ(file, f_inode);
	mode = BPF_CORE_READ(inode, i_mode);
	row = gadget_scratch(&scratch);
	if (!row)
		return 0;
	row->deleted = (mode & S_IFMT) == S_IFREG && !BPF_CORE_READ(inode, i_nlink);
	if ((filter_deleted && !row->deleted) || !gadget_begin_for_task(&row->record, task))
		return 0;
	set_count(row, ctx->meta, task);
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

/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Files that are followed from open to the last close, identified by the kernel's `struct file`. All descriptors of an
 * open file share it: after dup, in forked children, and in a process that received it over a socket.
 *
 * The programs here detect the last close: at __fput where the kernel allows tracing it, otherwise at the entry of
 * close, close_range, dup2 and dup3, and at the end of a process. They call gadget_file_closes(), which the gadget
 * defines. Several objects may share the maps. The trap: the address of a `struct file` is reused for another file, so
 * the inode is compared before the entry is used.
 */
#pragma once

#include <bpf/bpf_tracing.h>

#include <gadget/files/open_file.h>
#include <gadget/output.h>
#include <gadget/syscall.h>
#include <kernel/fs.h>

/* The maximum number of files that are followed at the same time. */
#define GADGET_FOLLOWED_FILES 65536
/* The maximum number of descriptors examined when a process ends. */
#define GADGET_DESCRIPTORS 4096

#define CLOSE_RANGE_CLOEXEC 4

/* The file's id, constant from open to the last close. */
typedef __u64 gadget_file_id;

struct gadget_followed {
	gadget_file_id id;
	__u64 inode;
	__u32 device;
	/* While the descriptors of a process are examined: the thread that does so, and how many descriptors of this
	 * file it has found. */
	__u32 counted_by;
	__u64 found;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, GADGET_FOLLOWED_FILES);
	__type(key, __u64);
	__type(value, struct gadget_followed);
} gadget_followed SEC(".maps");

/* The approximate number of followed files. While it is 0, no lookup is needed. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} gadget_followed_count SEC(".maps");

static __always_inline __u64 gadget_references(const void *file)
{
	const struct file___referenced *new = file;
	const struct file___counted *old = file;

	if (bpf_core_field_exists(new->f_ref))
		return BPF_CORE_READ(new, f_ref.refcnt.counter) + 1;
	return BPF_CORE_READ(old, f_count.counter);
}

static __always_inline void gadget_count_followed(__s64 more)
{
	__u32 key = 0;
	__u64 *count = bpf_map_lookup_elem(&gadget_followed_count, &key);

	if (count)
		__sync_fetch_and_add(count, more);
}

static __always_inline bool gadget_follows_any(void)
{
	__u32 key = 0;
	const __u64 *count = bpf_map_lookup_elem(&gadget_followed_count, &key);

	return count && *count;
}

static __always_inline void gadget_unfollow(__u64 key)
{
	if (!bpf_map_delete_elem(&gadget_followed, &key))
		gadget_count_followed(-1);
}

/* NULL: the file is not followed. */
static __always_inline struct gadget_followed *gadget_followed_of(const struct file *file)
{
	__u64 key = (__u64)file;
	struct gadget_followed *followed;

	if (!file || !gadget_follows_any())
		return NULL;
	followed = bpf_map_lookup_elem(&gadget_followed, &key);
	if (followed && (followed->inode != BPF_CORE_READ(file, f_inode, i_ino) ||
			 followed->device != BPF_CORE_READ(file, f_inode, i_sb, s_dev))) {
		gadget_unfollow(key);
		return NULL;
	}
	return followed;
}

/* Starts to follow the file. Returns its new id; 0: there was no room, which is counted. */
static __always_inline gadget_file_id gadget_follow(const struct file *file)
{
	struct gadget_followed followed = {
		.id = bpf_ktime_get_boot_ns() << 8 | (bpf_get_smp_processor_id() & 0xff),
		.inode = BPF_CORE_READ(file, f_inode, i_ino),
		.device = BPF_CORE_READ(file, f_inode, i_sb, s_dev),
	};
	__u64 key = (__u64)file;
	bool is_new = !bpf_map_lookup_elem(&gadget_followed, &key);

	if (bpf_map_update_elem(&gadget_followed, &key, &followed, BPF_ANY)) {
		gadget_count_map_full();
		return 0;
	}
	if (is_new)
		gadget_count_followed(1);
	return followed.id;
}

/* Handles the last close of a followed file. `fd` is -1 at __fput, where the program may be preempted. */
static __always_inline void gadget_file_closes(struct file *file, const struct gadget_followed *followed, long fd);

/* Comes first: if the kernel refuses one of the programs, it refuses this one, before it has spent time on verifying
 * the others. */
SEC("fentry/__fput")
int BPF_PROG(released, struct file *file)
{
	const struct gadget_followed *followed = gadget_followed_of(file);

	if (!followed)
		return 0;
	gadget_file_closes(file, followed, -1);
	gadget_unfollow((__u64)file);
	return 0;
}

/* The last descriptor is closed, and the file has no other user. */
static __always_inline void gadget_close(struct file *file, const struct gadget_followed *followed, long fd)
{
	gadget_file_closes(file, followed, fd);
	gadget_unfollow((__u64)file);
}

static __always_inline void gadget_may_close(long fd)
{
	const struct gadget_followed *followed;
	struct file *file;

	if (!gadget_follows_any())
		return;
	file = gadget_file_of((int)fd);
	followed = gadget_followed_of(file);
	if (followed && gadget_references(file) == 1)
		gadget_close(file, followed, (int)fd);
}

#define GADGET_ON_ENTRY(CALL)                                                                                          \
	static __always_inline int CALL##_on_entry(struct pt_regs *registers);                                         \
	SEC("tracepoint/syscalls/sys_enter_" #CALL)                                                                    \
	int CALL##_begins(void *ctx)                                                                                   \
	{                                                                                                              \
		return CALL##_on_entry(gadget_call_registers(ctx));                                                    \
	}                                                                                                              \
	static __always_inline int CALL##_on_entry(struct pt_regs *registers)

GADGET_ON_ENTRY(close)
{
	gadget_may_close(gadget_argument(registers, 0));
	return 0;
}

/* dup2() and dup3() close the file that the new descriptor had, if the old descriptor is valid. */
#define GADGET_ON_REPLACE(CALL)                                                                                        \
	GADGET_ON_ENTRY(CALL)                                                                                          \
	{                                                                                                              \
		if (gadget_argument(registers, 0) != gadget_argument(registers, 1) &&                                  \
		    gadget_file_of((int)gadget_argument(registers, 0)))                                                \
			gadget_may_close(gadget_argument(registers, 1));                                               \
		return 0;                                                                                              \
	}

GADGET_ON_REPLACE(dup2)
GADGET_ON_REPLACE(dup3)

struct gadget_descriptors {
	long first;
	long last;
};

/* Examines one of several descriptors that are closed together. The file is closed if they are all its references. */
static long gadget_close_one(__u32 round, void *data)
{
	const struct gadget_descriptors *range = data;
	/* No counter in memory, so that all iterations look alike to the verifier. */
	long fd = range->first + round;
	__u32 counted_by = bpf_get_current_pid_tgid();
	struct gadget_followed *followed;
	struct file *file;

	if (fd > range->last)
		return 1;
	file = gadget_file_of(fd);
	followed = gadget_followed_of(file);
	if (!followed)
		return 0;
	followed->found = followed->counted_by == counted_by ? followed->found + 1 : 1;
	followed->counted_by = counted_by;
	if (followed->found >= gadget_references(file))
		gadget_close(file, followed, fd);
	return 0;
}

static __always_inline void gadget_close_all(long first, long last)
{
	struct gadget_descriptors range = {.first = first, .last = last};

	if (gadget_follows_any())
		bpf_loop(GADGET_DESCRIPTORS, gadget_close_one, &range, 0);
}

static __always_inline bool gadget_shares_descriptors(struct task_struct *task)
{
	struct files_struct *files = BPF_CORE_READ(task, files);

	return !files || BPF_CORE_READ(files, count.counter) != 1;
}

GADGET_ON_ENTRY(close_range)
{
	__u32 last = gadget_argument(registers, 1);

	if (!(gadget_argument(registers, 2) & CLOSE_RANGE_CLOEXEC) && !gadget_shares_descriptors(gadget_task()))
		gadget_close_all((__u32)gadget_argument(registers, 0), last);
	return 0;
}

/* Runs before the process's descriptors are closed. */
SEC("tp_btf/sched_process_exit")
int thread_ends(void *ctx)
{
	if (!gadget_shares_descriptors(gadget_task()))
		gadget_close_all(0, GADGET_DESCRIPTORS);
	return 0;
}

// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * profile fs: histograms of how long opens, reads, writes and fsyncs of files took, by container, kind of file system
 * and operation.
 *
 * Hooks: the raw tracepoints sys_enter and sys_exit, and of them the calls that do so, since they are there on every
 * kernel. Only at the exit it is looked at what the descriptor is. Not seen: files that are mapped, io_uring, what the
 * kernel reads itself.
 */
#include <gadget/histogram.h>
#include <gadget/operation.h>
#include <gadget/path_at.h>
#include <gadget/timed_call.h>
#include <kernel/file_calls.h>
#include <kernel/fs.h>

#define HISTOGRAMS 8192

enum { NONE, READ, WRITE, OPEN, SYNC };

struct fs_key {
	gadget_cgroup cgroup;
	gadget_operation operation;
	char file_system[16];
};

struct fs_value {
	struct gadget_histogram histogram;
};

struct profile_fs {
	struct gadget_total interval;
	struct fs_key key;
	struct fs_value value;
	struct gadget_percentiles percentiles;
};

GADGET_RECORD(profile_fs);

GADGET_TOTALS(fs_key, fs_value, HISTOGRAMS);

static __always_inline __u32 operation_of(__s32 number)
{
	switch (number) {
	case GADGET_CALL_READ:
	case GADGET_CALL_READV:
	case GADGET_CALL_PREAD64:
	case GADGET_CALL_PREADV:
	case GADGET_CALL_PREADV2:
		return READ;
	case GADGET_CALL_WRITE:
	case GADGET_CALL_WRITEV:
	case GADGET_CALL_PWRITE64:
	case GADGET_CALL_PWRITEV:
	case GADGET_CALL_PWRITEV2:
		return WRITE;
	case GADGET_CALL_OPEN:
	case GADGET_CALL_CREAT:
	case GADGET_CALL_OPENAT:
	case GADGET_CALL_OPENAT2:
		return OPEN;
	case GADGET_CALL_FSYNC:
	case GADGET_CALL_FDATASYNC:
		return SYNC;
	default:
		return NONE;
	}
}

static __always_inline void set_operation(struct fs_key *key, __u32 operation)
{
	if (operation == READ)
		GADGET_SET_OPERATION(key->operation, "read");
	else if (operation == WRITE)
		GADGET_SET_OPERATION(key->operation, "write");
	else if (operation == OPEN)
		GADGET_SET_OPERATION(key->operation, "open");
	else
		GADGET_SET_OPERATION(key->operation, "fsync");
}

SEC("raw_tp/sys_enter")
int enters(struct bpf_raw_tracepoint_args *ctx)
{
	__u32 operation = operation_of(ctx->args[1]);
	struct gadget_compat_call now;
	struct task_struct *task;
	struct fs_key key = {};

	if (!operation && !operation_of(gadget_possible_call(ctx->args[1])) && !gadget_is_x32(ctx->args[1]))
		return 0;
	task = gadget_task();
	gadget_describe_call(&now, task, gadget_registers(task), ctx->args[1]);
	operation = operation_of(now.native);
	if (!operation)
		return 0;
	set_operation(&key, operation);
	if (gadget_wanted_operation(key.operation) && gadget_counts())
		gadget_begin_call(&now);
	return 0;
}

SEC("raw_tp/sys_exit")
int exits(struct bpf_raw_tracepoint_args *ctx)
{
	struct gadget_timed_call ended;
	__s64 descriptor = ctx->args[1];
	struct super_block *on;
	struct file *opened;
	struct fs_value *value;
	struct fs_key key = {};
	__u32 operation, kind;
	__u64 duration;

	if (!gadget_end_call(&ended, &duration))
		return 0;
	operation = operation_of(ended.native);
	/* An open that fails has no file, and so no file system. */
	if (operation != OPEN)
		descriptor = (__s32)ended.first_argument;
	opened = gadget_file_of(descriptor);
	if (!opened)
		return 0;
	kind = BPF_CORE_READ(opened, f_inode, i_mode) & S_IFMT;
	if (kind != S_IFREG && kind != S_IFDIR)
		return 0;
	key.cgroup = gadget_current_cgroup();
	set_operation(&key, operation);
	on = BPF_CORE_READ(opened, f_inode, i_sb);
	bpf_probe_read_kernel_str(key.file_system, sizeof(key.file_system), BPF_CORE_READ(on, s_type, name));
	value = gadget_total(&key);
	if (value)
		gadget_observe(&value->histogram, duration);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";

// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * profile fs: histograms of how long opens, reads, writes and fsyncs of files took, by container, kind of file system
 * and operation.
 *
 * Hooks: the raw tracepoints sys_enter and sys_exit, which every kernel has; for io_uring, the tracepoints where
 * requests are submitted and completed. The descriptor is looked up only at the exit. For Linux AIO, only the duration
 * of the submitting call is known. Not seen: mapped files, and reads by the kernel itself.
 */
#include <gadget/files/aio.h>
#include <gadget/files/path_at.h>
#include <gadget/histogram.h>
#include <gadget/operation.h>
#include <gadget/syscalls/timed_call.h>
#include <gadget/syscalls/uring_time.h>
#include <kernel/file_calls.h>
#include <kernel/fs.h>

#define HISTOGRAMS 8192

enum { NONE, READ, WRITE, OPEN, SYNC, SUBMIT };

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
	case GADGET_CALL_IO_SUBMIT:
		return SUBMIT;
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

/* False: not an operation, or not wanted. */
static __always_inline bool wanted(__u32 operation)
{
	struct fs_key key = {};

	/* It submits both reads and writes. */
	if (operation == SUBMIT)
		return gadget_counts();
	set_operation(&key, operation);
	return gadget_wanted_operation(key.operation) && gadget_counts();
}

static __always_inline void observe(__u32 operation, struct file *file, __u64 duration)
{
	struct super_block *on;
	struct fs_value *value;
	struct fs_key key = {};
	__u32 kind;

	if (!file)
		return;
	kind = BPF_CORE_READ(file, f_inode, i_mode) & S_IFMT;
	if (kind != S_IFREG && kind != S_IFDIR)
		return;
	key.cgroup = gadget_current_cgroup();
	set_operation(&key, operation);
	if (!gadget_wanted_operation(key.operation))
		return;
	on = BPF_CORE_READ(file, f_inode, i_sb);
	bpf_probe_read_kernel_str(key.file_system, sizeof(key.file_system), BPF_CORE_READ(on, s_type, name));
	value = gadget_total(&key);
	if (value)
		gadget_observe(&value->histogram, duration);
}

SEC("raw_tp/sys_enter")
int enters(struct bpf_raw_tracepoint_args *ctx)
{
	__u32 operation = operation_of(ctx->args[1]);
	struct gadget_compat_call now;
	struct task_struct *task;

	if (!operation && !operation_of(gadget_possible_call(ctx->args[1])) && !gadget_is_x32(ctx->args[1]))
		return 0;
	task = gadget_task();
	gadget_describe_call(&now, task, gadget_registers(task), ctx->args[1]);
	operation = operation_of(now.native);
	if (operation && wanted(operation))
		gadget_begin_call(&now);
	return 0;
}

/* Not static, so that the verifier checks it once and not for each request. */
__noinline int observe_aio(__u64 address, __u64 duration)
{
	struct gadget_aio_request request;

	if (!gadget_aio_read(&request, address))
		return 0;
	observe(gadget_aio_writes(&request) ? WRITE : READ, gadget_file_of(request.fd), duration);
	return 0;
}

/* Each request gets an equal part of the call's time, since no system call reports how long each one took. */
static __always_inline void observe_submitted(struct bpf_raw_tracepoint_args *ctx, __u64 duration)
{
	struct task_struct *task = gadget_task();
	struct pt_regs *registers = gadget_registers(task);
	__s64 submitted = ctx->args[1];
	struct gadget_compat_call now;

	if (submitted <= 0)
		return;
	gadget_describe_call(&now, task, registers, gadget_syscall_number(registers));
	duration /= (__u64)submitted;
	for (int i = 0; i < GADGET_AIO_REQUESTS && i < submitted; i++)
		observe_aio(gadget_aio_address(&now, i), duration);
	if (submitted > GADGET_AIO_REQUESTS)
		gadget_count_unexamined();
}

SEC("raw_tp/sys_exit")
int exits(struct bpf_raw_tracepoint_args *ctx)
{
	struct gadget_timed_call ended;
	__s64 descriptor = ctx->args[1];
	__u32 operation;
	__u64 duration;

	if (!gadget_end_call(&ended, &duration))
		return 0;
	operation = operation_of(ended.native);
	if (operation == SUBMIT) {
		observe_submitted(ctx, duration);
		return 0;
	}
	/* For an open, the result is the descriptor. An open that fails has no file, and so no file system. */
	if (operation != OPEN)
		descriptor = (__s32)ended.first_argument;
	observe(operation, gadget_file_of(descriptor), duration);
	return 0;
}

static __always_inline __u32 uring_operation(__u8 opcode)
{
	switch (gadget_uring_kind_of(opcode)) {
	case GADGET_URING_READS:
		return READ;
	case GADGET_URING_WRITES:
		return WRITE;
	case GADGET_URING_OPENS:
		return OPEN;
	case GADGET_URING_SYNCS:
		return SYNC;
	default:
		return NONE;
	}
}

static __always_inline int uring_begins(struct io_kiocb *request)
{
	__u32 operation = uring_operation(request->opcode);

	if (operation && wanted(operation))
		gadget_uring_begin(request);
	return 0;
}

GADGET_ON_URING_SUBMIT(uring_begins)

SEC("tp_btf/io_uring_complete")
int uring_complete(__u64 *ctx)
{
	struct io_kiocb *request = (struct io_kiocb *)ctx[1];
	__u32 operation = uring_operation(BPF_CORE_READ(request, opcode));
	struct gadget_uring_start start;
	struct file *file;
	__u64 duration;

	if (!operation || !gadget_uring_end(request, &start, &duration))
		return 0;
	if (operation == OPEN)
		file = gadget_uring_opened_file(request, gadget_uring_result(ctx));
	else
		file = BPF_CORE_READ(request, file);
	observe(operation, file, duration);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";

// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * top file: counts reads from and writes to files by process, and adds up the transferred bytes.
 *
 * Hooks: the raw tracepoint sys_exit, for calls that transfer data through a descriptor, with the number of bytes that
 * they return; and the tracepoints where io_uring's requests are submitted and completed. A file is identified by its
 * file system's device and its inode. Not seen: mapped files. Requests of Linux AIO, and io_uring requests that
 * complete silently, are counted without bytes.
 */
#include <gadget/files/aio.h>
#include <gadget/files/open_file.h>
#include <gadget/files/path_at.h>
#include <gadget/files/uring_file.h>
#include <gadget/output.h>
#include <gadget/process_identity.h>
#include <gadget/syscalls/compat_call.h>
#include <gadget/totals.h>
#include <kernel/file_calls.h>
#include <kernel/fs.h>
#include <kernel/ptrace.h>

#define FILES 32768
/* The maximum length of a path; the upper part of a longer path is missing. */
#define PATH_BYTES 512
#define ROOM GADGET_ROOM(sizeof(struct gadget_record) + GADGET_PATH_BYTES + 1)

/* The bits of S_IFMT in an inode's mode. */
typedef __u32 gadget_file_type;
/* 12 bits of major number, 20 bits of minor number. */
typedef __u32 gadget_device_number;

struct file_key {
	gadget_cgroup cgroup;
	__u64 inode;
	gadget_device_number device;
	gadget_pid pid;
	/* gadget_program_of() */
	__u64 unused_program;
};

struct file_value {
	__u64 reads;
	__u64 writes;
	gadget_bytes read_bytes;
	gadget_bytes written_bytes;
	gadget_comm comm;
	gadget_file_type type;
	gadget_path path;
	char unused_names[PATH_BYTES];
};

struct top_file {
	struct gadget_total interval;
	struct file_key key;
	struct file_value value;
};

GADGET_RECORD(top_file);

/* Also pipes, sockets and devices. */
const volatile bool show_all = false;

GADGET_TOTALS(file_key, file_value, FILES);
GADGET_SCRATCH(scratch, ROOM);

static __always_inline void describe(struct file_value *value, struct file *file, __u32 mode)
{
	struct gadget_record *room = gadget_scratch(&scratch);
	struct gadget_writer writer;
	struct gadget_text path;
	__u64 length;

	gadget_comm_of(gadget_task(), value->comm);
	value->type = mode & S_IFMT;
	/* No path, unless one is found. */
	value->path.length = 1;
	if (!room)
		return;
	writer = gadget_write(room, sizeof(*room), ROOM);
	gadget_append_path(&writer, &path, &file->f_path);
	if (!path.offset)
		return;
	bpf_probe_read_kernel(value->unused_names, sizeof(value->unused_names), room + 1);
	length = path.length & ~GADGET_CUT;
	if (length > PATH_BYTES)
		path.length = PATH_BYTES | GADGET_CUT;
	value->path.length = path.length;
	value->path.offset = offsetof(struct top_file, value) + offsetof(struct file_value, unused_names);
}

static __always_inline void count_file(struct file *file, __u64 bytes, bool write)
{
	struct inode *inode;
	struct file_key key = {};
	struct file_value *value;
	__u32 mode;

	if (!file)
		return;
	inode = BPF_CORE_READ(file, f_inode);
	mode = BPF_CORE_READ(inode, i_mode);
	if (!show_all && (mode & S_IFMT) != S_IFREG)
		return;
	key.cgroup = gadget_current_cgroup();
	key.inode = BPF_CORE_READ(inode, i_ino);
	key.device = BPF_CORE_READ(inode, i_sb, s_dev);
	key.pid = gadget_node_pid(gadget_task());
	key.unused_program = gadget_program_of(gadget_task());
	value = gadget_total(&key);
	if (!value)
		return;
	if (!value->path.length)
		describe(value, file, mode);
	/* The compiler turns the addition of a constant 0 into an atomic OR, which needs Linux 5.12. */
	if (write) {
		gadget_add(value->writes, 1);
		if (bytes)
			gadget_add(value->written_bytes, bytes);
	} else {
		gadget_add(value->reads, 1);
		if (bytes)
			gadget_add(value->read_bytes, bytes);
	}
}

static __always_inline void count(__s32 fd, __u64 bytes, bool write)
{
	count_file(gadget_file_of(fd), bytes, write);
}

static __always_inline bool moves_data(__s32 number)
{
	switch (number) {
	case GADGET_CALL_READ:
	case GADGET_CALL_READV:
	case GADGET_CALL_PREAD64:
	case GADGET_CALL_PREADV:
	case GADGET_CALL_PREADV2:
	case GADGET_CALL_WRITE:
	case GADGET_CALL_WRITEV:
	case GADGET_CALL_PWRITE64:
	case GADGET_CALL_PWRITEV:
	case GADGET_CALL_PWRITEV2:
	case GADGET_CALL_SENDFILE:
	case GADGET_CALL_COPY_FILE_RANGE:
	case GADGET_CALL_IO_SUBMIT:
		return true;
	default:
		return false;
	}
}

/* Not static, so that the verifier checks it once and not for each request. */
__noinline int count_aio(__u64 address)
{
	struct gadget_aio_request request;

	if (gadget_aio_read(&request, address))
		count(request.fd, 0, gadget_aio_writes(&request));
	return 0;
}

/* Counts the requests of io_submit(). No system call reports how many bytes they transfer. */
static __always_inline void count_submitted(const struct gadget_compat_call *call, long submitted)
{
	for (int i = 0; i < GADGET_AIO_REQUESTS && i < submitted; i++)
		count_aio(gadget_aio_address(call, i));
	if (submitted > GADGET_AIO_REQUESTS)
		gadget_count_unexamined();
}

SEC("raw_tp/sys_exit")
int moved(struct bpf_raw_tracepoint_args *ctx)
{
	struct pt_regs *registers = (struct pt_regs *)ctx->args[0];
	long bytes = ctx->args[1];
	__s32 from = -1, to = -1;
	struct gadget_compat_call now;
	struct task_struct *task;
	__s32 number;

	if (bytes < 0)
		return 0;
	number = BPF_CORE_READ(registers, GADGET_SYSCALL_NUMBER);
	if (!moves_data(number) && !moves_data(gadget_possible_call(number)) && !gadget_is_x32(number))
		return 0;
	task = gadget_task();
	gadget_describe_call(&now, task, gadget_registers(task), number);
	switch (now.native) {
	case GADGET_CALL_READ:
	case GADGET_CALL_READV:
	case GADGET_CALL_PREAD64:
	case GADGET_CALL_PREADV:
	case GADGET_CALL_PREADV2:
		from = now.arguments[0];
		break;
	case GADGET_CALL_WRITE:
	case GADGET_CALL_WRITEV:
	case GADGET_CALL_PWRITE64:
	case GADGET_CALL_PWRITEV:
	case GADGET_CALL_PWRITEV2:
		to = now.arguments[0];
		break;
	case GADGET_CALL_SENDFILE:
		to = now.arguments[0];
		from = now.arguments[1];
		break;
	case GADGET_CALL_COPY_FILE_RANGE:
		from = now.arguments[0];
		to = now.arguments[2];
		break;
	case GADGET_CALL_IO_SUBMIT:
		if (gadget_counts())
			count_submitted(&now, bytes);
		return 0;
	default:
		return 0;
	}
	if (!gadget_counts())
		return 0;
	if (from >= 0)
		count(from, bytes, false);
	if (to >= 0)
		count(to, bytes, true);
	return 0;
}

/* The current task belongs to the process that made the request; it may be one of the process's io_uring workers. */
SEC("tp_btf/io_uring_complete")
int uring_moved(__u64 *ctx)
{
	struct io_kiocb *request = (struct io_kiocb *)ctx[1];
	__s32 bytes = gadget_uring_result(ctx);
	__u32 kind = gadget_uring_kind_of(BPF_CORE_READ(request, opcode));

	if (kind != GADGET_URING_READS && kind != GADGET_URING_WRITES)
		return 0;
	if (bytes >= 0 && gadget_counts())
		count_file(BPF_CORE_READ(request, file), bytes, kind == GADGET_URING_WRITES);
	return 0;
}

/* A request that does not report success may transfer data, but the kernel does not report how much, so it is counted
 * when it is submitted. */
static __always_inline int uring_submitted(struct io_kiocb *request)
{
	__u32 kind = gadget_uring_kind_of(request->opcode);

	if (kind != GADGET_URING_READS && kind != GADGET_URING_WRITES)
		return 0;
	if (BPF_CORE_READ(request, flags) & GADGET_URING_SKIPS_SUCCESS && gadget_counts())
		count_file(gadget_uring_file_of(request), 0, kind == GADGET_URING_WRITES);
	return 0;
}

GADGET_ON_URING_SUBMIT(uring_submitted)

char LICENSE[] SEC("license") = "Dual BSD/GPL";

// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * trace fileuse: emits one `struct trace_fileuse` for each open of a file below certain paths, for each use of it, and
 * for the close of its last descriptor (gadget/files/followed_file.h).
 *
 * Hooks: the exits of the system calls that open files and transfer their data; for io_uring, the tracepoints where
 * requests are submitted and completed; those of gadget/files/followed_file.h for the last close. Once at start, an
 * iterator over all open files.
 */
#include <gadget/credentials.h>
#include <gadget/files/aio.h>
#include <gadget/files/followed_file.h>
#include <gadget/files/open_file.h>
#include <gadget/files/uring_file.h>
#include <gadget/operation.h>
#include <gadget/other_task.h>
#include <gadget/output.h>
#include <gadget/path.h>
#include <gadget/process.h>
#include <gadget/process_identity.h>
#include <gadget/processes/runtime.h>
#include <gadget/string.h>
#include <gadget/syscall.h>
#include <kernel/fs.h>
#include <kernel/iterator.h>

/* The maximum number of paths, and the maximum size of each. */
#define PATHS 8
#define PATH_BYTES 124
#define UNKNOWN (~0ULL)

#define MAP_ANONYMOUS 0x20

/* 12 bits of major number, 20 bits of minor number. */
typedef __u32 gadget_device_number;
/* PROT_…; ~0: none. */
typedef __u32 gadget_protection;

struct trace_fileuse {
	struct gadget_record record;
	gadget_operation operation;
	gadget_exec_id exec_id;
	struct gadget_credentials credentials;
	gadget_file_id file_id;
	__u64 inode;
	/* The number of bytes read or written, or the length after ftruncate. */
	gadget_bytes bytes;
	gadget_device_number device;
	gadget_open_flags flags;
	gadget_fd fd;
	gadget_protection protection;
	gadget_path path;
	__u32 unused;
};

GADGET_RECORD(trace_fileuse);

/* The beginning that a file's path must have. Paths are stored leaf first (gadget_path), so this is the end of the
 * stored text. */
struct wanted_path {
	__u32 length;
	char tail[PATH_BYTES];
};

/* Set by the client (kubectl_gadget/filters/pushdown.py). None: any. */
const volatile struct wanted_path wanted_paths[PATHS] = {};

#define BYTES GADGET_ROOM(sizeof(struct trace_fileuse) + GADGET_PATH_BYTES)

GADGET_SCRATCH(scratch, BYTES);
/* A fentry program can be preempted by its run for another task; the other programs cannot. */
GADGET_SCRATCH(released_scratch, BYTES);

/* Whether the text from `start` to `end` ends with that path, and a name begins there. Not inlined: the verifier checks
 * it once for each path. */
static __noinline bool ends_with(const char *record, __u64 start, __u64 end, __u32 number)
{
	const volatile struct wanted_path *path = &wanted_paths[number & (PATHS - 1)];
	__u32 length = path->length;

	if (length > PATH_BYTES || length > end - start)
		return false;
	for (__u32 back = 1; back <= PATH_BYTES + 1; back++) {
		__u64 at = end - back;
		__u32 byte = length - back;

		/* Keeps the compiler from adding the pointer first, since then the verifier would know the bounds of
		 * another value. */
		asm volatile("" : "+r"(at), "+r"(byte));
		if (back > length)
			return at < start || (at < BYTES && !record[at]);
		if (at >= BYTES || byte >= PATH_BYTES || record[at] != path->tail[byte])
			return false;
	}
	return false;
}

static __always_inline bool is_wanted_path(const struct trace_fileuse *use)
{
	__u64 start = use->path.offset, end = start + (use->path.length & ~GADGET_CUT);

	if (!wanted_paths[0].length)
		return true;
	if (!start)
		return false;
	/* Its beginning is unknown, and a program could hide files in deep folders. */
	if (use->path.length & GADGET_CUT)
		return true;
	for (__u32 number = 0; number < PATHS && wanted_paths[number].length; number++) {
		if (ends_with((const char *)use, start, end, number))
			return true;
	}
	return false;
}

static __always_inline void describe_file(struct trace_fileuse *use, const struct file *file)
{
	use->inode = BPF_CORE_READ(file, f_inode, i_ino);
	use->device = BPF_CORE_READ(file, f_inode, i_sb, s_dev);
	use->flags = BPF_CORE_READ(file, f_flags);
	use->bytes = UNKNOWN;
	use->protection = ~0U;
	use->fd = -1;
	use->unused = 0;
}

static __always_inline void describe_user(struct trace_fileuse *use, struct task_struct *task)
{
	gadget_exec_of(&use->exec_id, task);
	gadget_describe_credentials(&use->credentials, task);
}

static const gadget_operation READ = "read", WRITE = "write", CLOSE = "close", MMAP = "mmap", TRUNCATE = "truncate";

/* Reports a use of a followed file. */
static __always_inline void send_use(struct trace_fileuse *use, struct file *file,
				     const struct gadget_followed *followed, long fd, __u64 bytes, __u32 protection,
				     const gadget_operation operation)
{
	struct gadget_writer writer;

	if (!use || !gadget_begin(&use->record))
		return;
	__builtin_memcpy(use->operation, operation, sizeof(gadget_operation));
	describe_file(use, file);
	use->file_id = followed->id;
	use->fd = fd;
	use->bytes = bytes;
	use->protection = protection;
	describe_user(use, gadget_task());
	writer = gadget_write(use, sizeof(*use), BYTES);
	gadget_append_path(&writer, &use->path, &file->f_path);
	gadget_send(&writer);
}

static __always_inline void gadget_file_closes(struct file *file, const struct gadget_followed *followed, long fd)
{
	if (fd < 0)
		send_use(gadget_scratch(&released_scratch), file, followed, -1, UNKNOWN, ~0U, CLOSE);
	else
		send_use(gadget_scratch(&scratch), file, followed, fd, UNKNOWN, ~0U, CLOSE);
}

/* The common end of the programs for calls that open files, so that the verifier checks it once. */
GADGET_AFTER_EXIT(report_open)
{
	struct trace_fileuse *use = gadget_scratch(&scratch);
	long result = gadget_result(ctx);
	struct gadget_writer writer;
	struct file *file;

	if (!use || !gadget_begin_outside_runtime(&use->record))
		return 0;
	file = gadget_file_of(result);
	if (!file)
		return 0;
	writer = gadget_write(use, sizeof(*use), BYTES);
	gadget_append_path(&writer, &use->path, &file->f_path);
	if (!is_wanted_path(use))
		return 0;
	GADGET_SET_OPERATION(use->operation, "open");
	describe_file(use, file);
	use->file_id = gadget_follow(file);
	use->fd = result;
	describe_user(use, gadget_task());
	gadget_send(&writer);
	return 0;
}

GADGET_TAIL(after_open, report_open);

static __always_inline int opened(struct trace_event_raw_sys_exit *ctx, long result)
{
	if (result >= 0)
		bpf_tail_call(ctx, &after_open, 0);
	return 0;
}

GADGET_ON_EXIT(open)
{
	return opened(ctx, result);
}

GADGET_ON_EXIT(creat)
{
	return opened(ctx, result);
}

GADGET_ON_EXIT(openat)
{
	return opened(ctx, result);
}

GADGET_ON_EXIT(openat2)
{
	return opened(ctx, result);
}

GADGET_ON_EXIT(open_by_handle_at)
{
	return opened(ctx, result);
}

/* What a call did with the file of a descriptor. */
struct used {
	gadget_operation operation;
	__u64 bytes;
	/* -1: the file is not followed. */
	__s32 fd;
	__u32 protection;
};

/* What a call did with up to two files. */
struct uses {
	struct used first;
	struct used second;
	bool is_first_reported;
};

GADGET_SCRATCH(uses_scratch, sizeof(struct uses));

int report_use(struct trace_event_raw_sys_exit *ctx);
GADGET_TAIL(after_use, report_use);

/* The common end of the programs below, for the same reason. Runs once for each file. */
GADGET_AFTER_EXIT(report_use)
{
	struct uses *uses = gadget_scratch(&uses_scratch);
	const struct gadget_followed *followed;
	const struct used *used;
	struct file *file;
	bool is_second;

	if (!uses)
		return 0;
	is_second = uses->is_first_reported;
	used = is_second ? &uses->second : &uses->first;
	file = gadget_file_of(used->fd);
	followed = gadget_followed_of(file);
	if (followed)
		send_use(gadget_scratch(&scratch), file, followed, used->fd, used->bytes, used->protection,
			 used->operation);
	uses->is_first_reported = true;
	if (!is_second && uses->second.fd >= 0)
		bpf_tail_call(ctx, &after_use, 0);
	return 0;
}

/* NULL: no file is followed. */
static __always_inline struct uses *begin(void)
{
	struct uses *uses = gadget_follows_any() ? gadget_scratch(&uses_scratch) : NULL;

	if (!uses)
		return NULL;
	uses->first.fd = uses->second.fd = -1;
	uses->is_first_reported = false;
	return uses;
}

static __always_inline void set(struct used *used, long fd, __u64 bytes, __u32 protection,
				const gadget_operation operation)
{
	if (!gadget_followed_of(gadget_file_of((int)fd)))
		return;
	__builtin_memcpy(used->operation, operation, sizeof(gadget_operation));
	used->bytes = bytes;
	used->fd = fd;
	used->protection = protection;
}

static __always_inline int end(struct trace_event_raw_sys_exit *ctx, const struct uses *uses)
{
	if (uses->first.fd >= 0 || uses->second.fd >= 0)
		bpf_tail_call(ctx, &after_use, 0);
	return 0;
}

static __always_inline int used_one(struct trace_event_raw_sys_exit *ctx, long fd, __u64 bytes, __u32 protection,
				    const gadget_operation operation)
{
	struct uses *uses = begin();

	if (!uses)
		return 0;
	set(&uses->first, fd, bytes, protection, operation);
	return end(ctx, uses);
}

static __always_inline int copied(struct trace_event_raw_sys_exit *ctx, long from, long to, long bytes)
{
	struct uses *uses = bytes > 0 ? begin() : NULL;

	if (!uses)
		return 0;
	set(&uses->first, from, bytes, ~0U, READ);
	set(&uses->second, to, bytes, ~0U, WRITE);
	return end(ctx, uses);
}

/* A result of 0 means that nothing was read, at the end of the file. */
#define ON_TRANSFER(CALL, OPERATION)                                                                                   \
	GADGET_ON_EXIT(CALL)                                                                                           \
	{                                                                                                              \
		if (result <= 0)                                                                                       \
			return 0;                                                                                      \
		return used_one(ctx, gadget_argument(registers, 0), result, ~0U, OPERATION);                           \
	}

/* From one file to another. */
#define ON_COPY(CALL, FROM, TO)                                                                                        \
	GADGET_ON_EXIT(CALL)                                                                                           \
	{                                                                                                              \
		return copied(ctx, gadget_argument(registers, FROM), gadget_argument(registers, TO), result);          \
	}

ON_TRANSFER(read, READ)
ON_TRANSFER(pread64, READ)
ON_TRANSFER(readv, READ)
ON_TRANSFER(preadv, READ)
ON_TRANSFER(preadv2, READ)
ON_TRANSFER(write, WRITE)
ON_TRANSFER(pwrite64, WRITE)
ON_TRANSFER(writev, WRITE)
ON_TRANSFER(pwritev, WRITE)
ON_TRANSFER(pwritev2, WRITE)
ON_COPY(sendfile64, 1, 0)
ON_COPY(copy_file_range, 0, 2)
ON_COPY(splice, 0, 2)

GADGET_ON_EXIT(ftruncate)
{
	if (result)
		return 0;
	return used_one(ctx, gadget_argument(registers, 0), gadget_argument(registers, 1), ~0U, TRUNCATE);
}

GADGET_ON_EXIT(mmap)
{
	/* A result in this range is an error. */
	if ((unsigned long)result >= -4095UL || gadget_argument(registers, 3) & MAP_ANONYMOUS)
		return 0;
	return used_one(ctx, gadget_argument(registers, 4), gadget_argument(registers, 1),
			gadget_argument(registers, 2), MMAP);
}

/* Not static, so that the verifier checks it once and not for each request. */
__noinline int use_by_aio(__u64 address)
{
	struct gadget_aio_request request;
	const struct gadget_followed *followed;
	struct file *file;

	if (!gadget_aio_read(&request, address))
		return 0;
	file = gadget_file_of(request.fd);
	followed = gadget_followed_of(file);
	if (!followed)
		return 0;
	if (gadget_aio_writes(&request))
		send_use(gadget_scratch(&scratch), file, followed, request.fd, UNKNOWN, ~0U, WRITE);
	else
		send_use(gadget_scratch(&scratch), file, followed, request.fd, UNKNOWN, ~0U, READ);
	return 0;
}

/* The result is the number of accepted requests. */
GADGET_ON_EXIT(io_submit)
{
	const void *requests = (const void *)gadget_argument(registers, 2);
	__u32 bytes = gadget_pointer_bytes();
	__u64 address;

	if (result <= 0 || !gadget_follows_any())
		return 0;
	for (int i = 0; i < GADGET_AIO_REQUESTS && i < result; i++) {
		address = 0;
		gadget_read_user_pointer(&address, requests, i, bytes);
		use_by_aio(address);
	}
	if (result > GADGET_AIO_REQUESTS)
		gadget_count_unexamined();
	return 0;
}

GADGET_SCRATCH(uring_scratch, BYTES);
GADGET_SCRATCH(uring_submit_scratch, BYTES);

/* Reports a file that a request has opened. `fd`: -1 for a direct descriptor. */
static __always_inline void uring_opened(struct trace_fileuse *use, struct file *file, __s32 fd)
{
	struct gadget_writer writer;

	if (!file || !use || !gadget_begin(&use->record))
		return;
	writer = gadget_write(use, sizeof(*use), BYTES);
	gadget_append_path(&writer, &use->path, &file->f_path);
	if (!is_wanted_path(use))
		return;
	GADGET_SET_OPERATION(use->operation, "open");
	describe_file(use, file);
	use->file_id = gadget_follow(file);
	use->fd = fd;
	describe_user(use, gadget_task());
	gadget_send(&writer);
}

/* The operation of a request on its file; NULL: not one that is reported. */
static __always_inline const char *uring_use(__u8 opcode)
{
	if (opcode == IORING_OP_FTRUNCATE)
		return TRUNCATE;
	if (opcode == IORING_OP_SPLICE)
		return WRITE;
	switch (gadget_uring_kind_of(opcode)) {
	case GADGET_URING_READS:
		return READ;
	case GADGET_URING_WRITES:
		return WRITE;
	default:
		return NULL;
	}
}

/* The source of a splice. */
static __always_inline struct file *spliced_file(struct io_kiocb *request)
{
	const struct io_splice *splice = (const struct io_splice *)request;
	__s32 from = BPF_CORE_READ(splice, splice_fd_in);

	if (BPF_CORE_READ(splice, flags) & SPLICE_F_FD_IN_FIXED)
		return gadget_uring_direct_file(BPF_CORE_READ(request, ctx), from);
	return gadget_file_of(from);
}

/* `to` is the request's own file. */
static __always_inline void uring_used(struct trace_fileuse *use, struct io_kiocb *request, struct file *to,
				       __u64 bytes)
{
	__u8 opcode = BPF_CORE_READ(request, opcode);
	/* One end of a splice is a pipe. */
	struct file *from = opcode == IORING_OP_SPLICE ? spliced_file(request) : NULL;
	const struct gadget_followed *followed = from ? gadget_followed_of(from) : NULL;
	const char *word = followed ? READ : uring_use(opcode);
	struct file *file = followed ? from : to;

	if (!followed)
		followed = gadget_followed_of(to);
	if (followed && word)
		send_use(use, file, followed, -1, bytes, ~0U, word);
}

SEC("tp_btf/io_uring_complete")
int uring_complete(__u64 *ctx)
{
	struct io_kiocb *request = (struct io_kiocb *)ctx[1];
	__u8 opcode = BPF_CORE_READ(request, opcode);
	__s32 result = gadget_uring_result(ctx);
	struct io_ftrunc *truncate = (struct io_ftrunc *)request;
	struct io_open *how = (struct io_open *)request;
	__u64 bytes = result;

	if (opcode == IORING_OP_OPENAT || opcode == IORING_OP_OPENAT2) {
		uring_opened(gadget_scratch(&uring_scratch), gadget_uring_opened_file(request, result),
			     BPF_CORE_READ(how, file_slot) ? -1 : result);
	} else if (opcode == IORING_OP_FTRUNCATE ? !result : result > 0) {
		/* Since 6.9. */
		if (opcode == IORING_OP_FTRUNCATE && bpf_core_type_exists(struct io_ftrunc))
			bytes = BPF_CORE_READ(truncate, len);
		uring_used(gadget_scratch(&uring_scratch), request, BPF_CORE_READ(request, file), bytes);
	}
	return 0;
}

/* A request that does not report success may transfer data, but the kernel does not report how much, so it is reported
 * when it is submitted. */
static __always_inline int uring_submitted(struct io_kiocb *request)
{
	__u32 flags = BPF_CORE_READ(request, flags);

	if (flags & GADGET_URING_SKIPS_SUCCESS && gadget_follows_any() && uring_use(request->opcode))
		uring_used(gadget_scratch(&uring_submit_scratch), request, gadget_uring_file_of(request), UNKNOWN);
	return 0;
}

GADGET_ON_URING_SUBMIT(uring_submitted)

/* Files that are already open are followed too. Each is reported once, even if several descriptors share it. */
SEC("iter/task_file")
int find_open(struct bpf_iter__task_file *ctx)
{
	struct trace_fileuse *use = gadget_scratch(&scratch);
	struct task_struct *task = ctx->task;
	struct file *file = ctx->file;
	struct gadget_writer writer;

	if (!task || !file || !use || gadget_followed_of(file) || !gadget_begin_for_task(&use->record, task))
		return 0;
	writer = gadget_write(use, sizeof(*use), BYTES);
	gadget_append_path_for(&writer, &use->path, &file->f_path, task);
	if (!use->path.offset || !is_wanted_path(use))
		return 0;
	GADGET_SET_OPERATION(use->operation, "is open");
	describe_file(use, file);
	use->file_id = gadget_follow(file);
	use->fd = ctx->fd;
	describe_user(use, task);
	gadget_send(&writer);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";

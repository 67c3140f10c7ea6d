// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * trace fsslower: emits one `struct trace_fsslower` for each slow read, write, open and fsync of a file.
 *
 * Hooks: entry and exit of the kernel's functions for all file systems (vfs_read, …), where the kernel has fexit; else
 * entry and exit of the system calls. In both cases also io_submit (Linux AIO), and the tracepoints where io_uring
 * requests are submitted and completed. Stacked file systems call these functions recursively; only the outermost call
 * counts. And io_uring uses these functions to open and sync, but not to read and write.
 */
#include <gadget/files/aio.h>
#include <gadget/files/path_at.h>
#include <gadget/operation.h>
#include <gadget/output.h>
#include <gadget/process.h>
#include <gadget/result.h>
#include <gadget/slots.h>
#include <gadget/string.h>
#include <gadget/syscall.h>
#include <gadget/syscalls/uring_time.h>
#include <kernel/fs.h>

/* The maximum number of calls in progress at the same time. */
#define PENDING 16384

/* A position in a file. ~0: the call has none. */
typedef __u64 gadget_offset;

struct trace_fsslower {
	struct gadget_record record;
	gadget_operation operation;
	gadget_duration duration;
	/* Bytes read or written; ~0 for other operations, and for failures. */
	gadget_bytes bytes;
	gadget_offset offset;
	gadget_errno errno;
	gadget_path_at path;
	gadget_path path_base;
	__u32 unused2;
};

GADGET_RECORD(trace_fsslower);

#define SLOW_BYTES GADGET_ROOM(sizeof(struct trace_fsslower) + 2 * (GADGET_PATH_BYTES + 2))

/* In microseconds. ~0: not given; then calls that take 10 ms count, and failures of any duration if only they are
 * wanted.
 */
const volatile __u64 filter_min = ~0ULL;
/* Also pipes, sockets and devices, which wait for other processes. */
const volatile bool all_files = false;

enum { READ, WRITE, OPEN, FSYNC, SUBMIT };

struct call {
	__u64 thread;
	__u64 operation;
};

struct started {
	__u64 time;
	/* The number of nested calls. */
	__u64 depth;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, PENDING);
	__type(key, struct call);
	__type(value, struct started);
} calls SEC(".maps");

GADGET_SLOTS(slots, SLOW_BYTES);

/* 1 once a program on the kernel's functions has run. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} functions_followed SEC(".maps");

/* Failures are often fast: a full disk refuses a write at once. */
static __always_inline __u64 least_duration(void)
{
	if (filter_min != ~0ULL)
		return filter_min * 1000;
	return filter_failed || filter_errno ? 0 : 10000000;
}

static __always_inline void start(__u64 operation)
{
	struct call call = {.thread = bpf_get_current_pid_tgid(), .operation = operation};
	struct started new = {.time = bpf_ktime_get_boot_ns(), .depth = 1};
	struct started *outer = bpf_map_lookup_elem(&calls, &call);

	if (outer)
		outer->depth++;
	else if (bpf_map_update_elem(&calls, &call, &new, BPF_ANY))
		gadget_count_map_full();
}

/* The duration; 0 when it is too short to be reported. */
static __always_inline __u64 end(__u64 operation)
{
	struct call call = {.thread = bpf_get_current_pid_tgid(), .operation = operation};
	struct started *started = bpf_map_lookup_elem(&calls, &call);
	__u64 duration;

	/* The call began before the gadget did. */
	if (!started)
		return 0;
	if (started->depth > 1) {
		started->depth--;
		return 0;
	}
	duration = bpf_ktime_get_boot_ns() - started->time;
	bpf_map_delete_elem(&calls, &call);
	return duration < least_duration() ? 0 : duration;
}

static __always_inline bool is_of_interest(struct file *file)
{
	__u32 kind = BPF_CORE_READ(file, f_inode, i_mode) & S_IFMT;

	return all_files || kind == S_IFREG || kind == S_IFDIR;
}

/* NULL: not wanted. End the record with report(). */
static __always_inline struct trace_fsslower *begin(__u64 operation, __u64 duration, long result)
{
	static const gadget_operation words[] = {"read", "write", "open", "fsync"};
	struct trace_fsslower *slow;

	if (!gadget_wanted_result(result))
		return NULL;
	slow = gadget_take_slot(&slots);
	if (!slow)
		return NULL;
	if (!gadget_begin(&slow->record))
		goto unwanted;
	__builtin_memcpy(slow->operation, words[operation & 3], sizeof(gadget_operation));
	if (!gadget_wanted_operation(slow->operation))
		goto unwanted;
	slow->duration = duration;
	slow->errno = result < 0 ? -result : 0;
	slow->bytes = slow->offset = ~0ULL;
	slow->unused2 = 0;
	return slow;
unwanted:
	gadget_give_back(slow);
	return NULL;
}

static __always_inline void report(struct trace_fsslower *slow, struct gadget_writer *writer)
{
	gadget_send(writer);
	gadget_give_back(slow);
}

static __always_inline int report_position(__u64 operation, __u64 duration, struct file *file, long result, __u64 bytes,
					   __u64 offset)
{
	struct trace_fsslower *slow;
	struct gadget_writer writer;

	slow = begin(operation, duration, result);
	if (!slow)
		return 0;
	slow->bytes = bytes;
	slow->offset = offset;
	writer = gadget_write(slow, sizeof(*slow), SLOW_BYTES);
	gadget_wrote(&writer, &slow->path, writer.progress->length, 0, false);
	gadget_append_path(&writer, &slow->path_base, &file->f_path);
	report(slow, &writer);
	return 0;
}

/* `after` is the position after the call; ~0: the file has none. */
static __always_inline int report_file(__u64 operation, __u64 duration, struct file *file, long result, __u64 after)
{
	__u64 bytes = ~0ULL, offset = ~0ULL;

	if ((operation == READ || operation == WRITE) && result >= 0) {
		bytes = result;
		offset = after == ~0ULL ? ~0ULL : after - result;
	}
	return report_position(operation, duration, file, result, bytes, offset);
}

/* Reports an open that failed, and so has no file. `name` is in the caller's memory or, if `user` is false, in the
 * kernel's. */
static __always_inline int report_name(__s32 directory, const void *name, bool user, __u64 duration, long result)
{
	struct trace_fsslower *slow;
	struct gadget_writer writer;
	const char *text;

	slow = begin(OPEN, duration, result);
	if (!slow)
		return 0;
	writer = gadget_write(slow, sizeof(*slow), SLOW_BYTES);
	if (user) {
		gadget_append_path_at(&writer, &slow->path, &slow->path_base, directory, name);
	} else {
		gadget_append_kernel_string(&writer, &slow->path, name, GADGET_PATH_BYTES);
		gadget_no_text(&slow->path_base);
		text = gadget_written(&writer, &slow->path);
		if (!text || *text != '/')
			gadget_append_base(&writer, &slow->path_base, directory);
	}
	report(slow, &writer);
	return 0;
}

static __always_inline int function_ends(__u64 operation, struct file *file, long result, __u64 after)
{
	__u64 duration = end(operation);

	return duration && file && is_of_interest(file) ? report_file(operation, duration, file, result, after) : 0;
}

static __always_inline __u64 position(const long long *at)
{
	long long after;

	return at && !bpf_probe_read_kernel(&after, sizeof(after), at) ? after : ~0ULL;
}

SEC("?fexit/vfs_read")
int BPF_PROG(vfs_read_ends, struct file *file, char *buffer, __u64 bytes, long long *at, long result)
{
	return function_ends(READ, file, result, position(at));
}

SEC("?fexit/vfs_write")
int BPF_PROG(vfs_write_ends, struct file *file, const char *buffer, __u64 bytes, long long *at, long result)
{
	return function_ends(WRITE, file, result, position(at));
}

SEC("?fexit/vfs_fsync_range")
int BPF_PROG(vfs_fsync_range_ends, struct file *file, long long from, long long to, int only_data, int result)
{
	return function_ends(FSYNC, file, result, ~0ULL);
}

SEC("?fexit/do_filp_open")
int BPF_PROG(do_filp_open_ends, int directory, struct filename *name, const void *how, struct file *file)
{
	__u64 duration;
	long result;

	/* After a failed open, the pointer is an error number. Copied, since the verifier allows no arithmetic on the
	 * pointer. */
	bpf_probe_read_kernel(&result, sizeof(result), &file);
	if (result >= 0 || result < -4095)
		return function_ends(OPEN, file, 0, ~0ULL);
	duration = end(OPEN);
	return duration ? report_name(directory, BPF_CORE_READ(name, name), false, duration, result) : 0;
}

/*
 * Programs are attached in the order of this file, exits first: if the exit of a call were missed, all later calls of
 * the thread would seem to be nested in it.
 */
#define FUNCTION_STARTS(FUNCTION, OPERATION)                                                                           \
	SEC("?fentry/" #FUNCTION)                                                                                      \
	int FUNCTION##_starts(void *ctx)                                                                               \
	{                                                                                                              \
		start(OPERATION);                                                                                      \
		return 0;                                                                                              \
	}

FUNCTION_STARTS(vfs_read, READ)
FUNCTION_STARTS(vfs_write, WRITE)

static __always_inline int start_as_uring(__u64 operation)
{
	__u32 zero = 0;
	__u64 *followed = bpf_map_lookup_elem(&functions_followed, &zero);

	if (followed && !*followed)
		*followed = 1;
	start(operation);
	return 0;
}

SEC("?fentry/vfs_fsync_range")
int vfs_fsync_range_starts(void *ctx)
{
	return start_as_uring(FSYNC);
}

SEC("?fentry/do_filp_open")
int do_filp_open_starts(void *ctx)
{
	return start_as_uring(OPEN);
}

#define CALL_STARTS(CALL, OPERATION)                                                                                   \
	SEC("tracepoint/syscalls/sys_enter_" #CALL)                                                                    \
	int CALL##_starts(void *ctx)                                                                                   \
	{                                                                                                              \
		start(OPERATION);                                                                                      \
		return 0;                                                                                              \
	}

/* A slow system call. */
struct slow_call {
	__u64 operation;
	__u64 duration;
	__s64 result;
	/* NULL: an open that failed. */
	struct file *file;
	__u64 after;
	const void *name;
	__s32 directory;
	__u32 unused;
};

GADGET_SCRATCH(slow_scratch, sizeof(struct slow_call));

/* The common end of the programs for system calls, so that the verifier checks the path walks once. */
GADGET_AFTER_EXIT(report_slow_call)
{
	struct slow_call *call = gadget_scratch(&slow_scratch);

	if (!call)
		return 0;
	if (call->file)
		return report_file(call->operation, call->duration, call->file, call->result, call->after);
	return report_name(call->directory, call->name, true, call->duration, call->result);
}

GADGET_TAIL(after_slow_call, report_slow_call);

static __always_inline int call_ends(struct trace_event_raw_sys_exit *ctx, __u64 operation, struct file *file,
				     long result, __u64 after)
{
	__u64 duration = end(operation);
	struct slow_call *call;

	if (!duration || !file || !is_of_interest(file))
		return 0;
	call = gadget_scratch(&slow_scratch);
	if (!call)
		return 0;
	*call = (struct slow_call){
		.operation = operation, .duration = duration, .result = result, .file = file, .after = after};
	bpf_tail_call(ctx, &after_slow_call, 0);
	return 0;
}

static __always_inline __u64 file_position(struct file *file)
{
	return file ? BPF_CORE_READ(file, f_pos) : ~0ULL;
}

/* A call at the file's position, which it changes. */
#define MOVES(CALL, OPERATION)                                                                                         \
	GADGET_ON_EXIT(CALL)                                                                                           \
	{                                                                                                              \
		struct file *file = gadget_file_of(gadget_argument(registers, 0));                                     \
                                                                                                                       \
		return call_ends(ctx, OPERATION, file, result, file_position(file));                                   \
	}                                                                                                              \
	CALL_STARTS(CALL, OPERATION)

/* A call at the position in its fourth argument. The fifth argument is the upper half only in 32-bit calls, which are
 * translated. */
#define AT_POSITION(CALL, OPERATION)                                                                                   \
	GADGET_ON_EXIT(CALL)                                                                                           \
	{                                                                                                              \
		__u64 from = gadget_argument(registers, 3);                                                            \
		struct file *file = gadget_file_of(gadget_argument(registers, 0));                                     \
                                                                                                                       \
		if (from == ~0ULL)                                                                                     \
			return call_ends(ctx, OPERATION, file, result, file_position(file));                           \
		return call_ends(ctx, OPERATION, file, result, from + (result > 0 ? result : 0));                      \
	}                                                                                                              \
	CALL_STARTS(CALL, OPERATION)

#define SYNCS(CALL)                                                                                                    \
	GADGET_ON_EXIT(CALL)                                                                                           \
	{                                                                                                              \
		return call_ends(ctx, FSYNC, gadget_file_of(gadget_argument(registers, 0)), result, ~0ULL);            \
	}                                                                                                              \
	CALL_STARTS(CALL, FSYNC)

MOVES(read, READ)
MOVES(readv, READ)
MOVES(write, WRITE)
MOVES(writev, WRITE)
AT_POSITION(pread64, READ)
AT_POSITION(preadv, READ)
AT_POSITION(preadv2, READ)
AT_POSITION(pwrite64, WRITE)
AT_POSITION(pwritev, WRITE)
AT_POSITION(pwritev2, WRITE)
SYNCS(fsync)
SYNCS(fdatasync)

static __always_inline int opened(struct trace_event_raw_sys_exit *ctx, __s32 directory, const void *name, long result)
{
	struct slow_call *call;
	__u64 duration;

	if (result >= 0)
		return call_ends(ctx, OPEN, gadget_file_of(result), 0, ~0ULL);
	duration = end(OPEN);
	call = gadget_scratch(&slow_scratch);
	if (!duration || !call)
		return 0;
	*call = (struct slow_call){
		.operation = OPEN, .duration = duration, .result = result, .name = name, .directory = directory};
	bpf_tail_call(ctx, &after_slow_call, 0);
	return 0;
}

#define POINTER(N) ((const void *)gadget_argument(registers, N))

GADGET_ON_EXIT(open)
{
	return opened(ctx, AT_FDCWD, POINTER(0), result);
}

GADGET_ON_EXIT(creat)
{
	return opened(ctx, AT_FDCWD, POINTER(0), result);
}

GADGET_ON_EXIT(openat)
{
	return opened(ctx, gadget_argument(registers, 0), POINTER(1), result);
}

GADGET_ON_EXIT(openat2)
{
	return opened(ctx, gadget_argument(registers, 0), POINTER(1), result);
}

/* Not static, so that the verifier checks it once and not for each request. */
__noinline int report_aio(__u64 address, __u64 duration)
{
	struct gadget_aio_request request;
	struct file *file;

	if (!gadget_aio_read(&request, address))
		return 0;
	file = gadget_file_of(request.fd);
	if (!file || !is_of_interest(file))
		return 0;
	return report_position(gadget_aio_writes(&request) ? WRITE : READ, duration, file, 0, ~0ULL, request.position);
}

/* Only the duration of io_submit() is known: no system call reports what happens after it. */
GADGET_ON_EXIT(io_submit)
{
	const void *requests = (const void *)gadget_argument(registers, 2);
	__u32 bytes = gadget_pointer_bytes();
	__u64 duration = end(SUBMIT);
	__u64 address;

	if (!duration || result <= 0)
		return 0;
	for (int i = 0; i < GADGET_AIO_REQUESTS && i < result; i++) {
		address = 0;
		gadget_read_user_pointer(&address, requests, i, bytes);
		report_aio(address, duration);
	}
	if (result > GADGET_AIO_REQUESTS)
		gadget_count_unexamined();
	return 0;
}

CALL_STARTS(io_submit, SUBMIT)

CALL_STARTS(open, OPEN)
CALL_STARTS(creat, OPEN)
CALL_STARTS(openat, OPEN)
CALL_STARTS(openat2, OPEN)

/* The path of an open request, stored since the kernel no longer has it at completion. */
struct uring_name {
	__s32 directory;
	char name[GADGET_PATH_BYTES + 1];
};

/* One container may have half of them. */
GADGET_STATES(uring_name, uring_name, 2048);

/* The operation of a request. SUBMIT: none that is reported. */
static __always_inline __u64 uring_operation(__u8 opcode)
{
	switch (gadget_uring_kind_of(opcode)) {
	case GADGET_URING_READS:
		return READ;
	case GADGET_URING_WRITES:
		return WRITE;
	case GADGET_URING_OPENS:
		return OPEN;
	case GADGET_URING_SYNCS:
		return FSYNC;
	default:
		return SUBMIT;
	}
}

static __always_inline bool functions_report(__u64 operation)
{
	__u32 zero = 0;
	const __u64 *followed = bpf_map_lookup_elem(&functions_followed, &zero);

	return (operation == OPEN || operation == FSYNC) && followed && *followed;
}

static __always_inline void keep_name(struct io_kiocb *request)
{
	struct uring_name *name = uring_name_make_state((__u64)request, gadget_current_cgroup());

	if (!name)
		return;
	name->directory = BPF_CORE_READ((struct io_open *)request, dfd);
	bpf_probe_read_kernel_str(name->name, sizeof(name->name), gadget_uring_name(request, io_open, filename));
}

static __always_inline int uring_begins(struct io_kiocb *request)
{
	__u64 operation = uring_operation(request->opcode);
	struct gadget_record marks;

	if (operation == SUBMIT || functions_report(operation) ||
	    !gadget_wanted_cgroup(&marks, gadget_current_cgroup()))
		return 0;
	gadget_uring_begin(request);
	if (operation == OPEN && !(BPF_CORE_READ(request, flags) & GADGET_URING_SKIPS_SUCCESS))
		keep_name(request);
	return 0;
}

GADGET_ON_URING_SUBMIT(uring_begins)

static __always_inline int uring_moved(struct io_kiocb *request, __u64 operation, __u64 duration, __s32 result,
				       __u64 position)
{
	struct file *file = BPF_CORE_READ(request, file);

	if (!file || !is_of_interest(file))
		return 0;
	if (position == ~0ULL)
		return report_file(operation, duration, file, result, file_position(file));
	return report_file(operation, duration, file, result, position + (result > 0 ? result : 0));
}

static __always_inline int uring_opened(struct io_kiocb *request, __u64 duration, __s32 result,
					const struct uring_name *name)
{
	struct file *file = gadget_uring_opened_file(request, result);

	if (file)
		return is_of_interest(file) ? report_file(OPEN, duration, file, 0, ~0ULL) : 0;
	if (result >= 0 || !name)
		return 0;
	return report_name(name->directory, name->name, false, duration, result);
}

SEC("tp_btf/io_uring_complete")
int uring_complete(__u64 *ctx)
{
	struct io_kiocb *request = (struct io_kiocb *)ctx[1];
	__u64 operation = uring_operation(BPF_CORE_READ(request, opcode));
	__s32 result = gadget_uring_result(ctx);
	struct gadget_uring_start start;
	__u64 duration;
	bool is_slow;

	if (operation == SUBMIT || !gadget_uring_end(request, &start, &duration))
		return 0;
	/* When the first request was submitted, functions_report() was not known yet. */
	is_slow = duration >= least_duration() && !functions_report(operation);
	if (operation != OPEN)
		return is_slow ? uring_moved(request, operation, duration, result, start.position) : 0;
	if (is_slow)
		uring_opened(request, duration, result, uring_name_state_of((__u64)request));
	uring_name_remove_state((__u64)request);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";

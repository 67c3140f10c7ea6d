// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * trace open: emits one `struct trace_open` for each attempt to open a file, with its result.
 *
 * Hooks: the exits of open, openat, openat2, creat and open_by_handle_at, and of io_uring the submission and the
 * completion of an open. Not seen: system calls of 32-bit programs, and what io_uring opens with IOSQE_CQE_SKIP_SUCCESS
 * set, since the kernel has no tracepoint for either.
 */
#include <gadget/output.h>
#include <gadget/path.h>
#include <gadget/process.h>
#include <gadget/result.h>
#include <gadget/runtime.h>
#include <gadget/string.h>
#include <gadget/syscall.h>
#include <kernel/io_uring.h>
#include <kernel/mount.h>
#include <kernel/tracepoint.h>

#define O_CREAT 00000100
#define O_WRONLY 00000001
#define O_ACCMODE 00000003
#define O_TRUNC 00001000
/* Without O_DIRECTORY, whose value differs between architectures. */
#define O_TMPFILE_BIT 020000000

/* The kernel adds it to what io_uring is asked for, as openat does, too, but out of sight. */
#if defined(__TARGET_ARCH_x86)
#define O_LARGEFILE 00100000
#else
#define O_LARGEFILE 00400000
#endif

struct trace_open {
	struct gadget_record record;
	gadget_fd fd;
	gadget_errno errno;
	gadget_open_flags flags;
	/* 0 unless the flags ask for a new file; the kernel does not look at it otherwise. */
	gadget_mode mode;
	/* As the caller wrote it. */
	gadget_string path;
	/* As the kernel resolved it. */
	gadget_path resolved;
	/* Where the file system that it lies on is mounted, and of which type that is. */
	gadget_path mount;
	gadget_string fstype;
};

GADGET_RECORD(trace_open);

#define FSTYPE_BYTES 63
/* A record with its path, and with its resolved path and mount. */
#define PATH_BYTES GADGET_ROOM(sizeof(struct trace_open) + GADGET_PATH_BYTES)
#define OPEN_BYTES GADGET_ROOM(sizeof(struct trace_open) + 3 * GADGET_PATH_BYTES + FSTYPE_BYTES)

/* Opens of io_uring that may be under way at the same time. */
#define PENDING 4096

/* Beginning of the path as passed. Empty: any. */
const volatile char filter_path[256] = "";
const volatile bool filter_write = false;
const volatile bool resolve_path = false;

/* An open that io_uring has taken and not completed. */
struct pending {
	__u32 length;
	__u32 cuts;
	char record[PATH_BYTES];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, PENDING);
	__type(key, __u64);
	__type(value, struct pending);
} pending SEC(".maps");

GADGET_SCRATCH(syscall_scratch, OPEN_BYTES);
GADGET_SCRATCH(submit_scratch, sizeof(struct pending));
GADGET_SCRATCH(complete_scratch, OPEN_BYTES);

static __always_inline void set_result(struct trace_open *open, long result)
{
	open->fd = result < 0 ? -1 : result;
	open->errno = result < 0 ? -result : 0;
}

static __always_inline void set_flags(struct trace_open *open, __u32 flags, __u32 mode)
{
	open->flags = flags;
	open->mode = flags & (O_CREAT | O_TMPFILE_BIT) ? mode : 0;
}

static __always_inline bool wanted_flags(const struct trace_open *open)
{
	return !filter_write || open->flags & (O_ACCMODE | O_CREAT | O_TRUNC | O_TMPFILE_BIT);
}

static __always_inline bool wanted_path(const struct trace_open *open, const char *text)
{
	if (!filter_path[0])
		return true;
	if (!open->path.offset)
		return false;
	/* The text ends with a NUL here, which differs from all of the prefix. */
	for (int i = 0; i < sizeof(filter_path) && filter_path[i]; i++)
		if (text[i] != filter_path[i])
			return false;
	return true;
}

static __always_inline void append_mount(struct gadget_writer *writer, struct trace_open *open, struct vfsmount *mnt)
{
	struct vfsmount___source *mounted = (void *)mnt;

	gadget_append_mount_path(writer, &open->mount, mnt);
	gadget_append_kernel_string(writer, &open->fstype, BPF_CORE_READ(mounted, mnt_sb, s_type, name), FSTYPE_BYTES);
}

static __always_inline void append_resolved(struct gadget_writer *writer, struct trace_open *open)
{
	struct file **files;
	struct file *file = NULL;

	gadget_no_text(&open->resolved);
	gadget_no_text(&open->mount);
	gadget_no_text(&open->fstype);
	if (!resolve_path || open->fd < 0)
		return;
	files = gadget_read(gadget_task(), files, fdt, fd);
	bpf_probe_read_kernel(&file, sizeof(file), &files[open->fd]);
	if (!file) {
		gadget_unread(&open->resolved);
		return;
	}
	gadget_append_path(writer, &open->resolved, &file->f_path);
	append_mount(writer, open, BPF_CORE_READ(file, f_path.mnt));
}

/* NULL: not wanted. */
static __always_inline struct trace_open *begin_syscall(long result)
{
	struct trace_open *open;

	if (!gadget_wanted_result(result))
		return NULL;
	open = gadget_scratch(&syscall_scratch);
	if (!open || !gadget_begin(&open->record) || gadget_is_runtime())
		return NULL;
	set_result(open, result);
	return open;
}

/* `has_path` is a constant. */
static __always_inline void finish_syscall(struct trace_open *open, const void *path, bool has_path)
{
	struct gadget_writer writer = gadget_write(open, sizeof(*open), OPEN_BYTES);

	if (!wanted_flags(open))
		return;
	if (has_path)
		gadget_append_user_string(&writer, &open->path, path, GADGET_PATH_BYTES);
	else
		gadget_no_text(&open->path);
	if (!wanted_path(open, (const char *)(open + 1)))
		return;
	append_resolved(&writer, open);
	gadget_send(&writer);
}

/* arm64 has neither this one nor creat. */
SEC("tracepoint/syscalls/sys_exit_open")
int open_exit(struct trace_event_raw_sys_exit *ctx)
{
	struct trace_open *open = begin_syscall(gadget_result(ctx));
	struct pt_regs *registers = gadget_registers(gadget_task());

	if (!open)
		return 0;
	set_flags(open, gadget_argument(registers, 1), gadget_argument(registers, 2));
	finish_syscall(open, (const void *)gadget_argument(registers, 0), true);
	return 0;
}

SEC("tracepoint/syscalls/sys_exit_creat")
int creat_exit(struct trace_event_raw_sys_exit *ctx)
{
	struct trace_open *open = begin_syscall(gadget_result(ctx));
	struct pt_regs *registers = gadget_registers(gadget_task());

	if (!open)
		return 0;
	set_flags(open, O_CREAT | O_WRONLY | O_TRUNC, gadget_argument(registers, 1));
	finish_syscall(open, (const void *)gadget_argument(registers, 0), true);
	return 0;
}
SEC("tracepoint/syscalls/sys_exit_openat")
int openat_exit(struct trace_event_raw_sys_exit *ctx)
{
	struct trace_open *open = begin_syscall(gadget_result(ctx));
	struct pt_regs *registers = gadget_registers(gadget_task());

	if (!open)
		return 0;
	set_flags(open, gadget_argument(registers, 2), gadget_argument(registers, 3));
	finish_syscall(open, (const void *)gadget_argument(registers, 1), true);
	return 0;
}

SEC("tracepoint/syscalls/sys_exit_openat2")
int openat2_exit(struct trace_event_raw_sys_exit *ctx)
{
	struct trace_open *open = begin_syscall(gadget_result(ctx));
	struct pt_regs *registers = gadget_registers(gadget_task());
	/* How the program wrote it, not the kernel: the layout is the ABI's, without CO-RE. */
	__u64 how[2] = {};

	if (!open)
		return 0;
	bpf_probe_read_user(how, sizeof(how), (const void *)gadget_argument(registers, 2));
	set_flags(open, how[0], how[1]);
	finish_syscall(open, (const void *)gadget_argument(registers, 1), true);
	return 0;
}

/* Has no path: what it opens shows only the resolved one. */
SEC("tracepoint/syscalls/sys_exit_open_by_handle_at")
int open_by_handle_at_exit(struct trace_event_raw_sys_exit *ctx)
{
	struct trace_open *open = begin_syscall(gadget_result(ctx));
	struct pt_regs *registers = gadget_registers(gadget_task());

	if (!open)
		return 0;
	set_flags(open, gadget_argument(registers, 2), 0);
	finish_syscall(open, NULL, false);
	return 0;
}

/* Who, which path and which flags are known when io_uring takes the request, and its name is in the kernel's memory. */
static __always_inline int submitted(struct io_kiocb *request)
{
	__u8 opcode = request->opcode;
	__u64 key = (__u64)request;
	struct gadget_writer writer;
	struct trace_open *open;
	struct pending *new;
	struct io_open *how;

	if (opcode != IORING_OP_OPENAT && opcode != IORING_OP_OPENAT2)
		return 0;
	new = gadget_scratch(&submit_scratch);
	if (!new)
		return 0;
	open = (struct trace_open *)new->record;
	if (!gadget_begin(&open->record))
		return 0;
	how = (struct io_open *)request;
	set_flags(open, BPF_CORE_READ(how, how.flags) & ~O_LARGEFILE, BPF_CORE_READ(how, how.mode));
	if (!wanted_flags(open))
		return 0;
	gadget_no_text(&open->resolved);
	gadget_no_text(&open->mount);
	gadget_no_text(&open->fstype);
	writer = gadget_write(open, sizeof(*open), sizeof(new->record));
	gadget_append_kernel_string(&writer, &open->path, BPF_CORE_READ(how, filename, name), GADGET_PATH_BYTES);
	if (!wanted_path(open, (const char *)(open + 1)))
		return 0;
	new->length = writer.progress->length;
	new->cuts = writer.progress->cuts;
	if (bpf_map_update_elem(&pending, &key, new, BPF_ANY))
		gadget_count_map_full();
	return 0;
}

static __always_inline int completed(struct io_kiocb *request, __s32 result)
{
	__u8 opcode = BPF_CORE_READ(request, opcode);
	__u64 key = (__u64)request;
	struct gadget_writer writer;
	struct trace_open *open;
	struct pending *done;
	__u32 length;

	if (opcode != IORING_OP_OPENAT && opcode != IORING_OP_OPENAT2)
		return 0;
	done = bpf_map_lookup_elem(&pending, &key);
	if (!done)
		return 0;
	open = gadget_scratch(&complete_scratch);
	length = done->length;
	if (!open || length > sizeof(done->record) || (!gadget_wanted_result(result)))
		goto forget;
	bpf_probe_read_kernel(open, length, done->record);
	writer = gadget_write(open, length, OPEN_BYTES);
	writer.progress->cuts = done->cuts;
	set_result(open, result);
	append_resolved(&writer, open);
	gadget_send(&writer);
forget:
	bpf_map_delete_elem(&pending, &key);
	return 0;
}

SEC("tp_btf/io_uring_submit_req")
int BPF_PROG(uring_submit, struct io_kiocb *request)
{
	return submitted(request);
}

/* Its name before 2ad57931db64 ("io_uring: rename trace_io_uring_submit_sqe() tracepoint"). */
SEC("tp_btf/io_uring_submit_sqe")
int BPF_PROG(uring_submit_sqe, struct io_kiocb *request)
{
	return submitted(request);
}

/* What Linux 6.18 hands to the tracepoint; on 6.12 the completion comes in parts. */
typedef void (*btf_trace_io_uring_complete___whole)(void *, struct io_ring_ctx *, void *, struct io_uring_cqe *);

SEC("tp_btf/io_uring_complete")
int uring_complete(__u64 *ctx)
{
	struct io_kiocb *request = (struct io_kiocb *)ctx[1];

	if (bpf_core_type_exists(btf_trace_io_uring_complete___whole))
		return completed(request, ((struct io_uring_cqe *)ctx[2])->res);
	return completed(request, ctx[3]);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";

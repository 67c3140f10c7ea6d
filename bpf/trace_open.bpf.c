// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * trace open: emits one `struct trace_open` for each attempt to open a file, with its result.
 *
 * Hooks: the exits of open, openat, openat2, creat and open_by_handle_at, and for io_uring the submission and the
 * completion of an open (gadget/syscalls/uring.h). The path and the flags of openat2 are in memory that the program may
 * have rewritten by then, so with --resolve, filters also check the open file.
 */
#include <linux/errno.h>

#include <gadget/files/content.h>
#include <gadget/files/open_file.h>
#include <gadget/files/refused.h>
#include <gadget/files/path_prefix.h>
#include <gadget/output.h>
#include <gadget/path.h>
#include <gadget/process.h>
#include <gadget/process_identity.h>
#include <gadget/processes/runtime.h>
#include <gadget/result.h>
#include <gadget/string.h>
#include <gadget/syscall.h>
#include <gadget/unique.h>
#include <kernel/fs.h>
#include <kernel/mount.h>
#include <kernel/tracepoint.h>

/* The kernel adds it to the flags of io_uring requests and of open files. */
#if defined(__TARGET_ARCH_x86)
#define O_LARGEFILE 00100000
#else
#define O_LARGEFILE 00400000
#endif

/* In what the opened file differs from the arguments that were read from the program's memory: DIFFERS_…. The client
 * compares the paths and adds a bit for them. */
typedef __u32 gadget_open_differs;
#define DIFFERS_FLAGS 1

struct trace_open {
	struct gadget_record record;
	gadget_fd fd;
	gadget_known_errno errno;
	gadget_asked_open_flags flags;
	/* 0 unless the flags request a new file; otherwise the kernel ignores it. */
	gadget_mode mode;
	/* As the caller passed it. */
	gadget_string path;
	/* As the kernel resolved it, from the root of the mount namespace. */
	gadget_path resolved;
	/* The mount point of its file system, and the file system's type. */
	gadget_path mount;
	gadget_string fstype;
	/* The flags of the open file. */
	gadget_known_open_flags opened_flags;
	gadget_open_differs differs;
	/* Of a library that is read. */
	gadget_content sha256;
	/* What refused it. */
	GADGET_REFUSED_FIELDS;
};

GADGET_RECORD(trace_open);

#define FSTYPE_BYTES 63
/* The size of a record with its path, and with its resolved path and mount. */
#define PATH_BYTES GADGET_ROOM(sizeof(struct trace_open) + GADGET_PATH_BYTES)
#define OPEN_BYTES GADGET_ROOM(sizeof(struct trace_open) + 3 * (GADGET_PATH_BYTES + 2) + FSTYPE_BYTES)

struct open_thread {
	struct gadget_refused refused;
};

GADGET_REFUSED(open_thread);

/* The beginning of the path as passed. Empty: any. */
const volatile char filter_path[256] = "";
const volatile bool filter_write = false;
const volatile bool resolve_path = false;

/*
 * For --unique: which file a program has opened, and how. The file is identified by its dentry's address, and by data
 * that would differ if another dentry were at that address. Renaming a parent directory does not change it.
 */
struct opened {
	gadget_exec_id program;
	__u64 dentry;
	__u64 parent;
	__u64 mount;
	__u64 inode;
	__u32 name;
	__u32 flags;
};

GADGET_SEEN(struct opened, 65536);

/* The arguments of a call, from its program to the common end of all programs. In memory, so that the verifier checks
 * that end once. */
struct open_request {
	__s64 result;
	const void *path;
	/* For openat2: the struct open_how in the program's memory, which has the flags. */
	const void *how;
	__u32 flags;
	__u32 mode;
	bool has_path;
	bool has_how;
};

/* A record, the workspace for its texts, and then a struct open_request. */
#define REQUEST_OFFSET (OPEN_BYTES + GADGET_WORKSPACE)
GADGET_SCRATCH(syscall_scratch, OPEN_BYTES + sizeof(struct open_request));

/* The maximum number of io_uring opens stored until their results are known. */
#define GADGET_URING_KEPT 4096
#define GADGET_URING_BYTES PATH_BYTES
#define GADGET_URING_SENT_BYTES OPEN_BYTES
#include <gadget/files/uring_file.h>
#include <gadget/syscalls/uring.h>

static __always_inline void set_result(struct trace_open *open, long result)
{
	open->fd = result < 0 ? -1 : result;
	open->errno = result < 0 ? -result : 0;
}

static __always_inline struct file *opened_file(const struct trace_open *open)
{
	return (resolve_path || gadget_unique) && open->fd >= 0 ? gadget_file_of(open->fd) : NULL;
}

/* The first bytes of a dentry, which contain all members that are needed: reading them costs as much as reading one
 * member. */
struct dentry_head {
	__u64 words[8];
};

/* A member of the dentry: from these bytes or, if a kernel has it at a higher offset (lockdep), from the dentry
 * itself. */
#define OF_DENTRY(DENTRY, HEAD, MEMBER)                                                                                \
	(bpf_core_field_offset(struct dentry, MEMBER) > sizeof(struct dentry_head) - sizeof(__u64)                     \
		 ? BPF_CORE_READ(DENTRY, MEMBER)                                                                       \
		 : *(typeof(((struct dentry *)0)->MEMBER) *)((void *)(HEAD) +                                          \
							     bpf_core_field_offset(struct dentry, MEMBER)))

/* Identifies an open. False: not possible, so the open is always new. Flags that could not be read are ~0, which is
 * excluded. */
static __always_inline bool identify(struct opened *opened, struct file *file, __u32 flags)
{
	struct dentry_head head = {};
	struct path path = {};
	struct inode *inode;

	if (!gadget_unique || !file || flags == ~0U)
		return false;
	bpf_core_read(&path, sizeof(path), &file->f_path);
	bpf_probe_read_kernel(&head, sizeof(head), path.dentry);
	opened->dentry = (__u64)path.dentry;
	opened->parent = (__u64)OF_DENTRY(path.dentry, &head, d_parent);
	opened->name = OF_DENTRY(path.dentry, &head, d_name.hash);
	opened->mount = (__u64)path.mnt;
	inode = OF_DENTRY(path.dentry, &head, d_inode);
	opened->inode = BPF_CORE_READ(inode, i_ino);
	gadget_exec_of(&opened->program, gadget_task());
	opened->flags = flags;
	return true;
}

/* Whether this program has opened the file this way before. Failed attempts are always new. */
static __always_inline bool was_shown(struct file *file, __u32 flags)
{
	struct opened opened = {};

	return identify(&opened, file, flags) && bpf_map_lookup_elem(&gadget_seen, &opened);
}

/* Call it after the record was sent: an event dropped by a filter or by a full ring is still new. */
static __always_inline void set_shown(struct file *file, __u32 flags)
{
	struct opened opened = {};
	__u8 once = 1;

	if (identify(&opened, file, flags))
		bpf_map_update_elem(&gadget_seen, &opened, &once, BPF_ANY);
}

/* The same check, made early for selected containers, before more time is spent on an open that is not shown. */
static __always_inline bool was_opened(struct trace_open *open, long result, __u32 flags)
{
	return gadget_unique && result >= 0 && gadget_wanted_cgroup(&open->record, gadget_current_cgroup()) &&
	       was_shown(gadget_file_of(result), flags);
}

/* Sets the flags of the open file, if known. */
static __always_inline void set_opened(struct trace_open *open, struct file *file)
{
	__u32 asked = open->flags;

	open->opened_flags = ~0U;
	open->differs = 0;
	if (!file)
		return;
	open->opened_flags = BPF_CORE_READ(file, f_flags) & ~O_LARGEFILE;
	/* With O_PATH, the kernel drops the access mode. */
	if (asked == ~0U)
		return;
	if (((asked ^ open->opened_flags) & O_PATH) || (!(asked & O_PATH) && (asked ^ open->opened_flags) & O_ACCMODE))
		open->differs = DIFFERS_FLAGS;
}

static __always_inline void set_flags(struct trace_open *open, __u32 flags, __u32 mode)
{
	open->flags = flags;
	open->mode = flags & (O_CREAT | O_TMPFILE_BIT) ? mode : 0;
}

/* Sets all bits, so that no filter hides an open that may have had a flag. */
static __always_inline void set_flags_unread(struct trace_open *open)
{
	open->flags = ~0U;
	open->mode = 0;
}

/* A program may rewrite the flags of openat2 during the call; the flags of the open file count as well. */
static __always_inline bool wanted_flags(const struct trace_open *open)
{
	return !filter_write || open->flags & (O_ACCMODE | O_CREAT | O_TRUNC | O_TMPFILE_BIT) ||
	       (open->opened_flags != ~0U && open->opened_flags & O_ACCMODE);
}

static __always_inline bool wanted_path(const struct trace_open *open, const char *text)
{
	if (!filter_path[0])
		return true;
	/* The kernel could read the path, but this program could not: the program has unmapped the memory. So it may
	 * match. */
	if (!open->path.offset)
		return !open->path.length && open->errno != EFAULT;
	/* The text ends with a NUL, which differs from every byte of the prefix. */
	for (int i = 0; i < sizeof(filter_path) && filter_path[i]; i++)
		if (text[i] != filter_path[i])
			return false;
	return true;
}

static __always_inline void append_mount(struct gadget_writer *writer, struct trace_open *open, struct vfsmount *mnt)
{
	gadget_append_mount_path(writer, &open->mount, mnt);
	gadget_append_kernel_string(writer, &open->fstype, BPF_CORE_READ(mnt, mnt_sb, s_type, name), FSTYPE_BYTES);
}

/* Whether the requested or the resolved path begins with the prefix. Also true for a file that cannot be found, since
 * it may. */
static __always_inline bool wanted_resolved(struct gadget_writer *writer, struct trace_open *open, struct file *file)
{
	if (wanted_path(open, (const char *)(open + 1)))
		return true;
	if (!file)
		return !open->errno || open->errno == -1;
	return gadget_path_begins_with(writer, &open->resolved, filter_path);
}

/* `file`: NULL if it is not open, or not needed. */
static __always_inline void send(struct gadget_writer *writer, struct trace_open *open, struct file *file)
{
	struct file *found = file;

	if (!resolve_path)
		file = NULL;
	set_opened(open, file);
	if (!wanted_flags(open))
		return;
	gadget_no_text(&open->resolved);
	gadget_no_text(&open->mount);
	gadget_no_text(&open->fstype);
	open->sha256 = GADGET_NO_CONTENT;
	if (file) {
		gadget_append_whole_path(writer, &open->resolved, &file->f_path);
		if (gadget_hash && !(open->flags & O_ACCMODE))
			open->sha256 = gadget_content_of(writer, &open->resolved, file);
		append_mount(writer, open, BPF_CORE_READ(file, f_path.mnt));
	} else if (resolve_path && !open->errno) {
		gadget_unread(&open->resolved);
	}
	if ((!resolve_path || !filter_path[0] || wanted_resolved(writer, open, file)) && gadget_send(writer))
		set_shown(found, open->flags);
}

/* Sets the requested flags and mode. */
static __always_inline void set_request(struct trace_open *open, const struct open_request *asked)
{
	/* As written by the program: the layout is part of the ABI, so it needs no CO-RE. */
	__u64 how[2] = {};

	if (!asked->has_how)
		set_flags(open, asked->flags, asked->mode);
	else if (bpf_probe_read_user(how, sizeof(how), asked->how))
		set_flags_unread(open);
	else
		set_flags(open, how[0], how[1]);
}

/* The common end of the programs below. A separate program, so that the verifier checks it once. */
GADGET_AFTER_EXIT(open_returned)
{
	struct trace_open *open = gadget_scratch(&syscall_scratch);
	const struct open_request *asked = (void *)open + REQUEST_OFFSET;
	struct gadget_writer writer;
	struct open_thread *thread;
	struct file *file;

	/* The flags of openat2 are not read yet; a repeated openat2 is recognized below. */
	if (!open || was_opened(open, asked->result, asked->has_how ? ~0U : asked->flags) ||
	    !gadget_begin_outside_runtime(&open->record))
		return 0;
	set_result(open, asked->result);
	set_request(open, asked);
	writer = gadget_write(open, sizeof(*open), OPEN_BYTES);
	file = opened_file(open);
	if (was_shown(file, open->flags))
		return 0;
	if (!resolve_path) {
		set_opened(open, NULL);
		if (!wanted_flags(open))
			return 0;
	}
	if (asked->has_path)
		gadget_append_user_string(&writer, &open->path, asked->path, GADGET_PATH_BYTES);
	else
		gadget_no_text(&open->path);
	if (!resolve_path && !wanted_path(open, (const char *)(open + 1)))
		return 0;
	gadget_no_refused(open);
	if (asked->result == -EACCES || asked->result == -EPERM) {
		thread = gadget_thread_state();
		gadget_append_refused(&writer, open, thread ? &thread->refused : NULL);
	}
	send(&writer, open, file);
	return 0;
}

GADGET_TAIL(after_open, open_returned);

/* Defines the program for a call that opens files, with its arguments. HAS_PATH and HAS_HOW are needed since the caller
 * may pass NULL. */
#define OPEN_RETURNS(CALL, HAS_PATH, PATH, FLAGS, MODE, HAS_HOW, HOW)                                                  \
	GADGET_ON_EXIT(CALL)                                                                                           \
	{                                                                                                              \
		void *scratch = gadget_scratch(&syscall_scratch);                                                      \
		struct open_request *asked = scratch + REQUEST_OFFSET;                                                 \
                                                                                                                       \
		if (!scratch || !gadget_wanted_result(result))                                                         \
			return 0;                                                                                      \
		asked->result = result;                                                                                \
		asked->has_path = HAS_PATH;                                                                            \
		asked->path = (const void *)(PATH);                                                                    \
		asked->flags = FLAGS;                                                                                  \
		asked->mode = MODE;                                                                                    \
		asked->has_how = HAS_HOW;                                                                              \
		asked->how = (const void *)(HOW);                                                                      \
		bpf_tail_call(ctx, &after_open, 0);                                                                    \
		return 0;                                                                                              \
	}

#define ARGUMENT(N) gadget_argument(registers, N)

/* arm64 has neither open nor creat. */
OPEN_RETURNS(open, true, ARGUMENT(0), ARGUMENT(1), ARGUMENT(2), false, 0)
OPEN_RETURNS(creat, true, ARGUMENT(0), O_CREAT | O_WRONLY | O_TRUNC, ARGUMENT(1), false, 0)
OPEN_RETURNS(openat, true, ARGUMENT(1), ARGUMENT(2), ARGUMENT(3), false, 0)
OPEN_RETURNS(openat2, true, ARGUMENT(1), 0, 0, true, ARGUMENT(2))
/* This call has no path: only the resolved path is shown. */
OPEN_RETURNS(open_by_handle_at, false, 0, ARGUMENT(2), 0, false, 0)

static __always_inline bool gadget_uring_follows(__u8 opcode)
{
	return opcode == IORING_OP_OPENAT || opcode == IORING_OP_OPENAT2;
}

/* The name and the flags are in the kernel's memory, where the program cannot rewrite them. */
static __always_inline bool gadget_uring_describe(struct gadget_uring_request *new, struct io_kiocb *request,
						  __u8 opcode)
{
	struct trace_open *open = (struct trace_open *)new->record;
	struct io_open *how = (struct io_open *)request;
	struct gadget_writer writer;

	if (!gadget_begin(&open->record))
		return false;
	set_flags(open, BPF_CORE_READ(how, how.flags) & ~O_LARGEFILE, BPF_CORE_READ(how, how.mode));
	set_opened(open, NULL);
	if (!wanted_flags(open))
		return false;
	new->slot = BPF_CORE_READ(how, file_slot);
	gadget_no_refused(open);
	writer = gadget_write(open, sizeof(*open), GADGET_URING_BYTES);
	gadget_append_kernel_string(&writer, &open->path, gadget_uring_name(request, io_open, filename),
				    GADGET_PATH_BYTES);
	gadget_uring_wrote(new, &writer);
	return resolve_path || wanted_path(open, (const char *)(open + 1));
}

static __always_inline void gadget_uring_send(const struct gadget_uring_request *request, long result, void *scratch)
{
	struct gadget_writer writer;
	struct trace_open *open;
	struct file *file = NULL;

	if (!gadget_uring_wanted(result) || !gadget_uring_take(&writer, request, scratch))
		return;
	open = scratch;
	set_result(open, result);
	if (result == GADGET_RESULT_UNKNOWN)
		open->errno = -1;
	else if ((resolve_path || gadget_unique) && result >= 0)
		file = gadget_uring_file_in((const struct io_ring_ctx *)request->ring, request->slot, result);
	/* A direct descriptor is not one of the process's descriptors. */
	if (request->slot || result == GADGET_RESULT_UNKNOWN)
		open->fd = -1;
	if (!was_shown(file, open->flags))
		send(&writer, open, file);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";

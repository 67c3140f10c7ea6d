// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * trace file: emits one `struct trace_file` for each call that creates, removes, renames, links or changes a file, with
 * its result. If only failures are wanted, also for each failed read, write and sync of a file, and for each open that
 * failed to create or change one. Other opens: trace open.
 *
 * Hooks: the exits of the system calls below, and for io_uring the submission and completion of requests
 * (gadget/syscalls/uring.h). The paths of system calls are in memory that the program may have rewritten; the kernel
 * has copied those of io_uring requests.
 */
#include <linux/errno.h>

#include <gadget/files/path_at.h>
#include <gadget/files/refused.h>
#include <gadget/operation.h>
#include <gadget/output.h>
#include <gadget/process.h>
#include <gadget/processes/runtime.h>
#include <gadget/result.h>
#include <gadget/string.h>
#include <gadget/syscall.h>

#define ATTRIBUTE_BYTES 255
#define AT_REMOVEDIR 0x200

/* The modes of fallocate() that change a file's content: punch a hole, collapse, zero, insert a range, write zeros. */
#define CHANGES_CONTENT 0xba

/* Requests of ioctl() for chattr, and the bits that they set. */
#define FS_IOC_SETFLAGS 0x40086602
#define FS_IOC32_SETFLAGS 0x40046602
#define FS_IOC_FSSETXATTR 0x401c5820
#define FS_APPEND_FL 0x20
#define FS_IMMUTABLE_FL 0x10
#define FS_XFLAG_APPEND 0x10
#define FS_XFLAG_IMMUTABLE 0x08

/* The flags in a record. */
#define IS_IMMUTABLE 1
#define IS_APPEND_ONLY 2

struct trace_file {
	struct gadget_record record;
	gadget_operation operation;
	/* The new size after truncation, the length of a range, or what was to be read or written; ~0: none. */
	gadget_bytes size;
	/* The mode of a new or changed file; ~0 for other operations. */
	gadget_new_mode mode;
	/* For chown; ~0: unchanged. */
	gadget_new_owner owner;
	gadget_new_owner group;
	gadget_known_errno errno;
	gadget_path_at path;
	gadget_path path_base;
	/* The new name, or the target of a link. */
	gadget_path_at to;
	gadget_path to_base;
	/* For setxattr and removexattr. */
	gadget_string attribute;
	/* For chattr. */
	__u32 flags;
	__u32 unused;
	/* What refused it. */
	GADGET_REFUSED_FIELDS;
};

GADGET_RECORD(trace_file);

#define FILE_BYTES                                                                                                     \
	GADGET_ROOM(sizeof(struct trace_file) + 4 * (GADGET_PATH_BYTES + 2) + ATTRIBUTE_BYTES + 2 +                    \
		    GADGET_REFUSED_NAME_BYTES)

struct file_thread {
	struct gadget_refused refused;
};

GADGET_REFUSED(file_thread);

/* The beginning of the path as passed. Empty: any. */
const volatile char filter_path[256] = "";

GADGET_SCRATCH(file_scratch, FILE_BYTES);

/* The maximum number of io_uring requests stored until their results are known. */
#define GADGET_URING_KEPT 512
#define GADGET_URING_BYTES FILE_BYTES
#define GADGET_URING_SENT_BYTES FILE_BYTES
#include <gadget/syscalls/uring.h>

/* The change that a call has requested. */
struct change {
	gadget_operation operation;
	__s64 result;
	/* As in the record. */
	__u64 size;
	__u64 mode;
	__u64 owner;
	__u64 group;
	__u64 flags;
	const void *path;
	const void *to;
	const void *attribute;
	/* Where the paths start. */
	__s32 path_from;
	__s32 to_from;
	/* There is no path: the file is that of the descriptor `path_from`. */
	bool is_open;
	bool has_to;
	/* `to` is the content of a symbolic link, which is not relative to `to_from`: it has no base. */
	bool to_is_content;
	bool has_attribute;
};

GADGET_SCRATCH(change_scratch, sizeof(struct change));

static __always_inline void append_paths(struct gadget_writer *writer, struct trace_file *file,
					 const struct change *change)
{
	gadget_append_path_or_open(writer, &file->path, &file->path_base, change->path_from, change->path,
				   change->is_open);
	gadget_no_text(&file->to);
	gadget_no_text(&file->to_base);
	if (!change->has_to)
		return;
	if (change->to_is_content)
		gadget_append_user_string(writer, &file->to, change->to, GADGET_PATH_BYTES);
	else
		gadget_append_path_at(writer, &file->to, &file->to_base, change->to_from, change->to);
}

/*
 * The common end of the programs below. A separate program, so that the verifier checks the path walks once: checking
 * them in each of the 32 programs took 0.7 s.
 */
GADGET_AFTER_EXIT(report_change)
{
	struct change *change = gadget_scratch(&change_scratch);
	struct trace_file *file = gadget_scratch(&file_scratch);
	struct gadget_writer writer;
	struct file_thread *thread;

	if (!change || !file || !gadget_begin_outside_runtime(&file->record))
		return 0;
	__builtin_memcpy(file->operation, change->operation, sizeof(file->operation));
	file->size = change->size;
	file->mode = change->mode;
	file->owner = change->owner;
	file->group = change->group;
	file->flags = change->flags;
	file->errno = change->result < 0 ? -change->result : 0;
	writer = gadget_write(file, sizeof(*file), FILE_BYTES);
	append_paths(&writer, file, change);
	gadget_no_text(&file->attribute);
	if (change->has_attribute)
		gadget_append_user_string(&writer, &file->attribute, change->attribute, ATTRIBUTE_BYTES);
	gadget_no_refused(file);
	file->unused = 0;
	if (change->result == -EACCES || change->result == -EPERM) {
		thread = gadget_thread_state();
		gadget_append_refused(&writer, file, thread ? &thread->refused : NULL);
	}
	if (gadget_begins_with(&writer, &file->path, filter_path, sizeof(filter_path)))
		gadget_send(&writer);
	return 0;
}

GADGET_TAIL(after_change, report_change);

/* NULL: not wanted. */
static __always_inline struct change *begin(long result, const gadget_operation operation)
{
	struct change *change;

	if ((!gadget_wanted_result(result)) || !gadget_wanted_operation(operation))
		return NULL;
	change = gadget_scratch(&change_scratch);
	if (!change)
		return NULL;
	__builtin_memset(change, 0, sizeof(*change));
	__builtin_memcpy(change->operation, operation, sizeof(gadget_operation));
	change->result = result;
	change->size = change->mode = change->owner = change->group = ~0ULL;
	return change;
}

static __always_inline int end(struct trace_event_raw_sys_exit *ctx)
{
	bpf_tail_call(ctx, &after_change, 0);
	return 0;
}

#define BEGIN(WORD)                                                                                                    \
	const gadget_operation word = WORD;                                                                            \
	struct change *change = begin(result, word);                                                                   \
                                                                                                                       \
	_Static_assert(sizeof(WORD) <= sizeof(word), "the word is too long");                                          \
	if (!change)                                                                                                   \
	return 0

#define ARGUMENT(N) gadget_argument(registers, N)
#define POINTER(N) ((const void *)gadget_argument(registers, N))

static __always_inline void set_path(struct change *change, __s32 from, const void *path)
{
	change->path_from = from;
	change->path = path;
}

static __always_inline void set_to(struct change *change, __s32 from, const void *path)
{
	change->has_to = true;
	change->to_from = from;
	change->to = path;
}

static __always_inline void set_content(struct change *change, const void *content)
{
	change->to_is_content = true;
	set_to(change, AT_FDCWD, content);
}

static __always_inline void set_descriptor(struct change *change, __s32 fd)
{
	change->is_open = true;
	change->path_from = fd;
}

/* Each of these calls also exists with a directory argument, on all architectures; arm64 has only that form. */

/* The first argument is the path. */
#define WITH_PATH(CALL, WORD, EXTRA)                                                                                   \
	GADGET_ON_EXIT(CALL)                                                                                           \
	{                                                                                                              \
		BEGIN(WORD);                                                                                           \
		set_path(change, AT_FDCWD, POINTER(0));                                                                \
		EXTRA;                                                                                                 \
		return end(ctx);                                                                                       \
	}

/* The first two arguments are the directory and the path. */
#define WITH_PATH_AT(CALL, WORD, EXTRA)                                                                                \
	GADGET_ON_EXIT(CALL)                                                                                           \
	{                                                                                                              \
		BEGIN(WORD);                                                                                           \
		set_path(change, ARGUMENT(0), POINTER(1));                                                             \
		EXTRA;                                                                                                 \
		return end(ctx);                                                                                       \
	}

/* The first argument is an open file. */
#define WITH_DESCRIPTOR(CALL, WORD, EXTRA)                                                                             \
	GADGET_ON_EXIT(CALL)                                                                                           \
	{                                                                                                              \
		BEGIN(WORD);                                                                                           \
		set_descriptor(change, ARGUMENT(0));                                                                   \
		EXTRA;                                                                                                 \
		return end(ctx);                                                                                       \
	}

static __always_inline void set_owner(struct change *change, __u32 owner, __u32 group)
{
	change->owner = owner == ~0U ? ~0ULL : owner;
	change->group = group == ~0U ? ~0ULL : group;
}

static __always_inline void set_attribute(struct change *change, const void *name)
{
	change->has_attribute = true;
	change->attribute = name;
}

WITH_PATH(unlink, "unlink", )
WITH_PATH(rmdir, "rmdir", )
WITH_PATH(rename, "rename", set_to(change, AT_FDCWD, POINTER(1)))
WITH_PATH_AT(renameat, "rename", set_to(change, ARGUMENT(2), POINTER(3)))
WITH_PATH_AT(renameat2, "rename", set_to(change, ARGUMENT(2), POINTER(3)))
WITH_PATH(mkdir, "mkdir", change->mode = (__u16)ARGUMENT(1))
WITH_PATH_AT(mkdirat, "mkdir", change->mode = (__u16)ARGUMENT(2))
WITH_PATH(mknod, "mknod", change->mode = (__u16)ARGUMENT(1))
WITH_PATH_AT(mknodat, "mknod", change->mode = (__u16)ARGUMENT(2))
WITH_PATH(chmod, "chmod", change->mode = (__u16)ARGUMENT(1))
WITH_PATH_AT(fchmodat, "chmod", change->mode = (__u16)ARGUMENT(2))
/* Since 6.6. */
WITH_PATH_AT(fchmodat2, "chmod", change->mode = (__u16)ARGUMENT(2))
WITH_DESCRIPTOR(fchmod, "chmod", change->mode = (__u16)ARGUMENT(1))
WITH_PATH(chown, "chown", set_owner(change, ARGUMENT(1), ARGUMENT(2)))
WITH_PATH(lchown, "chown", set_owner(change, ARGUMENT(1), ARGUMENT(2)))
WITH_PATH_AT(fchownat, "chown", set_owner(change, ARGUMENT(2), ARGUMENT(3)))
WITH_DESCRIPTOR(fchown, "chown", set_owner(change, ARGUMENT(1), ARGUMENT(2)))
WITH_PATH(truncate, "truncate", change->size = ARGUMENT(1))
WITH_DESCRIPTOR(ftruncate, "truncate", change->size = ARGUMENT(1))
WITH_PATH(setxattr, "setxattr", set_attribute(change, POINTER(1)))
WITH_PATH(lsetxattr, "setxattr", set_attribute(change, POINTER(1)))
WITH_DESCRIPTOR(fsetxattr, "setxattr", set_attribute(change, POINTER(1)))
WITH_PATH(removexattr, "removexattr", set_attribute(change, POINTER(1)))
WITH_PATH(lremovexattr, "removexattr", set_attribute(change, POINTER(1)))
WITH_DESCRIPTOR(fremovexattr, "removexattr", set_attribute(change, POINTER(1)))
/* Since 6.13. */
WITH_PATH_AT(setxattrat, "setxattr", set_attribute(change, POINTER(3)))
WITH_PATH_AT(removexattrat, "removexattr", set_attribute(change, POINTER(3)))

/* The new times are not reported. */
WITH_PATH(utime, "utime", )
WITH_PATH(utimes, "utime", )

/* Without a path: the file that is open as the first argument. */
#define WITH_PATH_OR_DESCRIPTOR(CALL, WORD)                                                                            \
	GADGET_ON_EXIT(CALL)                                                                                           \
	{                                                                                                              \
		BEGIN(WORD);                                                                                           \
		if (POINTER(1))                                                                                        \
			set_path(change, ARGUMENT(0), POINTER(1));                                                     \
		else                                                                                                   \
			set_descriptor(change, ARGUMENT(0));                                                           \
		return end(ctx);                                                                                       \
	}

WITH_PATH_OR_DESCRIPTOR(futimesat, "utime")
WITH_PATH_OR_DESCRIPTOR(utimensat, "utime")

GADGET_ON_EXIT(fallocate)
{
	if (result >= 0 && !(ARGUMENT(1) & CHANGES_CONTENT))
		return 0;
	BEGIN("fallocate");
	set_descriptor(change, ARGUMENT(0));
	change->size = ARGUMENT(3);
	return end(ctx);
}

/* The programs up to the opens are attached only if nothing but failures is wanted: they run for each read and write.
 */

static __always_inline bool is_file_or_directory(__s32 fd)
{
	struct file *file = gadget_file_of(fd);
	__u32 kind = file ? BPF_CORE_READ(file, f_inode, i_mode) & S_IFMT : 0;

	return kind == S_IFREG || kind == S_IFDIR;
}

#define FAILS(CALL, WORD, FD, SIZE)                                                                                    \
	GADGET_ON_EXIT(CALL)                                                                                           \
	{                                                                                                              \
		if (result >= 0 || !is_file_or_directory(ARGUMENT(FD)))                                                \
			return 0;                                                                                      \
		BEGIN(WORD);                                                                                           \
		set_descriptor(change, ARGUMENT(FD));                                                                  \
		change->size = SIZE;                                                                                   \
		return end(ctx);                                                                                       \
	}

FAILS(read, "read", 0, ARGUMENT(2))
FAILS(readv, "read", 0, ~0ULL)
FAILS(pread64, "read", 0, ARGUMENT(2))
FAILS(preadv, "read", 0, ~0ULL)
FAILS(preadv2, "read", 0, ~0ULL)
FAILS(getdents64, "read", 0, ARGUMENT(2))
FAILS(write, "write", 0, ARGUMENT(2))
FAILS(writev, "write", 0, ~0ULL)
FAILS(pwrite64, "write", 0, ARGUMENT(2))
FAILS(pwritev, "write", 0, ~0ULL)
FAILS(pwritev2, "write", 0, ~0ULL)
FAILS(copy_file_range, "write", 2, ARGUMENT(4))
FAILS(fsync, "fsync", 0, ~0ULL)
FAILS(fdatasync, "fsync", 0, ~0ULL)
FAILS(sync_file_range, "fsync", 0, ARGUMENT(2))
FAILS(syncfs, "fsync", 0, ~0ULL)

/* A file system may report only here what it could not store. The descriptor is gone, so the file is not known. */
GADGET_ON_EXIT(close)
{
	if (result != -EIO && result != -ENOSPC && result != -EDQUOT)
		return 0;
	BEGIN("close");
	set_descriptor(change, -1);
	return end(ctx);
}

/* Failed opens that would only read are left out, since programs search for files in this way, but an error of the
 * device is shown. */
static __always_inline int open_fails(struct trace_event_raw_sys_exit *ctx, long result, __s32 from, const void *path,
				      __u64 flags, __u64 mode)
{
	const gadget_operation word = "open";
	struct change *change;

	if (result >= 0 || (!(flags & (O_ACCMODE | O_CREAT | O_TRUNC | O_TMPFILE_BIT)) && result != -EIO))
		return 0;
	change = begin(result, word);
	if (!change)
		return 0;
	set_path(change, from, path);
	if (flags & (O_CREAT | O_TMPFILE_BIT))
		change->mode = (__u16)mode;
	return end(ctx);
}

GADGET_ON_EXIT(open)
{
	return open_fails(ctx, result, AT_FDCWD, POINTER(0), ARGUMENT(1), ARGUMENT(2));
}

GADGET_ON_EXIT(creat)
{
	return open_fails(ctx, result, AT_FDCWD, POINTER(0), O_CREAT, ARGUMENT(1));
}

GADGET_ON_EXIT(openat)
{
	return open_fails(ctx, result, ARGUMENT(0), POINTER(1), ARGUMENT(2), ARGUMENT(3));
}

GADGET_ON_EXIT(openat2)
{
	/* Without flags that can be read, the open may have been one that writes. */
	__u64 how[2] = {O_CREAT, 0};

	if (result >= 0)
		return 0;
	if (bpf_probe_read_user(how, sizeof(how), POINTER(2)))
		how[0] = O_CREAT;
	return open_fails(ctx, result, ARGUMENT(0), POINTER(1), how[0], how[1]);
}

static __always_inline void set_flags(struct change *change, __u32 flags, __u32 immutable, __u32 append)
{
	change->flags = (flags & immutable ? IS_IMMUTABLE : 0) | (flags & append ? IS_APPEND_ONLY : 0);
}

GADGET_ON_EXIT(ioctl)
{
	__u32 request = ARGUMENT(1), flags = 0;

	if (request != FS_IOC_SETFLAGS && request != FS_IOC32_SETFLAGS && request != FS_IOC_FSSETXATTR)
		return 0;
	BEGIN("chattr");
	set_descriptor(change, ARGUMENT(0));
	bpf_probe_read_user(&flags, sizeof(flags), POINTER(2));
	if (request == FS_IOC_FSSETXATTR)
		set_flags(change, flags, FS_XFLAG_IMMUTABLE, FS_XFLAG_APPEND);
	else
		set_flags(change, flags, FS_IMMUTABLE_FL, FS_APPEND_FL);
	return end(ctx);
}

/* Since 6.17. */
GADGET_ON_EXIT(file_setattr)
{
	__u32 flags = 0;

	BEGIN("chattr");
	set_path(change, ARGUMENT(0), POINTER(1));
	bpf_probe_read_user(&flags, sizeof(flags), POINTER(2));
	set_flags(change, flags, FS_XFLAG_IMMUTABLE, FS_XFLAG_APPEND);
	return end(ctx);
}

GADGET_ON_EXIT(unlinkat)
{
	const gadget_operation unlink = "unlink", rmdir = "rmdir";
	struct change *change = begin(result, ARGUMENT(2) & AT_REMOVEDIR ? rmdir : unlink);

	if (!change)
		return 0;
	set_path(change, ARGUMENT(0), POINTER(1));
	return end(ctx);
}

/* The path is the new file, as in the calls above, and `to` is what it links to. */
GADGET_ON_EXIT(link)
{
	BEGIN("link");
	set_path(change, AT_FDCWD, POINTER(1));
	set_to(change, AT_FDCWD, POINTER(0));
	return end(ctx);
}

GADGET_ON_EXIT(linkat)
{
	BEGIN("link");
	set_path(change, ARGUMENT(2), POINTER(3));
	set_to(change, ARGUMENT(0), POINTER(1));
	return end(ctx);
}

GADGET_ON_EXIT(symlink)
{
	BEGIN("symlink");
	set_path(change, AT_FDCWD, POINTER(1));
	set_content(change, POINTER(0));
	return end(ctx);
}

GADGET_ON_EXIT(symlinkat)
{
	BEGIN("symlink");
	set_path(change, ARGUMENT(1), POINTER(2));
	set_content(change, POINTER(0));
	return end(ctx);
}

static __always_inline bool gadget_uring_follows(__u8 opcode)
{
	return (opcode >= IORING_OP_RENAMEAT && opcode <= IORING_OP_LINKAT) || opcode == IORING_OP_FSETXATTR ||
	       opcode == IORING_OP_SETXATTR || opcode == IORING_OP_FTRUNCATE || opcode == IORING_OP_FALLOCATE;
}

/* Appends a path from the kernel's memory, and the directory where it starts. `name` is NULL: the path is that of the
 * open file `from`. */
static __always_inline void append_name(struct gadget_writer *writer, struct gadget_text *path,
					struct gadget_text *base, __s32 from, const char *name)
{
	const char *text;

	if (name)
		gadget_append_kernel_string(writer, path, name, GADGET_PATH_BYTES);
	else
		gadget_wrote(writer, path, writer->progress->length, 0, false);
	text = name ? gadget_written(writer, path) : NULL;
	gadget_no_text(base);
	if (!text || *text != '/')
		gadget_append_base(writer, base, from);
}

/* The paths of a request. If `path` is NULL, the file is the open file `path_from`. In memory, so that the verifier
 * does not check the following code for each kind of request. */
struct named {
	const char *path;
	const char *to;
	__s32 path_from;
	__s32 to_from;
	bool to_is_content;
	bool has_attribute;
};

GADGET_SCRATCH(named_scratch, sizeof(struct named));

static __always_inline void name_links(struct named *named, struct io_kiocb *request)
{
	struct io_link *link = (struct io_link *)request;

	named->path = gadget_uring_name(request, io_link, newpath);
	named->to = gadget_uring_name(request, io_link, oldpath);
	named->path_from = BPF_CORE_READ(link, new_dfd);
	named->to_from = BPF_CORE_READ(link, old_dfd);
}

static __always_inline void name_rename(struct named *named, struct io_kiocb *request)
{
	struct io_rename *rename = (struct io_rename *)request;

	named->path = gadget_uring_name(request, io_rename, oldpath);
	named->to = gadget_uring_name(request, io_rename, newpath);
	named->path_from = BPF_CORE_READ(rename, old_dfd);
	named->to_from = BPF_CORE_READ(rename, new_dfd);
}

/* Fills in fields that only some requests have, and sets the paths. */
static __always_inline void describe_request(struct trace_file *file, struct named *named, struct io_kiocb *request,
					     __u8 opcode)
{
	struct io_unlink *unlink = (struct io_unlink *)request;
	struct io_mkdir *mkdir = (struct io_mkdir *)request;
	struct io_ftrunc *truncate = (struct io_ftrunc *)request;
	struct io_sync *allocate = (struct io_sync *)request;

	switch (opcode) {
	case IORING_OP_RENAMEAT:
		GADGET_SET_OPERATION(file->operation, "rename");
		name_rename(named, request);
		break;
	case IORING_OP_UNLINKAT:
		if (BPF_CORE_READ(unlink, flags) & AT_REMOVEDIR)
			GADGET_SET_OPERATION(file->operation, "rmdir");
		else
			GADGET_SET_OPERATION(file->operation, "unlink");
		named->path = gadget_uring_name(request, io_unlink, filename);
		named->path_from = BPF_CORE_READ(unlink, dfd);
		break;
	case IORING_OP_MKDIRAT:
		GADGET_SET_OPERATION(file->operation, "mkdir");
		named->path = gadget_uring_name(request, io_mkdir, filename);
		named->path_from = BPF_CORE_READ(mkdir, dfd);
		file->mode = BPF_CORE_READ(mkdir, mode);
		break;
	case IORING_OP_SYMLINKAT:
		GADGET_SET_OPERATION(file->operation, "symlink");
		name_links(named, request);
		named->to_is_content = true;
		break;
	case IORING_OP_LINKAT:
		GADGET_SET_OPERATION(file->operation, "link");
		name_links(named, request);
		break;
	case IORING_OP_FTRUNCATE:
		GADGET_SET_OPERATION(file->operation, "truncate");
		/* Since 6.9. */
		if (bpf_core_type_exists(struct io_ftrunc))
			file->size = BPF_CORE_READ(truncate, len);
		break;
	case IORING_OP_FALLOCATE:
		GADGET_SET_OPERATION(file->operation, "fallocate");
		file->size = BPF_CORE_READ(allocate, len);
		break;
	case IORING_OP_SETXATTR:
		named->has_attribute = true;
		named->path = gadget_uring_name(request, io_xattr, filename);
		named->path_from = AT_FDCWD;
		GADGET_SET_OPERATION(file->operation, "setxattr");
		break;
	default:
		named->has_attribute = true;
		GADGET_SET_OPERATION(file->operation, "setxattr");
	}
}

static __always_inline void append_request(struct gadget_writer *writer, struct trace_file *file,
					   const struct named *named, struct io_kiocb *request)
{
	struct io_xattr *attribute = (struct io_xattr *)request;

	append_name(writer, &file->path, &file->path_base, named->path_from, named->path);
	gadget_no_text(&file->to);
	gadget_no_text(&file->to_base);
	if (named->to_is_content)
		gadget_append_kernel_string(writer, &file->to, named->to, GADGET_PATH_BYTES);
	else if (named->to)
		append_name(writer, &file->to, &file->to_base, named->to_from, named->to);
	gadget_no_text(&file->attribute);
	if (named->has_attribute)
		gadget_append_kernel_string(writer, &file->attribute, BPF_CORE_READ(attribute, ctx.kname),
					    ATTRIBUTE_BYTES);
}

static __always_inline bool gadget_uring_describe(struct gadget_uring_request *new, struct io_kiocb *request,
						  __u8 opcode)
{
	struct trace_file *file = (struct trace_file *)new->record;
	struct named *named = gadget_scratch(&named_scratch);
	struct gadget_writer writer;

	if (!named || !gadget_begin(&file->record))
		return false;
	if (opcode == IORING_OP_FALLOCATE && !filter_failed && !filter_errno &&
	    !(BPF_CORE_READ((struct io_sync *)request, mode) & CHANGES_CONTENT))
		return false;
	__builtin_memset(named, 0, sizeof(*named));
	file->size = file->mode = file->owner = file->group = ~0ULL;
	file->errno = 0;
	file->flags = 0;
	file->unused = 0;
	gadget_no_refused(file);
	/* A direct descriptor is not one of the process's descriptors, and its file is not known yet. */
	named->path_from =
		BPF_CORE_READ(request, flags) & GADGET_URING_FIXED_FILE ? -1 : BPF_CORE_READ(request, cqe.fd);
	describe_request(file, named, request, opcode);
	if (!gadget_wanted_operation(file->operation))
		return false;
	writer = gadget_write(file, sizeof(*file), GADGET_URING_BYTES);
	append_request(&writer, file, named, request);
	gadget_uring_wrote(new, &writer);
	return gadget_begins_with(&writer, &file->path, filter_path, sizeof(filter_path));
}

static __always_inline void gadget_uring_send(const struct gadget_uring_request *request, long result, void *scratch)
{
	struct trace_file *file = scratch;
	struct gadget_writer writer;

	if (!gadget_uring_wanted(result) || !gadget_uring_take(&writer, request, scratch))
		return;
	file->errno = result == GADGET_RESULT_UNKNOWN ? -1 : result < 0 ? -result : 0;
	gadget_send(&writer);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";

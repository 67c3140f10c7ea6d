// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * trace file: emits one `struct trace_file` for each call that makes, removes, renames, links or changes a file, with
 * its result. What it reads and writes is not shown, and opening is for trace open.
 *
 * Hooks: the exits of the system calls below. Not seen: calls of 32-bit programs and of io_uring.
 */
#include <gadget/operation.h>
#include <gadget/output.h>
#include <gadget/path_at.h>
#include <gadget/process.h>
#include <gadget/result.h>
#include <gadget/string.h>
#include <gadget/syscall.h>

#define ATTRIBUTE_BYTES 255
#define AT_REMOVEDIR 0x200

struct trace_file {
	struct gadget_record record;
	gadget_operation operation;
	/* What it is truncated to; ~0 for other operations. */
	gadget_bytes size;
	/* Of what is made or changed; ~0 for other operations. */
	gadget_new_mode mode;
	/* Of chown; ~0 leaves it as it is. */
	gadget_new_owner owner;
	gadget_new_owner group;
	gadget_errno errno;
	gadget_path_at path;
	gadget_path path_base;
	/* The new name, or what a link points to. */
	gadget_path_at to;
	gadget_path to_base;
	/* Of setxattr and removexattr. */
	gadget_string attribute;
};

GADGET_RECORD(trace_file);

#define FILE_BYTES GADGET_ROOM(sizeof(struct trace_file) + 4 * (GADGET_PATH_BYTES + 2) + ATTRIBUTE_BYTES)

/* Beginning of the path as passed. Empty: any. */
const volatile char filter_path[256] = "";

GADGET_SCRATCH(file_scratch, FILE_BYTES);

struct call {
	struct trace_file *file;
	struct gadget_writer writer;
};

/* False: not wanted. */
static __always_inline bool begin(struct call *call, long result, const gadget_operation operation)
{
	struct trace_file *file;

	if ((!gadget_wanted_result(result)) || !gadget_wanted_operation(operation))
		return false;
	file = gadget_scratch(&file_scratch);
	if (!file || !gadget_begin(&file->record))
		return false;
	__builtin_memcpy(file->operation, operation, sizeof(gadget_operation));
	file->size = ~0ULL;
	file->errno = result < 0 ? -result : 0;
	file->mode = file->owner = file->group = ~0ULL;
	gadget_no_text(&file->to);
	gadget_no_text(&file->to_base);
	gadget_no_text(&file->attribute);
	call->file = file;
	call->writer = gadget_write(file, sizeof(*file), FILE_BYTES);
	return true;
}

static __always_inline int end(struct call *call)
{
	if (gadget_begins_with(&call->writer, &call->file->path, filter_path, sizeof(filter_path)))
		gadget_send(&call->writer);
	return 0;
}

#define BEGIN(WORD)                                                                                                    \
	const gadget_operation word = WORD;                                                                            \
	struct call call;                                                                                              \
                                                                                                                       \
	_Static_assert(sizeof(WORD) <= sizeof(word), "the word is too long");                                          \
	if (!begin(&call, result, word))                                                                               \
	return 0

#define ARGUMENT(N) gadget_argument(registers, N)
#define POINTER(N) ((const void *)gadget_argument(registers, N))

static __always_inline void set_path(struct call *call, __s32 fd, const void *path)
{
	gadget_append_path_at(&call->writer, &call->file->path, &call->file->path_base, fd, path);
}

static __always_inline void set_to(struct call *call, __s32 fd, const void *path)
{
	gadget_append_path_at(&call->writer, &call->file->to, &call->file->to_base, fd, path);
}

static __always_inline void set_descriptor(struct call *call, __s32 fd)
{
	gadget_append_path_of(&call->writer, &call->file->path, &call->file->path_base, fd);
}

/* Calls that take a path relative to the working directory have a form with a directory, which all architectures have;
 * arm64 has only that one. */

/* OPERATION, and the path in the first argument. */
#define WITH_PATH(CALL, WORD, EXTRA)                                                                                   \
	GADGET_ON_EXIT(CALL)                                                                                           \
	{                                                                                                              \
		BEGIN(WORD);                                                                                           \
		set_path(&call, AT_FDCWD, POINTER(0));                                                                 \
		EXTRA;                                                                                                 \
		return end(&call);                                                                                     \
	}

/* The same, with the directory first. */
#define WITH_PATH_AT(CALL, WORD, EXTRA)                                                                                \
	GADGET_ON_EXIT(CALL)                                                                                           \
	{                                                                                                              \
		BEGIN(WORD);                                                                                           \
		set_path(&call, ARGUMENT(0), POINTER(1));                                                              \
		EXTRA;                                                                                                 \
		return end(&call);                                                                                     \
	}

/* An open file. */
#define WITH_DESCRIPTOR(CALL, WORD, EXTRA)                                                                             \
	GADGET_ON_EXIT(CALL)                                                                                           \
	{                                                                                                              \
		BEGIN(WORD);                                                                                           \
		set_descriptor(&call, ARGUMENT(0));                                                                    \
		EXTRA;                                                                                                 \
		return end(&call);                                                                                     \
	}

static __always_inline void set_owner(struct trace_file *file, __u32 owner, __u32 group)
{
	file->owner = owner == ~0U ? ~0ULL : owner;
	file->group = group == ~0U ? ~0ULL : group;
}

static __always_inline void set_attribute(struct call *call, const void *name)
{
	gadget_append_user_string(&call->writer, &call->file->attribute, name, ATTRIBUTE_BYTES);
}

WITH_PATH(unlink, "unlink", )
WITH_PATH(rmdir, "rmdir", )
WITH_PATH(rename, "rename", set_to(&call, AT_FDCWD, POINTER(1)))
WITH_PATH_AT(renameat, "rename", set_to(&call, ARGUMENT(2), POINTER(3)))
WITH_PATH_AT(renameat2, "rename", set_to(&call, ARGUMENT(2), POINTER(3)))
WITH_PATH(mkdir, "mkdir", call.file->mode = (__u16)ARGUMENT(1))
WITH_PATH_AT(mkdirat, "mkdir", call.file->mode = (__u16)ARGUMENT(2))
WITH_PATH(mknod, "mknod", call.file->mode = (__u16)ARGUMENT(1))
WITH_PATH_AT(mknodat, "mknod", call.file->mode = (__u16)ARGUMENT(2))
WITH_PATH(chmod, "chmod", call.file->mode = (__u16)ARGUMENT(1))
WITH_PATH_AT(fchmodat, "chmod", call.file->mode = (__u16)ARGUMENT(2))
/* Since 6.6. */
WITH_PATH_AT(fchmodat2, "chmod", call.file->mode = (__u16)ARGUMENT(2))
WITH_DESCRIPTOR(fchmod, "chmod", call.file->mode = (__u16)ARGUMENT(1))
WITH_PATH(chown, "chown", set_owner(call.file, ARGUMENT(1), ARGUMENT(2)))
WITH_PATH(lchown, "chown", set_owner(call.file, ARGUMENT(1), ARGUMENT(2)))
WITH_PATH_AT(fchownat, "chown", set_owner(call.file, ARGUMENT(2), ARGUMENT(3)))
WITH_DESCRIPTOR(fchown, "chown", set_owner(call.file, ARGUMENT(1), ARGUMENT(2)))
WITH_PATH(truncate, "truncate", call.file->size = ARGUMENT(1))
WITH_DESCRIPTOR(ftruncate, "truncate", call.file->size = ARGUMENT(1))
WITH_PATH(setxattr, "setxattr", set_attribute(&call, POINTER(1)))
WITH_PATH(lsetxattr, "setxattr", set_attribute(&call, POINTER(1)))
WITH_DESCRIPTOR(fsetxattr, "setxattr", set_attribute(&call, POINTER(1)))
WITH_PATH(removexattr, "removexattr", set_attribute(&call, POINTER(1)))
WITH_PATH(lremovexattr, "removexattr", set_attribute(&call, POINTER(1)))
WITH_DESCRIPTOR(fremovexattr, "removexattr", set_attribute(&call, POINTER(1)))
/* Since 6.13. */
WITH_PATH_AT(setxattrat, "setxattr", set_attribute(&call, POINTER(3)))
WITH_PATH_AT(removexattrat, "removexattr", set_attribute(&call, POINTER(3)))

GADGET_ON_EXIT(unlinkat)
{
	const gadget_operation unlink = "unlink", rmdir = "rmdir";
	struct call call;

	if (ARGUMENT(2) & AT_REMOVEDIR ? !begin(&call, result, rmdir) : !begin(&call, result, unlink))
		return 0;
	set_path(&call, ARGUMENT(0), POINTER(1));
	return end(&call);
}

/* The path is what is made, as it is for the calls above, and `to` is what it leads to. */
GADGET_ON_EXIT(link)
{
	BEGIN("link");
	set_path(&call, AT_FDCWD, POINTER(1));
	set_to(&call, AT_FDCWD, POINTER(0));
	return end(&call);
}

GADGET_ON_EXIT(linkat)
{
	BEGIN("link");
	set_path(&call, ARGUMENT(2), POINTER(3));
	set_to(&call, ARGUMENT(0), POINTER(1));
	return end(&call);
}

/* What a symbolic link holds starts from its own directory, if it is a path at all: it has no base. */
static __always_inline void set_content(struct call *call, const void *content)
{
	gadget_append_user_string(&call->writer, &call->file->to, content, GADGET_PATH_BYTES);
}

GADGET_ON_EXIT(symlink)
{
	BEGIN("symlink");
	set_path(&call, AT_FDCWD, POINTER(1));
	set_content(&call, POINTER(0));
	return end(&call);
}

GADGET_ON_EXIT(symlinkat)
{
	BEGIN("symlink");
	set_path(&call, ARGUMENT(1), POINTER(2));
	set_content(&call, POINTER(0));
	return end(&call);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";

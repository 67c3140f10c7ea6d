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

/* What a call was asked to do. */
struct change {
	gadget_operation operation;
	__s64 result;
	/* As in the record. */
	__u64 size;
	__u64 mode;
	__u64 owner;
	__u64 group;
	const void *path;
	const void *to;
	const void *attribute;
	/* Where the paths start. */
	__s32 path_from;
	__s32 to_from;
	/* There is no path: the file is `path_from`. */
	bool is_open;
	bool has_to;
	/* What a symbolic link holds starts from its own directory, if it is a path at all: it has no base. */
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
 * What all programs below end in. A program of its own, since the verifier then looks at the ways to the root once:
 * in each of the 32 it took 0.7 s.
 */
GADGET_AFTER_EXIT(file_told)
{
	struct change *change = gadget_scratch(&change_scratch);
	struct trace_file *file = gadget_scratch(&file_scratch);
	struct gadget_writer writer;

	if (!change || !file || !gadget_begin(&file->record))
		return 0;
	__builtin_memcpy(file->operation, change->operation, sizeof(file->operation));
	file->size = change->size;
	file->mode = change->mode;
	file->owner = change->owner;
	file->group = change->group;
	file->errno = change->result < 0 ? -change->result : 0;
	writer = gadget_write(file, sizeof(*file), FILE_BYTES);
	append_paths(&writer, file, change);
	gadget_no_text(&file->attribute);
	if (change->has_attribute)
		gadget_append_user_string(&writer, &file->attribute, change->attribute, ATTRIBUTE_BYTES);
	if (gadget_begins_with(&writer, &file->path, filter_path, sizeof(filter_path)))
		gadget_send(&writer);
	return 0;
}

GADGET_TAIL(after_change, file_told);

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

/* Calls that take a path relative to the working directory have a form with a directory, which all architectures have;
 * arm64 has only that one. */

/* OPERATION, and the path in the first argument. */
#define WITH_PATH(CALL, WORD, EXTRA)                                                                                   \
	GADGET_ON_EXIT(CALL)                                                                                           \
	{                                                                                                              \
		BEGIN(WORD);                                                                                           \
		set_path(change, AT_FDCWD, POINTER(0));                                                                \
		EXTRA;                                                                                                 \
		return end(ctx);                                                                                       \
	}

/* The same, with the directory first. */
#define WITH_PATH_AT(CALL, WORD, EXTRA)                                                                                \
	GADGET_ON_EXIT(CALL)                                                                                           \
	{                                                                                                              \
		BEGIN(WORD);                                                                                           \
		set_path(change, ARGUMENT(0), POINTER(1));                                                             \
		EXTRA;                                                                                                 \
		return end(ctx);                                                                                       \
	}

/* An open file. */
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

GADGET_ON_EXIT(unlinkat)
{
	const gadget_operation unlink = "unlink", rmdir = "rmdir";
	struct change *change = begin(result, ARGUMENT(2) & AT_REMOVEDIR ? rmdir : unlink);

	if (!change)
		return 0;
	set_path(change, ARGUMENT(0), POINTER(1));
	return end(ctx);
}

/* The path is what is made, as it is for the calls above, and `to` is what it leads to. */
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

char LICENSE[] SEC("license") = "Dual BSD/GPL";

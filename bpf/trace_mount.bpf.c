// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * trace mount: emits one `struct trace_mount` for each call of the old and the new mount API that mounts, unmounts,
 * moves or configures a file system.
 *
 * Hooks: entry and exit of mount, umount2, pivot_root, fsopen, fspick, fsconfig, fsmount, move_mount, open_tree,
 * open_tree_attr and mount_setattr.
 */
#include <gadget/files/path_at.h>
#include <gadget/operation.h>
#include <gadget/output.h>
#include <gadget/process.h>
#include <gadget/processes/runtime.h>
#include <gadget/result.h>
#include <gadget/string.h>
#include <gadget/syscall.h>
#include <gadget/syscalls/latency.h>
#include <kernel/mount.h>

#define OPTION_BYTES 4095
#define TYPE_BYTES 63

struct trace_mount {
	struct gadget_record record;
	gadget_operation operation;
	gadget_duration latency;
	gadget_mount_flags flags;
	/* The attributes to clear. */
	gadget_mount_flags cleared;
	/* For mount_setattr: MS_SHARED and similar flags. */
	gadget_mount_flags propagation;
	gadget_errno errno;
	gadget_fd fd;
	gadget_path_at source;
	gadget_path source_base;
	gadget_path_at target;
	gadget_path target_base;
	gadget_string type;
	gadget_string options;
};

GADGET_RECORD(trace_mount);

/* Both paths with their bases, type and options; the value of FSCONFIG_SET_STRING is in the options. */
#define MOUNT_BYTES                                                                                                    \
	GADGET_ROOM(sizeof(struct trace_mount) + 4 * (GADGET_PATH_BYTES + 2) + TYPE_BYTES + 2 * (OPTION_BYTES + 2))

/* The beginning of the target as passed. Empty: any. */
const volatile char filter_target[256] = "";
const volatile __u64 filter_longer_ns = 0;

GADGET_SCRATCH(mount_scratch, MOUNT_BYTES);

struct call {
	struct trace_mount *mount;
	struct gadget_writer writer;
};

#define gadget_flags(FAMILY, FLAGS) ((__u64)(FAMILY) << 32 | (__u32)(FLAGS))

/* False: not wanted. */
static __always_inline bool begin(struct call *call, long result)
{
	gadget_duration latency = gadget_latency();
	struct trace_mount *mount;

	if (!gadget_wanted_result(result))
		return false;
	if (filter_longer_ns && (latency == ~0ULL || latency < filter_longer_ns))
		return false;
	mount = gadget_scratch(&mount_scratch);
	if (!mount || !gadget_begin_outside_runtime(&mount->record))
		return false;
	mount->latency = latency;
	mount->errno = result < 0 ? -result : 0;
	mount->fd = -1;
	mount->flags = mount->cleared = mount->propagation = 0;
	gadget_no_text(&mount->source);
	gadget_no_text(&mount->source_base);
	gadget_no_text(&mount->target);
	gadget_no_text(&mount->target_base);
	gadget_no_text(&mount->type);
	gadget_no_text(&mount->options);
	call->mount = mount;
	call->writer = gadget_write(mount, sizeof(*mount), MOUNT_BYTES);
	return true;
}

static __always_inline int end(struct call *call)
{
	if (gadget_wanted_operation(call->mount->operation) &&
	    gadget_begins_with(&call->writer, &call->mount->target, filter_target, sizeof(filter_target)))
		gadget_send(&call->writer);
	return 0;
}

#define ON_EXIT(CALL)                                                                                                  \
	GADGET_STARTS(CALL)                                                                                            \
	GADGET_ON_EXIT(CALL)

/* A pointer that may be NULL. */
static __always_inline void append_user_string(struct gadget_writer *writer, struct gadget_text *text, __u64 from,
					       __u64 limit)
{
	if (from)
		gadget_append_user_string(writer, text, (const void *)from, limit);
}

ON_EXIT(mount)
{
	struct call call;

	if (!begin(&call, result))
		return 0;
	GADGET_SET_OPERATION(call.mount->operation, "mount");
	call.mount->flags = gadget_flags(GADGET_MOUNT_FLAGS, gadget_argument(registers, 3));
	gadget_append_path_at(&call.writer, &call.mount->target, &call.mount->target_base, AT_FDCWD,
			      (const void *)gadget_argument(registers, 1));
	/* The source may be a path or any other name, depending on the file system, so it has no base. */
	append_user_string(&call.writer, &call.mount->source, gadget_argument(registers, 0), GADGET_PATH_BYTES);
	append_user_string(&call.writer, &call.mount->type, gadget_argument(registers, 2), TYPE_BYTES);
	append_user_string(&call.writer, &call.mount->options, gadget_argument(registers, 4), OPTION_BYTES);
	return end(&call);
}

/* The kernel's name for umount2. */
ON_EXIT(umount)
{
	struct call call;

	if (!begin(&call, result))
		return 0;
	GADGET_SET_OPERATION(call.mount->operation, "umount");
	call.mount->flags = gadget_flags(GADGET_UMOUNT_FLAGS, gadget_argument(registers, 1));
	gadget_append_path_at(&call.writer, &call.mount->target, &call.mount->target_base, AT_FDCWD,
			      (const void *)gadget_argument(registers, 0));
	return end(&call);
}

/* The source is the new root; the target is where the old root goes. */
ON_EXIT(pivot_root)
{
	struct call call;

	if (!begin(&call, result))
		return 0;
	GADGET_SET_OPERATION(call.mount->operation, "pivot_root");
	gadget_append_user_string(&call.writer, &call.mount->source, (const void *)gadget_argument(registers, 0),
				  GADGET_PATH_BYTES);
	gadget_append_user_string(&call.writer, &call.mount->target, (const void *)gadget_argument(registers, 1),
				  GADGET_PATH_BYTES);
	return end(&call);
}

ON_EXIT(fsopen)
{
	struct call call;

	if (!begin(&call, result))
		return 0;
	GADGET_SET_OPERATION(call.mount->operation, "fsopen");
	call.mount->fd = result < 0 ? -1 : result;
	call.mount->flags = gadget_flags(GADGET_FSOPEN_FLAGS, gadget_argument(registers, 1));
	append_user_string(&call.writer, &call.mount->type, gadget_argument(registers, 0), TYPE_BYTES);
	return end(&call);
}

ON_EXIT(fspick)
{
	struct call call;

	if (!begin(&call, result))
		return 0;
	GADGET_SET_OPERATION(call.mount->operation, "fspick");
	call.mount->fd = result < 0 ? -1 : result;
	call.mount->flags = gadget_flags(GADGET_FSPICK_FLAGS, gadget_argument(registers, 2));
	gadget_append_path_at(&call.writer, &call.mount->target, &call.mount->target_base,
			      gadget_argument(registers, 0), (const void *)gadget_argument(registers, 1));
	return end(&call);
}

/* Appends type and source of the file system that `fd` configures. Only if the call succeeded, `fd` is known to be such
 * a descriptor. */
static __always_inline void append_context(struct call *call, __s32 fd)
{
	struct file *file = gadget_file_of(fd);
	struct fs_context *context = BPF_CORE_READ(file, private_data);
	const char *source = BPF_CORE_READ(context, source);

	gadget_append_kernel_string(&call->writer, &call->mount->type, BPF_CORE_READ(context, fs_type, name),
				    TYPE_BYTES);
	if (source)
		gadget_append_kernel_string(&call->writer, &call->mount->source, source, GADGET_PATH_BYTES);
}

/* `key=value` */
static __always_inline void append_value(struct call *call, const void *value)
{
	struct gadget_writer *writer = &call->writer;
	struct gadget_text *options = &call->mount->options;
	__u64 end = writer->progress->length;
	struct gadget_text text;

	if (options->offset == 0 || options->length & GADGET_CUT || end > writer->room - OPTION_BYTES)
		return;
	*(char *)(writer->record + end) = '=';
	writer->progress->length = end + 1;
	gadget_append_user_string(writer, &text, value, OPTION_BYTES);
	if (text.offset)
		options->length = (options->length + 1 + (text.length & ~GADGET_CUT)) | (text.length & GADGET_CUT);
}

ON_EXIT(fsconfig)
{
	__u32 command = gadget_argument(registers, 1);
	struct call call;

	if (!begin(&call, result))
		return 0;
	GADGET_SET_OPERATION(call.mount->operation, "fsconfig");
	call.mount->flags = gadget_flags(GADGET_FSCONFIG_COMMAND, command);
	if (result >= 0)
		append_context(&call, gadget_argument(registers, 0));
	if (gadget_argument(registers, 2)) {
		append_user_string(&call.writer, &call.mount->options, gadget_argument(registers, 2), 255);
		if (command == FSCONFIG_SET_STRING || command == FSCONFIG_SET_PATH)
			append_value(&call, (const void *)gadget_argument(registers, 3));
	}
	return end(&call);
}

/* Appends type and source of a mount that is not attached yet, and so has no path. */
static __always_inline void append_mounted(struct call *call, __s32 fd)
{
	struct file *file = gadget_file_of(fd);
	struct vfsmount *vfsmount = BPF_CORE_READ(file, f_path.mnt);
	struct mount *mount = gadget_mount_of(vfsmount);

	gadget_append_kernel_string(&call->writer, &call->mount->type, BPF_CORE_READ(mount, mnt.mnt_sb, s_type, name),
				    TYPE_BYTES);
	gadget_append_kernel_string(&call->writer, &call->mount->source, BPF_CORE_READ(mount, mnt_devname),
				    GADGET_PATH_BYTES);
}

ON_EXIT(fsmount)
{
	struct call call;

	if (!begin(&call, result))
		return 0;
	GADGET_SET_OPERATION(call.mount->operation, "fsmount");
	call.mount->fd = result < 0 ? -1 : result;
	call.mount->flags = gadget_flags(GADGET_MOUNT_ATTRIBUTES, gadget_argument(registers, 2));
	/* The context no longer has its source. */
	if (result >= 0)
		append_mounted(&call, result);
	return end(&call);
}

ON_EXIT(move_mount)
{
	const void *from = (const void *)gadget_argument(registers, 1);
	__u32 flags = gadget_argument(registers, 4);
	struct call call;
	char first = 0;

	if (!begin(&call, result))
		return 0;
	GADGET_SET_OPERATION(call.mount->operation, "move_mount");
	call.mount->flags = gadget_flags(GADGET_MOVE_MOUNT_FLAGS, flags);
	gadget_append_path_at(&call.writer, &call.mount->target, &call.mount->target_base,
			      gadget_argument(registers, 2), (const void *)gadget_argument(registers, 3));
	bpf_probe_read_user(&first, sizeof(first), from);
	if (!first && flags & MOVE_MOUNT_F_EMPTY_PATH)
		append_mounted(&call, gadget_argument(registers, 0));
	else
		gadget_append_path_at(&call.writer, &call.mount->source, &call.mount->source_base,
				      gadget_argument(registers, 0), from);
	return end(&call);
}

/* Reads the beginning of struct mount_attr, if the caller passes one. */
static __always_inline void set_attributes(struct trace_mount *mount, const void *from)
{
	__u64 attributes[3] = {};

	if (!from || bpf_probe_read_user(attributes, sizeof(attributes), from))
		return;
	mount->flags = gadget_flags(GADGET_MOUNT_ATTRIBUTES, attributes[0]);
	mount->cleared = gadget_flags(GADGET_MOUNT_ATTRIBUTES, attributes[1]);
	mount->propagation = gadget_flags(GADGET_MOUNT_FLAGS, attributes[2]);
}

ON_EXIT(open_tree)
{
	struct call call;

	if (!begin(&call, result))
		return 0;
	GADGET_SET_OPERATION(call.mount->operation, "open_tree");
	call.mount->fd = result < 0 ? -1 : result;
	call.mount->flags = gadget_flags(GADGET_OPEN_TREE_FLAGS, gadget_argument(registers, 2));
	gadget_append_path_at(&call.writer, &call.mount->source, &call.mount->source_base,
			      gadget_argument(registers, 0), (const void *)gadget_argument(registers, 1));
	return end(&call);
}

/* Since 6.15. */
ON_EXIT(open_tree_attr)
{
	struct call call;

	if (!begin(&call, result))
		return 0;
	GADGET_SET_OPERATION(call.mount->operation, "open_tree_attr");
	call.mount->fd = result < 0 ? -1 : result;
	set_attributes(call.mount, (const void *)gadget_argument(registers, 3));
	gadget_append_path_at(&call.writer, &call.mount->source, &call.mount->source_base,
			      gadget_argument(registers, 0), (const void *)gadget_argument(registers, 1));
	return end(&call);
}

/* Since 5.12. */
ON_EXIT(mount_setattr)
{
	struct call call;

	if (!begin(&call, result))
		return 0;
	GADGET_SET_OPERATION(call.mount->operation, "mount_setattr");
	set_attributes(call.mount, (const void *)gadget_argument(registers, 3));
	gadget_append_path_at(&call.writer, &call.mount->target, &call.mount->target_base,
			      gadget_argument(registers, 0), (const void *)gadget_argument(registers, 1));
	return end(&call);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";

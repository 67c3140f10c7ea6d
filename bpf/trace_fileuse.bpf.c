// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * trace fileuse: emits one `struct trace_fileuse` for each file below certain paths that is opened, for what is done
 * with it, and when the last descriptor of it is gone. What is followed is the kernel's own object of an open file,
 * which all descriptors of it share: after dup, in forked children, and in a process that it was passed to over a
 * socket.
 *
 * Hooks: the exits of the system calls that open files and move their data; __fput, where the kernel lets itself be
 * traced there. Else the last close is seen at the entry of close, close_range, dup2 and dup3, and where a process
 * ends. Once at start, an iterator over all open files. The trap: the object's address is used again for another file,
 * so the inode is compared before anything is told.
 */
#include <gadget/credentials.h>
#include <gadget/open_file.h>
#include <gadget/operation.h>
#include <gadget/other_task.h>
#include <gadget/output.h>
#include <gadget/path.h>
#include <gadget/process.h>
#include <gadget/process_identity.h>
#include <gadget/string.h>
#include <gadget/syscall.h>
#include <kernel/inode.h>
#include <kernel/iterator.h>

/* Files that are followed at one time. */
#define FOLLOWED 65536
/* Paths that can be asked for, and bytes of each. */
#define PATHS 8
#define PATH_BYTES 124
/* Descriptors that are looked at where a process ends. */
#define DESCRIPTORS 4096
#define UNKNOWN (~0ULL)

#define CLOSE_RANGE_CLOEXEC 4
#define MAP_ANONYMOUS 0x20

/* 12 bits of major, 20 of minor number. */
typedef __u32 gadget_device_number;
/* The same from open to the last close. */
typedef __u64 gadget_file_id;
/* PROT_…; ~0: none. */
typedef __u32 gadget_protection;

struct trace_fileuse {
	struct gadget_record record;
	gadget_operation operation;
	gadget_exec_id exec_id;
	struct gadget_credentials credentials;
	gadget_file_id file_id;
	__u64 inode;
	/* Read or written, or the length after ftruncate. */
	gadget_bytes bytes;
	gadget_device_number device;
	gadget_open_flags flags;
	gadget_fd fd;
	gadget_protection protection;
	gadget_path path;
	__u32 unused;
};

GADGET_RECORD(trace_fileuse);

/* As a gadget_path has it, leaf first: what the path of a file has to end with. */
struct wanted_path {
	__u32 length;
	char tail[PATH_BYTES];
};

/* Made by the client (kubectl_gadget/events/path_tails.py). */
/* None: any. */
const volatile struct wanted_path wanted_paths[PATHS] = {};

struct followed {
	__u64 id;
	__u64 inode;
	__u32 device;
	/* While a process's descriptors are looked at: its thread, and how many were found. */
	__u32 looker;
	__u64 found;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, FOLLOWED);
	__type(key, __u64);
	__type(value, struct followed);
} files SEC(".maps");

/* How many there are, about: nothing needs to be looked up while there are none. */
__u64 followed_files;

#define BYTES GADGET_ROOM(sizeof(struct trace_fileuse) + GADGET_PATH_BYTES)

GADGET_SCRATCH(scratch, BYTES);
/* A program on a function can be interrupted by those of other tasks, which the others cannot. */
GADGET_SCRATCH(released_scratch, BYTES);

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct file___counted {
	struct {
		long counter;
	} f_count;
};

/* Since 6.13 (90ee6ed776c0 "fs: port files to file_ref"); 0 stands for one reference. */
struct file___referenced {
	struct {
		struct {
			long counter;
		} refcnt;
	} f_ref;
};

struct files_struct___counted {
	struct {
		int counter;
	} count;
};

#pragma clang attribute pop

static __always_inline __u64 references(const void *file)
{
	const struct file___referenced *new = file;
	const struct file___counted *old = file;

	if (bpf_core_field_exists(new->f_ref))
		return BPF_CORE_READ(new, f_ref.refcnt.counter) + 1;
	return BPF_CORE_READ(old, f_count.counter);
}

/* Whether the text that ends at `end` ends with that path, and a name begins there. Looked at once by the verifier for
 * each path, since the loop stops at the first difference. */
static __noinline bool ends_with(const char *record, __u64 start, __u64 end, __u32 number)
{
	const volatile struct wanted_path *path = &wanted_paths[number & (PATHS - 1)];
	__u32 length = path->length;

	if (length > PATH_BYTES || length > end - start)
		return false;
	for (__u32 back = 1; back <= PATH_BYTES + 1; back++) {
		__u64 at = end - back;
		__u32 byte = length - back;

		/* Or the compiler would add the pointer first, and the bounds were of something else. */
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
	if (!start || use->path.length & GADGET_CUT)
		return false;
	for (__u32 number = 0; number < PATHS && wanted_paths[number].length; number++) {
		if (ends_with((const char *)use, start, end, number))
			return true;
	}
	return false;
}

static __always_inline void describe_file(struct trace_fileuse *use, const struct file *file)
{
	const struct file___inode *opened = (const void *)file;

	use->inode = BPF_CORE_READ(opened, f_inode, i_ino);
	use->device = BPF_CORE_READ(opened, f_inode, i_sb, s_dev);
	use->flags = BPF_CORE_READ(opened, f_flags);
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

static __always_inline void follow(const struct trace_fileuse *use, const struct file *file)
{
	struct followed followed = {.id = use->file_id, .inode = use->inode, .device = use->device};
	__u64 key = (__u64)file;
	bool is_new = !bpf_map_lookup_elem(&files, &key);

	if (bpf_map_update_elem(&files, &key, &followed, BPF_ANY))
		gadget_count_map_full();
	else if (is_new)
		__sync_fetch_and_add(&followed_files, 1);
}

static __always_inline void unfollow(__u64 key)
{
	if (!bpf_map_delete_elem(&files, &key))
		__sync_fetch_and_add(&followed_files, -1);
}

/* NULL: the file is not followed. */
static __always_inline struct followed *followed_of(const struct file *file)
{
	const struct file___inode *opened = (const void *)file;
	__u64 key = (__u64)file;
	struct followed *followed;

	if (!followed_files || !file)
		return NULL;
	followed = bpf_map_lookup_elem(&files, &key);
	if (followed && (followed->inode != BPF_CORE_READ(opened, f_inode, i_ino) ||
			 followed->device != BPF_CORE_READ(opened, f_inode, i_sb, s_dev))) {
		unfollow(key);
		return NULL;
	}
	return followed;
}

static __always_inline __u64 new_id(void)
{
	return bpf_ktime_get_boot_ns() << 8 | (bpf_get_smp_processor_id() & 0xff);
}

static const gadget_operation READ = "read", WRITE = "write", CLOSE = "close", MMAP = "mmap", TRUNCATE = "truncate";

/* Sends what was done with a file that is followed. */
static __always_inline void send_use(struct trace_fileuse *use, struct file *file, const struct followed *followed,
				     long fd, __u64 bytes, __u32 protection, const gadget_operation operation)
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

/* The first program, since kernels that refuse one refuse this, and then have looked at no other in vain. */
SEC("fentry/__fput")
int BPF_PROG(released, struct file *file)
{
	const struct followed *followed = followed_of(file);

	if (!followed)
		return 0;
	send_use(gadget_scratch(&released_scratch), file, followed, -1, UNKNOWN, ~0U, CLOSE);
	unfollow((__u64)file);
	return 0;
}

static __always_inline int opened(long result)
{
	struct trace_fileuse *use = gadget_scratch(&scratch);
	struct gadget_writer writer;
	struct file *file;

	if (result < 0 || !use || !gadget_begin(&use->record))
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
	use->file_id = new_id();
	use->fd = result;
	describe_user(use, gadget_task());
	follow(use, file);
	gadget_send(&writer);
	return 0;
}

GADGET_ON_EXIT(open)
{
	return opened(result);
}

GADGET_ON_EXIT(creat)
{
	return opened(result);
}

GADGET_ON_EXIT(openat)
{
	return opened(result);
}

GADGET_ON_EXIT(openat2)
{
	return opened(result);
}

GADGET_ON_EXIT(open_by_handle_at)
{
	return opened(result);
}

static __always_inline void used(long fd, __u64 bytes, __u32 protection, const gadget_operation operation)
{
	const struct followed *followed;
	struct file *file;

	if (!followed_files)
		return;
	file = gadget_file_of((int)fd);
	followed = followed_of(file);
	if (followed)
		send_use(gadget_scratch(&scratch), file, followed, (int)fd, bytes, protection, operation);
}

/* At the end of a file, read returns 0: nothing was read then. */
#define ON_TRANSFER(CALL, OPERATION)                                                                                   \
	GADGET_ON_EXIT(CALL)                                                                                           \
	{                                                                                                              \
		if (result > 0)                                                                                        \
			used(gadget_argument(registers, 0), result, ~0U, OPERATION);                                   \
		return 0;                                                                                              \
	}

/* From one file to another. */
#define ON_COPY(CALL, FROM, TO)                                                                                        \
	GADGET_ON_EXIT(CALL)                                                                                           \
	{                                                                                                              \
		if (result > 0) {                                                                                      \
			used(gadget_argument(registers, FROM), result, ~0U, READ);                                     \
			used(gadget_argument(registers, TO), result, ~0U, WRITE);                                      \
		}                                                                                                      \
		return 0;                                                                                              \
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
	if (!result)
		used(gadget_argument(registers, 0), gadget_argument(registers, 1), ~0U, TRUNCATE);
	return 0;
}

GADGET_ON_EXIT(mmap)
{
	/* An address near the end of memory is an error. */
	if ((unsigned long)result >= -4095UL || gadget_argument(registers, 3) & MAP_ANONYMOUS)
		return 0;
	used(gadget_argument(registers, 4), gadget_argument(registers, 1), gadget_argument(registers, 2), MMAP);
	return 0;
}

/* The last descriptor goes, and nobody else has the file. */
static __always_inline void closed(struct file *file, const struct followed *followed, long fd)
{
	send_use(gadget_scratch(&scratch), file, followed, fd, UNKNOWN, ~0U, CLOSE);
	unfollow((__u64)file);
}

static __always_inline void may_close(long fd)
{
	const struct followed *followed;
	struct file *file;

	if (!followed_files)
		return;
	file = gadget_file_of((int)fd);
	followed = followed_of(file);
	if (followed && references(file) == 1)
		closed(file, followed, (int)fd);
}

#define GADGET_ON_ENTRY(CALL)                                                                                          \
	static __always_inline int CALL##_on_entry(struct pt_regs *registers);                                         \
	SEC("tracepoint/syscalls/sys_enter_" #CALL)                                                                    \
	int CALL##_begins(void *ctx)                                                                                   \
	{                                                                                                              \
		return CALL##_on_entry(gadget_registers(gadget_task()));                                               \
	}                                                                                                              \
	static __always_inline int CALL##_on_entry(struct pt_regs *registers)

GADGET_ON_ENTRY(close)
{
	may_close(gadget_argument(registers, 0));
	return 0;
}

/* What the new descriptor was before goes, if there is something to take its place. */
#define ON_REPLACE(CALL)                                                                                               \
	GADGET_ON_ENTRY(CALL)                                                                                          \
	{                                                                                                              \
		if (gadget_argument(registers, 0) != gadget_argument(registers, 1) &&                                  \
		    gadget_file_of((int)gadget_argument(registers, 0)))                                                \
			may_close(gadget_argument(registers, 1));                                                      \
		return 0;                                                                                              \
	}

ON_REPLACE(dup2)
ON_REPLACE(dup3)

struct range {
	long first;
	long last;
};

/* One descriptor of many that go together. A file is closed with the last of its references. */
static long close_one(__u32 round, void *data)
{
	const struct range *range = data;
	/* Nothing is counted in memory, so that the verifier sees that all rounds are alike. */
	long fd = range->first + round;
	__u32 looker = bpf_get_current_pid_tgid();
	struct followed *followed;
	struct file *file;

	if (fd > range->last)
		return 1;
	file = gadget_file_of(fd);
	followed = followed_of(file);
	if (!followed)
		return 0;
	followed->found = followed->looker == looker ? followed->found + 1 : 1;
	followed->looker = looker;
	if (followed->found >= references(file))
		closed(file, followed, fd);
	return 0;
}

static __always_inline void close_all(long first, long last)
{
	struct range range = {.first = first, .last = last};

	if (followed_files)
		bpf_loop(DESCRIPTORS, close_one, &range, 0);
}

static __always_inline bool shares_descriptors(struct task_struct *task)
{
	struct files_struct___counted *files = (void *)BPF_CORE_READ(task, files);

	return !files || BPF_CORE_READ(files, count.counter) != 1;
}

GADGET_ON_ENTRY(close_range)
{
	__u32 last = gadget_argument(registers, 1);

	if (!(gadget_argument(registers, 2) & CLOSE_RANGE_CLOEXEC) && !shares_descriptors(gadget_task()))
		close_all((__u32)gadget_argument(registers, 0), last);
	return 0;
}

/* Before the process's descriptors go. */
SEC("tp_btf/sched_process_exit")
int thread_ends(void *ctx)
{
	if (!shares_descriptors(gadget_task()))
		close_all(0, DESCRIPTORS);
	return 0;
}

/* Files that were open before are followed, too; each is told once, since its descriptors share it. */
SEC("iter/task_file")
int find_open(struct bpf_iter__task_file *ctx)
{
	struct trace_fileuse *use = gadget_scratch(&scratch);
	struct task_struct *task = ctx->task;
	struct file *file = ctx->file;
	struct gadget_writer writer;

	if (!task || !file || !use || followed_of(file) || !gadget_begin_for_task(&use->record, task))
		return 0;
	writer = gadget_write(use, sizeof(*use), BYTES);
	gadget_append_path_for(&writer, &use->path, &file->f_path, task);
	if (!use->path.offset || !is_wanted_path(use))
		return 0;
	GADGET_SET_OPERATION(use->operation, "is open");
	describe_file(use, file);
	use->file_id = new_id();
	use->fd = ctx->fd;
	describe_user(use, task);
	follow(use, file);
	gadget_send(&writer);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";

// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * trace fsnotify: emits one `struct trace_fsnotify` for each inotify or fanotify instance that is created, for each
 * watch that is added to or removed from one, and for each event that a watcher receives. The record's own process is
 * the watcher; the other process (causer) is the one that caused the event.
 *
 * Hooks: the exits of the system calls that create instances, add and remove watches, and read events; and, where the
 * kernel has fentry, inotify_handle_inode_event(), which runs in the process that causes an event, so both processes
 * are known. The owner of a group of watches is stored by the group's address, which a later group may reuse, so the
 * owner is updated at each use.
 */
#include <gadget/files/open_file.h>
#include <gadget/files/path_at.h>
#include <gadget/operation.h>
#include <gadget/other_task.h>
#include <gadget/output.h>
#include <gadget/process.h>
#include <gadget/result.h>
#include <gadget/slots.h>
#include <gadget/string.h>
#include <gadget/syscall.h>
#include <kernel/fs.h>
#include <kernel/fsnotify.h>
#include <kernel/iterator.h>

#define NAME_BYTES 255
#define WATCHED_BYTES 256
/* The maximum number of remembered groups and watches; the least recently used are dropped. */
#define GROUPS 4096
#define WATCHES 16384
/* The maximum number of events examined in the result of one read(). */
#define EVENTS 64

/* IN_… or, with the bit FANOTIFY, FAN_…. */
typedef __u64 gadget_fsnotify_mask;
#define FANOTIFY (1ULL << 63)

struct trace_fsnotify {
	struct gadget_record record;
	/* 0: unknown. */
	gadget_cgroup causer;
	gadget_fsnotify_mask mask;
	gadget_operation operation;
	char api[16];
	gadget_comm causer_comm;
	gadget_pid causer_pid;
	/* In the watcher's PID namespace, from fanotify. */
	gadget_pid causer_container_pid;
	/* The number (wd) of the watch. */
	gadget_fd watch;
	/* Equal in both events of a rename; else 0. */
	__u32 cookie;
	gadget_errno errno;
	gadget_path_at path;
	gadget_path path_base;
	gadget_string name;
};

GADGET_RECORD(trace_fsnotify);

#define ROW_BYTES GADGET_ROOM(sizeof(struct trace_fsnotify) + 2 * (GADGET_PATH_BYTES + 2) + NAME_BYTES)

/* Empty: any. */
const volatile char filter_api[16] = "";

struct watch_key {
	__u64 group;
	__u64 watch;
};

struct watched {
	char path[WATCHED_BYTES];
};

/* By group: the record head of its last user. `unused` says whether --pid selects that process. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, GROUPS);
	__type(key, __u64);
	__type(value, struct gadget_record);
} watchers SEC(".maps");

/* The path of each watch, as the watcher passed it. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, WATCHES);
	__type(key, struct watch_key);
	__type(value, struct watched);
} watches SEC(".maps");

GADGET_SCRATCH(scratch, ROW_BYTES);
GADGET_SCRATCH(watched_scratch, sizeof(struct watched));
GADGET_SLOTS(slots, ROW_BYTES);

enum api { NEITHER, INOTIFY, FANOTIFY_FILE };

static __always_inline enum api api_of(struct file *file)
{
	char name[16] = {};

	if (!file || BPF_CORE_READ(file, f_inode, i_sb, s_magic) != ANON_INODE_FS_MAGIC)
		return NEITHER;
	bpf_probe_read_kernel_str(name, sizeof(name), BPF_CORE_READ(file, f_path.dentry, d_name.name));
	if (!__builtin_memcmp(name, "inotify", 8))
		return INOTIFY;
	if (!__builtin_memcmp(name, "[fanotify]", 11))
		return FANOTIFY_FILE;
	return NEITHER;
}

static __always_inline bool wanted_api(enum api api)
{
	return !filter_api[0] || (filter_api[0] == 'i') == (api == INOTIFY);
}

/* Records the current process as the user of this file's group. Returns the group; 0: the file has none. */
static __always_inline __u64 note_watcher(struct file *file, enum api api)
{
	struct gadget_record record = {};
	__u64 group;

	if (api == NEITHER)
		return 0;
	group = (__u64)BPF_CORE_READ(file, private_data);
	gadget_describe(&record, gadget_task(), gadget_current_cgroup());
	record.unused = gadget_is_chosen_process(gadget_task());
	bpf_map_update_elem(&watchers, &group, &record, BPF_ANY);
	return group;
}

static __always_inline void begin(struct trace_fsnotify *row, enum api api)
{
	if (api == INOTIFY)
		__builtin_memcpy(row->api, "inotify\0\0\0\0\0\0\0\0", sizeof(row->api));
	else
		__builtin_memcpy(row->api, "fanotify\0\0\0\0\0\0\0", sizeof(row->api));
	row->causer = 0;
	row->causer_pid = 0;
	row->causer_container_pid = 0;
	__builtin_memset(row->causer_comm, 0, sizeof(row->causer_comm));
	row->watch = -1;
	row->cookie = 0;
	row->errno = 0;
	row->mask = api == INOTIFY ? 0 : FANOTIFY;
	gadget_no_text(&row->path);
	gadget_no_text(&row->path_base);
	gadget_no_text(&row->name);
}

/* The path that an inotify watch was added for. */
static __always_inline void append_watched(struct gadget_writer *writer, struct trace_fsnotify *row, __u64 group)
{
	struct watch_key key = {.group = group, .watch = row->watch};
	struct watched *known = bpf_map_lookup_elem(&watches, &key);

	if (known)
		gadget_append_kernel_string(writer, &row->path, known->path, WATCHED_BYTES - 2);
}

/* A new instance, or why there is none: EMFILE when the user has too many (fs.inotify.max_user_instances). */
static __always_inline int created(enum api api, long result)
{
	struct trace_fsnotify *row = gadget_scratch(&scratch);
	struct gadget_writer writer;

	if (!row)
		return 0;
	if (result >= 0)
		note_watcher(gadget_file_of(result), api);
	if (!wanted_api(api) || !gadget_wanted_result(result) || !gadget_begin(&row->record))
		return 0;
	begin(row, api);
	GADGET_SET_OPERATION(row->operation, "create");
	row->errno = result < 0 ? -result : 0;
	writer = gadget_write(row, sizeof(*row), ROW_BYTES);
	gadget_send(&writer);
	return 0;
}

/* arm64 has only inotify_init1. */
GADGET_ON_EXIT(inotify_init)
{
	return created(INOTIFY, result);
}

GADGET_ON_EXIT(inotify_init1)
{
	return created(INOTIFY, result);
}

GADGET_ON_EXIT(fanotify_init)
{
	return created(FANOTIFY_FILE, result);
}

GADGET_ON_EXIT(inotify_add_watch)
{
	const char *path = (const char *)gadget_argument(registers, 1);
	struct file *file = gadget_file_of(gadget_argument(registers, 0));
	struct watched *watched = gadget_scratch(&watched_scratch);
	struct trace_fsnotify *row = gadget_scratch(&scratch);
	struct watch_key key = {.watch = result};
	struct gadget_writer writer;

	if (!row || !watched)
		return 0;
	key.group = note_watcher(file, api_of(file));
	if (key.group && result >= 0 && gadget_read_user_string(watched->path, sizeof(watched->path), path) > 0)
		bpf_map_update_elem(&watches, &key, watched, BPF_ANY);
	if (!wanted_api(INOTIFY) || !gadget_wanted_result(result) || !gadget_begin(&row->record))
		return 0;
	begin(row, INOTIFY);
	GADGET_SET_OPERATION(row->operation, "watch");
	row->mask = (__u32)gadget_argument(registers, 2);
	row->errno = result < 0 ? -result : 0;
	row->watch = result < 0 ? -1 : result;
	writer = gadget_write(row, sizeof(*row), ROW_BYTES);
	gadget_append_path_at(&writer, &row->path, &row->path_base, AT_FDCWD, path);
	gadget_send(&writer);
	return 0;
}

GADGET_ON_EXIT(inotify_rm_watch)
{
	struct file *file = gadget_file_of(gadget_argument(registers, 0));
	struct trace_fsnotify *row = gadget_scratch(&scratch);
	struct gadget_writer writer;
	__u64 group;

	if (!row)
		return 0;
	group = note_watcher(file, api_of(file));
	if (!wanted_api(INOTIFY) || !gadget_wanted_result(result) || !gadget_begin(&row->record))
		return 0;
	begin(row, INOTIFY);
	GADGET_SET_OPERATION(row->operation, "unwatch");
	row->errno = result < 0 ? -result : 0;
	row->watch = (__s32)gadget_argument(registers, 1);
	writer = gadget_write(row, sizeof(*row), ROW_BYTES);
	append_watched(&writer, row, group);
	gadget_send(&writer);
	return 0;
}

/* FAN_MARK_ADD and FAN_MARK_REMOVE. */
GADGET_ON_EXIT(fanotify_mark)
{
	struct file *file = gadget_file_of(gadget_argument(registers, 0));
	const char *path = (const char *)gadget_argument(registers, 4);
	struct trace_fsnotify *row = gadget_scratch(&scratch);
	__u32 flags = gadget_argument(registers, 1);
	struct gadget_writer writer;

	if (!row)
		return 0;
	note_watcher(file, api_of(file));
	if (!wanted_api(FANOTIFY_FILE) || !gadget_wanted_result(result) || !gadget_begin(&row->record))
		return 0;
	begin(row, FANOTIFY_FILE);
	if (flags & 1)
		GADGET_SET_OPERATION(row->operation, "watch");
	else
		GADGET_SET_OPERATION(row->operation, "unwatch");
	row->mask = FANOTIFY | (__u32)gadget_argument(registers, 2);
	row->errno = result < 0 ? -result : 0;
	writer = gadget_write(row, sizeof(*row), ROW_BYTES);
	if (path)
		gadget_append_path_at(&writer, &row->path, &row->path_base, gadget_argument(registers, 3), path);
	else
		gadget_append_path_of(&writer, &row->path, &row->path_base, gadget_argument(registers, 3));
	gadget_send(&writer);
	return 0;
}

/* include/uapi/linux/inotify.h */
struct inotify_event {
	__s32 wd;
	__u32 mask;
	__u32 cookie;
	__u32 len;
};

/* include/uapi/linux/fanotify.h */
struct fanotify_event_metadata {
	__u32 event_len;
	__u8 vers;
	__u8 reserved;
	__u16 metadata_len;
	__u64 mask;
	__s32 fd;
	__s32 pid;
};

/* Sends the event at this address in the data that was read. Returns its length; 0: it is not an event. Not static, so
 * that the verifier checks it once and not for each event. */
__noinline int send_inotify_event(__u64 at, __u64 group)
{
	struct trace_fsnotify *row = gadget_scratch(&scratch);
	struct gadget_writer writer;
	struct inotify_event event;

	if (!row || bpf_probe_read_user(&event, sizeof(event), (const void *)at) || !gadget_begin(&row->record))
		return 0;
	begin(row, INOTIFY);
	GADGET_SET_OPERATION(row->operation, "event");
	row->mask = event.mask;
	row->watch = event.mask & IN_Q_OVERFLOW ? -1 : event.wd;
	row->cookie = event.cookie;
	writer = gadget_write(row, sizeof(*row), ROW_BYTES);
	append_watched(&writer, row, group);
	if (event.len)
		gadget_append_user_string(&writer, &row->name, (const void *)at + sizeof(event), NAME_BYTES);
	gadget_send(&writer);
	return event.len < (1 << 16) ? sizeof(event) + event.len : 0;
}

__noinline int send_fanotify_event(__u64 at)
{
	struct trace_fsnotify *row = gadget_scratch(&scratch);
	struct fanotify_event_metadata event;
	struct gadget_writer writer;

	if (!row || bpf_probe_read_user(&event, sizeof(event), (const void *)at) || !gadget_begin(&row->record))
		return 0;
	begin(row, FANOTIFY_FILE);
	GADGET_SET_OPERATION(row->operation, "event");
	row->mask = FANOTIFY | event.mask;
	row->causer_container_pid = event.pid > 0 ? event.pid : 0;
	writer = gadget_write(row, sizeof(*row), ROW_BYTES);
	if (event.fd >= 0)
		gadget_append_path_of(&writer, &row->path, &row->path_base, event.fd);
	gadget_send(&writer);
	return event.event_len < (1 << 16) ? event.event_len : 0;
}

static __always_inline int events_are_read(long result, struct pt_regs *registers, bool of_inotify)
{
	__u64 at = gadget_argument(registers, 1);
	struct file *file;
	__u64 end = at + result;
	enum api api;
	__u64 group;

	if (result <= 0 || filter_failed || filter_errno)
		return 0;
	file = (void *)gadget_file_of(gadget_argument(registers, 0));
	api = api_of(file);
	group = note_watcher(file, api);
	if (!group || !wanted_api(api) || (api == INOTIFY && !of_inotify))
		return 0;
	for (int i = 0; i < EVENTS && at < end; i++) {
		int length = api == INOTIFY ? send_inotify_event(at, group) : send_fanotify_event(at);

		if (length <= 0)
			return 0;
		at += length;
	}
	if (at < end)
		gadget_count_unexamined();
	return 0;
}

SEC("tracepoint/syscalls/sys_exit_read")
int all_events_are_read(struct trace_event_raw_sys_exit *ctx)
{
	return events_are_read(gadget_result(ctx), gadget_call_registers(ctx), true);
}

/* Only events of fanotify: used where events of inotify are seen when they happen. */
SEC("tracepoint/syscalls/sys_exit_read")
int fanotify_events_are_read(struct trace_event_raw_sys_exit *ctx)
{
	return events_are_read(gadget_result(ctx), gadget_call_registers(ctx), false);
}

/* Fills in the record's head for the watcher. False: neither the watcher nor the causer is wanted. */
static __always_inline bool begin_for_watcher(struct trace_fsnotify *row, const struct gadget_record *watcher)
{
	struct gadget_record *record = &row->record;
	bool causer_is_wanted = gadget_wanted_cgroup(record, gadget_current_cgroup());
	__u32 marks = causer_is_wanted ? record->marks : 0;
	enum gadget_verdict verdict;

	if (watcher) {
		*record = *watcher;
		verdict = gadget_verdict_on(record->cgroup);
		if (gadget_is_wanted(verdict))
			marks = 0;
		else if (verdict == GADGET_UNKNOWN && !gadget_node_named_only)
			marks = GADGET_MARK_UNKNOWN_CGROUP;
		else if (!causer_is_wanted)
			return false;
	} else {
		__builtin_memset(record, 0, sizeof(*record));
		if (!causer_is_wanted) {
			/* The watcher, whose entry was dropped, may be wanted. */
			gadget_count_map_full();
			return false;
		}
	}
	record->marks = marks;
	record->unused = 0;
	return (watcher ? watcher->unused : !gadget_filter_pid) &&
	       (gadget_filter_uid == ~0U || record->uid == gadget_filter_uid) && gadget_has_wanted_comm(record);
}

SEC("fentry/inotify_handle_inode_event")
int BPF_PROG(inotify_event_happens, struct fsnotify_mark *mark, __u32 events, void *inode, void *dir,
	     const struct qstr *name, __u32 cookie)
{
	__u64 group = (__u64)BPF_CORE_READ(mark, group);
	struct inotify_inode_mark *inotify = (void *)mark;
	struct gadget_writer writer;
	struct trace_fsnotify *row;

	if (!wanted_api(INOTIFY) || filter_failed || filter_errno)
		return 0;
	row = gadget_take_slot(&slots);
	if (!row)
		return 0;
	if (begin_for_watcher(row, bpf_map_lookup_elem(&watchers, &group))) {
		begin(row, INOTIFY);
		GADGET_SET_OPERATION(row->operation, "event");
		row->mask = events;
		row->cookie = cookie;
		row->watch = BPF_CORE_READ(inotify, wd);
		row->causer = gadget_current_cgroup();
		row->causer_pid = gadget_node_pid(gadget_task());
		gadget_comm_of(gadget_task(), row->causer_comm);
		writer = gadget_write(row, sizeof(*row), ROW_BYTES);
		append_watched(&writer, row, group);
		if (name)
			gadget_append_kernel_string(&writer, &row->name, BPF_CORE_READ(name, name), NAME_BYTES);
		gadget_send(&writer);
	}
	gadget_give_back(row);
	return 0;
}

/* Records watchers that existed before the trace. */
SEC("iter/task_file")
int find_watchers(struct bpf_iter__task_file *ctx)
{
	struct task_struct *task = ctx->task;
	struct file *file = ctx->file;
	struct gadget_record record = {};
	__u64 group;

	if (!file || !task || api_of(file) == NEITHER)
		return 0;
	gadget_begin_for_task_or(&record, task, true, false);
	record.unused = gadget_is_chosen_process(task);
	group = (__u64)BPF_CORE_READ(file, private_data);
	bpf_map_update_elem(&watchers, &group, &record, BPF_NOEXIST);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";

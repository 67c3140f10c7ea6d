/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Makes a record of every system call when it returns, with its arguments and the data that they point to; calls that
 * do not return (exit) get their record when they begin. For gadgets that show or store calls. Before including this
 * file, a gadget defines the name of the record's struct (CALL), its further members (CALL_FIELDS), the maximum sizes
 * of texts and, if it has --unique, UNIQUE_CALLS; after that, it defines deliver(), which gets the records.
 *
 * Hooks: the raw tracepoints of all system calls. The client's table (kubectl_gadget/linux/syscalls.py)
 * says, by number, which calls are wanted and what their arguments point to. The trap: after execve, the caller's
 * memory is gone, so the record of such a call is made when the call begins, and stored.
 */
#pragma once

#include <gadget/map_shares.h>
#include <gadget/output.h>
#include <gadget/process.h>
#include <gadget/process_identity.h>
#include <gadget/processes/thread_state.h>
#include <gadget/result.h>
#include <gadget/string.h>
#include <gadget/syscall.h>
#include <gadget/syscalls/compat_call.h>
#include <gadget/syscalls/syscall_table.h>

#define ARGUMENTS 6
#define ADDRESS_BYTES 128

/* The number of the call; its name depends on the architecture. */
typedef __u32 gadget_syscall;
/* NEVER: the call does not return. */
typedef __s64 gadget_syscall_result;
#define NEVER (-0x7fffffffffffffffLL - 1)

/* The arguments, and the data that pointer arguments point to. */
typedef struct {
	__u64 values[ARGUMENTS];
	struct gadget_text texts[ARGUMENTS];
} gadget_syscall_arguments;

struct CALL {
	struct gadget_record record;
	gadget_syscall_arguments arguments;
	gadget_syscall_result result;
	gadget_duration duration;
	gadget_syscall syscall;
	gadget_errno errno;
	CALL_FIELDS
};

GADGET_RECORD(CALL);

/* No call has more than two paths. */
#define CALL_BYTES GADGET_ROOM(sizeof(struct CALL) + 2 * PATH_BYTES + LIST_BYTES + 2 * MOST_DATA_BYTES)

/* In microseconds. */
const volatile __u64 filter_min = 0;
/* The maximum number of bytes sent of data that is read or written. */
const volatile __u32 data_bytes = 32;

/* Handles a record with everything that was appended to it. False: it was lost. */
static __always_inline bool deliver(const struct gadget_writer *writer);

/* The call that a thread has begun. */
struct begun {
	/* 0: none. */
	__u64 start;
	__u64 values[ARGUMENTS];
	/* The equivalent 64-bit call, and the number as shown. */
	__u32 number;
	__u32 shown;
};

GADGET_THREAD_STATE(begun);

/* A record made when the call began. */
struct kept {
	__u32 share;
	__u32 unused;
	__u64 start;
	__u64 length;
	__u64 cuts;
	char record[CALL_BYTES];
};

/* The maximum number of calls of execve in progress. One container may have half of them. */
#define RECORDS 2048

/* By the task's address: when a thread other than the first one calls execve, its TID changes. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, RECORDS);
	__type(key, __u64);
	__type(value, struct kept);
} records SEC(".maps");

GADGET_MAP_SHARES(record_shares);

GADGET_SCRATCH(enter_scratch, sizeof(struct kept));
GADGET_SCRATCH(exit_scratch, CALL_BYTES);

/* Appends up to `limit` of `size` bytes. The rest does not count as cut: the client knows both numbers. */
static __always_inline void append_bytes(struct gadget_writer *writer, struct gadget_text *text, const void *from,
					 __u64 size, __u64 limit)
{
	if (limit > MOST_DATA_BYTES)
		limit = MOST_DATA_BYTES;
	gadget_append_user_bytes(writer, text, from, size > limit ? limit : size, limit);
}

/* Whether pointers in the calling program's arrays are 32 bits wide. */
static __always_inline bool has_short_pointers(__u32 shown)
{
	return shown & GADGET_COMPAT || (shown & GADGET_X32 && (shown & ~GADGET_X32) >= GADGET_FIRST_X32_CALL);
}

/* i386 and arm32 have calls with 32-bit times, which are not shown; since 5.1, they also have calls with 64-bit
 * times. */
static __always_inline bool has_short_times(__u32 shown)
{
	__u32 number = shown & ~GADGET_COMPAT;

	return shown & GADGET_COMPAT && number < 403;
}

/* Appends an element of a list. False: there is none, or no room. */
static __noinline bool append_element(struct CALL *call, const void *from)
{
	struct gadget_progress *progress = (void *)call + CALL_BYTES;
	__u64 length = progress->length;
	const char *element = NULL;
	long read;

	if (bpf_probe_read_user(&element, has_short_pointers(call->syscall) ? sizeof(__u32) : sizeof(element), from) ||
	    !element)
		return false;
	if (length > CALL_BYTES - (ELEMENT_BYTES + 1))
		return false;
	read = gadget_read_user_string((char *)call + length, ELEMENT_BYTES + 1, element);
	if (read < 0)
		return false;
	progress->length = length + read;
	return true;
}

static __always_inline void append_list(struct gadget_writer *writer, struct gadget_text *text, const void *from)
{
	__u32 bytes = has_short_pointers(((struct CALL *)writer->record)->syscall) ? sizeof(__u32) : sizeof(__u64);
	__u64 start = writer->progress->length;
	__u64 first;

	gadget_unread(text);
	if (bpf_probe_read_user(&first, sizeof(first), from))
		return;
	for (int i = 0; i < ELEMENTS; i++) {
		if (writer->progress->length - start > LIST_BYTES - (ELEMENT_BYTES + 1))
			break;
		if (!append_element(writer->record, from + i * bytes))
			break;
	}
	gadget_wrote(writer, text, start, writer->progress->length - start, false);
}

/* Appends the data that the argument points to. `next` is the following argument, often a length. */
static __noinline int append_argument(struct CALL *call, __u32 number, __u32 index)
{
	struct gadget_writer writer = {.record = call, .room = CALL_BYTES, .progress = (void *)call + CALL_BYTES};
	struct gadget_text *text;
	__u64 value, next, size = 0;
	long result = call->result;
	const void *from;

	if (index >= ARGUMENTS)
		return 0;
	text = &call->arguments.texts[index];
	value = call->arguments.values[index];
	next = index + 1 < ARGUMENTS ? call->arguments.values[index + 1] : 0;
	from = (const void *)value;
	gadget_no_text(text);
	if (!value)
		return 0;
	switch (gadget_syscall_letter(number, index)) {
	/* A path. */
	case 's':
		gadget_append_user_string(&writer, text, from, PATH_BYTES);
		break;
	/* A name. */
	case 'n':
		gadget_append_user_string(&writer, text, from, NAME_BYTES);
		break;
	/* Data that the caller passes ('w') or receives ('r'). */
	case 'w':
		append_bytes(&writer, text, from, next, data_bytes);
		break;
	case 'r':
		if (result > 0)
			append_bytes(&writer, text, from, result, data_bytes);
		break;
	/* A socket address that the caller passes ('a') or receives ('A'); for the latter, the next argument points to
	 * the length. */
	case 'a':
		append_bytes(&writer, text, from, next, ADDRESS_BYTES);
		break;
	case 'A':
		if (result >= 0 && !bpf_probe_read_user(&size, sizeof(__u32), (const void *)next))
			append_bytes(&writer, text, from, size, ADDRESS_BYTES);
		break;
	/* Two descriptors that the caller receives ('i'), a struct timespec ('t'), a struct open_how ('o'). */
	case 'i':
		if (result >= 0)
			append_bytes(&writer, text, from, 8, 8);
		break;
	case 't':
		if (!has_short_times(call->syscall))
			append_bytes(&writer, text, from, 16, 16);
		break;
	case 'o':
		append_bytes(&writer, text, from, 24, 24);
		break;
	/* A list of texts. */
	case 'v':
		append_list(&writer, text, from);
		break;
	}
	return 0;
}

static __always_inline void append_arguments(struct CALL *call, __u32 number)
{
	for (int i = 0; i < ARGUMENTS; i++)
		append_argument(call, number, i);
}

static __always_inline void set_result(struct CALL *call, long result)
{
	call->result = result;
	call->errno = result < 0 && result >= -4095 ? -result : 0;
}

static __always_inline void forget_record(struct task_struct *task)
{
	__u64 key = (__u64)task;
	const struct kept *kept = bpf_map_lookup_elem(&records, &key);

	gadget_remove_entry(&records, &key, &record_shares, kept ? &kept->share : NULL);
}

/* Makes the record of a call that does not return, which is sent, or whose memory will be gone when it returns, which
 * is stored. False: it was not sent. */
static __always_inline bool begin_whole(const struct gadget_compat_call *now, struct task_struct *task, bool returns)
{
	__u64 key = (__u64)task;
	struct kept *kept = gadget_scratch(&enter_scratch);
	struct CALL *call;
	struct gadget_writer writer;

	if (!kept || (!returns && (filter_failed || filter_errno || filter_min)))
		return false;
	call = (struct CALL *)kept->record;
	if (!gadget_begin(&call->record))
		return false;
	call->record.marks |= gadget_marks_of_call(now->number);
	__builtin_memcpy(call->arguments.values, now->arguments, sizeof(now->arguments));
	call->syscall = now->number;
	call->duration = ~0ULL;
	call->result = NEVER;
	call->errno = 0;
	writer = gadget_write(call, sizeof(*call), CALL_BYTES);
	append_arguments(call, now->native);
	if (!returns)
		return deliver(&writer);
	kept->start = bpf_ktime_get_boot_ns();
	kept->length = writer.progress->length;
	kept->cuts = writer.progress->cuts;
	/* The end of an earlier call of a task at this address may have been missed. */
	forget_record(task);
	kept->share = gadget_share_number(call->record.cgroup);
	gadget_add_entry(&records, &key, kept, &record_shares, kept->share, RECORDS);
	return false;
}

static __always_inline int end_whole(struct task_struct *task, long result)
{
	__u64 key = (__u64)task;
	struct kept *kept = bpf_map_lookup_elem(&records, &key);
	struct CALL *call = gadget_scratch(&exit_scratch);
	struct gadget_writer writer;
	__u64 length;

	/* The call began before the gadget did, so the data that its arguments pointed to may be gone. */
	if (!kept)
		return 0;
	length = kept->length;
	if (!call || length > sizeof(kept->record) || !gadget_wanted_result(result))
		goto forget;
	bpf_probe_read_kernel(call, length, kept->record);
	writer = gadget_write(call, length, CALL_BYTES);
	writer.progress->cuts = kept->cuts;
	call->duration = bpf_ktime_get_boot_ns() - kept->start;
	set_result(call, result);
	if (call->duration >= filter_min * 1000)
		deliver(&writer);
forget:
	forget_record(task);
	return 0;
}

/* Whether the current task is wanted. The head of its record is filled in only when the call returns. */
static __always_inline bool wanted_caller(struct task_struct *task)
{
	__u64 cgroup = gadget_current_cgroup();
	struct gadget_record record;

	return gadget_wanted_cgroup(&record, cgroup) && gadget_wanted_task(task) && !gadget_hides(task, cgroup);
}

#ifdef UNIQUE_CALLS
#include <gadget/unique.h>

/* Each call is shown once for each program that a process runs, when the call begins. */
struct made_call {
	gadget_exec_id program;
	__u32 number;
	__u32 unused;
};

GADGET_SEEN(struct made_call, 65536);

/* An event dropped by a filter or by a full ring is still new. */
static __always_inline void begin_unique(const struct gadget_compat_call *now, struct task_struct *task)
{
	struct made_call made = {.number = now->number};
	__u8 once = 1;

	if (!wanted_caller(task))
		return;
	gadget_exec_of(&made.program, task);
	if (!bpf_map_lookup_elem(&gadget_seen, &made) && begin_whole(now, task, false))
		bpf_map_update_elem(&gadget_seen, &made, &once, BPF_ANY);
}
#else
static const bool gadget_unique = false;

static __always_inline void begin_unique(const struct gadget_compat_call *now, struct task_struct *task)
{
}
#endif

/* Whether the call may be wanted, as a 64-bit, a 32-bit or an x32 call: the task is not examined yet. */
static __always_inline bool may_be_wanted(__s32 number)
{
	return gadget_wants_syscall(number) || gadget_wants_syscall(gadget_possible_call(number)) ||
	       gadget_is_x32(number);
}

SEC("raw_tp/sys_enter")
int enter(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *task = gadget_task();
	__u32 number = ctx->args[1];
	struct gadget_compat_call now;
	struct begun *begun;
	char when;

	if (!may_be_wanted(number))
		return 0;
	gadget_describe_call(&now, task, gadget_registers(task), number);
	if (!gadget_wants_syscall(now.native))
		return 0;
	if (gadget_unique) {
		begin_unique(&now, task);
		return 0;
	}
	when = gadget_syscall_letter(now.native, GADGET_SYSCALL_WHEN);
	if (when == 'E' || when == 'X') {
		begin_whole(&now, task, when == 'E');
		return 0;
	}
	if (!wanted_caller(task))
		return 0;
	begun = gadget_make_thread_state();
	if (!begun)
		return 0;
	begun->number = now.native;
	begun->shown = now.number;
	__builtin_memcpy(begun->values, now.arguments, sizeof(begun->values));
	begun->start = bpf_ktime_get_boot_ns();
	return 0;
}

/* Describes the call that returns. `begun` is NULL when its beginning was not seen. */
static __always_inline void describe_ended(struct gadget_compat_call *now, const struct begun *begun,
					   struct task_struct *task)
{
	struct pt_regs *registers;

	if (!begun) {
		registers = gadget_registers(task);
		gadget_describe_call(now, task, registers, gadget_syscall_number(registers));
		return;
	}
	/* Returning from a signal handler overwrites the registers, and a tracer may do so. */
	now->native = begun->number;
	now->number = begun->shown;
	__builtin_memcpy(now->arguments, begun->values, sizeof(now->arguments));
}

SEC("raw_tp/sys_exit")
int leave(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *task = gadget_task();
	struct begun *begun = gadget_thread_state();
	struct gadget_compat_call now;
	long result = ctx->args[1];
	struct CALL *call;
	struct gadget_writer writer;

	if (gadget_unique)
		return 0;
	if (begun && !begun->start)
		begun = NULL;
	describe_ended(&now, begun, task);
	if (!gadget_wants_syscall(now.native))
		return 0;
	if (gadget_syscall_letter(now.native, GADGET_SYSCALL_WHEN) == 'E')
		return end_whole(task, result);
	/* A task that made no call, such as a new kernel thread. */
	if ((!begun && (__s32)now.number < 0) || !gadget_wanted_result(result))
		goto forget;
	call = gadget_scratch(&exit_scratch);
	if (!call || !gadget_begin(&call->record))
		goto forget;
	call->record.marks |= gadget_marks_of_call(now.number);
	call->duration = begun ? bpf_ktime_get_boot_ns() - begun->start : ~0ULL;
	__builtin_memcpy(call->arguments.values, now.arguments, sizeof(now.arguments));
	if (filter_min && (!begun || call->duration < filter_min * 1000))
		goto forget;
	call->syscall = now.number;
	set_result(call, result);
	writer = gadget_write(call, sizeof(*call), CALL_BYTES);
	append_arguments(call, now.native);
	deliver(&writer);
forget:
	if (begun)
		begun->start = 0;
	return 0;
}

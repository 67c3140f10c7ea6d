/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The head of every record, and the types that define the meaning of a field for the client (docs/design/records.md).
 *
 * A record begins with `struct gadget_record`; then come the gadget's own fields, then texts. The trap: padding is sent
 * too, so order the fields so that there is none, or initialise it.
 */
#pragma once

#include <linux/bpf.h>
#include <linux/types.h>
#include <stdbool.h>
#include <stddef.h>

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>

/* CLOCK_BOOTTIME in nanoseconds, when the record was sent. */
typedef __u64 gadget_timestamp;
/* The id of a cgroup v2. The client derives node, namespace, pod and container from it. */
typedef __u64 gadget_cgroup;
/* Ends with a NUL, unless it has 16 characters. */
typedef char gadget_comm[16];
/* A PID or TID. 0: none. */
typedef __u32 gadget_pid;
/* In the initial user namespace. */
typedef __u32 gadget_uid;
typedef __u32 gadget_gid;
/* 0, or a positive Linux errno. */
typedef __s32 gadget_errno;
/* The same, with -1 for unknown. */
typedef __s32 gadget_known_errno;
/* -1: none. */
typedef __s32 gadget_fd;
/* O_…, with the values of the architecture. */
typedef __u32 gadget_open_flags;
/* The same, with ~0 for unknown. */
typedef __u32 gadget_known_open_flags;
/* The same, with ~0 for flags that could not be read. */
typedef __u32 gadget_asked_open_flags;
typedef __u32 gadget_mode;
/* A new mode, user or group. ~0: none is set. */
typedef __u64 gadget_new_mode;
typedef __u64 gadget_new_owner;
/* The operation, as a word padded with NULs. */
typedef char gadget_operation[16] __attribute__((aligned(8)));
/* Flags of a call that mounts; the upper half says which call they belong to (kernel/mount.h). 0: the call has no
 * flags. */
typedef __u64 gadget_mount_flags;
/* -1: none. */
typedef __s32 gadget_exit_code;
/* A signal number; 0: none. */
typedef __u32 gadget_signal;
/* The cause of a signal, si_code. The record's field `signal` says which signal. */
typedef __s32 gadget_signal_code;
/* The target argument of a failed call that sends a signal: a process, a thread, or a group (negative). The smallest
 * integer: the call did not fail. */
typedef __s32 gadget_signal_target;
typedef __u32 gadget_capability;
/* The system call during which the event happened; -1: none. */
typedef __s32 gadget_in_syscall;
/* 0: unknown. */
enum gadget_known_bool { GADGET_KNOWN_YES = 1, GADGET_KNOWN_NO };
/* For bpf(2): a command, and the types of programs and maps. ~0: none. */
typedef __u32 gadget_bpf_command;
typedef __u32 gadget_bpf_program_type;
typedef __u32 gadget_bpf_map_type;
/* CLONE_NEW… */
typedef __u32 gadget_namespaces;
/* ~0: none. */
typedef __u32 gadget_ptrace_request;
typedef __u32 gadget_prctl_option;
/* A set of capabilities, one bit for each; ~0: unknown. */
typedef __u64 gadget_capabilities;
/* In nanoseconds. ~0: unknown. */
typedef __u64 gadget_duration;
/* A number of bytes. ~0: unknown. */
typedef __u64 gadget_bytes;
/* ~0: unknown. */
typedef __u64 gadget_number;
/* The id of a call stack (gadget/stacks.h). 0: there is none; 1: it was lost. */
typedef __u64 gadget_stack;
/* The id of a file's contents (gadget/files/content.h). 0: there is none. */
typedef __u64 gadget_content;

/* ~0: it could not be read. */
typedef __u32 gadget_read_number;

/*
 * The position of a text in the record. `offset` is relative to the record's start. 0: there is no text if `length` is
 * 1; otherwise it could not be read. `length` is the number of bytes; with GADGET_CUT, the text was longer.
 */
struct gadget_text {
	__u16 offset;
	__u16 length;
};

#define GADGET_CUT 0x8000

/* One text. A NUL may follow, which is not counted. */
typedef struct gadget_text gadget_string;
/* A list of texts. Each ends with a NUL, which is counted; if the list was cut, the last one may lack it. */
typedef struct gadget_text gadget_strings;
/* A path: its components, leaf first, each with a NUL, which is counted. No components: "/". If it was cut, the upper
 * part is missing. */
typedef struct gadget_text gadget_path;

/* A path as the caller passed it. The field that follows, a gadget_path whose name ends in `_base`, is where a relative
 * path starts (gadget/files/path_at.h). */
typedef struct gadget_text gadget_path_at;

/* Bits of gadget_record.marks. */
enum {
	/* The agent had not reported this cgroup yet; the client decides whether it wants the record. */
	GADGET_MARK_UNKNOWN_CGROUP = 1,
	/* The event happened in a system call of a 32-bit program, or in an int 0x80 call of a 64-bit program. */
	GADGET_MARK_COMPAT = 2,
	/* With GADGET_MARK_COMPAT: a call of x32. */
	GADGET_MARK_X32 = 4,
};

/* The source of the column `abi`, which every gadget has. */
typedef __u32 gadget_marks;

struct gadget_record {
	gadget_timestamp timestamp;
	gadget_cgroup cgroup;
	/* Numbers in the node's PID namespace. */
	gadget_pid pid;
	gadget_pid tid;
	gadget_pid ppid;
	gadget_uid uid;
	gadget_gid gid;
	/* The process's PID in its own PID namespace. */
	gadget_pid container_pid;
	gadget_comm comm;
	gadget_comm parent_comm;
	gadget_marks marks;
	__u32 unused;
};

/*
 * Use it once in each gadget, after its record: GADGET_RECORD(trace_open). The build reads the record's layout from the
 * object, and the compiler would leave out types that only functions use.
 */
#define GADGET_RECORD(NAME) const struct NAME *const volatile gadget_record_type = NULL

/* The same for the rows that the client makes from the records, if the YAML names a view. */
#define GADGET_ROW(NAME) const struct NAME *const volatile gadget_row_type = NULL

/* Set by the agent before the programs are loaded. */

/* The nesting level of the node's PID namespace; 0 is the initial one. */
const volatile __u32 gadget_node_pid_level = 0;
/* The cgroup above all cgroups of the node; several nodes may share a kernel. 0: any. */
const volatile __u64 gadget_node_cgroup = 0;
/* The size of a page. */
const volatile __u32 gadget_node_page_bytes = 4096;
/* The length of the kernel's tick, which jiffies count. 0: unknown. */
const volatile __u32 gadget_node_tick_ns = 0;
/* A quarter of the ring: the reader is woken each time this many more bytes are unread. If twice as many are unread,
 * the rest of the ring is shared between containers (gadget/fairness.h). */
const volatile __u64 gadget_ring_wake_bytes = 1 << 20;
/* Programs for system calls run for 64-bit calls. If gadget_node_compat is true, they run for 32-bit calls instead; if
 * gadget_node_any_call is true, for both (gadget/syscalls/translated_call.h). */
const volatile bool gadget_node_compat = false;
const volatile bool gadget_node_any_call = false;
/* Every event wakes the reader. */
const volatile bool gadget_wake_each = false;

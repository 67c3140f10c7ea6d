/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The record that every gadget sends, and the types that tell the client what a field means (docs/design.md,
 * "Records").
 *
 * A gadget's own record begins with `struct gadget_record`, goes on with its own fields, and strings follow at its end.
 * The trap: padding is sent too. Order the fields so that there is none, or set it.
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
/* The id of a cgroup v2. The client makes of it node, namespace, pod and container. */
typedef __u64 gadget_cgroup;
/* Ends with NUL, unless it has 16 characters. */
typedef char gadget_comm[16];
/* A process's or thread's number. 0: nobody. */
typedef __u32 gadget_pid;
/* As the initial user namespace numbers them. */
typedef __u32 gadget_uid;
typedef __u32 gadget_gid;
/* 0, or a positive Linux errno. */
typedef __s32 gadget_errno;
/* The same, or -1: unknown. */
typedef __s32 gadget_known_errno;
/* -1: none. */
typedef __s32 gadget_fd;
/* O_… of the architecture. */
typedef __u32 gadget_open_flags;
/* The same, or ~0: unknown. */
typedef __u32 gadget_known_open_flags;
/* The same, or ~0: they could not be read. */
typedef __u32 gadget_asked_open_flags;
typedef __u32 gadget_mode;
/* A mode, a user or a group that something gets. ~0: it gets none. */
typedef __u64 gadget_new_mode;
typedef __u64 gadget_new_owner;
/* What was done, in a word; shorter ones end with NULs. */
typedef char gadget_operation[16] __attribute__((aligned(8)));
/* Flags of a call that mounts; the upper half says of which (kernel/mount.h). 0: it has none. */
typedef __u64 gadget_mount_flags;
/* -1: none. */
typedef __s32 gadget_exit_code;
/* A signal's number; 0: none. */
typedef __u32 gadget_signal;
/* Why it came, si_code. The record's field `signal` says which one it belongs to. */
typedef __s32 gadget_signal_code;
/* The target that a call was to signal: a process, a thread, a group (negative); the lowest number at which it found a
 * process. */
typedef __s32 gadget_signal_target;
typedef __u32 gadget_capability;
/* The system call during which something happens; -1: none. */
typedef __s32 gadget_in_syscall;
/* 0: unknown. */
enum gadget_known_bool { GADGET_KNOWN_YES = 1, GADGET_KNOWN_NO };
/* Of bpf(2): a command, and the types of programs and maps. ~0: none. */
typedef __u32 gadget_bpf_command;
typedef __u32 gadget_bpf_program_type;
typedef __u32 gadget_bpf_map_type;
/* CLONE_NEW… */
typedef __u32 gadget_namespaces;
/* ~0: none. */
typedef __u32 gadget_ptrace_request;
typedef __u32 gadget_prctl_option;
/* A set of them, one bit for each; ~0: unknown. */
typedef __u64 gadget_capabilities;
/* In nanoseconds. ~0: unknown. */
typedef __u64 gadget_duration;
/* A number of bytes. ~0: unknown. */
typedef __u64 gadget_bytes;
/* ~0: unknown. */
typedef __u64 gadget_number;
/* The number of a call stack (gadget/stacks.h). 0: none, 1: it was lost. */
typedef __u64 gadget_stack;

/* ~0: it could not be read. */
typedef __u32 gadget_read_number;

/*
 * Where a text is in the record. `offset` counts from the record's start; 0: it could not be read, or, with `length` 1,
 * there is none. `length` counts the bytes of the text; with GADGET_CUT set, there was more of it.
 */
struct gadget_text {
	__u16 offset;
	__u16 length;
};

#define GADGET_CUT 0x8000

/* One text. A NUL may follow, and does not count. */
typedef struct gadget_text gadget_string;
/* A list of texts. Each ends with a NUL, which counts; the last may lack it when the list was cut. */
typedef struct gadget_text gadget_strings;
/* A path: its components, leaf first, each with a NUL that counts. No components: "/". When cut, the upper part lacks.
 */
typedef struct gadget_text gadget_path;

/* A path as the caller wrote it. The field that follows, a gadget_path whose name has `_base` at its end, is where it
 * starts from when it is not absolute (gadget/path_at.h). */
typedef struct gadget_text gadget_path_at;

/* Bits of gadget_record.marks. */
enum {
	/* The kernel did not know this cgroup yet, the client has to decide whether it wants the record. */
	GADGET_MARK_UNKNOWN_CGROUP = 1,
	/* It happened in a system call of a 32-bit program, or one that a 64-bit program made by int 0x80. */
	GADGET_MARK_COMPAT = 2,
	/* With GADGET_MARK_COMPAT: it was a call of x32. */
	GADGET_MARK_X32 = 4,
};

/* The column `abi` of every gadget is read from it. */
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
	/* The process's number in its own PID namespace. */
	gadget_pid container_pid;
	gadget_comm comm;
	gadget_comm parent_comm;
	gadget_marks marks;
	__u32 unused;
};

/*
 * To stand once in each gadget, after its own record: GADGET_RECORD(trace_open). The compiler leaves types out of the
 * object that only functions use, and the build reads the record's layout from there.
 */
#define GADGET_RECORD(NAME) const struct NAME *const volatile gadget_record_type = NULL

/* The same for the rows that the client makes of what the programs send, where the YAML names a view. */
#define GADGET_ROW(NAME) const struct NAME *const volatile gadget_row_type = NULL

/* Set by the agent before the programs are loaded. */

/* How deep the node's PID namespace lies: 0 is the initial one. */
const volatile __u32 gadget_node_pid_level = 0;
/* The cgroup that the node's cgroups lie below, since several nodes may share a kernel. 0: any. */
const volatile __u64 gadget_node_cgroup = 0;
/* The size of a page. */
const volatile __u32 gadget_node_page_bytes = 4096;
/* A quarter of the ring: the reader is woken each time that this many unread bytes more lie in it, and from twice as
 * many on it is shared out (gadget/fairness.h). */
const volatile __u64 gadget_ring_wake_bytes = 1 << 20;
/* These are copies for the system calls of 32-bit programs (gadget/syscall.h). */
const volatile bool gadget_node_compat = false;
/* Whether the reader is woken by each event instead. */
const volatile bool gadget_wake_each = false;

// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * trace syscalls: emits one `struct trace_syscalls` for each system call when it returns, with its arguments and the
 * data that they point to. Calls that do not return (exit) are sent when they begin, and with --unique, so are all
 * calls.
 *
 * Hooks: the raw tracepoints of all system calls (gadget/syscalls/every_syscall.h).
 */
#include <gadget/string.h>

#define CALL trace_syscalls
#define CALL_FIELDS
#define UNIQUE_CALLS
#define PATH_BYTES GADGET_PATH_BYTES
#define NAME_BYTES 255
#define MOST_DATA_BYTES 1024
#define ELEMENTS 32
#define ELEMENT_BYTES 255
#define LIST_BYTES (8 * (ELEMENT_BYTES + 1))
#include <gadget/syscalls/every_syscall.h>

static __always_inline bool deliver(const struct gadget_writer *writer)
{
	return gadget_send(writer);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";

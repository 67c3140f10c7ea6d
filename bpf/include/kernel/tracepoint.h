/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * What the kernel hands to a program on the exit of a system call, SEC("tracepoint/syscalls/sys_exit_…").
 *
 * The trap: it is another thing when the agent must run the program without perf (gadget/syscall.h), so nothing reads
 * it but gadget_result().
 */
#pragma once

#include <linux/types.h>

struct trace_event_raw_sys_exit;

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

/* The same to the kernel: what follows three underscores is ours. */
struct trace_event_raw_sys_exit___perf {
	long ret;
};

#pragma clang attribute pop

/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The context of a program on the exit of a system call, SEC("tracepoint/syscalls/sys_exit_…").
 *
 * The trap: the context is different where the agent must run the program without perf (gadget/syscall.h), so only
 * gadget_result() may read it.
 */
#pragma once

#include <linux/types.h>

struct trace_event_raw_sys_exit;

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

/* The same struct for the kernel: CO-RE ignores the suffix after three underscores. */
struct trace_event_raw_sys_exit___perf {
	long ret;
};

#pragma clang attribute pop

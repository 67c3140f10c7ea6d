/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The context of a program on the exit of a system call, SEC("tracepoint/syscalls/sys_exit_…").
 *
 * The agent runs the program at the raw tracepoint of all calls, whose context is different (gadget/syscall.h), so only
 * gadget_result() may read it.
 */
#pragma once

struct trace_event_raw_sys_exit;

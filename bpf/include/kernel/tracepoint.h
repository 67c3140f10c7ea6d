/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What the kernel hands to a program on a tracepoint (SEC("tracepoint/…")). */
#pragma once

#include <linux/types.h>

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct trace_event_raw_sys_exit {
	long id;
	long ret;
};

#pragma clang attribute pop

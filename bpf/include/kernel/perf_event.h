/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Events of perf_event_open(2). The meaning of `config` depends on `type`, and drivers add types. */
#pragma once

#include <linux/types.h>

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct perf_event {
	struct {
		__u32 type;
		__u64 config;
		/* kprobe_func, probe_offset */
		__u64 config1;
		__u64 config2;
	} attr;
};

#pragma clang attribute pop

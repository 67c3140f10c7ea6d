/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The kernel's types for time. See kernel/task.h. */
#pragma once

#include <gadget/helpers.h>

struct timespec64 {
	__s64 tv_sec;
} __attribute__((preserve_access_index));

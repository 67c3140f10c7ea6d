/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Kernel modules. A kernel without CONFIG_MODULES has neither the system calls nor the tracepoints. */
#pragma once

#include <stdbool.h>
#include <linux/types.h>

/* MODULE_NAME_LEN (64 minus the size of a long), and the maximum length of an alias that the kernel requests. */
#define MODULE_NAME_BYTES 64

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct module {
	unsigned long taints;
	/* With CONFIG_MODULE_SIG. */
	bool sig_ok;
	char name[1];
};

/* A module that is being loaded. */
struct load_info {
	const char *name;
	unsigned long len;
	bool sig_ok;
};

#pragma clang attribute pop

/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What all kinds of namespaces begin with. The trap: a number is used again once its namespace is gone. */
#pragma once

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct ns_common {
	unsigned int inum;
};

#pragma clang attribute pop

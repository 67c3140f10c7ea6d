/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The first member of all kinds of namespaces. A namespace's number is reused after the namespace is gone. */
#pragma once

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct ns_common {
	unsigned int inum;
};

#pragma clang attribute pop

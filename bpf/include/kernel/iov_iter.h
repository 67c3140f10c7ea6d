/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The memory that the kernel reads from or writes to. The values of `enum iter_type` differ between kernels.
 */
#pragma once

#include <linux/types.h>

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct iov_iter {
	__u8 iter_type;
	unsigned long iov_offset;
	unsigned long count;
	unsigned long nr_segs;
	/* struct iovec, part of the ABI. */
	const void *__iov;
	void *ubuf;
};

/* Before 6.4 (de4f5fed3f23 "iov_iter: add iter_iovec() helper"). */
struct iov_iter___old {
	const void *iov;
};

enum iter_type {
	ITER_IOVEC = 0,
	ITER_UBUF = 1,
	ITER_KVEC = 2,
};

#pragma clang attribute pop

/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * A request of io_uring. The trap: `cmd` is raw memory that each operation casts to a struct of its own, and the kernel
 * has given the first member of that union several names; so the request's own address is cast here, as the kernel
 * checks at build time that `cmd` comes first.
 */
#pragma once

#include <linux/types.h>
#include <kernel/fs.h>

#define IORING_OP_OPENAT 18
#define IORING_OP_OPENAT2 28

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

/* Nothing of it is read. Not just declared, since that is another kind of type to CO-RE. */
struct io_ring_ctx {
	unsigned int flags;
};

struct io_kiocb {
	__u8 opcode;
};

struct io_open {
	__u32 file_slot;
	struct filename *filename;
	struct open_how how;
};

struct io_uring_cqe {
	__u64 user_data;
	__s32 res;
};

#pragma clang attribute pop

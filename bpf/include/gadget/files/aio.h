/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Linux AIO (io_submit): the requests of a call, read from the program's memory when the call returns. The results are
 * not known: the program may read them from shared memory without a system call.
 *
 * Another thread may have rewritten the requests before they are read.
 */
#pragma once

#include <gadget/output.h>
#include <gadget/syscall.h>

/* The maximum number of requests of one call that are examined; further ones are counted as lost. */
#define GADGET_AIO_REQUESTS 128

/* include/uapi/linux/aio_abi.h: aio_lio_opcode. */
enum {
	GADGET_AIO_READ = 0,
	GADGET_AIO_WRITE = 1,
	GADGET_AIO_READV = 7,
	GADGET_AIO_WRITEV = 8,
};

/* struct iocb, as the program wrote it; it is the same for 32-bit programs. */
struct gadget_aio_request {
	__u64 data;
	__u64 key;
	__u16 opcode;
	__s16 priority;
	__s32 fd;
	__u64 buffer;
	/* For READV and WRITEV, the number of buffers. */
	__u64 bytes;
	__u64 position;
};

static __always_inline bool gadget_aio_reads(const struct gadget_aio_request *request)
{
	return request->opcode == GADGET_AIO_READ || request->opcode == GADGET_AIO_READV;
}

static __always_inline bool gadget_aio_writes(const struct gadget_aio_request *request)
{
	return request->opcode == GADGET_AIO_WRITE || request->opcode == GADGET_AIO_WRITEV;
}

/* Reads the request at this address of the program's memory. False: it moves no data, or cannot be read. */
static __always_inline bool gadget_aio_read(struct gadget_aio_request *request, __u64 address)
{
	if (bpf_probe_read_user(request, sizeof(*request), (const void *)address)) {
		gadget_count_unexamined();
		return false;
	}
	return gadget_aio_reads(request) || gadget_aio_writes(request);
}

/* The address of the request with this index. `call` has all arguments of the call. */
static __always_inline __u64 gadget_aio_address(const struct gadget_compat_call *call, __u32 index)
{
	const void *requests = (const void *)call->arguments[2];
	__u32 short_pointer = 0;
	__u64 address = 0;

	if (!call->has_short_pointers) {
		bpf_probe_read_user(&address, sizeof(address), requests + index * sizeof(address));
		return address;
	}
	bpf_probe_read_user(&short_pointer, sizeof(short_pointer), requests + index * sizeof(short_pointer));
	return short_pointer;
}

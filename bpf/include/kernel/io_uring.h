/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * A request of io_uring. The trap: `cmd` is raw memory that each operation casts to its own struct, and the first
 * member of that union has had several names. So the address of the request itself is cast here; the kernel checks at
 * build time that `cmd` comes first.
 */
#pragma once

#include <linux/types.h>

#include <bpf/bpf_core_read.h>

#include <kernel/fs.h>

#define IORING_OP_READV 1
#define IORING_OP_WRITEV 2
#define IORING_OP_FSYNC 3
#define IORING_OP_READ_FIXED 4
#define IORING_OP_WRITE_FIXED 5
#define IORING_OP_SENDMSG 9
#define IORING_OP_RECVMSG 10
#define IORING_OP_FALLOCATE 17
#define IORING_OP_OPENAT 18
#define IORING_OP_READ 22
#define IORING_OP_WRITE 23
#define IORING_OP_OPENAT2 28
#define IORING_OP_SPLICE 30
#define IORING_OP_RENAMEAT 35
#define IORING_OP_UNLINKAT 36
#define IORING_OP_MKDIRAT 37
#define IORING_OP_SYMLINKAT 38
#define IORING_OP_LINKAT 39
#define IORING_OP_MSG_RING 40
#define IORING_OP_FSETXATTR 41
#define IORING_OP_SETXATTR 42
#define IORING_OP_READ_MULTISHOT 49
#define IORING_OP_FTRUNCATE 55
#define IORING_OP_READV_FIXED 60
#define IORING_OP_WRITEV_FIXED 61

/* Flags of a request. The lowest bits are the flags of the submission (IOSQE_…), which are part of the ABI. */
#define GADGET_URING_FIXED_FILE (1 << 0)
#define GADGET_URING_SKIPS_SUCCESS (1 << 6)

/* For IORING_OP_SPLICE: the source is a slot of the ring. */
#define SPLICE_F_FD_IN_FIXED (1U << 31)
/* For IORING_OP_MSG_RING: a file is passed. */
#define IORING_MSG_SEND_FD 1
/* For io_open: the kernel chooses the slot, and returns it. */
#define GADGET_URING_ANY_SLOT (~0U)

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct io_rsrc_node {
	/* The lowest bits are flags. */
	unsigned long file_ptr;
};

struct io_rsrc_data {
	unsigned int nr;
	struct io_rsrc_node **nodes;
};

struct io_file_table {
	struct io_rsrc_data data;
};

struct io_ring_ctx {
	struct io_file_table file_table;
	struct mm_struct *mm_account;
};

/* Before 6.13 (7029acd8a950 "io_uring/rsrc: get rid of per-ring io_rsrc_node list" and related). */
struct io_fixed_file {
	unsigned long file_ptr;
};

struct io_file_table___array {
	struct io_fixed_file *files;
};

struct io_ring_ctx___array {
	struct io_file_table___array file_table;
	unsigned int nr_user_files;
};

struct io_cqe {
	__u64 user_data;
	__s32 res;
	/* Until the request completes, the descriptor that it was submitted with. */
	int fd;
};

struct io_kiocb {
	struct file *file;
	__u8 opcode;
	/* 64 bits wide since Linux 6.8. */
	__u32 flags;
	struct io_cqe cqe;
	struct io_ring_ctx *ctx;
};

struct io_rw {
	struct kiocb kiocb;
	/* In the program's memory: the data to read or write, or an array of struct iovec. */
	__u64 addr;
	__u32 len;
};

/* The request's own file is the one that is written to. */
struct io_splice {
	int splice_fd_in;
	unsigned int flags;
};

/* From ring to ring. */
struct io_msg {
	__u32 cmd;
	/* Slots of the rings' tables of registered files. */
	__u32 src_fd;
};

struct io_open {
	int dfd;
	__u32 file_slot;
	struct filename *filename;
	struct open_how how;
};

struct io_rename {
	int old_dfd;
	int new_dfd;
	struct filename *oldpath;
	struct filename *newpath;
};

struct io_unlink {
	int dfd;
	int flags;
	struct filename *filename;
};

struct io_mkdir {
	int dfd;
	__u16 mode;
	struct filename *filename;
};

/* Also used for symbolic links. */
struct io_link {
	int old_dfd;
	int new_dfd;
	struct filename *oldpath;
	struct filename *newpath;
};

struct xattr_name;

struct kernel_xattr_ctx {
	/* Begins with the text of the name. */
	struct xattr_name *kname;
};

struct io_xattr {
	struct kernel_xattr_ctx ctx;
	struct filename *filename;
};

/* For sending and receiving on sockets; the message is in the program's memory. */
struct io_sr_msg {
	void *umsg;
};

struct io_sync {
	__s64 len;
	int mode;
};

struct io_ftrunc {
	__s64 len;
};

struct io_uring_cqe {
	__u64 user_data;
	__s32 res;
};

/* Since Linux 7.0, requests wrap their names in this struct. */
struct delayed_filename {
	struct filename *__incomplete_filename;
};

struct io_open___delayed {
	struct delayed_filename filename;
};

struct io_rename___delayed {
	struct delayed_filename oldpath;
	struct delayed_filename newpath;
};

struct io_unlink___delayed {
	struct delayed_filename filename;
};

struct io_mkdir___delayed {
	struct delayed_filename filename;
};

struct io_link___delayed {
	struct delayed_filename oldpath;
	struct delayed_filename newpath;
};

struct io_xattr___delayed {
	struct delayed_filename filename;
};

#pragma clang attribute pop

/* The text of a name in kernel memory: gadget_uring_name(request, io_open, filename). */
#define gadget_uring_name(REQUEST, TYPE, MEMBER)                                                                       \
	(bpf_core_type_exists(struct delayed_filename)                                                                 \
		 ? BPF_CORE_READ((struct TYPE##___delayed *)(REQUEST), MEMBER.__incomplete_filename, name)             \
		 : BPF_CORE_READ((struct TYPE *)(REQUEST), MEMBER, name))

/* The arguments of the tracepoint io_uring_complete in Linux 6.18; in 6.12, the completion has several arguments. */
typedef void (*btf_trace_io_uring_complete___whole)(void *, struct io_ring_ctx *, void *, struct io_uring_cqe *);

/* The result, from the tracepoint's context. */
#define gadget_uring_result(CTX)                                                                                       \
	(bpf_core_type_exists(btf_trace_io_uring_complete___whole) ? ((struct io_uring_cqe *)(CTX)[2])->res            \
								   : (__s32)(CTX)[3])

/* Defines the programs uring_submit and uring_submit_sqe, which return FUNCTION(request). Each kernel has one of the
 * two tracepoints: 2ad57931db64 ("io_uring: rename trace_io_uring_submit_sqe() tracepoint") renamed it. */
#define GADGET_ON_URING_SUBMIT(FUNCTION)                                                                               \
	SEC("tp_btf/io_uring_submit_req")                                                                              \
	int BPF_PROG(uring_submit, struct io_kiocb *request)                                                           \
	{                                                                                                              \
		return FUNCTION(request);                                                                              \
	}                                                                                                              \
	SEC("tp_btf/io_uring_submit_sqe")                                                                              \
	int BPF_PROG(uring_submit_sqe, struct io_kiocb *request)                                                       \
	{                                                                                                              \
		return FUNCTION(request);                                                                              \
	}

/* A completion for which the queue is full. The tracepoint has only the user_data of the request, which several
 * requests may share, and the tracepoint io_uring_complete does not report this completion. */
struct gadget_uring_overflow {
	__u64 ring;
	__u64 user_data;
};

/* Defines the program uring_overflow, which calls FUNCTION for each entry of MAP, as bpf_for_each_map_elem() does, with
 * the overflow as the last argument. */
#define GADGET_ON_URING_OVERFLOW(MAP, FUNCTION)                                                                        \
	SEC("tp_btf/io_uring_cqe_overflow")                                                                            \
	int BPF_PROG(uring_overflow, void *ring, __u64 user_data)                                                      \
	{                                                                                                              \
		struct gadget_uring_overflow overflow = {.ring = (__u64)ring, .user_data = user_data};                 \
                                                                                                                       \
		bpf_for_each_map_elem(&MAP, FUNCTION, &overflow, 0);                                                   \
		return 0;                                                                                              \
	}

/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Unix sockets, their control messages, and the process at the other end.
 *
 * A socket's peer credentials name the process that connected, listened or created a socket pair; by now, another
 * process may have the socket.
 */
#pragma once

#include <gadget/task.h>
#include <kernel/socket.h>

#define SOL_SOCKET 1
#define SCM_RIGHTS 1
/* include/net/scm.h */
#define SCM_MAX_FD 253

/* struct msghdr, cmsghdr and mmsghdr of 64-bit programs: the layout is part of the ABI. */
struct gadget_msghdr {
	__u64 name;
	__u64 name_bytes;
	__u64 vector;
	__u64 vector_length;
	__u64 control;
	__u64 control_bytes;
	__u64 flags;
};

struct gadget_cmsghdr {
	__u64 bytes;
	__s32 level;
	__s32 type;
};

#define GADGET_MMSGHDR_BYTES 64

/* The same structs in 32-bit programs (include/net/compat.h). */
struct gadget_compat_msghdr {
	__u32 name;
	__u32 name_bytes;
	__u32 vector;
	__u32 vector_length;
	__u32 control;
	__u32 control_bytes;
	__u32 flags;
};

struct gadget_compat_cmsghdr {
	__u32 bytes;
	__s32 level;
	__s32 type;
};

#define GADGET_COMPAT_MMSGHDR_BYTES 32

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct unix_sock {
	struct sock *peer;
};

#pragma clang attribute pop

/* The process that a pid belongs to; NULL when it has ended. Read it with BPF_CORE_READ. */
static __always_inline struct task_struct *gadget_task_of_pid(struct pid *pid)
{
	struct hlist_node *first = BPF_CORE_READ(pid, tasks[PIDTYPE_TGID].first);

	if (!first)
		return NULL;
	return (void *)first - bpf_core_field_offset(struct task_struct, pid_links) -
	       PIDTYPE_TGID * GADGET_HLIST_NODE_BYTES;
}

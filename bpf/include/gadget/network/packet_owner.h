/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Programs that record which process uses a socket, for gadgets that handle packets. A gadget's YAML must list them
 * (see gadgets/trace_dns.yaml).
 *
 * They run where the current task is the user of the socket: when it creates a socket, connects it, sends from an
 * unconnected one or accepts a connection, and at a later exec; and, once at start, for each socket that is already
 * open. The trap: the programs for cgroups decide about the call, so they must always return GADGET_ALLOW.
 */
#pragma once

#include <bpf/bpf_endian.h>

#include <gadget/network/address.h>
#include <gadget/network/socket_owner.h>
#include <gadget/other_task.h>
#include <gadget/syscall.h>
#include <kernel/iterator.h>

#define GADGET_ALLOW 1

/*
 * If several gadgets of a run have these programs, the agent loads only those of the first one that keeps the owners of
 * all sockets, and the others use its maps (kubectl_gadget/agent/bpf/packet_programs.py). "all": this gadget keeps the
 * owners of all sockets; "some": it needs only some of them. A gadget that does more in these programs does not have
 * this variable.
 */
#if defined(GADGET_ACCEPTED)
#elif defined(GADGET_OWNED) || defined(GADGET_HANDLES_PORT) || defined(GADGET_FORGETS)
const char gadget_owners_kept[] SEC(".rodata.owners") = "some";
#else
const char gadget_owners_kept[] SEC(".rodata.owners") = "all";
#endif

/* Whether sockets of this protocol need an owner. A gadget may define it before it includes this file. */
#ifndef GADGET_OWNED
#define GADGET_OWNED(PROTOCOL) true
#endif

/* Whether the gadget handles TCP packets from or to this port. The owners of other connections may be wrong. A gadget
 * may define it before it includes this file. */
#ifndef GADGET_HANDLES_PORT
#define GADGET_HANDLES_PORT(PORT) true
#endif

/* Whether another gadget keeps the owners of connections of this protocol. */
static __always_inline bool gadget_kept_elsewhere(__u32 protocol)
{
	return gadget_connections_kept && protocol == IPPROTO_TCP;
}

/* `address` is the address of a struct sock. */
static __always_inline void gadget_own_socket(__u64 address, struct task_struct *task, __u64 flags)
{
	struct gadget_owner owner = {};

	/* Ignores the filter by name, which is applied to each packet, since an exec may change the name. */
	if (gadget_begin_with_any_name(&owner.record, task)) {
		gadget_exec_of(&owner.exec, task);
		gadget_keep_owner((const void *)address, &owner, flags);
	} else if (flags != BPF_NOEXIST) {
		gadget_forget_owner((const void *)address);
	}
}

SEC("cgroup/sock_create")
int socket_made(struct bpf_sock *ctx)
{
	/* A raw socket may send any protocol. */
	if (GADGET_OWNED(ctx->protocol) || ctx->type == SOCK_RAW)
		gadget_own_socket((__u64)ctx, gadget_task(), BPF_ANY);
	return GADGET_ALLOW;
}

/* TCP may send data after the socket was closed, so the owner of a TCP socket is removed later. The trap: the program
 * that does so does not see raw sockets for TCP. A gadget defines GADGET_FORGETS if its own program for
 * cgroup/sock_release removes the owner. */
#ifndef GADGET_FORGETS
SEC("cgroup/sock_release")
int socket_released(struct bpf_sock *ctx)
{
	if (ctx->type == SOCK_RAW || (ctx->protocol != IPPROTO_TCP && GADGET_OWNED(ctx->protocol)))
		gadget_forget_owner(ctx);
	return GADGET_ALLOW;
}
#endif

SEC("tp_btf/tcp_destroy_sock")
int BPF_PROG(connection_gone, struct sock *sk)
{
	gadget_forget_owner(sk);
	return 0;
}

static __always_inline int gadget_own_used(struct bpf_sock_addr *ctx)
{
	struct bpf_sock *sk = ctx->sk;

	if (!sk || (!GADGET_OWNED(ctx->protocol) && ctx->type != SOCK_RAW) || gadget_kept_elsewhere(ctx->protocol))
		return GADGET_ALLOW;
	if (ctx->protocol != IPPROTO_TCP || GADGET_HANDLES_PORT(bpf_ntohs(ctx->user_port)) ||
	    GADGET_HANDLES_PORT(sk->src_port))
		gadget_own_socket((__u64)sk, gadget_task(), BPF_ANY);
	return GADGET_ALLOW;
}

SEC("cgroup/connect4")
int connecting_v4(struct bpf_sock_addr *ctx)
{
	return gadget_own_used(ctx);
}

SEC("cgroup/connect6")
int connecting_v6(struct bpf_sock_addr *ctx)
{
	return gadget_own_used(ctx);
}

SEC("cgroup/sendmsg4")
int sending_v4(struct bpf_sock_addr *ctx)
{
	return gadget_own_used(ctx);
}

SEC("cgroup/sendmsg6")
int sending_v6(struct bpf_sock_addr *ctx)
{
	return gadget_own_used(ctx);
}

/* Handles a connection that has just got its owner. A gadget may define it before it includes this file. */
#ifndef GADGET_ACCEPTED
#define GADGET_ACCEPTED(SOCKET)
#endif

static __always_inline int gadget_own_accepted(long result)
{
	struct sock *sk = result >= 0 ? gadget_socket_of_fd(result) : NULL;
	__u16 protocol = sk ? gadget_read_at(struct sock, sk, sk_protocol) : 0;

	if (gadget_kept_elsewhere(protocol))
		return 0;
	if (protocol == IPPROTO_TCP && !GADGET_HANDLES_PORT(gadget_local_port(sk)) &&
	    !GADGET_HANDLES_PORT(gadget_remote_port(sk)))
		return 0;
	if ((protocol == IPPROTO_TCP || protocol == IPPROTO_SCTP) && GADGET_OWNED(protocol)) {
		gadget_own_socket((__u64)sk, gadget_task(), BPF_ANY);
		GADGET_ACCEPTED(sk);
	}
	return 0;
}

SEC("tracepoint/syscalls/sys_exit_accept")
int accepted(struct trace_event_raw_sys_exit *ctx)
{
	return gadget_own_accepted(gadget_result(ctx));
}

SEC("tracepoint/syscalls/sys_exit_accept4")
int accepted4(struct trace_event_raw_sys_exit *ctx)
{
	return gadget_own_accepted(gadget_result(ctx));
}

/* Sockets that stay open now belong to the new program. */
SEC("tp_btf/sched_process_exec")
int BPF_PROG(owner_executes, struct task_struct *task)
{
	struct gadget_executed now = {};
	gadget_pid pid = gadget_node_pid(task);

	gadget_exec_of(&now.exec, task);
	gadget_comm_of(task, now.comm);
	bpf_map_update_elem(&gadget_executed, &pid, &now, BPF_ANY);
	__sync_fetch_and_add(&gadget_execs, 1);
	return 0;
}

/* For existing sockets: the owner is the first process that has the socket open. */
SEC("iter/task_file")
int find_users(struct bpf_iter__task_file *ctx)
{
	/* Read once: for the verifier, each read of the context returns a different pointer. */
	struct task_struct *task = ctx->task;
	struct file *file = ctx->file;
	struct sock *sk;
	__u16 family;

	if (!file || !task)
		return 0;
	sk = gadget_socket_of_file(file);
	if (!sk)
		return 0;
	family = BPF_CORE_READ(sk, __sk_common.skc_family);
	if ((family == AF_INET || family == AF_INET6) &&
	    (GADGET_OWNED(BPF_CORE_READ(sk, sk_protocol)) || BPF_CORE_READ(sk, sk_type) == SOCK_RAW))
		gadget_own_socket((__u64)sk, task, BPF_NOEXIST);
	return 0;
}

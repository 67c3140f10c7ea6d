/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Sockets that are quiet: until some time, there is nothing to report about their packets. trace tcp, which reports,
 * fills the table, and bpf/packets.bpf.c does not call it for packets of these sockets, which are nearly all.
 *
 * Two sockets that share an entry replace each other, and CPUs that write an entry at the same time may mix up its
 * members. At worst, a report is delayed until the socket is no longer quiet.
 */
#pragma once

#include <gadget/helpers.h>
#include <gadget/task.h>
#include <kernel/socket.h>

struct gadget_quiet {
	/* Its cookie, which no other socket ever has. */
	__u64 socket;
	/* In ticks. */
	__u64 until;
	/* The fork time of the last sender, which is unique. */
	__u64 sender;
};

#define GADGET_QUIET 4096

struct gadget_quiet gadget_quiet[GADGET_QUIET] SEC(".bss.quiet");

static __always_inline struct gadget_quiet *gadget_quiet_of(__u64 socket)
{
	return &gadget_quiet[socket % GADGET_QUIET];
}

/* The cookie of the socket that sends this packet. Without a call, if the kernel has casts and the socket has one. */
static __always_inline __u64 gadget_cookie_of(struct __sk_buff *skb)
{
	__u64 cookie = 0;

	if (GADGET_CASTS && skb->sk)
		cookie = gadget_cast(struct sock, skb->sk)->__sk_common.skc_cookie.counter;
	return cookie ?: bpf_get_socket_cookie(skb);
}

/* Programs for packets can read the current task by loads since 5.18. */
#define GADGET_PACKETS_HAVE_TASK gadget_has_helper(skb_set_tstamp)

/* The current process, by its fork time. This runs for each packet, so it does not use gadget_task(), whose untrusted
 * pointer makes each load take longer. */
static __always_inline __u64 gadget_current_fork(void)
{
	struct task_struct *task;

	if (!GADGET_PACKETS_HAVE_TASK)
		return BPF_CORE_READ((struct task_struct *)bpf_get_current_task(), group_leader, start_boottime);
	task = bpf_get_current_task_btf();
	return task->group_leader->start_boottime;
}

/* Whether the current process sends this TCP packet, and not an interrupt or a timer: only a process locks the socket
 * as owned. Always true before 5.18. */
static __always_inline bool gadget_has_sender(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk;
	struct tcp_sock *tcp;

	if (!GADGET_PACKETS_HAVE_TASK)
		return true;
	tcp = sk ? bpf_skc_to_tcp_sock(sk) : NULL;
	return tcp && ((struct sock *)tcp)->sk_lock.owned;
}

/* Whether there is nothing to report about this packet that the socket sends. `now` is in ticks. In most cases, the
 * sender is the same process as before, so this is compared first. */
static __always_inline bool gadget_is_quiet(const struct gadget_quiet *known, struct __sk_buff *skb, __u64 socket,
					    __u64 now)
{
	return known->socket == socket && now < known->until &&
	       (known->sender == gadget_current_fork() || !gadget_has_sender(skb));
}

/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Sockets for which there is nothing to report for a moment, as for nearly all packets. The gadget that reports fills
 * the table, and bpf/packets.bpf.c does not call it for their packets.
 *
 * The trap: two sockets that share an entry replace each other, and CPUs that write an entry at the same time may mix
 * it up. Both delay a report by at most that moment.
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

/* The sending process, by its fork time. 0: unknown, since the packet may come from an interrupt or a timer: only
 * processes lock a socket as owned. Always 0 before 5.18, whose programs for packets cannot use gadget_task(). */
static __always_inline __u64 gadget_sender_of(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk;
	struct tcp_sock *tcp;

	if (!gadget_has_helper(skb_set_tstamp))
		return BPF_CORE_READ((struct task_struct *)bpf_get_current_task(), group_leader, start_boottime);
	tcp = sk ? bpf_skc_to_tcp_sock(sk) : NULL;
	if (!tcp || !((struct sock *)tcp)->sk_lock.owned)
		return 0;
	return gadget_task()->group_leader->start_boottime;
}

/* Whether there is nothing to report about this packet of the socket. `now` in ticks. */
static __always_inline bool gadget_is_quiet(const struct gadget_quiet *known, __u64 socket, __u64 sender, __u64 now)
{
	return known->socket == socket && now < known->until && (!sender || known->sender == sender);
}

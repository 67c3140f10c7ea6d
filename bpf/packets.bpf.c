// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * Calls the programs for packets and for closed sockets of a run with several such gadgets. Most packets are TCP
 * packets, which most gadgets do not need, and starting a program costs more than what it does for them
 * (docs/design/flows.md). Emits nothing itself.
 *
 * Hooks: cgroup_skb and cgroup/sock_release at the node's root. The agent (kubectl_gadget/agent/bpf/packet_programs.py)
 * puts the programs into the arrays, with one index for each gadget, and sets the gadget's bits in `wanted` according
 * to its GADGET_PACKETS_OF.
 *
 * The trap: these programs decide whether packets pass. They return GADGET_PASS whatever the called programs return, so
 * no program that refuses packets may be called from here.
 */
#include <linux/in6.h>

#include <gadget/network/packet_port.h>
#include <gadget/network/quiet_sockets.h>

/* The maximum number of gadgets. */
#define GADGETS 16
#define PROTOCOLS 256

struct programs {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, GADGETS);
	__type(key, __u32);
	__type(value, __u32);
};

struct programs sent_programs SEC(".maps");
struct programs received_programs SEC(".maps");
struct programs closed_programs SEC(".maps");

/* Written by the agent: a bit for each gadget. */
struct {
	/* By the socket's protocol; for TCP, only gadgets that want every packet. */
	__u32 of_protocol[PROTOCOLS];
	/* For protocols with higher numbers. */
	__u32 of_others;
	/* For TCP packets that have `port`, and for those sent by a socket that is not quiet. */
	__u32 with_port;
	__u32 unquiet;
	__u32 port;
} wanted SEC(".data.wanted");

/* Defines call_SIDE(), which calls one program: a tail call in a subprogram returns to the subprogram's caller. And
 * call_all_SIDE(), which calls all. */
#define CALLS(SIDE, CONTEXT)                                                                                           \
	static __noinline int call_##SIDE(CONTEXT *ctx, __u32 gadget)                                                  \
	{                                                                                                              \
		bpf_tail_call(ctx, &SIDE##_programs, gadget);                                                          \
		return 0;                                                                                              \
	}                                                                                                              \
	static __noinline int call_all_##SIDE(CONTEXT *ctx, __u32 gadgets)                                             \
	{                                                                                                              \
		for (int i = 0; i < GADGETS && gadgets; i++, gadgets >>= 1) {                                          \
			if (gadgets & 1)                                                                               \
				call_##SIDE(ctx, i);                                                                   \
		}                                                                                                      \
		return 0;                                                                                              \
	}

CALLS(sent, struct __sk_buff)
CALLS(received, struct __sk_buff)
CALLS(closed, struct bpf_sock)

static __always_inline bool is_quiet(struct __sk_buff *skb)
{
	__u64 socket = gadget_cookie_of(skb);

	return gadget_is_quiet(gadget_quiet_of(socket), skb, socket, bpf_jiffies64());
}

static __always_inline __u32 wanted_of_tcp(struct __sk_buff *skb, bool may_have_port, bool outgoing)
{
	__u32 gadgets = wanted.of_protocol[IPPROTO_TCP];

	if (may_have_port)
		gadgets |= wanted.with_port;
	if (outgoing && wanted.unquiet && !is_quiet(skb))
		gadgets |= wanted.unquiet;
	return gadgets;
}

static __always_inline __u32 wanted_of(__u32 protocol)
{
	if (protocol >= PROTOCOLS)
		return wanted.of_others;
	/* Keeps the compiler from computing the address of the entry before the check. */
	asm volatile("" : "+r"(protocol));
	return wanted.of_protocol[protocol];
}

/* A raw socket may send a packet of any protocol (IP_HDRINCL). */
static __always_inline __u32 wanted_of_raw(__u32 protocol)
{
	return wanted_of(protocol) | wanted.of_protocol[IPPROTO_ICMP] | wanted.of_protocol[IPPROTO_UDP] |
	       wanted.of_protocol[IPPROTO_ICMPV6] | wanted.of_protocol[IPPROTO_SCTP];
}

/* The bits of the gadgets that want the packet. The first bytes show for most packets that they are TCP packets, which
 * saves the helper call for the socket. */
static __always_inline __u32 wanted_by(struct __sk_buff *skb, bool outgoing)
{
	struct bpf_sock *sk = skb->sk;
	struct gadget_ports ports;
	__u32 protocol;

	if (gadget_first_ports(skb, &ports) && ports.protocol == IPPROTO_TCP)
		return wanted_of_tcp(skb, gadget_is_port(&ports, wanted.port), outgoing);
	sk = sk ? bpf_sk_fullsock(sk) : NULL;
	/* The kernel runs these programs only for full sockets. */
	if (!sk)
		return 0;
	protocol = sk->protocol;
	if (sk->type == SOCK_RAW)
		return wanted_of_raw(protocol) | wanted_of_tcp(skb, true, outgoing);
	if (protocol == IPPROTO_TCP)
		return wanted_of_tcp(skb, true, outgoing);
	return wanted_of(protocol);
}

SEC("cgroup_skb/egress")
int any_sent(struct __sk_buff *skb)
{
	__u32 gadgets = wanted_by(skb, true);

	if (gadgets)
		call_all_sent(skb, gadgets);
	return GADGET_PASS;
}

SEC("cgroup_skb/ingress")
int any_received(struct __sk_buff *skb)
{
	__u32 gadgets = wanted_by(skb, false);

	if (gadgets)
		call_all_received(skb, gadgets);
	return GADGET_PASS;
}

/* Not for TCP sockets, which may still send packets after they are closed. */
SEC("cgroup/sock_release")
int any_closed(struct bpf_sock *ctx)
{
	__u32 protocol = ctx->protocol, gadgets = protocol == IPPROTO_TCP ? 0 : wanted_of(protocol);

	if (ctx->type == SOCK_RAW)
		gadgets = wanted_of_raw(protocol);
	if (gadgets)
		call_all_closed(ctx, gadgets);
	return GADGET_PASS;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";

// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * Calls the programs of a run's gadgets for packets, and for sockets that are closed, where it has several. Most belong
 * to TCP, in which most gadgets have nothing to read, and to begin a program costs more than what it then does
 * (docs/design/flows.md). Emits nothing itself.
 *
 * Hooks: cgroup_skb and cgroup/sock_release at the node's root. The agent (kubectl_gadget/agent/bpf/packet_programs.py)
 * puts the programs into the arrays, an index for each gadget, and sets a bit for it where a gadget's GADGET_PACKETS_OF
 * says so.
 *
 * The trap: the programs decide about packets, so whatever the called ones return, this returns GADGET_PASS. So no
 * program that refuses packets may be called from here.
 */
#include <gadget/packet_port.h>
#include <gadget/quiet_sockets.h>

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

/* Written by the agent: bits of the gadgets. */
struct {
	/* By the socket's protocol; in TCP's, those that want every packet. */
	__u32 of_protocol[PROTOCOLS];
	/* Of protocols with higher numbers. */
	__u32 of_others;
	/* Of TCP, if the packet has `port`, and if it is sent by a socket that is not quiet. */
	__u32 with_port;
	__u32 unquiet;
	__u32 port;
} wanted SEC(".data.wanted");

/* A function that calls one program and returns, as bpf_tail_call() does in a function; and one that calls all. */
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
	__u64 socket = bpf_get_socket_cookie(skb);

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
	/* Without this, the compiler would compute the place in the array before the check. */
	asm volatile("" : "+r"(protocol));
	return wanted.of_protocol[protocol];
}

/* The bits of the gadgets that want the packet. Most packets are TCP's by their first bytes, and so need no call that
 * finds the socket. */
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

/* The end of a socket of TCP is none of these: it may send packets after that. */
SEC("cgroup/sock_release")
int any_closed(struct bpf_sock *ctx)
{
	__u32 protocol = ctx->protocol, gadgets = protocol == IPPROTO_TCP ? 0 : wanted_of(protocol);

	if (gadgets)
		call_all_closed(ctx, gadgets);
	return GADGET_PASS;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";

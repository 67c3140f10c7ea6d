// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * trace tcpretrans: emits one `struct trace_tcpretrans` for each retransmitted TCP segment.
 *
 * Hooks: the tracepoints tcp_retransmit_skb, and tcp_retransmit_synack for answers to a SYN. Both run in timers and
 * interrupts, so the owner of the socket is recorded earlier (gadget/network/packet_owner.h).
 */
#include <gadget/ends.h>
#include <gadget/kernel_stack.h>
#include <gadget/network/address.h>
#include <gadget/network/packet_owner.h>
#include <kernel/sk_buff.h>
#include <kernel/socket.h>

enum reason {
	/* There was no answer for too long. */
	REASON_TIMEOUT = 1,
	/* The answers show a gap. */
	REASON_FAST,
	/* Tail loss probe: there was no answer for a short time. */
	REASON_PROBE,
	/* The answer to a SYN. */
	REASON_SYNACK,
};

#define SYN_ACK 0x12

struct trace_tcpretrans {
	struct gadget_record record;
	gadget_ip local;
	gadget_ip remote;
	gadget_port local_port;
	gadget_port remote_port;
	gadget_tcp_state state;
	/* The flags of the segment. */
	gadget_tcp_flags flags;
	enum reason reason;
	/* Consecutive timeouts. */
	__u32 timeouts;
	/* Segments of this connection retransmitted so far. */
	__u32 retransmits;
	gadget_errno errno;
	gadget_strings stack;
	/* The size of the segment's payload. */
	gadget_bytes bytes;
};

GADGET_RECORD(trace_tcpretrans);

#define RECORD_BYTES GADGET_ROOM(sizeof(struct trace_tcpretrans) + GADGET_STACK_BYTES)

GADGET_SCRATCH(retransmit_scratch, RECORD_BYTES);
GADGET_SCRATCH(synack_scratch, RECORD_BYTES);

/* Local or remote. 0: any. */
const volatile __u16 filter_port = 0;
const volatile bool collect_stack = false;

static __always_inline void send(struct trace_tcpretrans *segment, void *context)
{
	struct gadget_writer writer = gadget_write(segment, sizeof(*segment), RECORD_BYTES);

	if (!gadget_wanted_addresses(segment->local, segment->remote))
		return;
	if (filter_port && segment->local_port != filter_port && segment->remote_port != filter_port)
		return;
	gadget_no_text(&segment->stack);
	if (collect_stack)
		gadget_append_kernel_stack(&writer, &segment->stack, context);
	gadget_send(&writer);
}

static __always_inline enum reason reason_of(struct inet_connection_sock *connection)
{
	__u8 state = BPF_CORE_READ_BITFIELD_PROBED(connection, icsk_ca_state);

	return state == TCP_CA_Loss ? REASON_TIMEOUT : state == TCP_CA_Recovery ? REASON_FAST : REASON_PROBE;
}

SEC("tp_btf/tcp_retransmit_skb")
int retransmitted(__u64 *ctx)
{
	struct trace_tcpretrans *segment = gadget_scratch(&retransmit_scratch);
	struct sock *sk = (struct sock *)ctx[0];
	struct sk_buff *skb = (struct sk_buff *)ctx[1];
	struct tcp_skb_cb *control = (void *)skb + bpf_core_field_offset(struct sk_buff, cb);

	if (!segment || !gadget_begin_for_socket(&segment->record, sk, gadget_owner_of(sk)))
		return 0;
	gadget_local_ip(segment->local, sk);
	gadget_remote_ip(segment->remote, sk);
	segment->local_port = gadget_local_port(sk);
	segment->remote_port = gadget_remote_port(sk);
	segment->state = BPF_CORE_READ(sk, __sk_common.skc_state);
	segment->flags = BPF_CORE_READ(control, tcp_flags);
	segment->reason = reason_of((struct inet_connection_sock *)sk);
	segment->timeouts = BPF_CORE_READ((struct inet_connection_sock *)sk, icsk_retransmits);
	segment->retransmits = BPF_CORE_READ((struct tcp_sock *)sk, total_retrans);
	segment->bytes = BPF_CORE_READ(skb, len);
	segment->errno = bpf_core_type_exists(btf_trace_tcp_retransmit_skb___error) ? -(__s32)ctx[2] : 0;
	send(segment, ctx);
	return 0;
}

SEC("tp_btf/tcp_retransmit_synack")
int retransmitted_synack(__u64 *ctx)
{
	struct trace_tcpretrans *segment = gadget_scratch(&synack_scratch);
	struct sock *listener = (struct sock *)ctx[0];
	/* A request socket: it begins with the same members as a socket, but does not have the others. */
	struct sock *request = (struct sock *)ctx[1];

	if (!segment || !gadget_begin_for_socket(&segment->record, listener, gadget_owner_of(listener)))
		return 0;
	gadget_local_ip(segment->local, request);
	gadget_remote_ip(segment->remote, request);
	segment->local_port = BPF_CORE_READ(request, __sk_common.skc_num);
	segment->remote_port = gadget_remote_port(request);
	segment->state = TCP_NEW_SYN_RECV;
	segment->flags = SYN_ACK;
	segment->reason = REASON_SYNACK;
	segment->timeouts = segment->retransmits = 0;
	segment->bytes = 0;
	segment->errno = 0;
	send(segment, ctx);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";

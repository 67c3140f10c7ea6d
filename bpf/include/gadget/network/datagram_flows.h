/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Flows of protocols without connections: a flow is the packets between one socket and one remote address and port.
 * Before including this file, define
 *
 *   GADGET_FLOW                 the name of the record's struct
 *   GADGET_FLOW_REMOTE          the type of remote_port
 *   GADGET_FLOW_PEER_BEGINS     whether a received packet may begin a flow
 *   gadget_flow_protocol()      whether sockets of this protocol have flows
 *   gadget_flow_headers()       reads a packet's addresses, ports and payload_bytes; false: it belongs to no flow
 *
 * A record is sent for the first packet of each flow, then at most one per second while there is traffic, and one when
 * the flow ends, at the latest when its socket is closed. A socket's flows are in a queue, and there may be any number
 * of them. Each new flow examines the two oldest flows of the queue and ends those without traffic, so that old flows
 * do not fill the maps.
 */
#pragma once

#include <gadget/network/packet.h>
#include <gadget/ends.h>

/* The maximum number of flows at the same time. */
#define FLOWS 65536
/* When a socket is closed, its flows are ended in rounds, since the verifier rejects a single loop of 16384
 * iterations. */
#define ROUNDS 128
#define FLOWS_IN_ROUND 128
/* A flow without traffic for this long may end when a new flow begins. */
#define SILENCE (30 * 1000000000ULL)

enum operation {
	OPERATION_FIRST = 1,
	OPERATION_FLOW,
	OPERATION_END,
};

struct GADGET_FLOW {
	struct gadget_record record;
	/* Since the first packet, like all numbers here. */
	gadget_duration duration;
	gadget_bytes sent;
	gadget_bytes received;
	__u64 sent_packets;
	__u64 received_packets;
	gadget_ip local;
	gadget_ip remote;
	gadget_port local_port;
	GADGET_FLOW_REMOTE remote_port;
	enum operation operation;
	gadget_ip_protocol protocol;
	__u8 unused_8;
	gadget_address_family family;
	__u32 unused_32;
};

GADGET_RECORD(GADGET_FLOW);

/* The port of either end. 0: any. */
const volatile __u16 filter_port = 0;
/* Milliseconds between two rows of a flow. 0: only the first and the last. */
const volatile __u32 interval = 1000;

struct flow_key {
	__u64 socket;
	gadget_ip local;
	gadget_ip remote;
	__u16 local_port;
	__u16 remote_port;
	__u32 unused;
};

struct flow {
	struct GADGET_FLOW row;
	__u64 first;
	__u64 last;
	/* When the last row was sent. */
	__u64 reported;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, FLOWS);
	__type(key, struct flow_key);
	__type(value, struct flow);
} flows SEC(".maps");

/* A socket's queue of flows. Its entries have the numbers from `head` up to, but not including, `tail`. */
struct queue {
	struct bpf_spin_lock lock;
	__u32 head;
	__u32 tail;
	__u32 unused;
	/* The same as the key. For the verifier, this is a number and not a pointer. */
	__u64 socket;
};

struct queue_key {
	__u64 socket;
	__u64 number;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, FLOWS);
	__type(key, __u64);
	__type(value, struct queue);
} queues SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, FLOWS);
	__type(key, struct queue_key);
	__type(value, struct flow_key);
} queued_flows SEC(".maps");

/* Data that does not fit on the stack. */
struct workspace {
	struct gadget_packet packet;
	struct flow flow;
};

GADGET_SLOTS(slots, sizeof(struct workspace));

static __always_inline void report(struct flow *flow, enum operation operation, __u64 now)
{
	struct GADGET_FLOW row = flow->row;

	row.operation = operation;
	row.duration = now - flow->first;
	gadget_emit(&row.record, sizeof(row), 0);
}

static __always_inline void end_flow(const struct flow_key *key, struct flow *flow)
{
	report(flow, OPERATION_END, flow->last);
	bpf_map_delete_elem(&flows, key);
}

/* Puts a flow at the end of its socket's queue. */
static __always_inline bool push(struct queue *queue, const struct flow_key *key)
{
	struct queue_key queue_key = {.socket = key->socket};

	bpf_spin_lock(&queue->lock);
	queue_key.number = queue->tail++;
	bpf_spin_unlock(&queue->lock);
	return !bpf_map_update_elem(&queued_flows, &queue_key, key, BPF_ANY);
}

/* Removes the oldest flow from the queue. False: there is none. */
static __always_inline bool pop(struct queue *queue, __u64 socket, struct flow_key *key)
{
	struct queue_key queue_key = {.socket = socket};
	const struct flow_key *found;
	bool empty;

	bpf_spin_lock(&queue->lock);
	empty = queue->head == queue->tail;
	queue_key.number = queue->head;
	if (!empty)
		queue->head++;
	bpf_spin_unlock(&queue->lock);
	if (empty)
		return false;
	found = bpf_map_lookup_elem(&queued_flows, &queue_key);
	if (!found) {
		/* The flow could not be stored. */
		key->socket = 0;
		return true;
	}
	*key = *found;
	bpf_map_delete_elem(&queued_flows, &queue_key);
	return true;
}

/* Ends the oldest flow of the queue if it has no traffic, otherwise moves it to the end of the queue. */
static __always_inline void check_oldest(struct queue *queue, __u64 socket, __u64 now)
{
	struct flow_key key;
	struct flow *flow;

	if (!pop(queue, socket, &key))
		return;
	flow = bpf_map_lookup_elem(&flows, &key);
	if (!flow)
		return;
	if (now - flow->last > SILENCE)
		end_flow(&key, flow);
	else
		push(queue, &key);
}

static __always_inline struct queue *queue_of(__u64 socket)
{
	struct queue *queue = bpf_map_lookup_elem(&queues, &socket);
	struct queue empty = {.socket = socket};

	if (queue)
		return queue;
	bpf_map_update_elem(&queues, &socket, &empty, BPF_NOEXIST);
	return bpf_map_lookup_elem(&queues, &socket);
}

static __always_inline void count(struct flow *flow, const struct gadget_packet *packet, __u32 packets)
{
	if (packet->outgoing) {
		gadget_count(&flow->row.sent, packet->payload_bytes);
		gadget_count(&flow->row.sent_packets, packets);
	} else {
		gadget_count(&flow->row.received, packet->payload_bytes);
		gadget_count(&flow->row.received_packets, packets);
	}
}

static __always_inline void first_packet(struct workspace *work, const struct flow_key *key, __u32 packets, __u64 now)
{
	struct queue *queue = queue_of(key->socket);
	struct flow *flow = &work->flow;

	flow->row = (struct GADGET_FLOW){.record = work->packet.record};
	__builtin_memcpy(flow->row.local, key->local, sizeof(gadget_ip));
	__builtin_memcpy(flow->row.remote, key->remote, sizeof(gadget_ip));
	flow->row.local_port = key->local_port;
	flow->row.remote_port = key->remote_port;
	flow->row.protocol = work->packet.protocol;
	flow->row.family = work->packet.family;
	flow->first = flow->last = flow->reported = now;
	count(flow, &work->packet, packets);
	if (!queue || bpf_map_update_elem(&flows, key, flow, BPF_NOEXIST) || !push(queue, key)) {
		/* The first packet is not reported either, since nothing would report the end. */
		bpf_map_delete_elem(&flows, key);
		gadget_count_map_full();
		return;
	}
	report(flow, OPERATION_FIRST, now);
	check_oldest(queue, key->socket, now);
	check_oldest(queue, key->socket, now);
}

static __always_inline void handle(struct __sk_buff *skb, struct workspace *work, bool outgoing)
{
	struct gadget_packet *packet = &work->packet;
	/* The number of segments, for a packet that the network card will segment or has merged. */
	__u32 packets = skb->gso_segs ?: 1;
	__u64 now = bpf_ktime_get_boot_ns();
	struct flow_key key = {};
	struct flow *flow;

	if (!gadget_flow_headers(skb, packet, outgoing) || !gadget_has_port(packet, filter_port) ||
	    !gadget_wanted_addresses(packet->local, packet->remote))
		return;
	key.socket = (__u64)skb->sk;
	__builtin_memcpy(key.local, packet->local, sizeof(key.local));
	__builtin_memcpy(key.remote, packet->remote, sizeof(key.remote));
	key.local_port = packet->local_port;
	key.remote_port = packet->remote_port;
	flow = bpf_map_lookup_elem(&flows, &key);
	if (!flow) {
		if ((outgoing || GADGET_FLOW_PEER_BEGINS) && gadget_begin_packet(skb, packet))
			first_packet(work, &key, packets, now);
		return;
	}
	count(flow, packet, packets);
	flow->last = now;
	if (interval && now - flow->reported >= interval * 1000000ULL) {
		flow->reported = now;
		report(flow, OPERATION_FLOW, now);
	}
}

static __always_inline bool has_flows(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk;

	if (!sk)
		return false;
	sk = bpf_sk_fullsock(sk);
	/* A raw socket may send any protocol (IP_HDRINCL). */
	return sk && (gadget_flow_protocol(sk->protocol) || sk->type == SOCK_RAW);
}

GADGET_PACKET_PROGRAMS_WITH_SLOT(has_flows(skb), handle)

/* Ends one flow of a closed socket. Not inlined and not static, so that the verifier checks it once. */
__noinline bool end_one(__u64 socket)
{
	struct queue *queue = bpf_map_lookup_elem(&queues, &socket);
	struct flow_key key;
	struct flow *flow;

	if (!queue || !pop(queue, socket, &key))
		return false;
	flow = bpf_map_lookup_elem(&flows, &key);
	if (flow)
		end_flow(&key, flow);
	return true;
}

/* False: there are no more. */
__noinline bool end_some(__u64 socket)
{
	for (int i = 0; i < FLOWS_IN_ROUND; i++)
		if (!end_one(socket))
			return false;
	return true;
}

static __always_inline void end_all(__u64 socket)
{
	const struct queue *queue = bpf_map_lookup_elem(&queues, &socket);

	if (!queue)
		return;
	for (int i = 0; i < ROUNDS; i++)
		if (!end_some(queue->socket))
			break;
	bpf_map_delete_elem(&queues, &socket);
}

SEC("cgroup/sock_release")
int flows_ended(struct bpf_sock *ctx)
{
	if (!gadget_flow_protocol(ctx->protocol) && ctx->type != SOCK_RAW)
		return GADGET_ALLOW;
	end_all((__u64)ctx);
	gadget_forget_owner(ctx);
	return GADGET_ALLOW;
}

// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * trace udp: emits a `struct trace_udp` for the first packet of each UDP flow (on request, also SCTP), then at most one
 * per second while there is traffic, and one when the flow ends.
 *
 * Hooks: cgroup_skb, which sees each packet of the node's sockets once, with its real addresses, whichever call sends
 * it; cgroup/sock_release for the end; for packets that a packet socket or AF_XDP sends, where a device takes them
 * (gadget/network/packet_socket.h). Not seen: packets that are dropped before they reach the socket.
 *
 * For SCTP, packets belong to the listening socket until a connection is accepted.
 */
#include <linux/in.h>

/* Programs have no room on the stack for one more call. */
#define GADGET_LEVEL_FUNCTION static __always_inline

#include <gadget/record.h>

const volatile bool with_sctp = false;

static __always_inline bool gadget_flow_protocol(__u32 protocol)
{
	return protocol == IPPROTO_UDP || (with_sctp && protocol == IPPROTO_SCTP);
}

/* Owners of TCP sockets, the most frequent ones, are not recorded. */
#define GADGET_OWNED gadget_flow_protocol
/* flows_ended removes the owner, after it has sent the last rows. */
#define GADGET_FORGETS

#include <gadget/network/packet.h>

#define GADGET_FLOW trace_udp
#define GADGET_FLOW_REMOTE gadget_port
#define GADGET_FLOW_PEER_BEGINS true

/* RFC 9260, section 3.1. */
struct sctp_head {
	__be16 source;
	__be16 destination;
	__be32 tag;
	__be32 checksum;
};

static __always_inline bool read_sctp(struct __sk_buff *skb, struct gadget_packet *packet, __u32 offset)
{
	struct sctp_head head;

	if (bpf_skb_load_bytes(skb, offset, &head, sizeof(head)))
		return false;
	gadget_set_ports(packet, head.source, head.destination);
	offset += sizeof(head);
	packet->payload_bytes = skb->len > offset ? skb->len - offset : 0;
	return true;
}

static __always_inline bool gadget_flow_headers(struct __sk_buff *skb, struct gadget_packet *packet, bool outgoing)
{
	__u32 offset;

	packet->flags = 0;
	packet->sequence = 0;
	packet->network_namespace = 0;
	offset = gadget_read_ip(skb, packet, outgoing);
	if (!offset)
		return false;
	if (with_sctp && packet->protocol == IPPROTO_SCTP)
		return read_sctp(skb, packet, offset);
	if (packet->protocol != IPPROTO_UDP)
		return false;
	offset = gadget_read_ports(skb, packet, offset);
	packet->payload_bytes = skb->len > offset ? skb->len - offset : 0;
	return offset;
}

#include <gadget/network/datagram_flows.h>
#include <gadget/network/packet_socket.h>

/* The kernel does not tell when a packet socket is closed. So its flows have no last row, but a row for each packet, up
 * to this many; then at most one in this time. */
#define RAW_ROWS 1000
#define RAW_INTERVAL 10000000ULL

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, GADGET_RAW_FLOWS);
	__type(key, struct gadget_raw_key);
	__type(value, struct flow);
} raw_flows SEC(".maps");

static __always_inline void first_raw(struct gadget_raw_key *key, struct gadget_packet *packet, __u64 now)
{
	struct workspace *work = gadget_take_slot(&slots);
	struct flow *flow;

	if (!work)
		return;
	flow = &work->flow;
	flow->row =
		(struct trace_udp){.record = packet->record, .protocol = packet->protocol, .family = packet->family};
	__builtin_memcpy(flow->row.local, packet->local, sizeof(gadget_ip));
	__builtin_memcpy(flow->row.remote, packet->remote, sizeof(gadget_ip));
	flow->row.local_port = packet->local_port;
	flow->row.remote_port = packet->remote_port;
	flow->first = flow->last = flow->reported = now;
	count(flow, packet, 1);
	bpf_map_update_elem(&raw_flows, key, flow, BPF_ANY);
	report(flow, OPERATION_FIRST, now);
	gadget_give_back(work);
}

static __always_inline void gadget_handle_raw(struct gadget_raw *raw)
{
	struct gadget_packet *packet = raw->packet;
	__u64 now = bpf_ktime_get_boot_ns();
	struct gadget_raw_key key;
	struct flow *flow;

	if (packet->protocol != IPPROTO_UDP || !gadget_has_port(packet, filter_port) ||
	    !gadget_wanted_addresses(packet->local, packet->remote))
		return;
	gadget_raw_key_of(&key, packet);
	flow = bpf_map_lookup_elem(&raw_flows, &key);
	if (!flow) {
		if (packet->outgoing)
			first_raw(&key, packet, now);
		return;
	}
	count(flow, packet, 1);
	flow->last = now;
	if (flow->row.sent_packets + flow->row.received_packets <= RAW_ROWS || now - flow->reported >= RAW_INTERVAL) {
		flow->reported = now;
		report(flow, OPERATION_FLOW, now);
	}
}

GADGET_PACKETS_OF("udp sctp");

char LICENSE[] SEC("license") = "Dual BSD/GPL";

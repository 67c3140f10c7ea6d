/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Packets that a process sends with their headers: by a packet socket (AF_PACKET), or by AF_XDP where the kernel copies
 * them. They pass by IP, so no program of a cgroup sees them. Before including this file, define
 *
 *   gadget_handle_raw()         handles one packet; what it needs is in struct gadget_raw
 *
 * and list the programs in the gadget's YAML. A packet is seen where a device takes it, by the process that sends it:
 * in the queue of the device; with PACKET_QDISC_BYPASS, and from AF_XDP, in the function that passes the queue by or,
 * where programs cannot be attached to functions, where the other end of a veth device takes it. What arrives is
 * handled if it answers a packet that was sent so, in the same network namespace; whichever way it is read.
 *
 * The traps: a bridge or a stacked device (macvlan, bond) queues the packet again, for the same socket; the headers of
 * a packet from a ring (PACKET_TX_RING) are in memory that the process may still write; and what is neither there nor
 * in the packet's first bytes cannot be read, and is counted as unexamined.
 */
#pragma once

#include <gadget/network/packet.h>
#include <gadget/process.h>
#include <gadget/process_identity.h>
#include <kernel/sk_buff.h>

/* Memory for a packet's contents. A gadget may define it. */
#ifndef GADGET_RAW_BYTES
#define GADGET_RAW_BYTES 0
#endif
/* Flows of such packets, by their ends; the least recently used are dropped. */
#define GADGET_RAW_FLOWS 16384
#define GADGET_ETHERNET 1
#define GADGET_LOOPBACK 772
#define GADGET_ETHERNET_BYTES 14

/* A packet: its headers are in `packet`, and `payload` is the address of what follows, of which `readable` bytes can be
 * read. */
struct gadget_raw {
	struct gadget_packet *packet;
	__u64 payload;
	__u32 readable;
};

struct gadget_raw_key {
	/* Of the end that sends by such a socket. */
	gadget_ip local;
	gadget_ip remote;
	__u16 local_port;
	__u16 remote_port;
	__u32 network_namespace;
};

/* Who sent the first packet. */
struct gadget_raw_sender {
	struct gadget_record record;
	gadget_exec_id exec;
	__u64 socket;
	__u16 family;
	__u16 unused_16;
	__u32 unused_32;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, GADGET_RAW_FLOWS);
	__type(key, struct gadget_raw_key);
	__type(value, struct gadget_raw_sender);
} gadget_raw_senders SEC(".maps");

GADGET_SLOTS(gadget_raw_slots, sizeof(struct gadget_packet) + GADGET_RAW_BYTES);

/* What arrives is examined for this long after such a packet was sent. */
#define GADGET_RAW_PATIENCE (60 * 1000000000ULL)

/* When the last such packet was sent; 0: none, so what arrives is not looked at. */
__u64 gadget_raw_sent SEC(".bss.raw");

/* The function by which packet sockets queue, where the kernel has it instead of a flag. 0: not known yet. */
__u64 gadget_raw_queues SEC(".bss.raw");

/* What a CPU queued last. */
struct gadget_raw_queued {
	__u64 skb;
	__u64 device;
	__u64 is_stacked;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct gadget_raw_queued);
} gadget_raw_last SEC(".maps");

/* Handles a packet. Defined by the gadget. */
static __always_inline void gadget_handle_raw(struct gadget_raw *raw);

static __always_inline bool gadget_is_raw(const struct sock *sk)
{
	__u16 family = sk->__sk_common.skc_family;

	return family == AF_PACKET || family == AF_XDP;
}

#define GADGET_RAW_ZEROCOPY 1	  /* SKBFL_ZEROCOPY_ENABLE */
#define GADGET_RAW_OLD_ZEROCOPY 8 /* SKBTX_DEV_ZEROCOPY, before Linux 5.12 */

/* The frame of a ring, in the kernel's memory, that holds this packet. 0: it is from no ring. No other packet of such a
 * socket has an argument. */
static __always_inline __u64 gadget_raw_frame(struct sock *sk, struct skb_shared_info *shared)
{
	void *argument = BPF_CORE_READ(shared, destructor_arg);
	struct tpacket_uarg *ring = argument;
	bool is_ring;

	if (bpf_core_field_exists(shared->flags))
		is_ring = BPF_CORE_READ(shared, flags) & GADGET_RAW_ZEROCOPY;
	else
		is_ring = BPF_CORE_READ(shared, tx_flags) & GADGET_RAW_OLD_ZEROCOPY;
	if (!is_ring)
		return 0;
	/* skb_zcopy_set_nouarg() marks the frame's address so. */
	if ((__u64)argument & 1)
		return (__u64)argument & ~1ULL;
	if (!bpf_core_type_exists(struct tpacket_uarg) || (void *)BPF_CORE_READ(ring, po) != sk)
		return 0;
	return (__u64)BPF_CORE_READ(ring, ph);
}

/* Where the bytes of a packet are that are not in its first part: in a ring, which is contiguous. 0: not known. */
static __always_inline __u64 gadget_raw_rest(struct sock *sk, struct skb_shared_info *shared)
{
	__u64 frame = gadget_raw_frame(sk, shared);
	__u64 rest;

	if (!frame)
		return 0;
	if (bpf_core_field_exists(shared->frags[0].offset))
		rest = (frame & ~4095ULL) + BPF_CORE_READ(shared, frags[0].offset);
	else
		rest = (frame & ~4095ULL) + BPF_CORE_READ((struct skb_shared_info___old *)shared, frags[0].bv_offset);
	return rest < frame ? rest + 4096 : rest;
}

static __always_inline __u32 gadget_raw_ipv4(struct gadget_packet *packet, __u64 data)
{
	struct iphdr ip;

	if (bpf_probe_read_kernel(&ip, sizeof(ip), (void *)data) || ip.version != 4 || ip.ihl < 5)
		return 0;
	if (ip.frag_off & bpf_htons(0x1fff))
		return 0;
	gadget_ip_from_v4(packet->local, packet->outgoing ? ip.saddr : ip.daddr);
	gadget_ip_from_v4(packet->remote, packet->outgoing ? ip.daddr : ip.saddr);
	packet->protocol = ip.protocol;
	packet->payload_bytes = bpf_ntohs(ip.tot_len);
	return ip.ihl * 4;
}

static __always_inline __u32 gadget_raw_ipv6(struct gadget_packet *packet, __u64 data)
{
	__u32 offset = sizeof(struct ipv6hdr);
	struct ipv6hdr ip;
	__u8 next;

	if (bpf_probe_read_kernel(&ip, sizeof(ip), (void *)data) || ip.version != 6)
		return 0;
	__builtin_memcpy(packet->local, packet->outgoing ? &ip.saddr : &ip.daddr, sizeof(packet->local));
	__builtin_memcpy(packet->remote, packet->outgoing ? &ip.daddr : &ip.saddr, sizeof(packet->remote));
	packet->payload_bytes = bpf_ntohs(ip.payload_len) + sizeof(ip);
	next = ip.nexthdr;
	for (int i = 0; i < GADGET_EXTENSIONS; i++) {
		__u8 head[2];

		if (next != IPPROTO_HOPOPTS && next != IPPROTO_ROUTING && next != IPPROTO_DSTOPTS)
			break;
		if (bpf_probe_read_kernel(head, sizeof(head), (void *)(data + offset)))
			return 0;
		next = head[0];
		offset += (head[1] + 1) * 8;
	}
	packet->protocol = next;
	return offset;
}

/* Reads the headers from the IP header at `data` on, of which `readable` bytes can be read. False: neither TCP nor UDP,
 * or malformed. */
static __always_inline bool gadget_raw_headers(struct gadget_raw *raw, __u64 data, __u32 readable)
{
	struct gadget_packet *packet = raw->packet;
	__u8 version = 0;
	__u32 offset;

	packet->flags = 0;
	packet->sequence = 0;
	bpf_probe_read_kernel(&version, 1, (void *)data);
	offset = version >> 4 == 6 ? gadget_raw_ipv6(packet, data) : gadget_raw_ipv4(packet, data);
	if (!offset)
		return false;
	if (packet->protocol == IPPROTO_UDP) {
		struct udphdr udp;

		if (bpf_probe_read_kernel(&udp, sizeof(udp), (void *)(data + offset)))
			return false;
		gadget_set_ports(packet, udp.source, udp.dest);
		offset += sizeof(udp);
	} else if (packet->protocol == IPPROTO_TCP) {
		struct tcphdr tcp;

		if (bpf_probe_read_kernel(&tcp, sizeof(tcp), (void *)(data + offset)))
			return false;
		gadget_set_ports(packet, tcp.source, tcp.dest);
		packet->flags = ((__u8 *)&tcp)[13];
		packet->sequence = bpf_ntohl(tcp.seq) + (packet->flags & GADGET_TCP_SYN ? 1 : 0);
		offset += tcp.doff * 4;
	} else {
		return false;
	}
	/* Without the padding of short frames. */
	packet->payload_bytes = packet->payload_bytes > offset ? packet->payload_bytes - offset : 0;
	raw->payload = data + offset;
	raw->readable = readable > offset ? readable - offset : 0;
	return true;
}

/* Finds the IP header behind the device's own header, if there is one. Returns its length; ~0: it is not IP. */
static __always_inline __u32 gadget_raw_device_bytes(__u64 data, __u16 type)
{
	__u32 offset = GADGET_ETHERNET_BYTES;
	__be16 protocol = 0;

	if (type != GADGET_ETHERNET && type != GADGET_LOOPBACK)
		return 0;
	for (int i = 0; i < 3; i++) {
		bpf_probe_read_kernel(&protocol, sizeof(protocol), (void *)(data + offset - 2));
		/* A VLAN's tag, of which there may be two. */
		if (protocol != bpf_htons(0x8100) && protocol != bpf_htons(0x88a8))
			break;
		offset += 4;
	}
	return protocol == bpf_htons(0x0800) || protocol == bpf_htons(0x86dd) ? offset : ~0U;
}

static __always_inline void gadget_raw_key_of(struct gadget_raw_key *key, const struct gadget_packet *packet)
{
	__builtin_memcpy(key->local, packet->local, sizeof(key->local));
	__builtin_memcpy(key->remote, packet->remote, sizeof(key->remote));
	key->local_port = packet->local_port;
	key->remote_port = packet->remote_port;
	key->network_namespace = packet->network_namespace;
}

static __always_inline void gadget_raw_send(struct gadget_raw *raw, struct sk_buff *skb, struct sock *sk, bool has_link)
{
	struct skb_shared_info *shared = (void *)BPF_CORE_READ(skb, head) + BPF_CORE_READ(skb, end);
	__u32 length = BPF_CORE_READ(skb, len), elsewhere = BPF_CORE_READ(skb, data_len), link = 0;
	struct gadget_packet *packet = raw->packet;
	struct gadget_raw_sender sender = {};
	__u64 data = (__u64)BPF_CORE_READ(skb, data), rest = 0;
	__u32 here = length - elsewhere;
	struct gadget_raw_key key;

	packet->outgoing = true;
	packet->network_namespace = gadget_network_namespace(sk);
	if (has_link)
		link = gadget_raw_device_bytes(data, BPF_CORE_READ(skb, dev, type));
	if (elsewhere && here <= GADGET_ETHERNET_BYTES) {
		/* Only the device's header is here, if there is one. */
		rest = gadget_raw_rest(sk, shared);
		if (!rest) {
			gadget_count_unexamined();
			return;
		}
		data = rest;
		here = elsewhere;
		if (link == ~0U)
			return;
		link = 0;
	}
	if (link == ~0U)
		return;
	if (!gadget_raw_headers(raw, data + link, here > link ? here - link : 0))
		return;
	if (!gadget_begin(&sender.record))
		return;
	gadget_exec_of(&sender.exec, gadget_task());
	sender.socket = (__u64)sk;
	sender.family = sk->__sk_common.skc_family;
	packet->record = sender.record;
	packet->exec_id = sender.exec;
	packet->socket = sender.socket;
	packet->family = sender.family;
	gadget_raw_key_of(&key, packet);
	bpf_map_update_elem(&gadget_raw_senders, &key, &sender, BPF_ANY);
	gadget_raw_sent = bpf_ktime_get_boot_ns();
	gadget_handle_raw(raw);
}

static __always_inline void gadget_raw_with_slot(struct sk_buff *skb, struct sock *sk, bool has_link)
{
	struct gadget_packet *packet = gadget_take_slot(&gadget_raw_slots);
	struct gadget_raw raw = {.packet = packet};

	if (!packet)
		return;
	gadget_raw_send(&raw, skb, sk, has_link);
	gadget_give_back(packet);
}

/* Whether this device takes the packet first: it is not forwarded, and no device above this one has just queued it. */
static __always_inline bool gadget_raw_is_new(struct sk_buff *skb, struct sock *sk)
{
	__u32 key = 0;
	struct gadget_raw_queued *last = bpf_map_lookup_elem(&gadget_raw_last, &key);
	struct net_device *device = BPF_CORE_READ(skb, dev);
	bool again;

	if (BPF_CORE_READ(skb, skb_iif) || !last)
		return false;
	if (BPF_CORE_READ(device, nd_net.net) != BPF_CORE_READ(sk, __sk_common.skc_net.net))
		return false;
	again = last->skb == (__u64)skb && last->device != (__u64)device && last->is_stacked &&
		BPF_CORE_READ(device, upper_level) > 1;
	last->skb = (__u64)skb;
	last->device = (__u64)device;
	last->is_stacked = BPF_CORE_READ(device, lower_level) > 1;
	return !again;
}

/* Whether a packet of this socket passes the device's queue by. */
static __always_inline bool gadget_raw_bypasses(struct sock *sk)
{
	struct packet_sock___xmit *old = (void *)sk;
	struct packet_sock *packet = (void *)sk;

	if (sk->__sk_common.skc_family == AF_XDP)
		return true;
	if (bpf_core_enum_value_exists(enum packet_sock_flags, PACKET_SOCK_QDISC_BYPASS))
		return BPF_CORE_READ(packet, flags) >>
			       bpf_core_enum_value(enum packet_sock_flags, PACKET_SOCK_QDISC_BYPASS) &
		       1;
	if (bpf_core_field_exists(old->xmit))
		return (__u64)BPF_CORE_READ(old, xmit) != gadget_raw_queues;
	return false;
}

SEC("tp_btf/net_dev_queue")
int BPF_PROG(raw_queued, struct sk_buff *skb)
{
	struct packet_sock___xmit *old;
	struct sock *sk = skb->sk;

	if (!sk || !gadget_is_raw(sk))
		return 0;
	old = (void *)sk;
	if (bpf_core_field_exists(old->xmit) && !gadget_raw_queues)
		gadget_raw_queues = (__u64)BPF_CORE_READ(old, xmit);
	if (gadget_raw_is_new(skb, sk))
		gadget_raw_with_slot(skb, sk, true);
	return 0;
}

SEC("?fentry/__dev_direct_xmit")
int BPF_PROG(raw_bypassed, struct sk_buff *skb)
{
	struct sock *sk = skb->sk;

	if (sk && gadget_is_raw(sk))
		gadget_raw_with_slot(skb, sk, true);
	return 0;
}

/* Called by the sender, for the device at the other end. */
SEC("tp_btf/netif_rx")
int BPF_PROG(raw_crossed, struct sk_buff *skb)
{
	struct sock *sk = skb->sk;

	if (sk && gadget_is_raw(sk) && !skb->skb_iif && gadget_raw_bypasses(sk))
		gadget_raw_with_slot(skb, sk, false);
	return 0;
}

static __always_inline void gadget_raw_receive(struct gadget_raw *raw, struct sk_buff *skb)
{
	struct gadget_packet *packet = raw->packet;
	const struct gadget_raw_sender *sender;
	struct gadget_raw_key key;
	struct net *net = BPF_CORE_READ(skb, dev, nd_net.net);
	__u32 here = BPF_CORE_READ(skb, len) - BPF_CORE_READ(skb, data_len);

	packet->outgoing = false;
	packet->network_namespace = BPF_CORE_READ(net, ns.inum);
	if (!gadget_raw_headers(raw, (__u64)BPF_CORE_READ(skb, data), here))
		return;
	gadget_raw_key_of(&key, packet);
	sender = bpf_map_lookup_elem(&gadget_raw_senders, &key);
	if (!sender)
		return;
	packet->record = sender->record;
	packet->exec_id = sender->exec;
	packet->socket = sender->socket;
	packet->family = sender->family;
	gadget_handle_raw(raw);
}

SEC("tp_btf/netif_receive_skb")
int BPF_PROG(raw_answered, struct sk_buff *skb)
{
	struct gadget_raw raw = {};

	if (!gadget_raw_sent)
		return 0;
	if (bpf_ktime_get_boot_ns() - gadget_raw_sent > GADGET_RAW_PATIENCE) {
		gadget_raw_sent = 0;
		return 0;
	}
	raw.packet = gadget_take_slot(&gadget_raw_slots);
	if (!raw.packet)
		return 0;
	gadget_raw_receive(&raw, skb);
	gadget_give_back(raw.packet);
	return 0;
}

/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * What programs of type cgroup_skb can read from a packet's first bytes, without a helper call.
 *
 * Such a program decides about the packet, so it must always return GADGET_PASS.
 */
#pragma once

#include <linux/bpf.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <stdbool.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define GADGET_PASS 1

struct gadget_ports {
	__be16 source;
	__be16 destination;
	__u8 protocol;
};

/* Reads the ports of a TCP or UDP packet. False: it is neither, or its headers are not in its first bytes. */
static __always_inline bool gadget_first_ports(struct __sk_buff *skb, struct gadget_ports *found)
{
	const __u8 *data = (const __u8 *)(long)skb->data, *end = (const __u8 *)(long)skb->data_end;
	__u32 offset = sizeof(struct ipv6hdr);
	const __be16 *ports;

	if (data + sizeof(struct ipv6hdr) > end)
		return false;
	if (skb->protocol == bpf_htons(0x86dd)) {
		found->protocol = data[offsetof(struct ipv6hdr, nexthdr)];
	} else {
		found->protocol = data[offsetof(struct iphdr, protocol)];
		offset = (data[0] & 15) * 4;
	}
	ports = (const __be16 *)(data + offset);
	if ((found->protocol != IPPROTO_TCP && found->protocol != IPPROTO_UDP) ||
	    (const void *)(ports + 2) > (const void *)end)
		return false;
	found->source = ports[0];
	found->destination = ports[1];
	return true;
}

static __always_inline bool gadget_is_port(const struct gadget_ports *ports, __u16 port)
{
	return ports->source == bpf_htons(port) || ports->destination == bpf_htons(port);
}

/* Whether this may be a packet with this port at one end, before a slot is taken for it; most are not. 0: any port. */
static __always_inline bool gadget_may_have_port(struct __sk_buff *skb, __u16 port)
{
	struct gadget_ports ports;

	return !port || !gadget_first_ports(skb, &ports) || gadget_is_port(&ports, port);
}

/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * What programs of type cgroup_skb can tell of a packet from its first bytes, without a helper call.
 *
 * The trap: such a program decides about the packet, so it must always return GADGET_PASS.
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

/*
 * Whether this may be a TCP or UDP packet with this port at one end; most are not. It needs neither a slot nor a helper
 * call where the headers are in the packet's first bytes, without extension headers. Also true when this is unknown.
 */
static __always_inline bool gadget_may_have_port(struct __sk_buff *skb, __u16 port)
{
	const __u8 *data = (const __u8 *)(long)skb->data, *end = (const __u8 *)(long)skb->data_end;
	__u32 offset = sizeof(struct ipv6hdr);
	__be16 wanted = bpf_htons(port);
	const __be16 *ports;
	__u8 protocol;

	if (!port || data + sizeof(struct ipv6hdr) > end)
		return true;
	if (skb->protocol == bpf_htons(0x86dd)) {
		protocol = data[offsetof(struct ipv6hdr, nexthdr)];
	} else {
		protocol = data[offsetof(struct iphdr, protocol)];
		offset = (data[0] & 15) * 4;
	}
	ports = (const __be16 *)(data + offset);
	if ((protocol != IPPROTO_TCP && protocol != IPPROTO_UDP) || (const void *)(ports + 2) > (const void *)end)
		return true;
	return ports[0] == wanted || ports[1] == wanted;
}

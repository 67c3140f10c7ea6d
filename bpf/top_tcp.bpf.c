// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * top tcp: adds up what each TCP connection sends and receives, in bytes of payload and in packets.
 *
 * Hook: cgroup_skb, which sees each packet of the node's sockets once; retransmitted bytes are counted again.
 */
#include <gadget/network/connection_totals.h>

SEC("cgroup_skb/ingress")
int packet_received(struct __sk_buff *skb)
{
	return gadget_count_packet(skb, IPPROTO_TCP, false);
}

SEC("cgroup_skb/egress")
int packet_sent(struct __sk_buff *skb)
{
	return gadget_count_packet(skb, IPPROTO_TCP, true);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";

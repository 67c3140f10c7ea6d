// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * top tcp: adds up what each TCP connection sends and receives, in bytes of payload and in packets.
 *
 * Hook: cgroup_skb, which sees each packet of the node's sockets once; retransmitted bytes are counted again.
 */
#include <gadget/network/connection_totals.h>

GADGET_PACKET_PROGRAMS(gadget_count_packet(skb, IPPROTO_TCP, outgoing))

char LICENSE[] SEC("license") = "Dual BSD/GPL";

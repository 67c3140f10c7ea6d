// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * top udp: adds up what each UDP connection sends and receives, in bytes of payload and in packets.
 *
 * Hook: cgroup_skb, which sees each packet of the node's sockets once; all packets between one socket and one remote
 * address and port are one connection.
 */
#include <gadget/network/connection_totals.h>

GADGET_PACKET_PROGRAMS(gadget_count_packet(skb, IPPROTO_UDP, outgoing))

char LICENSE[] SEC("license") = "Dual BSD/GPL";

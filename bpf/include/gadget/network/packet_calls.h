/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Tells bpf/packets.bpf.c, which calls the packet programs of all gadgets of a run, which packets a gadget needs. If a
 * run has only one such gadget, the kernel calls its programs for all packets.
 *
 * The traps: the programs may miss all other packets, so they must not need them; and each TCP packet counts as one of
 * a TCP socket, even if a raw socket sends it.
 */
#pragma once

/*
 * For which packets a gadget's packet_sent and packet_received are called:
 *
 *   udp, sctp, icmp, icmpv6   of sockets of this protocol
 *   other                     of all sockets except TCP sockets
 *   port                      of TCP sockets, if one end has the port `filter_port`; 0: any port
 *   unquiet                   sent by TCP sockets that are not quiet: gadget/network/quiet_sockets.h
 */
#define GADGET_PACKETS_OF(WORDS) const char gadget_packets[] SEC(".rodata.packets") = WORDS

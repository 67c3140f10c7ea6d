/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * What bpf/packets.bpf.c, which calls the packet programs of all gadgets of a run, has to know of a gadget. Where the
 * agent runs one such gadget alone, the kernel runs its programs, so these words only save calls.
 *
 * The traps: what they leave out is not seen, so the programs must have no use for it; and a packet of TCP counts as
 * one of TCP's sockets whichever socket sends it.
 */
#pragma once

/*
 * Says for which packets a gadget's packet_sent and packet_received are called:
 *
 *   udp, sctp, icmp, icmpv6   of sockets of this protocol
 *   other                     of all sockets except those of TCP
 *   port                      of TCP's sockets, if one end has the port `filter_port`; 0: any port
 *   unquiet                   that TCP's sockets send while they are not quiet: gadget/quiet_sockets.h
 */
#define GADGET_PACKETS_OF(WORDS) const char gadget_packets[] SEC(".rodata.packets") = WORDS

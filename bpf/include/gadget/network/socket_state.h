/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * What a gadget remembers of each TCP socket, such as the part of a message that has arrived:
 * GADGET_SOCKET_STATE(state, 1000) defines gadget_socket_state_of() and gadget_socket_remove_state(), whose keys come
 * from gadget_socket_key(), gadget_make_socket_state(), and the program `socket_ends`, which removes the entry. A
 * gadget's YAML must list that program.
 *
 * The trap: a raw socket also sends TCP packets, and its end is not seen. So all raw sockets of a container have one
 * entry. With one for each, a container could fill the map by opening and closing sockets.
 */
#pragma once

#include <gadget/map_shares.h>
#include <gadget/network/packet.h>

/* Never a socket's cookie. */
#define GADGET_RAW_SOCKETS (1ULL << 63)

static __always_inline __u64 gadget_cgroup_of_packet(struct __sk_buff *skb)
{
	struct sock *sk = gadget_kernel_socket(skb->sk);
	struct cgroup *cgroup = sk ? gadget_cgroup_of_socket(sk) : NULL;

	return gadget_reported_cgroup(BPF_CORE_READ(cgroup, kn, id), cgroup);
}

/* The key of the packet's socket. */
static __always_inline __u64 gadget_socket_key(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk;

	sk = sk ? bpf_sk_fullsock(sk) : NULL;
	if (sk && sk->type == SOCK_RAW)
		return GADGET_RAW_SOCKETS | gadget_share_number(gadget_cgroup_of_packet(skb));
	return bpf_get_socket_cookie(skb);
}

#define GADGET_SOCKET_STATE(STATE, ENTRIES)                                                                            \
	GADGET_STATES(gadget_socket, STATE, ENTRIES);                                                                  \
                                                                                                                       \
	static __always_inline struct STATE *gadget_make_socket_state(struct __sk_buff *skb, __u64 key)                \
	{                                                                                                              \
		return gadget_socket_make_state(key, gadget_cgroup_of_packet(skb));                                    \
	}                                                                                                              \
                                                                                                                       \
	SEC("tp_btf/tcp_destroy_sock")                                                                                 \
	int BPF_PROG(socket_ends, struct sock *sk)                                                                     \
	{                                                                                                              \
		gadget_socket_remove_state(BPF_CORE_READ(sk, __sk_common.skc_cookie.counter));                         \
		return 0;                                                                                              \
	}                                                                                                              \
	struct gadget_socket_entry

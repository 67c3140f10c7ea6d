/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * What a gadget remembers of each TCP socket, such as the part of a message that has arrived:
 * GADGET_SOCKET_STATE(state, 1000) defines gadget_socket_state_of() and gadget_socket_remove_state(), whose keys are
 * socket cookies, gadget_make_socket_state(), and the program `socket_ends`, which removes the entry. A gadget's YAML
 * must list that program.
 */
#pragma once

#include <gadget/map_shares.h>
#include <gadget/network/packet.h>

#define GADGET_SOCKET_STATE(STATE, ENTRIES)                                                                            \
	GADGET_STATES(gadget_socket, STATE, ENTRIES);                                                                  \
                                                                                                                       \
	static __always_inline struct STATE *gadget_make_socket_state(struct __sk_buff *skb, __u64 cookie)             \
	{                                                                                                              \
		struct sock *sk = gadget_kernel_socket(skb->sk);                                                       \
		struct cgroup *cgroup = sk ? gadget_cgroup_of_socket(sk) : NULL;                                       \
                                                                                                                       \
		return gadget_socket_make_state(cookie, BPF_CORE_READ(cgroup, kn, id));                                \
	}                                                                                                              \
                                                                                                                       \
	SEC("tp_btf/tcp_destroy_sock")                                                                                 \
	int BPF_PROG(socket_ends, struct sock *sk)                                                                     \
	{                                                                                                              \
		gadget_socket_remove_state(BPF_CORE_READ(sk, __sk_common.skc_cookie.counter));                         \
		return 0;                                                                                              \
	}                                                                                                              \
	struct gadget_socket_entry

/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Addresses and ports: their types for the client, and functions that read them from a socket or from the arguments of
 * a system call.
 *
 * Fields of a socket are in network byte order; fields of a record never are.
 */
#pragma once

#include <bpf/bpf_endian.h>

#include <gadget/record.h>
#include <gadget/task.h>
#include <kernel/socket.h>

/* An IPv6 address, or an IPv4 one as ::ffff:1.2.3.4. All ones: none; no host has this address. */
typedef __u8 gadget_ip[16];
/* In host byte order. */
typedef __u16 gadget_port;
/* AF_… */
typedef __u16 gadget_address_family;
/* IPPROTO_… */
typedef __u16 gadget_ip_protocol;
/* TCP_ESTABLISHED and so on, as include/net/tcp_states.h numbers them. */
typedef __u32 gadget_tcp_state;
/* The flags byte of a TCP header. */
typedef __u32 gadget_tcp_flags;

static __always_inline void gadget_no_ip(gadget_ip address)
{
	__builtin_memset(address, 0xff, sizeof(gadget_ip));
}

static __always_inline void gadget_ip_from_v4(gadget_ip address, __be32 v4)
{
	__builtin_memset(address, 0, 10);
	address[10] = address[11] = 0xff;
	__builtin_memcpy(&address[12], &v4, sizeof(v4));
}

/* The socket's own address. `sk` may be any pointer to an IPv4 or IPv6 socket. */
static __always_inline void gadget_local_ip(gadget_ip address, struct sock *sk)
{
	if (gadget_read_at(struct sock, sk, __sk_common.skc_family) == AF_INET6)
		bpf_core_read(address, sizeof(gadget_ip), &sk->__sk_common.skc_v6_rcv_saddr);
	else
		gadget_ip_from_v4(address, gadget_read_at(struct sock, sk, __sk_common.skc_rcv_saddr));
}

/* The other end's address. */
static __always_inline void gadget_remote_ip(gadget_ip address, struct sock *sk)
{
	if (gadget_read_at(struct sock, sk, __sk_common.skc_family) == AF_INET6)
		bpf_core_read(address, sizeof(gadget_ip), &sk->__sk_common.skc_v6_daddr);
	else
		gadget_ip_from_v4(address, gadget_read_at(struct sock, sk, __sk_common.skc_daddr));
}

static __always_inline __u16 gadget_local_port(struct sock *sk)
{
	return bpf_ntohs(gadget_read_at(struct inet_sock, sk, inet_sport));
}

static __always_inline __u16 gadget_remote_port(struct sock *sk)
{
	return bpf_ntohs(gadget_read_at(struct sock, sk, __sk_common.skc_dport));
}

/* The common part of struct sockaddr_in and sockaddr_in6: the layout is part of the ABI. */
struct gadget_sockaddr {
	__u16 family;
	__be16 port;
	/* IPv4. */
	__be32 v4;
	/* IPv6, whose flow label is where IPv4 has its address. */
	__u8 v6[16];
};

static __always_inline bool gadget_read_address(gadget_ip address, __u16 *port, const void *from, bool user)
{
	struct gadget_sockaddr passed = {};
	/* The IPv4 part is read first, since unmapped memory may follow it. */
	const __u32 shorter = offsetof(struct gadget_sockaddr, v6);

	if (user ? bpf_probe_read_user(&passed, shorter, from) : bpf_probe_read_kernel(&passed, shorter, from))
		return false;
	if (passed.family == AF_INET) {
		gadget_ip_from_v4(address, passed.v4);
	} else if (passed.family == AF_INET6) {
		if (user ? bpf_probe_read_user(&passed, sizeof(passed), from)
			 : bpf_probe_read_kernel(&passed, sizeof(passed), from))
			return false;
		__builtin_memcpy(address, passed.v6, sizeof(passed.v6));
	} else {
		return false;
	}
	*port = bpf_ntohs(passed.port);
	return true;
}

/* Reads an address that the caller passed. False: it is neither IPv4 nor IPv6, or cannot be read. */
static __always_inline bool gadget_user_address(gadget_ip address, __u16 *port, const void *from)
{
	return gadget_read_address(address, port, from, true);
}

/* Reads an address from the kernel's memory. */
static __always_inline bool gadget_kernel_address(gadget_ip address, __u16 *port, const void *from)
{
	return gadget_read_address(address, port, from, false);
}

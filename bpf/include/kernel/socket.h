/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Sockets of IPv4 and IPv6. The traps: an IPv6 socket with an IPv4 peer has mapped addresses (::ffff:1.2.3.4) in its
 * IPv6 fields; and `skc_num`, the local port in host order, is already 0 when a socket is reported as closed, but
 * `inet_sport` still has the port, in network order.
 */
#pragma once

#include <linux/in.h>
#include <linux/types.h>
#include <kernel/cgroup.h>
#include <kernel/task.h>

#define AF_UNIX 1
#define AF_INET 2
#define AF_INET6 10
#define AF_PACKET 17
#define AF_XDP 44

#define SOCK_STREAM 1
#define SOCK_DGRAM 2
#define SOCK_RAW 3

/* include/net/sock.h: the program chose the port itself. */
#define SOCK_BINDPORT_LOCK 8

/* Bits of INET_FLAGS_… (include/net/inet_sock.h), which are separate bit fields before 6.6. */
#define INET_FLAGS_FREEBIND 11
#define INET_FLAGS_TRANSPARENT 15
#define INET_FLAGS_BIND_ADDRESS_NO_PORT 18

/* enum tcp_ca_state of include/uapi/linux/tcp.h. */
#define TCP_CA_Recovery 3
#define TCP_CA_Loss 4

/* include/net/tcp_states.h */
enum {
	TCP_ESTABLISHED = 1,
	TCP_SYN_SENT,
	TCP_SYN_RECV,
	TCP_FIN_WAIT1,
	TCP_FIN_WAIT2,
	TCP_TIME_WAIT,
	TCP_CLOSE,
	TCP_CLOSE_WAIT,
	TCP_LAST_ACK,
	TCP_LISTEN,
	TCP_CLOSING,
	TCP_NEW_SYN_RECV,
};

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

/* Has a suffix, since a uapi header defines the usual name. */
struct in6_addr___kernel {
	union {
		__u8 u6_addr8[16];
	} in6_u;
};

struct net;

typedef struct {
	struct net *net;
} possible_net_t;

struct sock_common {
	__be32 skc_daddr;
	__be32 skc_rcv_saddr;
	__be16 skc_dport;
	__u16 skc_num;
	unsigned short skc_family;
	volatile unsigned char skc_state;
	unsigned char skc_reuse : 4;
	unsigned char skc_reuseport : 1;
	unsigned char skc_ipv6only : 1;
	int skc_bound_dev_if;
	possible_net_t skc_net;
	struct in6_addr___kernel skc_v6_daddr;
	struct in6_addr___kernel skc_v6_rcv_saddr;
	unsigned long skc_flags;
	struct {
		__s64 counter;
	} skc_cookie;
};

struct sock_cgroup_data {
	struct cgroup *cgroup;
};

/* Before 8520e224f547 "bpf, cgroups: Fix cgroup v2 fallback on v1/v2 mixed mode" (5.15). */
struct sock_cgroup_data___union {
	__u64 val;
};

struct socket;

typedef struct {
	/* 1: a process has locked the socket. */
	int owned;
} socket_lock_t;

struct sock {
	struct sock_common __sk_common;
	socket_lock_t sk_lock;
	__u16 sk_protocol;
	__u16 sk_type;
	__u8 sk_userlocks : 4;
	__u32 sk_mark;
	__u32 sk_priority;
	int sk_err;
	/* An error that does not end a connection attempt: the program gets it from SO_ERROR. */
	int sk_err_soft;
	/* Connections that wait for accept(), and their maximum. */
	__u32 sk_ack_backlog;
	__u32 sk_max_ack_backlog;
	/* Bytes of memory for what was received and not read, and for what was sent and not freed. */
	struct {
		struct {
			int counter;
		} rmem_alloc;
	} sk_backlog;
	struct {
		struct {
			int counter;
		} refs;
	} sk_wmem_alloc;
	kuid_t sk_uid;
	struct socket *sk_socket;
	struct pid *sk_peer_pid;
	struct sock_cgroup_data sk_cgrp_data;
};

struct inet_sock {
	struct sock sk;
	__be16 inet_sport;
	/* Since 6.6. */
	unsigned long inet_flags;
};

/* Before 6.6. */
struct inet_sock___bits {
	__u8 freebind : 1;
	__u8 transparent : 1;
	__u8 bind_address_no_port : 1;
};

struct inet_connection_sock {
	__u8 icsk_ca_state : 5;
	__u8 icsk_retransmits;
	struct {
		/* When data was received last, in jiffies. */
		__u32 lrcvtime;
	} icsk_ack;
};

struct tcp_sock {
	__u64 bytes_sent;
	__u64 bytes_retrans;
	__u64 bytes_received;
	__u32 data_segs_in;
	__u32 total_retrans;
	/* When data was sent last, in jiffies. */
	__u32 lsndtime;
	/* When the oldest segment without an acknowledgement was sent first: the low half of milliseconds, or of
	 * microseconds (tcp_usec_ts). */
	__u32 retrans_stamp;
	/* Since 6.7. */
	__u8 tcp_usec_ts : 1;
	__u32 segs_in;
	__u32 segs_out;
	/* In units of 1/8 us; 0: not measured yet. */
	__u32 srtt_us;
	/* Sequence numbers of the next bytes that the process will write and read. */
	__u32 write_seq;
	__u32 copied_seq;
	/* The next byte that is expected, and the first one that the other end has not acknowledged. */
	__u32 rcv_nxt;
	__u32 snd_una;
};

struct socket {
	struct sock *sk;
};

struct packet_sock {
	unsigned long flags;
	/* The device and the protocol (an EtherType) that it receives; 0: any, none. */
	int ifindex;
	__be16 num;
};

enum packet_sock_flags {
	PACKET_SOCK_QDISC_BYPASS = 6,
};

/* Where the kernel has no such flag: which function sends. */
struct packet_sock___xmit {
	void *xmit;
};

#pragma clang attribute pop

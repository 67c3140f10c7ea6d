// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * snapshot socket: emits one `struct snapshot_socket` for each existing socket of IPv4, IPv6, AF_PACKET and AF_XDP,
 * once.
 *
 * Hooks: an iterator over all open files, which finds the sockets of all processes, in any network namespace; and the
 * iterator over TCP sockets, which the agent runs once in each network namespace, for connections without a process
 * (TIME_WAIT, FIN_WAIT, those not accepted yet). Their rows have the container of one of the processes in the
 * namespace, and no process.
 */
#include <linux/errno.h>

#include <gadget/ends.h>
#include <gadget/iterate.h>
#include <gadget/network/address.h>
#include <gadget/network/socket_file.h>
#include <gadget/other_task.h>
#include <gadget/output.h>
#include <kernel/credentials.h>
#include <kernel/fs.h>
#include <kernel/net_device.h>

#define SOCKETS (1 << 20)
#define NAMESPACES 65536

/* A gadget_tcp_state, or for other sockets: */
enum {
	GADGET_SOCKET_CONNECTED = 1 << 8,
	GADGET_SOCKET_UNCONNECTED,
};

typedef __u32 gadget_socket_state;

/* A network device's name; empty: none. */
typedef char gadget_device[16];

/* In place of a protocol: sockets that send and receive whole packets. */
#define GADGET_PROTOCOL_PACKET 0xff11
#define GADGET_PROTOCOL_XDP 0xff2c

struct snapshot_socket {
	struct gadget_record record;
	__u64 inode;
	/* Bytes received and not yet read, and written and not yet acknowledged (UDP: not yet sent). ~0: none. */
	gadget_bytes receive_queue;
	gadget_bytes send_queue;
	/* For listening sockets: connections that wait for accept(), and the most that may. ~0 for others. */
	gadget_number accept_queue;
	gadget_number backlog;
	gadget_ip local;
	gadget_ip remote;
	gadget_port local_port;
	gadget_port remote_port;
	gadget_address_family family;
	gadget_ip_protocol protocol;
	gadget_socket_state state;
	/* -1: no process has it. */
	gadget_fd fd;
	/* The inode number of the network namespace. */
	__u32 netns;
	/* For packet sockets: the device that it is bound to. Empty: none. */
	gadget_device device;
	__u32 unused_32;
};

GADGET_RECORD(snapshot_socket);

/* Only sockets that listen for connections, or can receive datagrams from any sender. */
const volatile bool filter_listening = false;
/* Local or remote. 0: any. */
const volatile __u16 filter_port = 0;

enum {
	SENT = 1,
	/* A socket of an unwanted process. */
	OTHERS,
};

/* The sockets of processes, by address. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, SOCKETS);
	__type(key, __u64);
	__type(value, __u8);
} seen SEC(".maps");

/* For each network namespace: the head of a record about one of its processes. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, NAMESPACES);
	__type(key, __u32);
	__type(value, struct gadget_record);
} residents SEC(".maps");

static __always_inline __u32 netns_of(struct sock_common *sk)
{
	return BPF_CORE_READ(sk, skc_net.net, ns.inum);
}

/* Records the network namespace of a process; a process that has ended has none. */
static __always_inline void note_resident(struct task_struct *task, const struct gadget_record *record)
{
	__u32 netns = BPF_CORE_READ(task, nsproxy, net_ns, ns.inum);

	if (netns && bpf_map_update_elem(&residents, &netns, record, BPF_NOEXIST) == -E2BIG)
		gadget_count_map_full();
}

static __always_inline bool wanted(const struct snapshot_socket *row)
{
	if (!gadget_wanted_addresses(row->local, row->remote))
		return false;
	if (filter_port && row->local_port != filter_port && row->remote_port != filter_port)
		return false;
	if (!filter_listening)
		return true;
	return row->state == TCP_LISTEN || (row->state == GADGET_SOCKET_UNCONNECTED && row->local_port);
}

/* Like ss: the kernel changes these numbers while they are read, so a difference may be below 0 for a moment. */
static __always_inline void set_queues(struct snapshot_socket *row, struct sock *sk)
{
	struct tcp_sock *tcp = (void *)sk;
	__s32 received, sent;

	row->receive_queue = row->send_queue = row->accept_queue = row->backlog = ~0ULL;
	if (row->protocol != IPPROTO_TCP) {
		received = BPF_CORE_READ(sk, sk_backlog.rmem_alloc.counter);
		/* The socket itself counts as 1. */
		sent = BPF_CORE_READ(sk, sk_wmem_alloc.refs.counter) - 1;
	} else if (row->state == TCP_LISTEN) {
		row->accept_queue = BPF_CORE_READ(sk, sk_ack_backlog);
		row->backlog = BPF_CORE_READ(sk, sk_max_ack_backlog);
		return;
	} else if (row->state == TCP_TIME_WAIT || row->state == TCP_NEW_SYN_RECV || row->state == TCP_CLOSE) {
		/* The first two are other structs, without queues. */
		return;
	} else {
		received = BPF_CORE_READ(tcp, rcv_nxt) - BPF_CORE_READ(tcp, copied_seq);
		sent = BPF_CORE_READ(tcp, write_seq) - BPF_CORE_READ(tcp, snd_una);
	}
	row->receive_queue = received > 0 ? received : 0;
	row->send_queue = sent > 0 ? sent : 0;
}

static __always_inline void set_ends(struct snapshot_socket *row, struct sock_common *sk)
{
	__u8 state = BPF_CORE_READ(sk, skc_state);

	row->family = BPF_CORE_READ(sk, skc_family);
	__builtin_memset(row->device, 0, sizeof(row->device));
	gadget_local_ip(row->local, (struct sock *)sk);
	gadget_remote_ip(row->remote, (struct sock *)sk);
	row->local_port = BPF_CORE_READ(sk, skc_num);
	row->remote_port = bpf_ntohs(BPF_CORE_READ(sk, skc_dport));
	row->netns = netns_of(sk);
	row->unused_32 = 0;
	if (row->protocol == IPPROTO_TCP)
		row->state = state;
	else
		row->state = state == TCP_ESTABLISHED ? GADGET_SOCKET_CONNECTED : GADGET_SOCKET_UNCONNECTED;
	set_queues(row, (struct sock *)sk);
}

/* A packet socket or one of AF_XDP has no addresses. */
static __always_inline void set_raw(struct snapshot_socket *row, struct sock_common *sk)
{
	struct packet_sock *packet = (void *)sk;
	__u32 index = 0;

	gadget_no_ip(row->local);
	gadget_no_ip(row->remote);
	row->local_port = row->remote_port = 0;
	row->family = BPF_CORE_READ(sk, skc_family);
	row->protocol = row->family == AF_XDP ? GADGET_PROTOCOL_XDP : GADGET_PROTOCOL_PACKET;
	row->state = GADGET_SOCKET_UNCONNECTED;
	row->netns = netns_of(sk);
	row->unused_32 = 0;
	if (row->family == AF_PACKET && bpf_core_field_exists(packet->ifindex))
		index = BPF_CORE_READ(packet, ifindex);
	gadget_device_name(row->device, (struct sock *)sk, index);
	set_queues(row, (struct sock *)sk);
}

static __always_inline bool receives_raw(struct sock *sk)
{
	struct packet_sock *packet = (void *)sk;

	return BPF_CORE_READ(sk, __sk_common.skc_family) == AF_XDP || !bpf_core_field_exists(packet->num) ||
	       BPF_CORE_READ(packet, num);
}

static __always_inline bool is_raw(__u16 family)
{
	return family == AF_PACKET || family == AF_XDP;
}

static __always_inline struct sock *listed_socket_of(struct file *file)
{
	struct sock *sk = gadget_socket_of_file(file);
	__u16 family = sk ? BPF_CORE_READ(sk, __sk_common.skc_family) : 0;

	return family == AF_INET || family == AF_INET6 || is_raw(family) ? sk : NULL;
}

static __always_inline void note_socket(const struct sock *sk, __u8 who)
{
	__u64 key = (__u64)sk;

	if (bpf_map_update_elem(&seen, &key, &who, BPF_ANY))
		gadget_count_map_full();
}

SEC("iter/task_file")
int sockets_of_processes(struct bpf_iter__task_file *ctx)
{
	struct task_struct *task = ctx->task;
	struct file *file = ctx->file;
	struct snapshot_socket row;
	const __u8 *known;
	struct sock *sk;
	__u64 key;

	if (!task || !file)
		return 0;
	sk = listed_socket_of(file);
	key = (__u64)sk;
	known = sk ? bpf_map_lookup_elem(&seen, &key) : NULL;
	/* A second descriptor, or a second process with the same socket. */
	if (known && *known == SENT)
		return 0;
	if (!gadget_begin_for_task(&row.record, task)) {
		if (sk && !known)
			note_socket(sk, OTHERS);
		return 0;
	}
	if (!gadget_filter_pid && !gadget_filter_comm[0] && gadget_filter_uid == ~0U)
		note_resident(task, &row.record);
	if (!sk)
		return 0;
	if (is_raw(BPF_CORE_READ(sk, __sk_common.skc_family))) {
		set_raw(&row, (struct sock_common *)sk);
		if (filter_port || !gadget_wanted_addresses(row.local, row.remote) ||
		    (filter_listening && !receives_raw(sk)))
			return 0;
	} else {
		row.protocol = BPF_CORE_READ(sk, sk_protocol);
		set_ends(&row, (struct sock_common *)sk);
		if (!wanted(&row))
			return 0;
	}
	row.inode = BPF_CORE_READ(file, f_inode, i_ino);
	row.fd = ctx->fd;
	if (gadget_iterate_emit(ctx->meta, &row.record, sizeof(row), 0))
		note_socket(sk, SENT);
	return 0;
}

SEC("iter/tcp")
int sockets_of_tcp(struct bpf_iter__tcp *ctx)
{
	struct sock_common *sk = ctx->sk_common;
	struct snapshot_socket row = {};
	struct gadget_record *resident;
	__u64 key = (__u64)sk;

	/* A socket of a process was sent by the other iterator, if it was wanted. */
	if (!sk || bpf_map_lookup_elem(&seen, &key))
		return 0;
	row.netns = netns_of(sk);
	resident = bpf_map_lookup_elem(&residents, &row.netns);
	if (!resident)
		return 0;
	row.record.cgroup = resident->cgroup;
	row.record.marks = resident->marks;
	row.protocol = IPPROTO_TCP;
	set_ends(&row, sk);
	row.fd = -1;
	/* A listening socket has a process; this one was opened after the first iterator ran. */
	if (row.state == TCP_LISTEN || !wanted(&row))
		return 0;
	gadget_iterate_emit(ctx->meta, &row.record, sizeof(row), 0);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";

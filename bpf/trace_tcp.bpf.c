// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * trace tcp: emits one `struct trace_tcp` when a TCP connection is established, is accepted, ends or fails. With
 * `reports`, also when its first packet is sent, for existing connections, and each second while there is traffic.
 *
 * Hooks: the tracepoint inet_sock_set_state, which may run while any task is current; the exits of accept, accept4 and,
 * for failures before anything is sent, connect; the exit of getsockopt, by which a program learns that its connect was
 * rejected; cgroup_skb for reports; and once at start, an iterator over all open
 * files, for the owners of existing connections. Limits: if the kernel has no fexit, connections accepted by io_uring
 * are shown without their process; Multipath TCP connections are shown as their subflows.
 */
#include <linux/errno.h>

/* Programs have no room on the stack for one more call. */
#define GADGET_LEVEL_FUNCTION static __always_inline

#include <gadget/network/address.h>
#include <gadget/ends.h>
#include <gadget/output.h>
#include <gadget/network/packet_calls.h>
#include <gadget/process.h>
#include <gadget/network/quiet_sockets.h>
#include <gadget/network/refused.h>
#include <gadget/result.h>
#include <gadget/network/socket_owner.h>
#include <gadget/syscalls/compat_call.h>
#include <gadget/syscall.h>
#include <kernel/iterator.h>
#include <kernel/tracepoint.h>

#if defined(__TARGET_ARCH_x86)
#define CONNECT 42
#define ACCEPT 43
#define ACCEPT4 288
#else
#define CONNECT 203
#define ACCEPT 202
#define ACCEPT4 242
#endif

/* Calls that were interrupted and are restarted, or that have no result yet. */
#define ERESTARTSYS 512
#define ERESTART_RESTARTBLOCK 516

/* include/uapi/asm-generic/socket.h */
#define SOL_SOCKET 1
#define SO_ERROR 4
/* include/linux/err.h */
#define MOST_ERRNO 4095

#define UNKNOWN (~0ULL)
/* The return value of programs for packets, always. */
#define GADGET_PASS 1

enum operation {
	OPERATION_CONNECT = 1,
	OPERATION_ACCEPT,
	OPERATION_CLOSE,
	/* The first packet was sent, and there is no answer yet. */
	OPERATION_SYN,
	/* It was established before the trace. */
	OPERATION_OPEN,
	OPERATION_REPORT,
};

/* How a connection ended. */
enum end {
	END_FIN = 1,
	END_RESET_RECEIVED,
	END_RESET_SENT,
	END_TIMEOUT,
	/* Of a connect: nothing answered until the program or the kernel gave up. */
	END_NO_ANSWER,
};

/* Which end initiated the connection. */
enum initiator {
	INITIATOR_THIS_END = 1,
	INITIATOR_OTHER_END,
};

typedef __u32 gadget_tcp_sequence;

struct trace_tcp {
	struct gadget_record record;
	/* The process and program that own the socket. */
	gadget_exec_id exec_id;
	/* For connect: the time until the answer. For accept: how long the connection waited to be accepted. For close:
	 * its lifetime. ~0: unknown. */
	gadget_duration duration;
	/* For close: the time without data before it; ~0: unknown. */
	gadget_duration idle;
	/* For close and report, without retransmissions; ~0: unknown. */
	gadget_bytes sent;
	gadget_bytes received;
	/* The kernel's smoothed round trip time; ~0: unknown. */
	gadget_duration rtt;
	gadget_ip local;
	gadget_ip remote;
	gadget_port local_port;
	gadget_port remote_port;
	gadget_address_family family;
	__u16 unused_16;
	enum operation operation;
	/* For close: how it ended; 0: normally. */
	gadget_errno errno;
	/* For connect and accept; -1: unknown. */
	gadget_fd fd;
	/* Retransmitted segments, for connect those with the SYN; for close and report, also all segments sent and
	 * received. */
	__u32 retransmits;
	__u32 sent_segments;
	__u32 received_segments;
	/* 0: it has not ended, or a connect failed before it sent anything. */
	enum end end;
	/* 0: unknown. */
	enum initiator initiator;
	/* With `reports`: the last sender, if it is not the owner but a process that has inherited or received the
	 * socket. 0: none. */
	gadget_pid user_pid;
	gadget_comm user_comm;
	/* For connect and accept: the sequence number of the SYN that initiated the connection. 0: unknown. */
	gadget_tcp_sequence initial_sequence;
	/* The policy of `enforce --network-policy` that refused a connect. */
	gadget_string policy;
	gadget_string rule;
};

GADGET_RECORD(trace_tcp);
/* Gadgets that keep the owners of all sockets use this gadget's owners for TCP connections
 * (gadget/network/packet_owner.h). */
const char gadget_owners_kept[] SEC(".rodata.owners") = "connections";
GADGET_PACKETS_OF("unquiet");

#define REFUSED_BYTES GADGET_ROOM(sizeof(struct trace_tcp) + GADGET_POLICIES_BYTES + GADGET_RULE_BYTES + 4)

GADGET_SCRATCH(refused_scratch, REFUSED_BYTES);

GADGET_REFUSALS;

/* If any of these is set, only those operations are shown. */
const volatile bool filter_connect = false;
const volatile bool filter_accept = false;
const volatile bool filter_close = false;
const volatile bool reports = false;
/* Milliseconds between two reports. */
const volatile __u32 interval = 1000;
/* Local or remote. 0: any. */
const volatile __u16 filter_port = 0;

static __always_inline bool wanted(enum operation operation)
{
	if (!filter_connect && !filter_accept && !filter_close)
		return true;
	return (operation == OPERATION_CONNECT && filter_connect) || (operation == OPERATION_ACCEPT && filter_accept) ||
	       (operation == OPERATION_CLOSE && filter_close);
}

static __always_inline bool is_tcp(struct sock *sk)
{
	__u16 family = gadget_read_at(struct sock, sk, __sk_common.skc_family);

	return (family == AF_INET || family == AF_INET6) && gadget_read_at(struct sock, sk, sk_protocol) == IPPROTO_TCP;
}

static __always_inline void set_endpoints(struct trace_tcp *tcp, struct sock *sk)
{
	gadget_local_ip(tcp->local, sk);
	gadget_remote_ip(tcp->remote, sk);
	tcp->local_port = gadget_local_port(sk);
	tcp->remote_port = gadget_remote_port(sk);
	tcp->family = gadget_read_at(struct sock, sk, __sk_common.skc_family);
}

/* Begins a row. The caller has filled in the record's head. */
static __always_inline void begin_operation(struct trace_tcp *tcp, enum operation operation, int errno)
{
	tcp->operation = operation;
	tcp->errno = errno;
	tcp->fd = -1;
	tcp->duration = tcp->sent = tcp->received = UNKNOWN;
	tcp->rtt = tcp->idle = UNKNOWN;
	tcp->retransmits = tcp->sent_segments = tcp->received_segments = 0;
	tcp->end = 0;
	tcp->initiator = operation == OPERATION_CONNECT	 ? INITIATOR_THIS_END
			 : operation == OPERATION_ACCEPT ? INITIATOR_OTHER_END
							 : 0;
	tcp->unused_16 = 0;
	tcp->initial_sequence = 0;
	tcp->user_pid = 0;
	__builtin_memset(tcp->user_comm, 0, sizeof(tcp->user_comm));
	gadget_exec_of_owner(&tcp->exec_id, NULL);
	gadget_no_text(&tcp->policy);
	gadget_no_text(&tcp->rule);
}

static __always_inline void set_processes(struct trace_tcp *tcp, struct gadget_owner *owner)
{
	gadget_exec_of_owner(&tcp->exec_id, owner);
	if (owner && owner->user_pid) {
		tcp->user_pid = owner->user_pid;
		__builtin_memcpy(tcp->user_comm, owner->user_comm, sizeof(tcp->user_comm));
	}
}

static __always_inline bool passes_filters(const struct trace_tcp *tcp)
{
	if (!gadget_wanted_result(-tcp->errno) || !wanted(tcp->operation))
		return false;
	if (!gadget_wanted_addresses(tcp->local, tcp->remote))
		return false;
	return !filter_port || tcp->local_port == filter_port || tcp->remote_port == filter_port;
}

/* Sends the row, if it is wanted. If `since` is not 0, sets the duration to the time since then. Returns the current
 * time. */
static __always_inline __u64 send(struct trace_tcp *tcp, __u64 since)
{
	if (!passes_filters(tcp) || !gadget_emit_since(&tcp->record, sizeof(*tcp), 0, since, &tcp->duration))
		return bpf_ktime_get_boot_ns();
	return tcp->record.timestamp;
}

/* Like send(), for a connect that a network policy may have refused. */
static __always_inline void send_refused(const struct trace_tcp *tcp, struct sock *sk)
{
	struct gadget_refused_key key = {
		.network_namespace = gadget_network_namespace(sk),
		.port = tcp->remote_port,
		.protocol = IPPROTO_TCP,
		.direction = GADGET_REFUSED_EGRESS,
	};
	struct trace_tcp *copy = gadget_scratch(&refused_scratch);
	struct gadget_writer writer;

	if (!copy || !passes_filters(tcp))
		return;
	*copy = *tcp;
	__builtin_memcpy(key.remote, tcp->remote, sizeof(key.remote));
	writer = gadget_write(copy, sizeof(*copy), REFUSED_BYTES);
	gadget_append_refused(&writer, gadget_refused_by(&gadget_refusals, &key), &copy->policy, &copy->rule);
	gadget_send(&writer);
}

/* Whether the current task is in connect(). */
static __always_inline bool is_connecting(void)
{
	struct gadget_compat_call call;

	gadget_current_call(&call);
	return call.native == CONNECT;
}

/* The lower bits of owner.state: the owner's role in the connection. If owner.state is 0, the socket has no connection
 * now. */
enum {
	/* Accepted, or waiting to be. */
	PASSIVE = 1,
	/* Connecting or connected, with the descriptor in the upper bits. */
	ACTIVE = 2,
	/* Failed, with the errno in the upper bits; the system call has not returned yet. */
	FAILED = 3,
};

#define STATE(KIND, VALUE) ((KIND) | (__u32)(VALUE) << 2)
#define KIND(STATE) ((STATE) & 3)
#define VALUE(STATE) ((__s32)(STATE) >> 2)
/* ACTIVE, after the connection was established: the descriptor is no longer needed. */
#define CONNECTED STATE(ACTIVE, -2)
/* The connection was established before tracing began, so the role is not known. */
#define OLDER STATE(0, 1)

/* The socket's owner, if it has a connection. */
static __always_inline struct gadget_owner *owner_of_connection(const void *sk)
{
	struct gadget_owner *owner = gadget_owner_of(sk);

	return owner && owner->state ? owner : NULL;
}

/*
 * The owner is kept until the socket is gone, since other gadgets use it. The trap: since the lookup, accept() may have
 * replaced the entry, or another thread may have closed the socket; then the entry may be that of another socket.
 */
static __always_inline void forget_connection(const struct sock *sk, struct gadget_owner *owner)
{
	if (owner && *(volatile __u64 *)&owner->socket == (__u64)sk)
		owner->state = 0;
}

static __always_inline void set_initiator(struct trace_tcp *tcp, const struct gadget_owner *owner)
{
	if (owner && (KIND(owner->state) == ACTIVE || KIND(owner->state) == PASSIVE))
		tcp->initiator = KIND(owner->state) == ACTIVE ? INITIATOR_THIS_END : INITIATOR_OTHER_END;
}

static __always_inline __u64 rtt_of(struct tcp_sock *sk)
{
	/* The value is in eighths of a microsecond. */
	__u32 eighths = gadget_read_at(struct tcp_sock, sk, srtt_us);

	return eighths ? eighths * 125ULL : UNKNOWN;
}

/* When the SYN was sent first, in boot time; 0: unknown. Only while there is no answer. */
static __always_inline __u64 syn_time(struct tcp_sock *sk)
{
	__u32 stamp = gadget_read_at(struct tcp_sock, sk, retrans_stamp), unit = 1000000, ago;

	if (bpf_core_field_exists(struct tcp_sock, tcp_usec_ts) && BPF_CORE_READ_BITFIELD_PROBED(sk, tcp_usec_ts))
		unit = 1000;
	ago = (__u32)(bpf_ktime_get_ns() / unit) - stamp;
	return stamp ? bpf_ktime_get_boot_ns() - (__u64)ago * unit : 0;
}

/* Whether no packet has answered until the connect failed: the program gave up, or the kernel. */
static __always_inline bool is_without_answer(int errno)
{
	return errno == ECANCELED || errno == ETIMEDOUT;
}

static __always_inline void connecting(struct sock *sk)
{
	struct gadget_owner owner = {};
	struct gadget_compat_call call;
	int fd = -1;

	if (!gadget_begin(&owner.record)) {
		gadget_forget_owner(sk);
		return;
	}
	gadget_current_call(&call);
	if (call.native == CONNECT)
		fd = call.arguments[0];
	gadget_exec_of(&owner.exec, gadget_task());
	owner.since = bpf_ktime_get_boot_ns();
	owner.state = STATE(ACTIVE, fd);
	gadget_keep_owner(sk, &owner, BPF_ANY);
}

/* A connection that no process has accepted yet. */
static __always_inline void arrived(struct sock *sk)
{
	struct gadget_owner owner = {};

	/* Ignores filters on the process, which is not known yet. */
	if (!gadget_wanted_other_cgroup(&owner.record, gadget_cgroup_of_socket(sk)))
		return;
	owner.record.unused = 0;
	owner.since = owner.reported = bpf_ktime_get_boot_ns();
	owner.state = PASSIVE;
	gadget_keep_owner(sk, &owner, BPF_NOEXIST);
}

static __always_inline void connected(struct sock *sk, struct gadget_owner *owner, int errno)
{
	__u64 since = owner ? owner->since : 0;
	struct trace_tcp tcp;
	__u64 now;

	if (!gadget_begin_for_socket(&tcp.record, sk, owner))
		return;
	begin_operation(&tcp, OPERATION_CONNECT, errno);
	tcp.retransmits = gadget_read_at(struct tcp_sock, sk, total_retrans);
	if (is_without_answer(errno))
		tcp.end = END_NO_ANSWER;
	if (errno && !since)
		since = syn_time((struct tcp_sock *)sk);
	set_processes(&tcp, owner);
	set_endpoints(&tcp, sk);
	if (owner)
		tcp.fd = VALUE(owner->state);
	if (!errno) {
		tcp.rtt = rtt_of((struct tcp_sock *)sk);
		/* Nothing has been written yet. */
		tcp.initial_sequence = gadget_read_at(struct tcp_sock, sk, write_seq) - 1;
	}
	now = send(&tcp, since);
	if (owner) {
		/* From now on, `since` is the start of its lifetime. */
		owner->since = owner->reported = now;
		owner->state = CONNECTED;
	}
}

static __always_inline void connect_failed(struct sock *sk, struct gadget_owner *owner)
{
	int errno = gadget_read_at(struct sock, sk, sk_err);

	/* Already reported: the program has asked for the error, and closes the socket. */
	if (!errno && owner && KIND(owner->state) == FAILED) {
		forget_connection(sk, owner);
		return;
	}
	/* The connection fails during connect() without an error in the socket: the error is known when the call
	 * returns. Timers and answers from the other end always set an error. */
	if (!errno && is_connecting()) {
		forget_connection(sk, owner);
		return;
	}
	/* The program itself closed it before there was an answer, unless it was rejected: see asked_for_error. */
	if (!errno)
		errno = gadget_read_at(struct sock, sk, sk_err_soft) ?: ECANCELED;
	connected(sk, owner, errno);
	if (owner)
		owner->state = STATE(FAILED, errno);
}

static __always_inline void set_traffic(struct trace_tcp *tcp, struct tcp_sock *sk)
{
	unsigned long flags = gadget_read_at(struct sock, sk, __sk_common.skc_flags);
	/* SOCK_DONE of enum sock_flags: the other end's FIN was received. The kernel counts it as a byte. */
	bool fin = flags & 2;
	__u64 received = gadget_read_at(struct tcp_sock, sk, bytes_received);

	tcp->sent =
		gadget_read_at(struct tcp_sock, sk, bytes_sent) - gadget_read_at(struct tcp_sock, sk, bytes_retrans);
	tcp->received = received - (fin && received);
	tcp->retransmits = gadget_read_at(struct tcp_sock, sk, total_retrans);
	tcp->sent_segments = gadget_read_at(struct tcp_sock, sk, segs_out);
	tcp->received_segments = gadget_read_at(struct tcp_sock, sk, segs_in);
	tcp->rtt = rtt_of(sk);
}

/* The time since the last segment with data, in either direction. */
static __always_inline __u64 idle_time(struct tcp_sock *sk)
{
	__u32 now = bpf_jiffies64(), sent = now - gadget_read_at(struct tcp_sock, sk, lsndtime),
	      received = now - gadget_read_at(struct inet_connection_sock, sk, icsk_ack.lrcvtime);

	return gadget_node_tick_ns ? (__u64)(sent < received ? sent : received) * gadget_node_tick_ns : UNKNOWN;
}

static __always_inline enum end end_of(int from, int errno)
{
	if (errno == ETIMEDOUT)
		return END_TIMEOUT;
	if (errno)
		return END_RESET_RECEIVED;
	return from == TCP_FIN_WAIT2 || from == TCP_LAST_ACK || from == TCP_CLOSING ? END_FIN : END_RESET_SENT;
}

static __always_inline void closed(struct sock *sk, struct gadget_owner *owner, int from)
{
	struct trace_tcp tcp;

	if (gadget_begin_for_socket(&tcp.record, sk, owner)) {
		begin_operation(&tcp, OPERATION_CLOSE, gadget_read_at(struct sock, sk, sk_err));
		tcp.end = end_of(from, tcp.errno);
		set_initiator(&tcp, owner);
		set_processes(&tcp, owner);
		set_endpoints(&tcp, sk);
		set_traffic(&tcp, (struct tcp_sock *)sk);
		tcp.idle = idle_time((struct tcp_sock *)sk);
		send(&tcp, owner ? owner->since : 0);
	}
	forget_connection(sk, owner);
}

/* Sends a row about an open connection. */
static __always_inline void report_progress(struct gadget_owner *owner, enum operation operation)
{
	struct sock *sk = (struct sock *)owner->socket;
	struct trace_tcp tcp;

	if (!gadget_begin_for_socket(&tcp.record, sk, owner))
		return;
	begin_operation(&tcp, operation, 0);
	set_initiator(&tcp, owner);
	set_processes(&tcp, owner);
	set_endpoints(&tcp, sk);
	set_traffic(&tcp, (struct tcp_sock *)sk);
	send(&tcp, owner->since);
}

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(state_changed, struct sock *sk, int from, int to)
{
	struct gadget_owner *owner;

	if (sk->sk_protocol != IPPROTO_TCP)
		return 0;
	if (to == TCP_SYN_SENT) {
		connecting(sk);
		return 0;
	}
	if (to != TCP_ESTABLISHED && to != TCP_CLOSE)
		return 0;
	owner = owner_of_connection(sk);
	if (to == TCP_ESTABLISHED) {
		/* The entry belongs to an earlier socket at this address, whose end was missed. */
		if (owner && owner->state == CONNECTED) {
			gadget_forget_owner(sk);
			owner = NULL;
		}
		/* From SYN_RECV in the active role: simultaneous open. */
		if (from == TCP_SYN_SENT || (owner && KIND(owner->state) == ACTIVE))
			connected(sk, owner, 0);
		else if (!owner)
			arrived(sk);
	} else if (from == TCP_SYN_SENT) {
		connect_failed(sk, owner);
	} else if (from != TCP_LISTEN && from != TCP_CLOSE && from != TCP_SYN_RECV && from != TCP_NEW_SYN_RECV) {
		closed(sk, owner, from);
	}
	return 0;
}

SEC("tp_btf/tcp_destroy_sock")
int BPF_PROG(destroyed, struct sock *sk)
{
	gadget_forget_owner(sk);
	return 0;
}

static __always_inline void accepted(struct sock *sk, long fd)
{
	struct gadget_owner owner = {}, *waiting;
	struct trace_tcp tcp;
	__u64 now;

	if (!gadget_begin(&tcp.record)) {
		gadget_forget_owner(sk);
		return;
	}
	begin_operation(&tcp, OPERATION_ACCEPT, 0);
	gadget_exec_of(&tcp.exec_id, gadget_task());
	set_endpoints(&tcp, sk);
	tcp.fd = fd;
	/* Nothing has been read yet. */
	tcp.initial_sequence = gadget_read_at(struct tcp_sock, sk, copied_seq) - 1;
	owner.record = tcp.record;
	owner.exec = tcp.exec_id;
	waiting = gadget_owner_of(sk);
	owner.since = waiting ? waiting->since : 0;
	now = send(&tcp, owner.since);
	owner.reported = waiting ? now : 0;
	if (gadget_read_at(struct sock, sk, __sk_common.skc_state) != TCP_CLOSE)
		owner.state = PASSIVE;
	/* If the connection ended while it waited, that was reported. If another thread has closed the socket, nothing
	 * would remove the entry. */
	else if (!gadget_read_at(struct sock, sk, sk_socket))
		return;
	gadget_keep_owner(sk, &owner, BPF_ANY);
}

/* Whether a failed call has no result yet: it would block, or it is restarted. */
static __always_inline bool is_no_result(long result)
{
	return result == -EAGAIN || result == -EINTR || (result <= -ERESTARTSYS && result >= -ERESTART_RESTARTBLOCK);
}

static __always_inline void accept_failed(struct sock *listener, long result)
{
	struct trace_tcp tcp;

	if (!listener || !is_tcp(listener) || !gadget_begin(&tcp.record))
		return;
	begin_operation(&tcp, OPERATION_ACCEPT, -result);
	gadget_exec_of(&tcp.exec_id, gadget_task());
	set_endpoints(&tcp, listener);
	gadget_no_ip(tcp.remote);
	tcp.remote_port = 0;
	send(&tcp, 0);
}

static __always_inline int accept_returned(long result)
{
	struct sock *sk;

	if (result >= 0) {
		sk = gadget_socket_of_fd(result);
		if (sk && is_tcp(sk))
			accepted(sk, result);
	} else if (!is_no_result(result)) {
		accept_failed(gadget_socket_of_fd((int)gadget_argument(gadget_registers(gadget_task()), 0)), result);
	}
	return 0;
}

SEC("tracepoint/syscalls/sys_exit_accept")
int accept_exit(struct trace_event_raw_sys_exit *ctx)
{
	return accept_returned(gadget_result(ctx));
}

SEC("tracepoint/syscalls/sys_exit_accept4")
int accept4_exit(struct trace_event_raw_sys_exit *ctx)
{
	return accept_returned(gadget_result(ctx));
}

/* A separate function, so that the compiler can reuse its stack memory. */
static __always_inline bool is_accepting(void)
{
	struct gadget_compat_call call;

	gadget_current_call(&call);
	return call.native == ACCEPT || call.native == ACCEPT4;
}

/* The result of inet_csk_accept(). A separate function for the same reason. */
static __always_inline struct sock *accepted_socket(void *ctx)
{
	__u64 sk = 0;

	return bpf_get_func_ret(ctx, &sk) ? NULL : (struct sock *)sk;
}

/* For connections that io_uring accepts. Others are reported at the exit of accept() and accept4(), with the
 * descriptor. */
SEC("?fexit/inet_csk_accept")
int BPF_PROG(accept_of_uring)
{
	struct sock *sk = is_accepting() ? NULL : accepted_socket(ctx);

	if (sk && is_tcp(sk))
		accepted(sk, -1);
	return 0;
}

/* For failures without a change of state: most happen before anything is sent. */
SEC("tracepoint/syscalls/sys_exit_connect")
int connect_exit(struct trace_event_raw_sys_exit *ctx)
{
	struct pt_regs *registers = gadget_call_registers(ctx);
	long result = gadget_result(ctx);
	struct gadget_owner *owner;
	struct trace_tcp tcp;
	struct sock *sk;
	int fd;

	if (result >= 0 || is_no_result(result) || result == -EINPROGRESS || result == -EALREADY || result == -EISCONN)
		return 0;
	fd = gadget_argument(registers, 0);
	sk = gadget_socket_of_fd(fd);
	if (!sk || !is_tcp(sk))
		return 0;
	owner = gadget_owner_of(sk);
	if (owner && owner->state == STATE(FAILED, -result)) {
		forget_connection(sk, owner);
		return 0;
	}
	if (!gadget_begin(&tcp.record))
		return 0;
	begin_operation(&tcp, OPERATION_CONNECT, -result);
	gadget_exec_of(&tcp.exec_id, gadget_task());
	set_endpoints(&tcp, sk);
	tcp.fd = fd;
	if (!gadget_user_address(tcp.remote, &tcp.remote_port, (const void *)gadget_argument(registers, 1))) {
		gadget_no_ip(tcp.remote);
		tcp.remote_port = 0;
	}
	if (result == -EPERM)
		send_refused(&tcp, sk);
	else
		send(&tcp, 0);
	return 0;
}

/*
 * A connect that was rejected by ICMP while the process held the socket's lock, as it is if the packet comes back right
 * away: the kernel does not end the attempt, but a program that does not block in connect() gets the error from
 * SO_ERROR, which also clears it.
 */
GADGET_ON_EXIT(getsockopt)
{
	struct gadget_owner *owner;
	struct sock *sk;
	int error = 0;

	if (result || gadget_argument(registers, 1) != SOL_SOCKET || gadget_argument(registers, 2) != SO_ERROR)
		return 0;
	sk = gadget_socket_of_fd((int)gadget_argument(registers, 0));
	if (!sk || !is_tcp(sk) || gadget_read_at(struct sock, sk, __sk_common.skc_state) != TCP_SYN_SENT)
		return 0;
	if (bpf_probe_read_user(&error, sizeof(error), (const void *)gadget_argument(registers, 3)) || error <= 0)
		return 0;
	owner = owner_of_connection(sk);
	if (owner && KIND(owner->state) == ACTIVE && error < MOST_ERRNO) {
		connected(sk, owner, error);
		owner->state = STATE(FAILED, error);
	}
	return 0;
}

/* The owner of an existing connection: the first process that has the file open. */
SEC("iter/task_file")
int find_owners(struct bpf_iter__task_file *ctx)
{
	/* Read once: for the verifier, each read of the context returns a different pointer. */
	struct task_struct *task = ctx->task;
	struct file *file = ctx->file;
	struct gadget_owner owner = {};
	struct sock *sk;
	__u8 state;

	if (!file || !task)
		return 0;
	sk = gadget_socket_of_file(file);
	if (!sk || !is_tcp(sk))
		return 0;
	state = gadget_read_at(struct sock, sk, __sk_common.skc_state);
	if (state == TCP_LISTEN || state == TCP_CLOSE || !gadget_begin_for_task(&owner.record, task))
		return 0;
	gadget_exec_of(&owner.exec, task);
	owner.state = state == TCP_SYN_SENT ? STATE(ACTIVE, ctx->fd) : OLDER;
	if (gadget_owner_of(sk))
		return 0;
	owner.reported = bpf_ktime_get_boot_ns();
	gadget_keep_owner(sk, &owner, BPF_NOEXIST);
	if (reports)
		report_progress(&owner, state == TCP_SYN_SENT ? OPERATION_SYN : OPERATION_OPEN);
	return 0;
}

/*
 * Records the sender, if it is not the process that connected or accepted. Only a process locks the socket as owned, so
 * an interrupt or timer is not mistaken for a sender. The trap: before 5.18, programs for packets cannot use
 * gadget_task().
 */
static __always_inline void note_user(struct gadget_owner *owner)
{
	struct sock *sk = (struct sock *)owner->socket;
	struct task_struct *task;
	__u32 pid;

	if (!owner->record.pid || !gadget_read_at(struct sock, sk, sk_lock.owned))
		return;
	task = (struct task_struct *)bpf_get_current_task();
	if (gadget_node_pid_level)
		pid = gadget_pid_at_level(BPF_CORE_READ(task, group_leader, thread_pid), gadget_node_pid_level);
	else
		pid = gadget_read_at(struct task_struct, task, tgid);
	if (pid == owner->record.pid || pid == owner->user_pid || !pid)
		return;
	BPF_CORE_READ_INTO(&owner->user_comm, task, group_leader, comm);
	owner->user_pid = pid;
}

/* The maximum length of a tick (CONFIG_HZ is at least 100). The kernel inlines bpf_jiffies64(). */
#define TICK_NS 10000000ULL

/* Sends a report if one is due. Returns the time in ns until the next one. */
static __always_inline __u64 report_if_due(struct gadget_owner *owner)
{
	__u64 reported = owner->reported, every = interval * 1000000ULL;
	/* The first packet is sent right after its connect. */
	__u64 now = !reported && owner->since ? owner->since : bpf_ktime_get_boot_ns();

	if (reported && now - reported < every)
		return every - (now - reported);
	if (__sync_val_compare_and_swap(&owner->reported, reported, now) == reported)
		report_progress(owner, reported ? OPERATION_REPORT : OPERATION_SYN);
	return every;
}

/*
 * With `reports`: reports the first packet that is sent, and then one per second. Received packets need no program,
 * since the receiver of data sends acknowledgements.
 *
 * The trap: if two CPUs handle packets of one connection, only one may report.
 */
SEC("cgroup_skb/egress")
int packet_sent(struct __sk_buff *skb)
{
	__u64 socket = gadget_cookie_of(skb), now = bpf_jiffies64(), key, sender;
	struct gadget_quiet *known = gadget_quiet_of(socket);
	struct gadget_owner *owner;

	if (gadget_is_quiet(known, skb, socket, now))
		return GADGET_PASS;
	sender = gadget_has_sender(skb) ? gadget_current_fork() : 0;
	key = (__u64)skb->sk;
	owner = bpf_map_lookup_elem(&gadget_owners, &key);
	if (owner && !owner->state)
		owner = NULL;
	if (owner && sender)
		note_user(owner);
	known->until = now + (owner ? report_if_due(owner) : interval * 1000000ULL) / TICK_NS;
	if (sender || known->socket != socket)
		known->sender = sender;
	known->socket = socket;
	return GADGET_PASS;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * What a sleeping thread waits for, and who holds it or should wake it.
 *
 * It takes three passes. The first one derives what each selected thread waits for, and enters its key in a map. The
 * next ones visit all threads and all open files of the node, and enter who has what was asked for. The last one writes
 * the rows. So the work is bounded by the threads and files of the node, and what nobody waits for costs one lookup.
 *
 * The traps: threads go on between the passes, so a wait of the first one may be over, or a new one have no holder. And
 * a lock of a program (a mutex) says who has it in the program's own memory, so its holder is only likely.
 */
#pragma once

#include <linux/errno.h>

#include <gadget/network/address.h>
#include <gadget/network/socket_file.h>
#include <gadget/other_task.h>
#include <gadget/processes/blocking_call.h>
#include <gadget/task.h>
#include <kernel/net_device.h>
#include <kernel/task_state.h>
#include <kernel/unix_socket.h>
#include <kernel/waits.h>

/* The maximum number of different things that threads wait for. */
#define GADGET_AWAITED 65536
/* Descriptors of poll and epoll that are examined. */
#define GADGET_POLLED 8
#define GADGET_POLLED_NODES 24
/* Locks of a file, and waiters for a lease, that are examined. */
#define GADGET_LOCKS 64

#define S_IFIFO 0010000

enum gadget_wait {
	GADGET_WAIT_NONE,
	GADGET_WAIT_FLOCK,
	GADGET_WAIT_RECORD_LOCK,
	GADGET_WAIT_LEASE,
	GADGET_WAIT_PIPE,
	GADGET_WAIT_UNIX,
	GADGET_WAIT_TCP,
	GADGET_WAIT_UDP,
	GADGET_WAIT_SOCKET,
	GADGET_WAIT_CLIENT,
	GADGET_WAIT_FUTEX,
	GADGET_WAIT_MUTEX,
	GADGET_WAIT_THREAD,
	GADGET_WAIT_CHILD,
	GADGET_WAIT_TIMER,
	GADGET_WAIT_SIGNAL,
	GADGET_WAIT_EVENTS,
	GADGET_WAIT_FILE,
};

enum gadget_certainty {
	GADGET_HOLDER_NONE,
	GADGET_HOLDER_KNOWN,
	GADGET_HOLDER_LIKELY,
};

/* What a key names. */
enum {
	/* `what` is the address of an object of the kernel: an open file, a table of files, a socket. */
	AWAITED_OBJECT = 1,
	/* The readers and the writers of the pipe of this inode. */
	AWAITED_READERS,
	AWAITED_WRITERS,
	/* Threads of the process `what` that broke its lease. */
	AWAITED_LEASE,
	/* The thread with the number `detail`, in its own PID namespace, of the process `what`. */
	AWAITED_THREAD,
	/* The thread whose end clears the word at `detail` in the memory `what`. */
	AWAITED_END,
	/* A child of the process `what`; `detail` is its number in that process's PID namespace, or 0. */
	AWAITED_CHILD,
	/* The end of a TCP connection that began it, or the other end: `ip` and `detail` are the address and port of
	 * the end that began it, `what` is the network namespace of a loopback address. */
	AWAITED_CLIENT,
	AWAITED_SERVER,
};

struct gadget_awaited {
	__u64 what;
	__u64 detail;
	__u64 kind;
	gadget_ip ip;
};

struct gadget_holder {
	gadget_cgroup cgroup;
	/* The process that waits, as numbered in the initial PID namespace. */
	__u32 waiter;
	/* 0: none was found. */
	__u32 process;
	gadget_pid pid;
	__u32 tid;
	gadget_pid container_pid;
	/* The number of processes. */
	__u32 count;
	/* For TCP: the address and the port of the end that did not begin the connection, as the waiter knows them. */
	gadget_ip server;
	__u32 server_port;
	/* What names the holder is not sure itself, or not that it is this process. */
	bool is_guess;
	bool is_likely;
	bool unused[2];
	gadget_comm comm;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, GADGET_AWAITED);
	__type(key, struct gadget_awaited);
	__type(value, struct gadget_holder);
} gadget_awaited SEC(".maps");

/* struct flock and struct pollfd of 64-bit programs: the layout is part of the ABI. */
struct gadget_flock {
	__s16 type;
	__s16 whence;
	__u32 unused;
	__s64 start;
	__s64 length;
};

struct gadget_pollfd {
	__s32 fd;
	__s16 events;
	__s16 found;
};

/* One lock of a file, as this kernel has it. */
struct gadget_lock {
	__u64 owner;
	__u64 file;
	__s64 start;
	__s64 end;
	__u32 type;
	__u32 unused;
};

/* How a thread waits. Functions that are not static work on it, so that the verifier checks them once each; they get
 * the thread as a number. */
struct gadget_waiting {
	__u64 task;
	struct gadget_compat_call call;
	/* Memory of the program. */
	struct gadget_flock flock;
	struct gadget_pollfd pollfds[GADGET_POLLED];
	__u32 futex;
	__u32 mutex_owner;
	bool has_flock;
	bool has_pollfds;
	bool has_futex;
	bool unused[5];
	/* A lock that is wanted, and another one. */
	struct gadget_lock own;
	struct gadget_lock lock;
	__u64 list;
	__u64 link;
	struct gadget_awaited key;
	/* The holder as far as it is known beforehand. */
	struct gadget_holder holder;
	enum gadget_wait kind;
	gadget_fd fd;
	__u64 inode;
	gadget_ip remote;
	__u32 remote_port;
	/* The descriptors of poll and epoll, and of any other call that waits for one. */
	__u32 polled;
	__s32 fds[GADGET_POLLED];
	bool writes[GADGET_POLLED];
	/* The nodes of epoll's tree that have to be visited. */
	__u64 nodes[2 * GADGET_POLLED_NODES + 2];
	__u32 nodes_end;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct gadget_waiting);
} gadget_waiting_scratch SEC(".maps");

/* A sleepable program may be moved off the CPU, but the agent runs only one at a time. */
static __always_inline struct gadget_waiting *gadget_waiting_now(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&gadget_waiting_scratch, &zero);
}

static __always_inline struct file *gadget_file_of_task(const struct gadget_waiting *waiting, __s32 fd)
{
	struct task_struct *task = (void *)waiting->task;
	struct fdtable *table = BPF_CORE_READ(task, files, fdt);
	struct file **files = BPF_CORE_READ(table, fd);

	if (fd < 0 || (__u32)fd >= BPF_CORE_READ(table, max_fds))
		return NULL;
	return (struct file *)gadget_word_at(&files[fd]);
}

static __always_inline void gadget_await(struct gadget_waiting *waiting, __u64 kind, __u64 what, __u64 detail)
{
	waiting->key.kind = kind;
	waiting->key.what = what;
	waiting->key.detail = detail;
}

/* The end of a TCP connection with the higher port is taken for the one that began it, as in most connections. The
 * other end has it, too, behind a service's address, which the two ends know by different addresses. */
static __always_inline bool gadget_is_client_end(struct sock *sk)
{
	return gadget_local_port(sk) >= gadget_remote_port(sk);
}

static __always_inline void gadget_connection_key(struct gadget_awaited *key, struct sock *sk, bool own_end,
						  gadget_ip server, __u32 *server_port)
{
	bool is_client = gadget_is_client_end(sk);

	if (is_client) {
		gadget_local_ip(key->ip, sk);
		gadget_remote_ip(server, sk);
		key->detail = gadget_local_port(sk);
		*server_port = gadget_remote_port(sk);
	} else {
		gadget_remote_ip(key->ip, sk);
		gadget_local_ip(server, sk);
		key->detail = gadget_remote_port(sk);
		*server_port = gadget_local_port(sk);
	}
	key->kind = is_client == own_end ? AWAITED_CLIENT : AWAITED_SERVER;
	/* 127.0.0.1 as an IPv4 and as a mapped address, and ::1. */
	key->what = 0;
	if ((key->ip[10] == 0xff && key->ip[11] == 0xff && key->ip[12] == 127) ||
	    (!key->ip[0] && !key->ip[11] && key->ip[15] == 1))
		key->what = BPF_CORE_READ(sk, __sk_common.skc_net.net, ns.inum);
}

static __always_inline void gadget_wait_for_socket(struct gadget_waiting *waiting, struct sock *sk)
{
	__u16 family = BPF_CORE_READ(sk, __sk_common.skc_family);
	__u8 state = BPF_CORE_READ(sk, __sk_common.skc_state);
	__u16 protocol = BPF_CORE_READ(sk, sk_protocol);
	struct unix_sock *local = (void *)sk;

	waiting->kind = GADGET_WAIT_SOCKET;
	if (state == TCP_LISTEN) {
		waiting->kind = GADGET_WAIT_CLIENT;
	} else if (family == AF_UNIX) {
		waiting->kind = GADGET_WAIT_UNIX;
		gadget_await(waiting, AWAITED_OBJECT, (__u64)BPF_CORE_READ(local, peer), 0);
	} else if (family == AF_INET || family == AF_INET6) {
		gadget_remote_ip(waiting->remote, sk);
		waiting->remote_port = gadget_remote_port(sk);
		if (protocol == IPPROTO_UDP)
			waiting->kind = GADGET_WAIT_UDP;
		if (protocol != IPPROTO_TCP)
			return;
		waiting->kind = GADGET_WAIT_TCP;
		if (state != TCP_SYN_SENT)
			gadget_connection_key(&waiting->key, sk, false, waiting->holder.server,
					      &waiting->holder.server_port);
	}
}

/* What a thread waits for that reads from one of its descriptors, or writes. */
__noinline int gadget_wait_for_fd(__u32 index)
{
	struct gadget_waiting *waiting = gadget_waiting_now();
	struct inode *inode;
	struct file *file;
	struct sock *sk;
	__u32 type;

	if (!waiting || index >= GADGET_POLLED)
		return 0;
	__builtin_memset(&waiting->key, 0, sizeof(waiting->key));
	__builtin_memset(&waiting->holder, 0, sizeof(waiting->holder));
	gadget_no_ip(waiting->remote);
	waiting->remote_port = 0;
	waiting->inode = 0;
	waiting->fd = waiting->fds[index];
	file = gadget_file_of_task(waiting, waiting->fd);
	if (!file)
		return 0;
	inode = BPF_CORE_READ(file, f_inode);
	waiting->inode = BPF_CORE_READ(inode, i_ino);
	type = BPF_CORE_READ(inode, i_mode) & S_IFMT;
	waiting->kind = GADGET_WAIT_FILE;
	if (type == S_IFIFO) {
		waiting->kind = GADGET_WAIT_PIPE;
		gadget_await(waiting, waiting->writes[index] ? AWAITED_READERS : AWAITED_WRITERS, (__u64)inode, 0);
	} else if (type == S_IFSOCK) {
		sk = gadget_socket_of_file(file);
		if (sk)
			gadget_wait_for_socket(waiting, sk);
	}
	return 0;
}

static __always_inline void *gadget_lock_of_link(struct list_head *link)
{
	if (bpf_core_field_exists(struct file_lock, c))
		return (void *)link - bpf_core_field_offset(struct file_lock_core, flc_list);
	return (void *)link - bpf_core_field_offset(struct file_lock___flat, fl_list);
}

static __always_inline void gadget_read_lock(struct gadget_lock *into, void *address)
{
	struct file_lock___flat *flat = address;
	struct file_lock *lock = address;

	if (bpf_core_field_exists(lock->c)) {
		into->owner = (__u64)BPF_CORE_READ(lock, c.flc_owner);
		into->file = (__u64)BPF_CORE_READ(lock, c.flc_file);
		into->type = BPF_CORE_READ(lock, c.flc_type);
		into->start = BPF_CORE_READ(lock, fl_start);
		into->end = BPF_CORE_READ(lock, fl_end);
	} else {
		into->owner = (__u64)BPF_CORE_READ(flat, fl_owner);
		into->file = (__u64)BPF_CORE_READ(flat, fl_file);
		into->type = BPF_CORE_READ(flat, fl_type);
		into->start = BPF_CORE_READ(flat, fl_start);
		into->end = BPF_CORE_READ(flat, fl_end);
	}
}

/* Looks at the next lock of a file. False: it is the last one that is examined. */
__noinline int gadget_examine_lock(bool is_flock)
{
	struct gadget_waiting *waiting = gadget_waiting_now();
	struct gadget_lock *lock, *own;
	struct list_head *link;

	if (!waiting || !waiting->link || waiting->link == waiting->list)
		return false;
	lock = &waiting->lock;
	own = &waiting->own;
	link = (struct list_head *)waiting->link;
	gadget_read_lock(lock, gadget_lock_of_link(link));
	if ((lock->type == F_WRLCK || own->type == F_WRLCK) &&
	    (is_flock ? lock->file != own->file
		      : lock->owner != own->owner && lock->start <= own->end && lock->end >= own->start)) {
		gadget_await(waiting, AWAITED_OBJECT, is_flock ? lock->file : lock->owner, 0);
		return false;
	}
	waiting->link = (__u64)BPF_CORE_READ(link, next);
	return true;
}

/* Finds the first lock in a list that is in the way of the wanted one, and waits for its owner. */
static __always_inline void gadget_wait_for_lock(struct gadget_waiting *waiting, struct list_head *list, bool is_flock)
{
	waiting->list = (__u64)list;
	waiting->link = (__u64)BPF_CORE_READ(list, next);
	for (int i = 0; i < GADGET_LOCKS; i++)
		if (!gadget_examine_lock(is_flock))
			break;
}

static __always_inline struct file_lock_context *gadget_locks_of(struct inode *inode)
{
	struct inode___locked *locked = (void *)inode;

	return BPF_CORE_READ(locked, i_flctx);
}

static __always_inline void gadget_wait_for_file_lock(struct gadget_waiting *waiting, bool is_flock)
{
	struct gadget_lock *own = &waiting->own;
	struct gadget_flock *asked = &waiting->flock;
	struct task_struct *task = (void *)waiting->task;
	struct file *file;
	struct inode *inode;
	struct file_lock_context *locks;

	waiting->kind = is_flock ? GADGET_WAIT_FLOCK : GADGET_WAIT_RECORD_LOCK;
	waiting->fd = waiting->call.arguments[0];
	file = gadget_file_of_task(waiting, waiting->fd);
	inode = BPF_CORE_READ(file, f_inode);
	locks = gadget_locks_of(inode);
	waiting->inode = BPF_CORE_READ(inode, i_ino);
	if (!locks)
		return;
	own->file = own->owner = (__u64)file;
	own->type = F_WRLCK;
	own->start = 0;
	own->end = 0x7fffffffffffffff;
	if (is_flock) {
		own->type = waiting->call.arguments[1] & LOCK_EX ? F_WRLCK : F_RDLCK;
		gadget_wait_for_lock(waiting, &locks->flc_flock, true);
		return;
	}
	if (waiting->call.arguments[1] != F_OFD_SETLKW)
		own->owner = (__u64)BPF_CORE_READ(task, files);
	if (waiting->has_flock) {
		own->type = asked->type;
		/* From the file's beginning. */
		if (!asked->whence && asked->start >= 0 && asked->length >= 0) {
			own->start = asked->start;
			if (asked->length)
				own->end = asked->start + asked->length - 1;
		}
	}
	gadget_wait_for_lock(waiting, &locks->flc_posix, false);
}

/* Operations of futex() (include/uapi/linux/futex.h), and bits of the word of one that knows its owner. */
#define FUTEX_WAIT 0
#define FUTEX_LOCK_PI 6
#define FUTEX_WAIT_BITSET 9
#define FUTEX_LOCK_PI2 13
#define FUTEX_COMMAND 0x7f
#define FUTEX_WAITERS 0x80000000
#define FUTEX_TID_MASK 0x3fffffff
/* The word of a mutex of glibc that others wait for, and the distance of its owner's number. */
#define GADGET_MUTEX_CONTENDED 2
#define GADGET_MUTEX_OWNER 8

static __always_inline void gadget_wait_for_futex(struct gadget_waiting *waiting)
{
	struct task_struct *task = (void *)waiting->task;
	__u64 address = waiting->call.arguments[0];
	__u32 command = waiting->call.arguments[1] & FUTEX_COMMAND;
	__u32 asked = waiting->call.arguments[2];
	__u32 word = waiting->has_futex ? waiting->futex : 0;
	__u64 process = BPF_CORE_READ(task, tgid);
	bool pi;

	if (waiting->call.native == CALL_FUTEX_WAIT) {
		command = FUTEX_WAIT;
		asked = waiting->call.arguments[1];
	}
	pi = command == FUTEX_LOCK_PI || command == FUTEX_LOCK_PI2;
	waiting->kind = pi ? GADGET_WAIT_MUTEX : GADGET_WAIT_FUTEX;
	if (!pi && command != FUTEX_WAIT && command != FUTEX_WAIT_BITSET)
		return;
	/* With PI, the kernel itself keeps the owner in the word. */
	waiting->holder.is_guess = !pi;
	if (word & FUTEX_TID_MASK && (pi || word & FUTEX_WAITERS)) {
		gadget_await(waiting, AWAITED_THREAD, process, word & FUTEX_TID_MASK);
	} else if (asked == GADGET_MUTEX_CONTENDED && word == GADGET_MUTEX_CONTENDED && waiting->mutex_owner) {
		gadget_await(waiting, AWAITED_THREAD, process, waiting->mutex_owner);
	} else {
		waiting->holder.is_guess = false;
		gadget_await(waiting, AWAITED_END, (__u64)BPF_CORE_READ(task, mm), address);
	}
}

static __always_inline void gadget_wait_for_child(struct gadget_waiting *waiting, __s32 child)
{
	struct task_struct *task = (void *)waiting->task;

	waiting->kind = GADGET_WAIT_CHILD;
	gadget_await(waiting, AWAITED_CHILD, BPF_CORE_READ(task, tgid), child > 0 ? child : 0);
}

static __always_inline void gadget_poll_fd(struct gadget_waiting *waiting, __s32 fd, bool writes)
{
	__u32 index = waiting->polled;

	if (fd < 0 || index >= GADGET_POLLED)
		return;
	waiting->fds[index] = fd;
	waiting->writes[index] = writes;
	waiting->polled = index + 1;
}

#define POLLIN 1
#define POLLOUT 4

__noinline int gadget_poll_one(__u32 index)
{
	struct gadget_waiting *waiting = gadget_waiting_now();
	const struct gadget_pollfd *item;

	if (!waiting || index >= GADGET_POLLED || index >= waiting->call.arguments[1])
		return 0;
	item = &waiting->pollfds[index];
	gadget_poll_fd(waiting, item->fd, !(item->events & POLLIN) && item->events & POLLOUT);
	return 0;
}

static __always_inline void gadget_poll(struct gadget_waiting *waiting)
{
	waiting->kind = GADGET_WAIT_EVENTS;
	for (int i = 0; waiting->has_pollfds && i < GADGET_POLLED; i++)
		gadget_poll_one(i);
}

/* Visits a node of epoll's tree. */
__noinline int gadget_poll_node(__u32 index)
{
	struct gadget_waiting *waiting = gadget_waiting_now();
	struct rb_node *node;
	struct epitem *item;
	__u32 end;

	if (!waiting || index >= GADGET_POLLED_NODES)
		return 0;
	end = waiting->nodes_end;
	node = (struct rb_node *)waiting->nodes[index];
	if (index >= end || !node)
		return 0;
	item = (void *)node - bpf_core_field_offset(struct epitem, rbn);
	gadget_poll_fd(waiting, BPF_CORE_READ(item, ffd.fd), false);
	if (end <= 2 * GADGET_POLLED_NODES) {
		waiting->nodes[end] = (__u64)BPF_CORE_READ(node, rb_left);
		waiting->nodes[end + 1] = (__u64)BPF_CORE_READ(node, rb_right);
		waiting->nodes_end = end + 2;
	}
	return 0;
}

/* Lists descriptors of an epoll instance, from the top of its tree. */
static __always_inline void gadget_poll_tree(struct gadget_waiting *waiting)
{
	struct file *file = gadget_file_of_task(waiting, waiting->call.arguments[0]);
	struct eventpoll *polled = BPF_CORE_READ(file, private_data);

	waiting->kind = GADGET_WAIT_EVENTS;
	waiting->fd = waiting->call.arguments[0];
	/* The file may be of another kind by now: a wrong pointer reads zeros, or numbers that are no descriptors. */
	waiting->nodes[0] = (__u64)BPF_CORE_READ(polled, rbr.rb_root.rb_node);
	waiting->nodes_end = 1;
	for (int i = 0; i < GADGET_POLLED_NODES; i++)
		gadget_poll_node(i);
}

/* What the call waits for. With `polled`, gadget_wait_for_fd() has to be called for each. */
__noinline int gadget_describe_call_of_sleeper(void)
{
	struct gadget_waiting *waiting = gadget_waiting_now();
	struct task_struct *task;
	__u64 *arguments;

	if (!waiting)
		return 0;
	task = (void *)waiting->task;
	arguments = waiting->call.arguments;
	switch (waiting->call.native) {
	case CALL_READ:
	case CALL_READV:
	case CALL_RECVFROM:
	case CALL_RECVMSG:
	case CALL_RECVMMSG:
	case CALL_ACCEPT:
	case CALL_ACCEPT4:
	case CALL_CONNECT:
		gadget_poll_fd(waiting, arguments[0], false);
		break;
	case CALL_WRITE:
	case CALL_WRITEV:
	case CALL_SENDTO:
	case CALL_SENDMSG:
	case CALL_SENDMMSG:
		gadget_poll_fd(waiting, arguments[0], true);
		break;
	case CALL_FLOCK:
		gadget_wait_for_file_lock(waiting, true);
		break;
	case CALL_FCNTL:
		if (arguments[1] == F_SETLKW || arguments[1] == F_OFD_SETLKW)
			gadget_wait_for_file_lock(waiting, false);
		break;
	case (__u16)CALL_OPEN:
	case (__u16)CALL_CREAT:
	case CALL_OPENAT:
	case CALL_OPENAT2:
	case CALL_TRUNCATE:
		gadget_await(waiting, AWAITED_LEASE, BPF_CORE_READ(task, tgid), 0);
		break;
	case CALL_FUTEX:
	case CALL_FUTEX_WAIT:
		gadget_wait_for_futex(waiting);
		break;
	case CALL_WAIT4:
		gadget_wait_for_child(waiting, arguments[0]);
		break;
	case CALL_WAITID:
		/* P_PID. */
		gadget_wait_for_child(waiting, arguments[0] == 1 ? arguments[1] : 0);
		break;
	case CALL_NANOSLEEP:
	case CALL_CLOCK_NANOSLEEP:
		waiting->kind = GADGET_WAIT_TIMER;
		break;
	case (__u16)CALL_PAUSE:
	case CALL_RT_SIGSUSPEND:
	case CALL_RT_SIGTIMEDWAIT:
		waiting->kind = GADGET_WAIT_SIGNAL;
		break;
	case (__u16)CALL_POLL:
	case CALL_PPOLL:
		gadget_poll(waiting);
		break;
	case (__u16)CALL_EPOLL_WAIT:
	case CALL_EPOLL_PWAIT:
	case CALL_EPOLL_PWAIT2:
		gadget_poll_tree(waiting);
		break;
	case (__u16)CALL_SELECT:
	case CALL_PSELECT6:
		waiting->kind = GADGET_WAIT_EVENTS;
		break;
	}
	return 0;
}

/* Reads what the arguments point to that says for what the thread waits. Only a sleepable program can do so. */
static __always_inline void gadget_read_asked(struct gadget_waiting *waiting, struct task_struct *task)
{
	void *address = (void *)waiting->call.arguments[0];
	__u32 native = waiting->call.native;

	if (native == CALL_FUTEX || native == CALL_FUTEX_WAIT) {
		waiting->has_futex =
			!bpf_copy_from_user_task(&waiting->futex, sizeof(waiting->futex), address, task, 0);
		if (bpf_copy_from_user_task(&waiting->mutex_owner, sizeof(waiting->mutex_owner),
					    address + GADGET_MUTEX_OWNER, task, 0))
			waiting->mutex_owner = 0;
	} else if (native == CALL_FCNTL) {
		waiting->has_flock = waiting->call.number == native &&
				     !bpf_copy_from_user_task(&waiting->flock, sizeof(waiting->flock),
							      (void *)waiting->call.arguments[2], task, 0);
	} else if (native == (__u16)CALL_POLL || native == CALL_PPOLL) {
		/* All of them may be read: what is behind the last one is not looked at. */
		waiting->has_pollfds =
			!bpf_copy_from_user_task(&waiting->pollfds, sizeof(waiting->pollfds), address, task, 0) ||
			!bpf_copy_from_user_task(&waiting->pollfds, sizeof(waiting->pollfds[0]), address, task, 0);
	}
}

/* Describes what a thread that sleeps waits for. */
static __always_inline void gadget_describe_waiting(struct gadget_waiting *waiting, struct task_struct *task,
						    bool sleeps)
{
	__builtin_memset(&waiting->key, 0, sizeof(waiting->key));
	__builtin_memset(&waiting->holder, 0, sizeof(waiting->holder));
	gadget_no_ip(waiting->remote);
	waiting->task = (__u64)task;
	waiting->remote_port = 0;
	waiting->inode = 0;
	waiting->fd = -1;
	waiting->polled = 0;
	waiting->kind = GADGET_WAIT_NONE;
	waiting->has_flock = waiting->has_pollfds = waiting->has_futex = false;
	waiting->mutex_owner = 0;
	gadget_call_of_sleeper(&waiting->call, task);
	if (sleeps)
		gadget_read_asked(waiting, task);
	gadget_describe_call_of_sleeper();
}

/* Enters what is described as awaited. */
static __always_inline void gadget_note_awaited(struct gadget_waiting *waiting, struct task_struct *task)
{
	if (!waiting->key.kind || !(waiting->key.what | waiting->key.detail))
		return;
	waiting->holder.waiter = BPF_CORE_READ(task, tgid);
	if (bpf_map_update_elem(&gadget_awaited, &waiting->key, &waiting->holder, BPF_NOEXIST) == -E2BIG)
		gadget_count_map_full();
}

/* A thread that may hold something, and its key. */
struct gadget_holding {
	/* The thread. */
	__u64 task;
	struct gadget_holder self;
	struct gadget_awaited key;
	gadget_ip server;
	__u32 server_port;
	__u32 unused;
	__u64 list;
	__u64 link;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct gadget_holding);
} gadget_holding_scratch SEC(".maps");

static __always_inline struct gadget_holding *gadget_holding_now(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&gadget_holding_scratch, &zero);
}

/* Begins what a thread holds: it is described once for all its files. */
static __always_inline struct gadget_holding *gadget_begin_holding(struct task_struct *task)
{
	struct gadget_holding *now = gadget_holding_now();

	if (!now)
		return NULL;
	now->task = (__u64)task;
	now->self.process = BPF_CORE_READ(task, tgid);
	now->self.cgroup = gadget_cgroup_id_of(task);
	now->self.pid = gadget_node_pid(task);
	now->self.tid = gadget_node_tid(task);
	now->self.container_pid = gadget_own_pid(task, now->self.pid);
	gadget_comm_of(task, now->self.comm);
	return now;
}

/* Enters the thread as the holder of what the key names, if anybody waits for it. Another process than the waiter is
 * preferred, and one that is surely the holder. */
__noinline int gadget_note_holder(void)
{
	struct gadget_holding *now = gadget_holding_now();
	struct gadget_holder *holder;
	bool likely;

	if (!now)
		return 0;
	holder = bpf_map_lookup_elem(&gadget_awaited, &now->key);
	if (!holder)
		return 0;
	likely =
		(now->key.kind == AWAITED_CLIENT || now->key.kind == AWAITED_SERVER) &&
		(holder->server_port != now->server_port || ((__u64 *)holder->server)[0] != ((__u64 *)now->server)[0] ||
		 ((__u64 *)holder->server)[1] != ((__u64 *)now->server)[1]);
	if (holder->process != now->self.process)
		holder->count++;
	if (holder->process && (holder->process != holder->waiter || now->self.process == holder->waiter) &&
	    !(holder->is_likely && !likely))
		return 0;
	holder->is_likely = likely;
	holder->process = now->self.process;
	holder->cgroup = now->self.cgroup;
	holder->pid = now->self.pid;
	holder->tid = now->self.tid;
	holder->container_pid = now->self.container_pid;
	__builtin_memcpy(holder->comm, now->self.comm, sizeof(holder->comm));
	return 0;
}

static __always_inline void gadget_holds(struct gadget_holding *now, __u64 kind, __u64 what, __u64 detail)
{
	__builtin_memset(&now->key, 0, sizeof(now->key));
	now->key.kind = kind;
	now->key.what = what;
	now->key.detail = detail;
	gadget_note_holder();
}

/* A thread's number in its own PID namespace, or in another one above it. */
static __always_inline __u32 gadget_number_at(struct pid *pid, __u32 level)
{
	return pid && level <= BPF_CORE_READ(pid, level) ? gadget_pid_at_level(pid, level) : 0;
}

/* What a thread holds as a thread. */
static __always_inline void gadget_note_thread(struct task_struct *task)
{
	struct pid *numbers = BPF_CORE_READ(task, thread_pid);
	struct task_struct___waits *times = (void *)task;
	struct task_struct *parent = BPF_CORE_READ(task, real_parent);
	__u32 process = BPF_CORE_READ(task, tgid);
	struct gadget_holding *now;

	if (gadget_state_of(task) & GADGET_STATES_OF_ENDED)
		return;
	now = gadget_begin_holding(task);
	if (!now)
		return;
	gadget_holds(now, AWAITED_THREAD, process, gadget_number_at(numbers, BPF_CORE_READ(numbers, level)));
	gadget_holds(now, AWAITED_END, (__u64)BPF_CORE_READ(task, mm), (__u64)BPF_CORE_READ(times, clear_child_tid));
	/* The next pass begins anew. */
	now->task = 0;
	if (BPF_CORE_READ(task, pid) != process)
		return;
	gadget_holds(now, AWAITED_CHILD, BPF_CORE_READ(parent, tgid), 0);
	gadget_holds(now, AWAITED_CHILD, BPF_CORE_READ(parent, tgid),
		     gadget_number_at(numbers, BPF_CORE_READ(parent, thread_pid, level)));
}

/* Enters the holder of a lease for the next thread that broke it. False: there is none. */
__noinline int gadget_note_lease_breaker(void)
{
	struct gadget_holding *now = gadget_holding_now();
	struct list_head *link;
	struct file_lock___flat *flat;
	struct file_lock *lock;

	if (!now || !now->link || now->link == now->list)
		return false;
	link = (struct list_head *)now->link;
	if (bpf_core_field_exists(struct file_lock, c)) {
		lock = (void *)link - bpf_core_field_offset(struct file_lock_core, flc_blocked_member);
		gadget_holds(now, AWAITED_LEASE, (__u32)BPF_CORE_READ(lock, c.flc_pid), 0);
	} else {
		flat = (void *)link - bpf_core_field_offset(struct file_lock___flat, fl_blocked_member);
		gadget_holds(now, AWAITED_LEASE, BPF_CORE_READ(flat, fl_pid), 0);
	}
	now->link = (__u64)BPF_CORE_READ(link, next);
	return true;
}

static __always_inline void gadget_note_lease(struct gadget_holding *now, struct file *file,
					      struct file_lock_context *locks)
{
	struct list_head *list = &locks->flc_lease, *link = BPF_CORE_READ(list, next), *waiters;
	struct file_lock___flat *flat;
	struct file_lock *lock;
	struct gadget_lock lease;

	if (!link || link == list)
		return;
	/* A file has one lease for writing, or several for reading, all of which have to be given up. */
	lock = gadget_lock_of_link(link);
	flat = (void *)lock;
	gadget_read_lock(&lease, lock);
	if (lease.file != (__u64)file)
		return;
	if (bpf_core_field_exists(struct file_lock, c))
		waiters = &lock->c.flc_blocked_requests;
	else
		waiters = &flat->fl_blocked_requests;
	now->list = (__u64)waiters;
	now->link = (__u64)BPF_CORE_READ(waiters, next);
	for (int i = 0; i < GADGET_LOCKS; i++)
		if (!gadget_note_lease_breaker())
			break;
}

/* The access mode of an open file, in its flags: 0 reads, 1 writes, 2 does both. */
#define O_ACCMODE 3
#define O_WRONLY 1

static __always_inline void gadget_note_file(struct task_struct *task, struct file *file)
{
	struct gadget_holding *now = gadget_holding_now();
	struct inode *inode = BPF_CORE_READ(file, f_inode);
	__u32 type = BPF_CORE_READ(inode, i_mode) & S_IFMT;
	__u32 access = BPF_CORE_READ(file, f_flags) & O_ACCMODE;
	struct file_lock_context *locks;
	struct sock *sk;

	if (!now)
		return;
	if (now->task != (__u64)task) {
		gadget_begin_holding(task);
		gadget_holds(now, AWAITED_OBJECT, (__u64)BPF_CORE_READ(task, files), 0);
	}
	gadget_holds(now, AWAITED_OBJECT, (__u64)file, 0);
	if (type == S_IFIFO) {
		if (access != O_WRONLY)
			gadget_holds(now, AWAITED_READERS, (__u64)inode, 0);
		if (access)
			gadget_holds(now, AWAITED_WRITERS, (__u64)inode, 0);
	} else if (type == S_IFSOCK) {
		sk = gadget_socket_of_file(file);
		if (!sk)
			return;
		if (BPF_CORE_READ(sk, sk_protocol) == IPPROTO_TCP) {
			gadget_connection_key(&now->key, sk, true, now->server, &now->server_port);
			gadget_note_holder();
		} else {
			gadget_holds(now, AWAITED_OBJECT, (__u64)sk, 0);
		}
	} else if (type == S_IFREG) {
		locks = gadget_locks_of(inode);
		if (locks)
			gadget_note_lease(now, file, locks);
	}
}

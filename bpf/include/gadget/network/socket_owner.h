/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The owner of a socket.
 *
 * Many events of a socket happen in interrupts or timers, while some other task is current. So the process that
 * connects, accepts or creates a socket is stored by the socket's address, and the records of later events begin with
 * its data. If the owner of a socket is unknown, its records have only data of the socket itself: its cgroup and its
 * user; the PIDs are 0 and the names are empty.
 *
 * The trap: the address is reused after the socket is gone, so the gadget must remove the entry in time.
 */
#pragma once

#include <linux/errno.h>

#include <gadget/map_shares.h>
#include <gadget/other_task.h>
#include <gadget/process.h>
#include <gadget/process_identity.h>
#include <gadget/output.h>
#include <gadget/network/socket_file.h>
#include <kernel/socket.h>

/*
 * Set by the agent for gadgets that use the owners of trace tcp, which records the processes that connect and accept,
 * and removes the entries of TCP sockets.
 */
const volatile bool gadget_connections_kept = false;

/* The maximum number of open sockets of wanted containers. One container may have half of them. */
#define GADGET_SOCKETS 131072

struct gadget_owner {
	struct gadget_record record;
	/* When its current use began, in boot time; 0: before the gadget did. */
	__u64 since;
	/* When the last row about it was sent; 0: never. Set by the gadget. */
	__u64 reported;
	/* The socket, the same as the map's key. For the verifier, this is a number, so programs can read from the
	 * address. */
	__u64 socket;
	/* Used by the gadget. 0: the entry only has the owner. */
	__u32 state;
	/* Used by the gadget: the last other process that used the socket. 0: none. */
	gadget_pid user_pid;
	gadget_comm user_comm;
	/* The process when the head was filled in. */
	gadget_exec_id exec;
	/* The lower half of gadget_execs when the name was last read. */
	__u32 execs;
	/* Of the map: gadget/map_shares.h. */
	__u32 share;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, GADGET_SOCKETS);
	__type(key, __u64);
	__type(value, struct gadget_owner);
} gadget_owners SEC(".maps");

GADGET_MAP_SHARES(gadget_owner_shares);

/* The program that a process executed last. */
struct gadget_executed {
	gadget_exec_id exec;
	gadget_comm comm;
};

/* The maximum number of processes that may have sockets from before an exec; the least recently used entries are
 * dropped. */
#define GADGET_EXECUTED 16384

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, GADGET_EXECUTED);
	__type(key, gadget_pid);
	__type(value, struct gadget_executed);
} gadget_executed SEC(".maps");

/* The number of execs. Always 0 in gadgets that do not follow them (gadget/network/packet_owner.h). */
__u64 gadget_execs SEC(".bss.execs");

/* Within this many nanoseconds, a PID is not reused; and no process has this many execs. Identities of one process
 * differ by its number of execs (gadget/process_identity.h). */
#define GADGET_SAME_PROCESS 100000000ULL

/* The program that the owner has executed since then; NULL: none. While there is no exec on the node, it costs one
 * comparison. The trap: the entry keeps the old name, since trace tcp may use it too, and shows the program that
 * connected or accepted. */
static __always_inline const struct gadget_executed *gadget_executed_since(struct gadget_owner *owner)
{
	__u32 execs = *(volatile __u64 *)&gadget_execs;
	gadget_pid pid = owner->record.pid;
	const struct gadget_executed *now;

	if (owner->execs == execs)
		return NULL;
	now = bpf_map_lookup_elem(&gadget_executed, &pid);
	if (now && now->exec.started - owner->exec.started - 1 < GADGET_SAME_PROCESS)
		return now;
	owner->execs = execs;
	return NULL;
}

static __always_inline struct gadget_owner *gadget_owner_of(const void *sk)
{
	__u64 key = (__u64)sk;
	struct gadget_owner *owner = bpf_map_lookup_elem(&gadget_owners, &key);

	/* A connection that no process has accepted yet has no owner. */
	if (gadget_connections_kept && owner && !owner->record.pid)
		return NULL;
	return owner;
}

static __always_inline void gadget_forget_owner(const void *sk)
{
	__u64 key = (__u64)sk;
	const struct gadget_owner *known = bpf_map_lookup_elem(&gadget_owners, &key);

	gadget_remove_entry(&gadget_owners, &key, &gadget_owner_shares, known ? &known->share : NULL);
}

static __always_inline void gadget_keep_owner(const void *sk, struct gadget_owner *owner, __u64 flags)
{
	__u64 key = (__u64)sk;
	const struct gadget_owner *known = bpf_map_lookup_elem(&gadget_owners, &key);

	if (known && flags == BPF_NOEXIST)
		return;
	owner->socket = key;
	owner->execs = *(volatile __u64 *)&gadget_execs;
	if (known) {
		owner->share = known->share;
		bpf_map_update_elem(&gadget_owners, &key, owner, BPF_EXIST);
		return;
	}
	owner->share = gadget_share_number(owner->record.cgroup);
	/* If another CPU was faster, nothing is lost. */
	gadget_add_entry(&gadget_owners, &key, owner, &gadget_owner_shares, owner->share, GADGET_SOCKETS);
}

/* No process if `owner` is NULL or not a process. */
static __always_inline void gadget_exec_of_owner(gadget_exec_id *exec, struct gadget_owner *owner)
{
	const struct gadget_executed *now = owner ? gadget_executed_since(owner) : NULL;

	exec->started = exec->pid = exec->unused = 0;
	if (owner)
		*exec = now ? now->exec : owner->exec;
}

/* The cgroup in which a socket was created. */
static __always_inline struct cgroup *gadget_cgroup_of_socket(struct sock *sk)
{
	struct sock_cgroup_data___union *old;

	if (bpf_core_field_exists(struct sock_cgroup_data, cgroup))
		return (struct cgroup *)gadget_word_at((void *)sk +
						       bpf_core_field_offset(struct sock, sk_cgrp_data.cgroup));
	old = (void *)sk + bpf_core_field_offset(struct sock, sk_cgrp_data);
	/* If the lowest bit is set, net_cls or net_prio store their own data there instead. */
	return BPF_CORE_READ(old, val) & 1 ? NULL : (struct cgroup *)BPF_CORE_READ(old, val);
}

/* Whether only events of a certain process are wanted. */
static __always_inline bool gadget_selects_process(void)
{
	return gadget_filter_pid || gadget_filter_comm[0];
}

/*
 * Whether a TCP connection is established and no process has accepted it yet. accept() decides its owner; data received
 * before that belongs to no process. A closed socket has no file either, but is never in these states.
 */
static __always_inline bool gadget_awaits_accept(struct sock *sk)
{
	__u8 state = gadget_read_at(struct sock, sk, __sk_common.skc_state);

	return (state == TCP_ESTABLISHED || state == TCP_CLOSE_WAIT) && !gadget_read_at(struct sock, sk, sk_socket);
}

/* Fills in the head of a record from the data of the socket itself. False: it is not wanted. */
static __always_inline bool gadget_begin_without_owner(struct gadget_record *record, struct sock *sk)
{
	__builtin_memset(record, 0, sizeof(*record));
	record->uid = gadget_read_at(struct sock, sk, sk_uid.val);
	record->gid = ~0U;
	if (gadget_filter_uid != ~0U && record->uid != gadget_filter_uid)
		return false;
	if (!gadget_wanted_other_cgroup(record, gadget_cgroup_of_socket(sk)))
		return false;
	record->unused = 0;
	return true;
}

/*
 * Fills in the head of a record about an event of a socket. `owner` may be NULL. False: it is not wanted. `unaccepted`:
 * if only one process is wanted, events of connections that no process has accepted yet are wanted too.
 *
 * The verifier checks code again for each path that leads to it, so the function that checks cgroups is called in one
 * place only.
 */
static __always_inline bool gadget_begin_for_socket_or_unaccepted(struct gadget_record *record, struct sock *sk,
								  struct gadget_owner *owner, bool unaccepted)
{
	const struct gadget_executed *now;

	if (owner && owner->record.pid) {
		*record = owner->record;
		now = gadget_executed_since(owner);
		if (now)
			__builtin_memcpy(record->comm, now->comm, sizeof(record->comm));
		/* The other marks are about the owner's call of connect() or accept(), which only trace tcp shows. */
		if (gadget_connections_kept)
			record->marks &= GADGET_MARK_UNKNOWN_CGROUP;
		return gadget_has_wanted_comm(record);
	}
	if (gadget_selects_process() && (!unaccepted || owner || !gadget_awaits_accept(sk)))
		return false;
	return gadget_begin_without_owner(record, sk);
}

static __always_inline bool gadget_begin_for_socket(struct gadget_record *record, struct sock *sk,
						    struct gadget_owner *owner)
{
	return gadget_begin_for_socket_or_unaccepted(record, sk, owner, false);
}

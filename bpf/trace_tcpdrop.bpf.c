// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * trace tcpdrop: emits one `struct trace_tcpdrop` for each TCP packet (on request, also UDP and SCTP) that the kernel
 * drops, with the reason.
 *
 * Hook: the tracepoint kfree_skb, which mostly runs in interrupts. So the owner of a packet's socket is recorded
 * earlier (gadget/network/packet_owner.h). For packets without a socket, so is the container that last used the network
 * namespace. A namespace without a known process belongs to the node, for example one that a network plugin or `ip
 * netns add` has created. The names of reasons come from the kernel, since their numbers differ between versions;
 * before 5.17, there are no reasons.
 *
 * Datagrams that `enforce --network-policy` refuses when they are sent never become packets: they are reported when the
 * call returns EPERM.
 */
#include <linux/errno.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>

#include <gadget/ends.h>
#include <gadget/helpers.h>
#include <gadget/kernel_stack.h>
#include <gadget/network/address.h>
#include <gadget/network/packet_calls.h>
#include <gadget/network/packet_owner.h>
#include <gadget/network/refused.h>
#include <gadget/network/socket_file.h>
#include <gadget/syscall.h>
#include <kernel/credentials.h>
#include <kernel/net_device.h>
#include <kernel/sk_buff.h>

#define ETH_P_IP 0x0800
#define ETH_P_IPV6 0x86dd
/* The flag of TCP. */
#define SYN 2

#define REASON_BYTES 64
/* The reason for a refused call, which has no packet. */
#define REFUSED_CALL "EPERM"
#define LOCATION_BYTES 96
/* The prefix of each reason's name. */
#define PREFIX "SKB_DROP_REASON_"

/* The maximum number of known network namespaces. */
#define NAMESPACES 16384

struct trace_tcpdrop {
	struct gadget_record record;
	/* From the packet's headers. */
	gadget_ip source;
	gadget_ip destination;
	gadget_port source_port;
	gadget_port destination_port;
	/* For TCP packets. */
	gadget_tcp_flags flags;
	/* The state of the socket; 0: no socket. */
	gadget_tcp_state state;
	/* The network namespace's inode number; 0: unknown. */
	__u32 network_namespace;
	/* ~0: the kernel has no reasons. */
	gadget_read_number reason_number;
	gadget_ip_protocol protocol;
	__u8 unused_8;
	__u16 unused_16;
	/* The length of the packet, from its IP header on. */
	gadget_bytes length;
	gadget_string reason;
	/* Where in the kernel it was dropped. */
	gadget_string location;
	gadget_strings stack;
	/* The policy of `enforce --network-policy`. */
	gadget_string policy;
	gadget_string rule;
	/* 0: no policy refused it. */
	enum gadget_refused_direction policy_direction;
};

GADGET_RECORD(trace_tcpdrop);
/* It has no program for packets, but one for closed sockets, which is called for the same protocols. */
GADGET_PACKETS_OF("other");

#define RECORD_BYTES                                                                                                   \
	GADGET_ROOM(sizeof(struct trace_tcpdrop) + REASON_BYTES + LOCATION_BYTES + GADGET_STACK_BYTES +                \
		    GADGET_POLICIES_BYTES + GADGET_RULE_BYTES + 4)

GADGET_SCRATCH(drop_scratch, RECORD_BYTES);
/* A separate buffer, since packets are also dropped in interrupts. */
GADGET_SCRATCH(call_scratch, RECORD_BYTES);

GADGET_REFUSALS;

/* The port of either end. 0: any. */
const volatile __u16 filter_port = 0;
const volatile bool collect_stack = false;
/* Only for packets that netfilter drops. */
const volatile bool collect_netfilter_stack = false;
/* Also packets that the kernel frees at the orderly end of a connection: see is_orderly(). */
const volatile bool all_drops = false;
const volatile bool with_datagrams = false;

/* The last user of a network namespace; for the node's own namespace, the node's init process. */
struct user {
	__u64 cgroup;
	__u32 marks;
	__u16 is_node;
	/* The user belongs to another node on the same kernel. */
	__u16 is_foreign;
};

/* By the address of a struct net. The kernel reuses addresses, so entries of namespaces that are gone need not be
 * removed. In an LRU map, a container that makes many namespaces would evict those of others, whose drops would be
 * attributed to the node without a loss being counted. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, NAMESPACES);
	__type(key, __u64);
	__type(value, struct user);
} users SEC(".maps");

static __always_inline void note_user(struct task_struct *task)
{
	struct gadget_record record = {};
	struct user user = {};
	const struct user *known;
	__u64 net = (__u64)gadget_read_at(struct task_struct, task, nsproxy, net_ns);

	if (!net)
		return;
	known = bpf_map_lookup_elem(&users, &net);
	if (known && known->is_node)
		return;
	user.is_node = gadget_node_pid(task) == 1;
	if (!gadget_wanted_other_task(&record, task) && !user.is_node) {
		/* Without an entry, the namespace would seem to have no processes, and so to belong to the node. */
		if (known)
			return;
		user.is_foreign = gadget_verdict_on(record.cgroup) == GADGET_UNKNOWN;
	}
	user.cgroup = record.cgroup;
	user.marks = record.marks;
	/* Nothing has changed, as for most new sockets. An update would take longer than all of the above. */
	if (known && known->cgroup == user.cgroup && known->marks == user.marks && known->is_foreign == user.is_foreign)
		return;
	if (bpf_map_update_elem(&users, &net, &user, BPF_ANY) == -E2BIG)
		gadget_count_map_full();
}

SEC("cgroup/sock_create")
int namespace_used(struct bpf_sock *ctx)
{
	note_user(gadget_task());
	return GADGET_ALLOW;
}

/* For processes without sockets, such as that of a pod's sandbox. */
SEC("tp_btf/sched_process_exec")
int namespace_entered(__u64 *ctx)
{
	note_user((struct task_struct *)ctx[0]);
	return 0;
}

SEC("iter/task")
int find_namespaces(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;

	if (task)
		note_user(task);
	return 0;
}

/* Fills in the head of a record about a packet without a socket. */
static __always_inline bool begin_without_socket(struct gadget_record *record, __u64 net)
{
	const struct user *user = bpf_map_lookup_elem(&users, &net);
	enum gadget_verdict verdict;

	__builtin_memset(record, 0, sizeof(*record));
	record->uid = record->gid = ~0U;
	if ((user && user->is_foreign) || gadget_selects_process() || gadget_filter_uid != ~0U)
		return false;
	record->cgroup = user ? user->cgroup : gadget_node_cgroup;
	record->marks = user ? user->marks : 0;
	verdict = gadget_verdict_on(record->cgroup);
	return (verdict == GADGET_UNKNOWN && !gadget_node_named_only) || gadget_is_wanted(verdict);
}

static __always_inline bool is_wanted(__u8 protocol)
{
	return protocol == IPPROTO_TCP || (with_datagrams && (protocol == IPPROTO_UDP || protocol == IPPROTO_SCTP));
}

/* Reads the ports and flags from `head`, which `length` bytes of other headers precede. All these protocols begin with
 * the ports. */
static __always_inline bool read_ports(struct trace_tcpdrop *drop, void *head, __u32 length, bool *has_data)
{
	struct tcphdr tcp;
	__be16 ports[2];

	if (drop->protocol != IPPROTO_TCP) {
		if (bpf_probe_read_kernel(&ports, sizeof(ports), head))
			return false;
		drop->source_port = bpf_ntohs(ports[0]);
		drop->destination_port = bpf_ntohs(ports[1]);
		drop->flags = 0;
		return true;
	}
	if (bpf_probe_read_kernel(&tcp, sizeof(tcp), head))
		return false;
	drop->source_port = bpf_ntohs(tcp.source);
	drop->destination_port = bpf_ntohs(tcp.dest);
	drop->flags = ((__u8 *)&tcp)[13];
	*has_data = drop->length > length + tcp.doff * 4;
	return true;
}

/* Reads the headers of a packet, and whether a TCP packet has data. False: it is not wanted, or has no headers. */
static __always_inline bool read_headers(struct trace_tcpdrop *drop, struct sk_buff *skb, bool *has_data)
{
	void *network = BPF_CORE_READ(skb, head) + BPF_CORE_READ(skb, network_header);
	__be16 protocol = BPF_CORE_READ(skb, protocol);
	__u32 length;

	if (protocol == bpf_htons(ETH_P_IP)) {
		struct iphdr ip;

		/* Only the first fragment has ports. */
		if (bpf_probe_read_kernel(&ip, sizeof(ip), network) || ip.version != 4 || !is_wanted(ip.protocol) ||
		    ip.frag_off & bpf_htons(0x1fff))
			return false;
		gadget_ip_from_v4(drop->source, ip.saddr);
		gadget_ip_from_v4(drop->destination, ip.daddr);
		length = ip.ihl * 4;
		drop->length = bpf_ntohs(ip.tot_len);
		drop->protocol = ip.protocol;
	} else if (protocol == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr ip;

		/* Extension headers before the transport header are very rare. */
		if (bpf_probe_read_kernel(&ip, sizeof(ip), network) || ip.version != 6 || !is_wanted(ip.nexthdr))
			return false;
		__builtin_memcpy(drop->source, &ip.saddr, sizeof(drop->source));
		__builtin_memcpy(drop->destination, &ip.daddr, sizeof(drop->destination));
		length = sizeof(ip);
		drop->length = bpf_ntohs(ip.payload_len) + sizeof(ip);
		drop->protocol = ip.nexthdr;
	} else {
		return false;
	}
	return read_ports(drop, network + length, length, has_data);
}

/* Since 5.17. */
static __always_inline bool has_reasons(void)
{
	return bpf_core_type_exists(enum skb_drop_reason);
}

static __always_inline void append_reason(struct gadget_writer *writer, struct trace_tcpdrop *drop, __u32 reason)
{
	__u64 start = writer->progress->length;
	struct btf_ptr value = {.ptr = &reason, .type_id = bpf_core_type_id_kernel(enum skb_drop_reason)};
	const __u32 prefix = sizeof(PREFIX) - 1;
	long written;

	gadget_unread(&drop->reason);
	if (!has_reasons() || start > writer->room - REASON_BYTES)
		return;
	written = bpf_snprintf_btf(writer->record + start, REASON_BYTES, &value, sizeof(value),
				   BTF_F_COMPACT | BTF_F_NONAME | BTF_F_ZERO);
	if (written <= 0 || written >= REASON_BYTES)
		return;
	gadget_wrote(writer, &drop->reason, start, written, false);
	/* Removes the prefix. Without it, the text is a number, for a reason of a kernel module. */
	if (written > prefix && !bpf_strncmp(writer->record + start, prefix, PREFIX)) {
		drop->reason.offset += prefix;
		drop->reason.length -= prefix;
	}
}

static __always_inline void append_location(struct gadget_writer *writer, struct gadget_text *text, __u64 location)
{
	static const char format[] = "%pS";
	__u64 start = writer->progress->length;
	long written;

	gadget_unread(text);
	if (start > writer->room - LOCATION_BYTES || !gadget_has_helper(snprintf))
		return;
	written = bpf_snprintf(writer->record + start, LOCATION_BYTES, format, &location, sizeof(location));
	if (written > 1 && written <= LOCATION_BYTES)
		gadget_wrote(writer, text, start, written - 1, false);
}

static __always_inline struct sock *socket_of(__u64 *ctx, struct sk_buff *skb)
{
	struct sock *sk = NULL;

	if (bpf_core_type_exists(btf_trace_kfree_skb___receiver))
		sk = (struct sock *)ctx[3];
	return sk ?: BPF_CORE_READ(skb, sk);
}

/* Whether the packet was consumed and not dropped, which the lowest numbers mean. */
static __always_inline bool is_consumed(__u32 reason)
{
	return bpf_core_enum_value_exists(enum skb_drop_reason, SKB_CONSUMED) ? reason <= SKB_CONSUMED : !reason;
}

/* Whether this is the reason NUMBER, which the kernel may not have. */
#define IS_REASON(REASON, NUMBER)                                                                                      \
	(bpf_core_enum_value_exists(enum skb_drop_reason, NUMBER) &&                                                   \
	 (REASON) == bpf_core_enum_value(enum skb_drop_reason, NUMBER))

/*
 * Whether an orderly connection leaves this packet behind: what the kernel frees with the queue of a closed socket,
 * such as the last packet at the end that closes first, and what a connection in TIME_WAIT receives and does not need,
 * unless it has data or begins another connection.
 */
static __always_inline bool is_orderly(const struct trace_tcpdrop *drop, __u32 reason, bool has_data)
{
	if (IS_REASON(reason, SKB_DROP_REASON_QUEUE_PURGE))
		return true;
	return drop->state == TCP_TIME_WAIT && !has_data && !(drop->flags & SYN) &&
	       (!has_reasons() || IS_REASON(reason, SKB_DROP_REASON_NOT_SPECIFIED));
}

/* Appends the policy that refused the packet, if there is one: that of the receiving or of the sending pod. */
static __always_inline void append_policy(struct gadget_writer *writer, struct trace_tcpdrop *drop)
{
	struct gadget_refused_key key = {
		.network_namespace = drop->network_namespace,
		.port = drop->destination_port,
		.protocol = drop->protocol,
		.direction = GADGET_REFUSED_INGRESS,
	};
	const struct gadget_refused *refused;

	__builtin_memcpy(key.remote, drop->source, sizeof(key.remote));
	refused = gadget_refused_by(&gadget_refusals, &key);
	if (!refused) {
		key.direction = GADGET_REFUSED_EGRESS;
		__builtin_memcpy(key.remote, drop->destination, sizeof(key.remote));
		refused = gadget_refused_by(&gadget_refusals, &key);
	}
	drop->policy_direction = refused ? key.direction : 0;
	gadget_append_refused(writer, refused, &drop->policy, &drop->rule);
}

SEC("tp_btf/kfree_skb")
int dropped(__u64 *ctx)
{
	struct sk_buff *skb = (struct sk_buff *)ctx[0];
	struct trace_tcpdrop *drop;
	struct gadget_writer writer;
	__u32 reason = has_reasons() ? ctx[2] : ~0U;
	struct net_device *device;
	bool has_data = false;
	struct net *net;
	struct sock *sk;

	if (is_consumed(reason))
		return 0;
	drop = gadget_scratch(&drop_scratch);
	if (!drop || !read_headers(drop, skb, &has_data))
		return 0;
	if (!gadget_wanted_addresses(drop->source, drop->destination))
		return 0;
	if (filter_port && drop->source_port != filter_port && drop->destination_port != filter_port)
		return 0;
	sk = socket_of(ctx, skb);
	/* A request socket and a TIME_WAIT socket are not full sockets. */
	drop->state = sk && drop->protocol == IPPROTO_TCP ? BPF_CORE_READ(sk, __sk_common.skc_state) : 0;
	if (!all_drops && is_orderly(drop, reason, has_data))
		return 0;
	device = (void *)BPF_CORE_READ(skb, dev);
	net = sk ? BPF_CORE_READ((struct sock_common *)sk, skc_net.net) : BPF_CORE_READ(device, nd_net.net);
	if (sk && drop->state != TCP_TIME_WAIT && drop->state != TCP_NEW_SYN_RECV) {
		if (!gadget_begin_for_socket(&drop->record, sk, gadget_owner_of(sk)))
			return 0;
	} else if (!begin_without_socket(&drop->record, (__u64)net)) {
		return 0;
	}
	drop->network_namespace = BPF_CORE_READ((struct net *)net, ns.inum);
	drop->reason_number = reason;
	drop->unused_8 = drop->unused_16 = 0;
	writer = gadget_write(drop, sizeof(*drop), RECORD_BYTES);
	append_reason(&writer, drop, reason);
	append_location(&writer, &drop->location, ctx[1]);
	append_policy(&writer, drop);
	gadget_no_text(&drop->stack);
	if (collect_stack || (collect_netfilter_stack && IS_REASON(reason, SKB_DROP_REASON_NETFILTER_DROP)))
		gadget_append_kernel_stack(&writer, &drop->stack, ctx);
	gadget_send(&writer);
	return 0;
}

/* Reports a call that a policy refused, and that would have sent a datagram to `address`. */
static __always_inline int refused_call(long result, struct pt_regs *registers, const void *address)
{
	struct gadget_refused_key key = {.protocol = IPPROTO_UDP, .direction = GADGET_REFUSED_EGRESS};
	const struct gadget_refused *refused;
	struct trace_tcpdrop *drop;
	struct gadget_writer writer;
	struct sock *sk;
	__u64 start;

	if (result != -EPERM)
		return 0;
	sk = gadget_socket_of_fd((int)gadget_argument(registers, 0));
	drop = gadget_scratch(&call_scratch);
	if (!sk || !drop || BPF_CORE_READ(sk, sk_protocol) != IPPROTO_UDP)
		return 0;
	if (!address || !gadget_user_address(key.remote, &key.port, address))
		return 0;
	key.network_namespace = gadget_network_namespace(sk);
	refused = gadget_refused_by(&gadget_refusals, &key);
	if (!refused || !gadget_begin(&drop->record))
		return 0;
	gadget_local_ip(drop->source, sk);
	drop->source_port = BPF_CORE_READ(sk, __sk_common.skc_num);
	__builtin_memcpy(drop->destination, key.remote, sizeof(drop->destination));
	drop->destination_port = key.port;
	if (!gadget_wanted_addresses(drop->source, drop->destination) ||
	    (filter_port && drop->source_port != filter_port && drop->destination_port != filter_port))
		return 0;
	drop->flags = drop->state = drop->reason_number = drop->length = 0;
	drop->protocol = IPPROTO_UDP;
	drop->network_namespace = key.network_namespace;
	drop->unused_8 = drop->unused_16 = 0;
	writer = gadget_write(drop, sizeof(*drop), RECORD_BYTES);
	start = writer.progress->length;
	if (start > writer.room - REASON_BYTES)
		return 0;
	__builtin_memcpy(writer.record + start, REFUSED_CALL, sizeof(REFUSED_CALL));
	gadget_wrote(&writer, &drop->reason, start, sizeof(REFUSED_CALL) - 1, false);
	gadget_no_text(&drop->location);
	gadget_no_text(&drop->stack);
	drop->policy_direction = key.direction;
	gadget_append_refused(&writer, refused, &drop->policy, &drop->rule);
	gadget_send(&writer);
	return 0;
}

/* The address in a `struct msghdr`, or in the first `struct mmsghdr`: both begin with the address. */
static __always_inline const void *address_of_message(struct pt_regs *registers)
{
	const void *address = NULL;

	bpf_probe_read_user(&address, sizeof(address), (const void *)gadget_argument(registers, 1));
	return address;
}

GADGET_ON_EXIT(connect)
{
	return refused_call(result, registers, (const void *)gadget_argument(registers, 1));
}

GADGET_ON_EXIT(sendto)
{
	return refused_call(result, registers, (const void *)gadget_argument(registers, 4));
}

GADGET_ON_EXIT(sendmsg)
{
	return result == -EPERM ? refused_call(result, registers, address_of_message(registers)) : 0;
}

GADGET_ON_EXIT(sendmmsg)
{
	return result == -EPERM ? refused_call(result, registers, address_of_message(registers)) : 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";

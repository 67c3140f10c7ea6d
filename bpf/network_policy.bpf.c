// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * Network policies: refuses calls and packets. Emits a `struct network_policy` at once for the first refusal of its
 * kind, then one per second with the number of further refusals, so that repeated attempts do not flood the ring.
 *
 * Hooks: cgroup/connect and cgroup/sendmsg, where calls fail with EPERM before anything is sent; cgroup_skb, which sees
 * each packet of each socket and drops those that begin an exchange that is not allowed. For TCP, only the first packet
 * of a connection is checked, so existing connections stay open, and no state is needed. For UDP and SCTP, the end that
 * began an exchange is remembered, so that answers pass.
 *
 * The client fills the tables (kubectl_gadget/policies/network/kernel_tables.py): cgroup → set of policies (subject),
 * address → its identity for policies (peer), and what each subject may do with each peer. The traps: traffic without
 * an entry is refused, so the tables must be filled before a cgroup gets a subject; and programs for cgroups can
 * interrupt each other, so the data for the verdict is on the stack, and a slot is used only for the event.
 */
#include <gadget/network/packet.h>
#include <gadget/network/refused.h>
#include <gadget/string.h>
#include <gadget/walk.h>
#include <kernel/socket.h>

#define PODS 65536
#define SUBJECTS 65536
#define PEERS (1 << 20)
#define PORTS (4 << 20)
#define RULES (1 << 20)
/* The maximum number of UDP and SCTP exchanges; the least recently used entries are dropped, and decided again. */
#define FLOWS 131072
/* How long an exchange is remembered, in units of 2^30 ns: 180 s. */
#define FLOW_TIME 168

#define REFUSE 0

/* include/net/sock.h: the port was chosen with bind(). */
#define SOCK_BINDPORT_LOCK 8

/* Defined as in kubectl_gadget/policies/network/kernel_tables.py. */
#define NAME_BYTES 160
/* The peer of rules that allow all peers. */
#define ANYONE (~0U)
/* The first word of 100::NUMBER, the address of peers for traffic that nodes relay. No host has this prefix (RFC
 * 6666). */
#define RELAYED 0x01000000

enum pod_kind {
	/* The cgroup of a container. */
	POD = 1,
	/* A cgroup of the host. */
	HOST,
	/* Like POD, for a pod that may neither send nor receive, not even on existing connections. */
	CUT_OFF,
};

enum peer_kind {
	PEER = 0,
	/* The node itself, which is always allowed. */
	PEER_NODE,
	/* A service: its entries allow what all its backends allow. */
	PEER_SERVICE,
};

enum {
	EGRESS = GADGET_REFUSED_EGRESS,
	INGRESS = GADGET_REFUSED_INGRESS,
};

struct network_policy {
	struct gadget_record record;
	gadget_ip local;
	gadget_ip remote;
	gadget_port local_port;
	gadget_port remote_port;
	gadget_ip_protocol protocol;
	__u16 unused_16;
	enum gadget_refused_direction direction;
	/* 1: refused, 2: would be refused (dry run). */
	__u32 action;
	/* The number of refusals since the previous event of this kind; a connection counts once, however often its
	 * first packet is retransmitted. */
	gadget_number count;
	/* connect, send or packet. */
	gadget_operation operation;
	gadget_string policy;
	gadget_string rule;
	gadget_string peer;
	__u32 unused_32;
};

GADGET_RECORD(network_policy);

const volatile bool dry_run = false;

/* The key is a cgroup id. Subject 0: no policy. */
struct policy_pod {
	__u32 subject;
	__u32 kind;
	gadget_ip own[2];
};

struct policy_subject {
	/* A bit for each direction in which only allowed traffic passes (EGRESS, INGRESS). */
	__u64 isolated;
	char egress[GADGET_POLICIES_BYTES];
	char ingress[GADGET_POLICIES_BYTES];
};

struct address_key {
	__u32 prefix;
	gadget_ip address;
};

struct policy_peer {
	__u32 peer;
	__u32 kind;
	char name[NAME_BYTES];
};

struct port_key {
	__u32 prefix;
	__u32 subject;
	__u32 peer;
	__u8 direction;
	__u8 protocol;
	__be16 port;
};

struct rule_key {
	__u32 subject;
	__u32 peer;
	__u32 direction;
};

struct policy_rule {
	char name[GADGET_RULE_BYTES];
};

struct flow_key {
	__u64 cgroup;
	gadget_ip remote;
	__u16 local_port;
	__u16 remote_port;
	__u32 protocol;
};

/* The state of an exchange is one word, read and written at once, since the map may reuse the entry for another
 * exchange at any time. The upper half is a hash of the key, which shows whose entry it is; then come 30 bits for the
 * time when the exchange was last seen, in units of 2^30 ns, and 2 bits for the direction of its first packet: EGRESS,
 * INGRESS, or both if unknown. */
#define FLOW_BEGAN 3ULL
#define FLOW_SEEN 0xfffffffcULL

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, PODS);
	__type(key, __u64);
	__type(value, struct policy_pod);
} gadget_table_pods SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, SUBJECTS);
	__type(key, __u32);
	__type(value, struct policy_subject);
} gadget_table_subjects SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, PEERS);
	__type(key, struct address_key);
	__type(value, struct policy_peer);
} gadget_table_peers SEC(".maps");

/* Allowed traffic. A shorter prefix stands for any port, or for any protocol and port. For subject 0: traffic that the
 * node relays, by IP version (in `peer`), protocol and port; the value is the number of its peer. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, PORTS);
	__type(key, struct port_key);
	__type(value, __u32);
} gadget_table_ports SEC(".maps");

/* The first rule about a peer: the closest match, for events about ports that it does not allow. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, RULES);
	__type(key, struct rule_key);
	__type(value, struct policy_rule);
} gadget_table_rules SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, FLOWS);
	__type(key, struct flow_key);
	__type(value, __u64);
} flows SEC(".maps");

#define BYTES GADGET_ROOM(sizeof(struct network_policy) + GADGET_POLICIES_BYTES + GADGET_RULE_BYTES + NAME_BYTES + 16)

/* Refusals with the same key are of one kind and reported together. It has all properties except the port that the
 * initiator's kernel has chosen. */
struct refusal_key {
	__u64 cgroup;
	gadget_ip remote;
	__u32 pid;
	__u32 subject;
	__u16 port;
	__u16 protocol;
	__u8 direction;
	/* The first letter of `operation`. */
	__u8 operation;
	__u16 unused;
};

struct refusal {
	/* Refusals since the last event; with REFUSAL_OVER, the entry is about to be removed. */
	__u64 more;
	__u64 is_quiet;
	__u64 length;
	__u64 cuts;
	char event[BYTES];
};

#define REFUSAL_OVER (1ULL << 63)

/* If it is full, each further refusal is a separate event. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 16384);
	__type(key, struct refusal_key);
	__type(value, struct refusal);
} gadget_walked SEC(".maps");

/* For other agents, which see the effects of refusals. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, GADGET_REFUSED);
	__type(key, struct gadget_refused_key);
	__type(value, struct gadget_refused);
} gadget_refused SEC(".maps");

/* Connections whose first packet was dropped: its retransmissions are not further attempts. */
struct dropped_key {
	__u64 cgroup;
	gadget_ip remote;
	__u16 local_port;
	__u16 remote_port;
	__u32 sequence;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, struct dropped_key);
	__type(value, __u32);
} dropped SEC(".maps");

struct workspace {
	struct gadget_refused refused;
	/* The event is the last member, so that the memory that helpers need follows it. */
	struct refusal refusal;
};

GADGET_SLOTS(slots, sizeof(struct workspace));

/* The attempt to check. */
struct attempt {
	__u64 cgroup;
	gadget_ip remote;
	__u32 subject;
	__u32 direction;
	__u16 local_port;
	__u16 remote_port;
	__u16 protocol;
	/* The packet continues an earlier exchange. */
	bool goes_on;
};

/* The pod of a cgroup; NULL: no policy applies to it. Sets the id of its container's cgroup. */
static __always_inline const struct policy_pod *pod_of(struct cgroup *cgroup, __u64 *id)
{
	const struct policy_pod *pod;

	*id = gadget_reported_cgroup(BPF_CORE_READ(cgroup, kn, id), cgroup);
	pod = bpf_map_lookup_elem(&gadget_table_pods, id);
	return pod && pod->kind != HOST ? pod : NULL;
}

static __always_inline bool is_unspecified(const __u8 *ip)
{
	const __u32 *words = (const __u32 *)ip;

	return !words[0] && !words[1] && !words[3] && (!words[2] || words[2] == bpf_htonl(0xffff));
}

static __always_inline bool same_ip(const __u8 *one, const __u8 *other)
{
	return !__builtin_memcmp(one, other, sizeof(gadget_ip));
}

/* Loopback, the unspecified address (which connect() treats as loopback), and the pod's own address. */
static __always_inline bool is_own(const __u8 *ip, const struct policy_pod *pod)
{
	const __u32 *words = (const __u32 *)ip;

	if (is_unspecified(ip))
		return true;
	if (!words[0] && !words[1] &&
	    ((!words[2] && words[3] == bpf_htonl(1)) || (words[2] == bpf_htonl(0xffff) && ip[12] == 127)))
		return true;
	return same_ip(ip, pod->own[0]) || same_ip(ip, pod->own[1]);
}

static __always_inline void key_of_flow(struct flow_key *key, const struct attempt *attempt)
{
	key->cgroup = attempt->cgroup;
	__builtin_memcpy(key->remote, attempt->remote, sizeof(key->remote));
	key->local_port = attempt->local_port;
	key->remote_port = attempt->remote_port;
	key->protocol = attempt->protocol;
}

static __always_inline bool has_flows(__u16 protocol)
{
	return protocol == IPPROTO_UDP || protocol == IPPROTO_UDPLITE || protocol == IPPROTO_SCTP;
}

static __always_inline __u64 mark_of(const struct flow_key *key)
{
	const __u64 *words = (const __u64 *)key;
	__u64 mark = 0;

	for (int i = 0; i < sizeof(*key) / sizeof(*words); i++) {
		mark = (mark ^ words[i]) * 0x9e3779b97f4a7c15ULL;
		mark ^= mark >> 32;
	}
	return mark << 32;
}

/* The bits FLOW_SEEN for the current time. */
static __always_inline __u64 seen_now(void)
{
	return bpf_ktime_get_boot_ns() >> 30 << 2 & FLOW_SEEN;
}

/* The state of the exchange, and its entry. 0: unknown. */
static __always_inline __u64 known_of(const struct flow_key *key, __u64 **entry)
{
	__u64 known;

	*entry = bpf_map_lookup_elem(&flows, key);
	if (!*entry)
		return 0;
	known = *(volatile __u64 *)*entry;
	return known >> 32 == mark_of(key) >> 32 ? known : 0;
}

static __always_inline bool began_at(__u64 known, __u64 end)
{
	return known & end && seen_now() - (known & FLOW_SEEN) <= FLOW_TIME << 2;
}

static __always_inline void renew(__u64 *entry, __u64 known)
{
	__u64 renewed = (known & ~FLOW_SEEN) | seen_now();

	/* Fails if the entry belongs to another exchange by now. */
	if (renewed != known)
		__sync_val_compare_and_swap(entry, known, renewed);
}

/* Whether it answers an exchange that the other end began. */
static __always_inline bool is_answer(const struct attempt *attempt)
{
	__u64 other = attempt->direction ^ (EGRESS | INGRESS);
	struct flow_key key;
	__u64 *entry, known;

	key_of_flow(&key, attempt);
	known = known_of(&key, &entry);
	if (known) {
		if (!began_at(known, other))
			return false;
		renew(entry, known);
		return true;
	}
	/* Entries of find_flows() without a remote address: the destination of what the socket sent before is unknown.
	 * They are not renewed. */
	__builtin_memset(key.remote, 0, sizeof(key.remote));
	key.remote_port = 0;
	return began_at(known_of(&key, &entry), other);
}

static __always_inline void remember(const struct attempt *attempt, __u64 began)
{
	struct flow_key key;
	__u64 *entry, known;

	key_of_flow(&key, attempt);
	known = known_of(&key, &entry);
	if (known && (known & FLOW_BEGAN) == began) {
		renew(entry, known);
		return;
	}
	known = mark_of(&key) | seen_now() | began;
	bpf_map_update_elem(&flows, &key, &known, BPF_ANY);
}

static __always_inline void key_of_ports(struct port_key *key, const struct attempt *attempt, __u32 subject, __u32 peer)
{
	key->prefix = 96;
	key->subject = subject;
	key->peer = peer;
	key->direction = attempt->direction;
	/* Policies cannot name UDP-Lite, so it is treated as UDP, the most similar protocol. */
	key->protocol = attempt->protocol == IPPROTO_UDPLITE ? IPPROTO_UDP : attempt->protocol;
	key->port = bpf_htons(attempt->direction == EGRESS ? attempt->remote_port : attempt->local_port);
}

static __always_inline bool has_port(const struct attempt *attempt, __u32 peer)
{
	struct port_key key;

	key_of_ports(&key, attempt, attempt->subject, peer);
	return bpf_map_lookup_elem(&gadget_table_ports, &key) != NULL;
}

/* The peer at the other end. If the node relays the port to services or pods, this is not the node itself. */
static __always_inline const struct policy_peer *peer_of(const struct attempt *attempt)
{
	struct address_key key = {.prefix = 128};
	__u32 *words = (__u32 *)key.address;
	const struct policy_peer *peer;
	const __u32 *relayed;
	struct port_key port;
	bool is_v4;

	__builtin_memcpy(key.address, attempt->remote, sizeof(key.address));
	peer = bpf_map_lookup_elem(&gadget_table_peers, &key);
	if (!peer || peer->kind != PEER_NODE || attempt->direction != EGRESS)
		return peer;
	is_v4 = !words[0] && !words[1] && words[2] == bpf_htonl(0xffff);
	key_of_ports(&port, attempt, 0, is_v4 ? 4 : 6);
	relayed = bpf_map_lookup_elem(&gadget_table_ports, &port);
	if (!relayed)
		return peer;
	words[0] = bpf_htonl(RELAYED);
	words[1] = words[2] = 0;
	words[3] = bpf_htonl(*relayed);
	return bpf_map_lookup_elem(&gadget_table_peers, &key);
}

/* Whether the tables allow it. */
static __always_inline bool is_allowed(const struct attempt *attempt)
{
	const struct policy_subject *subject = bpf_map_lookup_elem(&gadget_table_subjects, &attempt->subject);
	const struct policy_peer *peer;

	if (subject && !(subject->isolated & attempt->direction))
		return true;
	peer = peer_of(attempt);
	if (peer && peer->kind == PEER_NODE)
		return true;
	if (has_port(attempt, peer ? peer->peer : 0))
		return true;
	return !(peer && peer->kind == PEER_SERVICE) && has_port(attempt, ANYONE);
}

static __always_inline bool passes(const struct attempt *attempt, const struct policy_pod *pod)
{
	if (is_own(attempt->remote, pod))
		return true;
	if (pod->kind == CUT_OFF)
		return false;
	/* ICMP is needed for networks to work, and policies cannot name it. */
	if (attempt->goes_on || attempt->protocol == IPPROTO_ICMP || attempt->protocol == IPPROTO_ICMPV6)
		return true;
	if (has_flows(attempt->protocol) && is_answer(attempt))
		return true;
	return !attempt->subject || is_allowed(attempt);
}

static __always_inline void append(struct gadget_writer *writer, struct gadget_text *text, const char *from,
				   __u64 limit)
{
	char first = 0;

	if (from)
		bpf_probe_read_kernel(&first, 1, from);
	if (first)
		gadget_append_kernel_string(writer, text, from, limit);
	else
		gadget_no_text(text);
}

static __always_inline void key_of_refusal(struct refusal_key *key, const struct network_policy *event,
					   const struct attempt *attempt)
{
	__builtin_memset(key, 0, sizeof(*key));
	key->cgroup = attempt->cgroup;
	__builtin_memcpy(key->remote, attempt->remote, sizeof(key->remote));
	key->pid = event->record.pid;
	key->subject = attempt->subject;
	key->port = attempt->direction == EGRESS ? attempt->remote_port : attempt->local_port;
	key->protocol = attempt->protocol;
	key->direction = attempt->direction;
	key->operation = event->operation[0];
}

/* Whether there was a refusal of the same kind recently; if so, this one is counted with it. */
static __always_inline bool count_with_others(const struct refusal_key *key)
{
	struct refusal *refusal = bpf_map_lookup_elem(&gadget_walked, key);

	return refusal && !(__sync_fetch_and_add(&refusal->more, 1) & REFUSAL_OVER);
}

/* Finds the reason for the refusal, and records it for other agents. */
static __always_inline void find_reason(struct gadget_refused *refused, const struct attempt *attempt, struct sock *sk)
{
	struct rule_key key = {.subject = attempt->subject, .direction = attempt->direction};
	const struct policy_subject *subject = bpf_map_lookup_elem(&gadget_table_subjects, &attempt->subject);
	const struct policy_peer *peer = peer_of(attempt);
	const struct policy_rule *rule;
	struct gadget_refused_key noted = {
		.network_namespace = gadget_network_namespace(sk),
		.port = attempt->direction == EGRESS ? attempt->remote_port : attempt->local_port,
		.protocol = attempt->protocol,
		.direction = attempt->direction,
	};

	key.peer = peer ? peer->peer : 0;
	rule = bpf_map_lookup_elem(&gadget_table_rules, &key);
	if (!rule && !(peer && peer->kind == PEER_SERVICE)) {
		key.peer = ANYONE;
		rule = bpf_map_lookup_elem(&gadget_table_rules, &key);
	}
	refused->policy[0] = refused->rule[0] = 0;
	if (subject && attempt->direction == EGRESS)
		__builtin_memcpy(refused->policy, subject->egress, sizeof(refused->policy));
	else if (subject)
		__builtin_memcpy(refused->policy, subject->ingress, sizeof(refused->policy));
	if (rule)
		__builtin_memcpy(refused->rule, rule->name, sizeof(refused->rule));
	if (dry_run)
		return;
	refused->at = bpf_ktime_get_boot_ns();
	__builtin_memcpy(noted.remote, attempt->remote, sizeof(noted.remote));
	bpf_map_update_elem(&gadget_refused, &noted, refused, BPF_ANY);
}

/* Reports a refusal. The caller has set the record's head, the local address and the operation. */
static __always_inline void report(struct refusal *refusal, const struct gadget_refused *why,
				   const struct attempt *attempt)
{
	struct network_policy *event = (void *)refusal->event;
	const struct policy_peer *peer;
	struct refusal_key own;
	struct gadget_writer writer;

	key_of_refusal(&own, event, attempt);
	if (count_with_others(&own))
		return;
	event->local_port = attempt->local_port;
	event->remote_port = attempt->remote_port;
	event->protocol = attempt->protocol;
	event->direction = attempt->direction;
	event->action = dry_run ? 2 : 1;
	event->count = 1;
	event->unused_16 = 0;
	event->unused_32 = 0;
	__builtin_memcpy(event->remote, attempt->remote, sizeof(event->remote));
	peer = peer_of(attempt);
	writer = gadget_write(event, sizeof(*event), BYTES);
	append(&writer, &event->policy, why->policy, GADGET_POLICIES_BYTES);
	append(&writer, &event->rule, why->rule, GADGET_RULE_BYTES);
	append(&writer, &event->peer, peer ? peer->name : NULL, NAME_BYTES);
	gadget_send(&writer);
	refusal->more = 0;
	refusal->is_quiet = 0;
	refusal->length = writer.progress->length;
	refusal->cuts = writer.progress->cuts;
	/* Another CPU may have added the entry first; then further refusals are counted there. */
	bpf_map_update_elem(&gadget_walked, &own, refusal, BPF_NOEXIST);
}

/* Checks a call that names its destination. */
static __always_inline int judge_call(struct bpf_sock_addr *ctx, const __u8 *remote, const char *operation)
{
	struct attempt attempt = {.direction = EGRESS};
	const struct policy_pod *pod;
	struct network_policy *event;
	struct workspace *work;
	struct sock *sk;

	if (!ctx->sk)
		return GADGET_ALLOW;
	sk = gadget_kernel_socket(ctx->sk);
	pod = pod_of(gadget_cgroup_of_socket(sk), &attempt.cgroup);
	if (!pod || !pod->subject)
		return GADGET_ALLOW;
	attempt.subject = pod->subject;
	__builtin_memcpy(attempt.remote, remote, sizeof(attempt.remote));
	attempt.protocol = ctx->protocol;
	/* IPPROTO_MPTCP, whose subflows are TCP connections. */
	if (ctx->protocol == 262)
		attempt.protocol = IPPROTO_TCP;
	attempt.local_port = BPF_CORE_READ(sk, __sk_common.skc_num);
	attempt.remote_port = bpf_ntohs((__u16)ctx->user_port);
	/* Raw sockets have no ports yet; their packets are checked instead. */
	if (ctx->type == SOCK_RAW || passes(&attempt, pod))
		return GADGET_ALLOW;
	work = gadget_take_slot(&slots);
	if (!work)
		goto decided;
	find_reason(&work->refused, &attempt, sk);
	event = (void *)work->refusal.event;
	/* Not gadget_begin(): older kernels do not allow its helpers in these programs. */
	if (gadget_begin_for_task(&event->record, gadget_task())) {
		gadget_local_ip(event->local, sk);
		if (is_unspecified(event->local))
			gadget_no_ip(event->local);
		__builtin_memset(event->operation, 0, sizeof(event->operation));
		__builtin_memcpy(event->operation, operation, 8);
		report(&work->refusal, &work->refused, &attempt);
	}
	gadget_give_back(work);
decided:
	return dry_run ? GADGET_ALLOW : REFUSE;
}

static __always_inline int judge_v4(struct bpf_sock_addr *ctx, const char *operation)
{
	gadget_ip remote;

	gadget_ip_from_v4(remote, ctx->user_ip4);
	return judge_call(ctx, remote, operation);
}

static __always_inline int judge_v6(struct bpf_sock_addr *ctx, const char *operation)
{
	__u32 remote[4] = {ctx->user_ip6[0], ctx->user_ip6[1], ctx->user_ip6[2], ctx->user_ip6[3]};

	return judge_call(ctx, (const __u8 *)remote, operation);
}

SEC("cgroup/connect4")
int judge_connect_v4(struct bpf_sock_addr *ctx)
{
	return judge_v4(ctx, "connect");
}

SEC("cgroup/connect6")
int judge_connect_v6(struct bpf_sock_addr *ctx)
{
	return judge_v6(ctx, "connect");
}

SEC("cgroup/sendmsg4")
int judge_send_v4(struct bpf_sock_addr *ctx)
{
	return judge_v4(ctx, "send\0\0\0");
}

SEC("cgroup/sendmsg6")
int judge_send_v6(struct bpf_sock_addr *ctx)
{
	return judge_v6(ctx, "send\0\0\0");
}

/* Reads the headers. If they cannot be read, the protocol is 0, so that no rule for a port allows the packet. */
static __always_inline void read_packet(struct __sk_buff *skb, struct gadget_packet *packet, struct attempt *attempt,
					bool raw)
{
	bool outgoing = attempt->direction == EGRESS;
	__u32 offset;

	packet->flags = 0;
	packet->sequence = 0;
	packet->local_port = 0;
	packet->remote_port = 0;
	packet->protocol = 0;
	gadget_no_ip(packet->local);
	gadget_no_ip(packet->remote);
	offset = gadget_read_ip(skb, packet, outgoing);
	if (offset && packet->protocol == IPPROTO_TCP) {
		offset = gadget_read_ports(skb, packet, offset);
		/* A raw socket can send packets that belong to no connection of this pod. */
		attempt->goes_on = offset && !(raw && outgoing) &&
				   (packet->flags & (GADGET_TCP_SYN | GADGET_TCP_ACK)) != GADGET_TCP_SYN;
	} else if (offset && has_flows(packet->protocol)) {
		/* All three protocols begin with source and destination port. */
		__be16 ports[2];

		if (bpf_skb_load_bytes(skb, offset, ports, sizeof(ports)))
			offset = 0;
		else
			gadget_set_ports(packet, ports[0], ports[1]);
	}
	__builtin_memcpy(attempt->remote, packet->remote, sizeof(attempt->remote));
	attempt->local_port = packet->local_port;
	attempt->remote_port = packet->remote_port;
	attempt->protocol = offset ? packet->protocol : 0;
}

/* Whether this is the retransmission of a dropped first packet. */
static __always_inline bool is_sent_again(const struct attempt *attempt, __u32 sequence)
{
	struct dropped_key key = {
		.cgroup = attempt->cgroup,
		.local_port = attempt->local_port,
		.remote_port = attempt->remote_port,
		.sequence = sequence,
	};
	const __u32 one = 1;

	if (attempt->protocol != IPPROTO_TCP)
		return false;
	__builtin_memcpy(key.remote, attempt->remote, sizeof(key.remote));
	return bpf_map_update_elem(&dropped, &key, &one, BPF_NOEXIST) == -EEXIST;
}

static __always_inline int judge_packet(struct __sk_buff *skb, __u32 direction)
{
	struct attempt attempt = {.direction = direction};
	struct network_policy *event;
	struct workspace *work;
	struct gadget_packet packet;
	const struct policy_pod *pod;
	struct sock *sk;
	bool raw;

	if (!skb->sk)
		return GADGET_PASS;
	sk = gadget_kernel_socket(skb->sk);
	pod = pod_of(gadget_cgroup_of_socket(sk), &attempt.cgroup);
	if (!pod)
		return GADGET_PASS;
	attempt.subject = pod->subject;
	raw = BPF_CORE_READ(sk, sk_type) == SOCK_RAW;
	read_packet(skb, &packet, &attempt, raw);
	/* Not for raw sockets, which can send any source address, and fragments whose headers cannot be read. */
	if ((!raw && attempt.protocol && same_ip(packet.local, packet.remote)) || passes(&attempt, pod)) {
		if (has_flows(attempt.protocol) && !is_answer(&attempt))
			remember(&attempt, direction);
		return GADGET_PASS;
	}
	/* The call was reported already. Without dry run, there would be no packet. */
	if (dry_run && !raw && direction == EGRESS &&
	    (attempt.protocol == IPPROTO_TCP || attempt.protocol == IPPROTO_UDP))
		return GADGET_PASS;
	work = gadget_take_slot(&slots);
	if (!work)
		goto decided;
	find_reason(&work->refused, &attempt, sk);
	event = (void *)work->refusal.event;
	if (!is_sent_again(&attempt, packet.sequence) &&
	    gadget_begin_for_socket(&event->record, sk, gadget_owner_of(sk))) {
		__builtin_memcpy(event->local, packet.local, sizeof(event->local));
		__builtin_memset(event->operation, 0, sizeof(event->operation));
		__builtin_memcpy(event->operation, "packet", 6);
		report(&work->refusal, &work->refused, &attempt);
	}
	gadget_give_back(work);
decided:
	return dry_run ? GADGET_PASS : REFUSE;
}

SEC("cgroup_skb/egress")
int judge_sent(struct __sk_buff *skb)
{
	return judge_packet(skb, EGRESS);
}

SEC("cgroup_skb/ingress")
int judge_received(struct __sk_buff *skb)
{
	return judge_packet(skb, INGRESS);
}

/* Runs each second: reports the number of further refusals. An entry without any for a whole second is removed, so that
 * the next refusal of its kind is reported at once. */
GADGET_WALK(report_more)
{
	struct refusal_key of = *(const struct refusal_key *)key;
	struct refusal *refusal = value;
	struct network_policy *event = (void *)refusal->event;
	__u64 length;

	event->count = __sync_lock_test_and_set(&refusal->more, 0);
	if (event->count) {
		length = refusal->length;
		refusal->is_quiet = 0;
		if (length <= BYTES)
			gadget_emit(&event->record, length, refusal->cuts);
	} else if (!refusal->is_quiet) {
		refusal->is_quiet = 1;
	} else if (!__sync_val_compare_and_swap(&refusal->more, 0, REFUSAL_OVER)) {
		bpf_map_delete_elem(&gadget_walked, &of);
	}
	return 0;
}

/*
 * Adds existing UDP exchanges. If the socket has a remote address, which end began is unknown. A socket without a
 * remote address whose port was not chosen with bind() has sent to an unknown address, so for a while, answers from any
 * address pass.
 */
SEC("iter/task_file")
int find_flows(struct bpf_iter__task_file *ctx)
{
	struct file *file = ctx->file;
	struct attempt attempt = {};
	struct cgroup *cgroup;
	struct sock *bound;
	struct sock *sk;
	__u16 family;

	if (!file)
		return 0;
	sk = gadget_socket_of_file(file);
	if (!sk)
		return 0;
	bound = (void *)sk;
	family = BPF_CORE_READ(sk, __sk_common.skc_family);
	attempt.protocol = BPF_CORE_READ(sk, sk_protocol);
	attempt.local_port = BPF_CORE_READ(sk, __sk_common.skc_num);
	attempt.remote_port = gadget_remote_port(sk);
	if ((family != AF_INET && family != AF_INET6) || attempt.protocol != IPPROTO_UDP || !attempt.local_port)
		return 0;
	cgroup = gadget_cgroup_of_socket(sk);
	attempt.cgroup = gadget_reported_cgroup(BPF_CORE_READ(cgroup, kn, id), cgroup);
	if (attempt.remote_port) {
		gadget_remote_ip(attempt.remote, sk);
		remember(&attempt, EGRESS | INGRESS);
	} else if (!(BPF_CORE_READ_BITFIELD_PROBED(bound, sk_userlocks) & SOCK_BINDPORT_LOCK)) {
		remember(&attempt, EGRESS);
	}
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";

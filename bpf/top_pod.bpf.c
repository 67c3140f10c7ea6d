// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * top pod: adds up, for each cgroup, what the cgroup's files do not report: files opened, programs started, bytes sent
 * and received. The agent adds the rest, from cpu.stat, memory.current and similar files
 * (kubectl_gadget/agent/sources/samplers.py).
 *
 * Hooks: the exits of open's system calls, sched_process_exec, and cgroup_skb, whose packets belong to the socket's
 * cgroup.
 */
#include <gadget/network/packet.h>
#include <gadget/syscall.h>
#include <gadget/totals.h>

#define CGROUPS 16384

/* In thousandths of a CPU. */
typedef __u64 gadget_millicores;

struct pod_key {
	gadget_cgroup cgroup;
};

/* Counted here. */
struct pod_value {
	gadget_number opens;
	gadget_number execs;
	/* Including the IP header. */
	gadget_bytes sent;
	gadget_bytes received;
};

/* Read by the agent. */
struct pod_usage {
	gadget_duration cpu_time;
	gadget_duration throttled;
	gadget_bytes memory;
	gadget_number processes;
	gadget_duration cpu_stalled;
	gadget_duration memory_stalled;
	gadget_duration io_stalled;
	gadget_number major_faults;
	gadget_bytes read_bytes;
	gadget_bytes written_bytes;
};

struct top_pod {
	struct gadget_total interval;
	struct pod_key key;
	struct pod_value value;
	struct pod_usage usage;
	/* Filled in by the client. */
	gadget_millicores cpu;
	gadget_number opens_per_second;
	gadget_number execs_per_second;
};

GADGET_RECORD(top_pod);

GADGET_TOTALS(pod_key, pod_value, CGROUPS);

static __always_inline struct pod_value *of_current(void)
{
	struct pod_key key = {.cgroup = gadget_current_cgroup()};

	return gadget_counts() ? gadget_total(&key) : NULL;
}

static __always_inline int opened(long result)
{
	struct pod_value *value = result >= 0 ? of_current() : NULL;

	if (value)
		gadget_add(value->opens, 1);
	return 0;
}

SEC("tracepoint/syscalls/sys_exit_openat")
int openat_exit(struct trace_event_raw_sys_exit *ctx)
{
	return opened(gadget_result(ctx));
}

SEC("tracepoint/syscalls/sys_exit_openat2")
int openat2_exit(struct trace_event_raw_sys_exit *ctx)
{
	return opened(gadget_result(ctx));
}

SEC("tracepoint/syscalls/sys_exit_open")
int open_exit(struct trace_event_raw_sys_exit *ctx)
{
	return opened(gadget_result(ctx));
}

SEC("tracepoint/syscalls/sys_exit_creat")
int creat_exit(struct trace_event_raw_sys_exit *ctx)
{
	return opened(gadget_result(ctx));
}

SEC("tp_btf/sched_process_exec")
int executed(void *ctx)
{
	struct pod_value *value = of_current();

	if (value)
		gadget_add(value->execs, 1);
	return 0;
}

static __always_inline struct pod_value *of_packet(struct __sk_buff *skb)
{
	struct gadget_record record;
	struct pod_key key = {};
	struct bpf_sock *sk = skb->sk;

	sk = sk ? bpf_sk_fullsock(sk) : NULL;
	if (!sk || !gadget_wanted_other_cgroup(&record, gadget_cgroup_of_socket(gadget_kernel_socket(sk))))
		return NULL;
	key.cgroup = record.cgroup;
	return gadget_total(&key);
}

SEC("cgroup_skb/ingress")
int packet_received(struct __sk_buff *skb)
{
	struct pod_value *value = of_packet(skb);

	if (value)
		gadget_add(value->received, skb->len);
	return GADGET_PASS;
}

SEC("cgroup_skb/egress")
int packet_sent(struct __sk_buff *skb)
{
	struct pod_value *value = of_packet(skb);

	if (value)
		gadget_add(value->sent, skb->len);
	return GADGET_PASS;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";

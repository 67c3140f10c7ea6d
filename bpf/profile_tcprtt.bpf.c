// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * profile tcprtt: histograms of the round trip time of TCP connections, by container.
 *
 * Hook: the tracepoint tcp_probe, which runs for each segment that an established connection receives. It runs in
 * interrupts, so the owner of the socket is recorded earlier (gadget/network/packet_owner.h). The kernel measures the
 * time only for segments that acknowledge data; for other segments, the same smoothed time is counted again.
 */
#include <gadget/histogram.h>
#include <gadget/network/address.h>
#include <gadget/network/packet_owner.h>

#define HISTOGRAMS 8192

struct tcprtt_key {
	gadget_cgroup cgroup;
	gadget_ip remote;
};

struct tcprtt_value {
	struct gadget_histogram histogram;
};

struct profile_tcprtt {
	struct gadget_total interval;
	struct tcprtt_key key;
	struct tcprtt_value value;
	struct gadget_percentiles percentiles;
};

GADGET_RECORD(profile_tcprtt);

GADGET_TOTALS(tcprtt_key, tcprtt_value, HISTOGRAMS);

/* Separate histograms for each remote address. */
const volatile bool by_remote = false;
/* 0: any. */
const volatile __u16 filter_local_port = 0;
const volatile __u16 filter_remote_port = 0;

SEC("tp_btf/tcp_probe")
int BPF_PROG(received, struct sock *sk)
{
	struct tcp_sock *connection = (void *)sk;
	__u64 time = BPF_CORE_READ(connection, srtt_us);
	struct gadget_record record;
	struct tcprtt_value *value;
	struct tcprtt_key key = {};

	if (!time || (filter_local_port && gadget_local_port(sk) != filter_local_port) ||
	    (filter_remote_port && gadget_remote_port(sk) != filter_remote_port))
		return 0;
	if (!gadget_begin_for_socket(&record, sk, gadget_owner_of(sk)))
		return 0;
	key.cgroup = record.cgroup;
	gadget_no_ip(key.remote);
	if (by_remote)
		gadget_remote_ip(key.remote, sk);
	value = gadget_total(&key);
	if (value)
		gadget_observe(&value->histogram, time * 1000 / 8);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";

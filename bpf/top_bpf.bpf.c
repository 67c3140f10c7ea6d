// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * top bpf: how often each BPF program of the node ran, and for how long. There is no program, since it would count
 * itself: the agent enables the kernel's own statistics and reads them (kubectl_gadget/agent/sources/samplers.py).
 */
#include <gadget/totals.h>

/* In thousandths of a CPU. */
typedef __u64 gadget_millicores;

struct program_key {
	/* The cgroup of the process that holds the program. */
	gadget_cgroup cgroup;
	__u32 program_id;
	__u32 unused;
};

struct program_value {
	__u64 runs;
	gadget_duration run_time;
	/* Runs that the kernel skipped, since the program was already running on that CPU. */
	__u64 misses;
	gadget_timestamp loaded;
	gadget_comm comm;
	char program[16];
	char attached[40];
	gadget_bpf_program_type type;
	__u32 pid;
	gadget_uid uid;
	enum gadget_known_bool ours;
};

struct top_bpf {
	struct gadget_total interval;
	struct program_key key;
	struct program_value value;
	/* Filled in by the client. */
	gadget_duration mean;
	gadget_millicores cpu;
};

GADGET_RECORD(top_bpf);

char LICENSE[] SEC("license") = "Dual BSD/GPL";

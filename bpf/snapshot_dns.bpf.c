// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * snapshot dns: a `struct snapshot_dns` for the resolver configuration of each mount namespace, once. There is no
 * program: the agent makes the rows from /etc/resolv.conf (kubectl_gadget/agent/sources/samplers.py).
 */
#include <gadget/output.h>

struct snapshot_dns {
	struct gadget_record record;
	gadget_number ndots;
	gadget_strings nameservers;
	gadget_strings search;
	gadget_strings options;
	gadget_errno errno;
};

GADGET_RECORD(snapshot_dns);

char LICENSE[] SEC("license") = "Dual BSD/GPL";

// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * snapshot mounts: a `struct snapshot_mounts` for each mount of each mount namespace, once. There is no program, since
 * the kernel has no iterator over mounts: the agent makes the rows from /proc/PID/mountinfo
 * (kubectl_gadget/agent/sources/samplers.py).
 */
#include <gadget/output.h>

/* 12 bits of major number, 20 bits of minor number. */
typedef __u32 gadget_device_number;

struct snapshot_mounts {
	struct gadget_record record;
	__u64 mount_namespace;
	__u32 mount_id;
	__u32 parent_id;
	gadget_device_number device;
	gadget_string root;
	gadget_string target;
	gadget_string options;
	gadget_string propagation;
	gadget_string type;
	gadget_string source;
	gadget_string super_options;
};

GADGET_RECORD(snapshot_mounts);

char LICENSE[] SEC("license") = "Dual BSD/GPL";

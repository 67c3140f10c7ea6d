/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Processes of the container runtime, as they were when the process that began them was still their parent
 * (gadget/runtime.h). Shared by all objects, so that what one hook has seen counts for the others.
 */
#pragma once

#include <gadget/record.h>

/* By the number of the process in the initial PID namespace: which run of a program it was, as in
 * gadget/process_identity.h. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, __u64);
} gadget_runtimes SEC(".maps");

/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Processes of the container runtime, recorded while the process that created them was still their parent
 * (gadget/processes/runtime.h). Shared by all objects, so that all hooks know a process that one of them has seen.
 */
#pragma once

#include <gadget/record.h>

/* By the PID in the initial PID namespace. The value identifies the run of the program, as in
 * gadget/process_identity.h. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, __u64);
} gadget_runtimes SEC(".maps");

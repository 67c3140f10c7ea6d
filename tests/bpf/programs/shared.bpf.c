// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* For a test: adds an entry to a map that containers share, and removes it at once, for the same key on all CPUs. */
#include <gadget/map_shares.h>
#include <gadget/output.h>
#include <gadget/process.h>

#define KEY 1

struct shared {
	struct gadget_record record;
};

GADGET_RECORD(shared);

struct turn {
	__u64 unused;
};

GADGET_STATES(turn, turn, 64);

SEC("tracepoint/syscalls/sys_exit_getppid")
int adds_and_removes(void *ctx)
{
	struct gadget_record record;

	if (!gadget_begin(&record))
		return 0;
	turn_make_state(KEY, record.cgroup);
	turn_remove_state(KEY);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";

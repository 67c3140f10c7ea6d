// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * trace exit: emits one `struct trace_exit` for each process that ends, when its last thread does.
 *
 * Hook: the tracepoint sched_process_exit.
 */
#include <gadget/output.h>
#include <gadget/process.h>
#include <gadget/processes/process_exit.h>
#include <gadget/processes/sandbox.h>
#include <gadget/string.h>
#include <kernel/tracepoint.h>

struct trace_exit {
	struct gadget_record record;
	/* From the process's start to its end. */
	gadget_duration run_time;
	/* The maximum memory that it used at any time. */
	gadget_bytes max_rss;
	gadget_exit_code code;
	gadget_signal signal;
	bool core_dumped;
	__u8 unused[7];
};

GADGET_RECORD(trace_exit);

const volatile bool filter_failed = false;
/* 0: any. */
const volatile __u32 filter_signal = 0;
const volatile __u64 filter_longer_ns = 0;

GADGET_SCRATCH(exit_scratch, sizeof(struct trace_exit));

SEC("tp_btf/sched_process_exit")
int ended(__u64 *ctx)
{
	struct task_struct *task = gadget_task();
	struct trace_exit *end;
	__u32 status;

	if (!gadget_ends_process(ctx, task))
		return 0;
	status = gadget_exit_status(task);
	if ((filter_failed && !status) || (filter_signal && (status & 0x7f) != filter_signal))
		return 0;
	end = gadget_scratch(&exit_scratch);
	if (!end || !gadget_begin(&end->record) || gadget_is_sandbox_end(task, end->record.cgroup))
		return 0;
	end->run_time = bpf_ktime_get_boot_ns() - gadget_read(task, group_leader, start_boottime);
	if (end->run_time < filter_longer_ns)
		return 0;
	end->max_rss = gadget_read(task, signal, maxrss) * gadget_node_page_bytes;
	end->signal = status & 0x7f;
	end->core_dumped = status & CORE_DUMPED;
	end->code = end->signal ? -1 : (status >> 8) & 0xff;
	__builtin_memset(end->unused, 0, sizeof(end->unused));
	gadget_emit(&end->record, sizeof(*end), 0);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";

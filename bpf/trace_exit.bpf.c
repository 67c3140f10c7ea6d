// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * trace exit: emits one `struct trace_exit` for each process that ends, when its last thread does.
 *
 * Hook: the tracepoint sched_process_exit.
 */
#include <gadget/output.h>
#include <gadget/process.h>
#include <gadget/string.h>
#include <kernel/tracepoint.h>

/* The process ends as a whole, by exit_group() or a signal (include/linux/sched/signal.h). */
#define SIGNAL_GROUP_EXIT 0x4
/* What wait() gives (include/uapi/linux/wait.h): the signal, this, and the code in the second byte. */
#define CORE_DUMPED 0x80
/* Processes whose threads end at this moment, at most: see the hook. */
#define ENDING 1024

struct trace_exit {
	struct gadget_record record;
	/* From the process's start to its end. */
	gadget_duration run_time;
	/* The most memory that it had at one time. */
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

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, ENDING);
	__type(key, __u64);
	__type(value, __u64);
} ending SEC(".maps");

GADGET_SCRATCH(exit_scratch, sizeof(struct trace_exit));

/* What the kernel hands over since 6.16; before, it did not say whether it is the last thread. */
typedef void (*btf_trace_sched_process_exit___with_last)(void *, struct task_struct *, bool);

/*
 * Whether no other thread is left. When two of them end at the same time, both see that none is left, and the first one
 * has it noted; the start makes that a process with the same number later is another one.
 */
static __always_inline bool is_last_thread(struct task_struct *task)
{
	__u64 process = gadget_read(task, tgid);
	__u64 start = gadget_read(task, group_leader, start_boottime);
	const __u64 *noted;

	if (gadget_read(task, signal, live.counter))
		return false;
	noted = bpf_map_lookup_elem(&ending, &process);
	if (noted && *noted == start)
		return false;
	if (!noted)
		return !bpf_map_update_elem(&ending, &process, &start, BPF_NOEXIST);
	bpf_map_update_elem(&ending, &process, &start, BPF_ANY);
	return true;
}

SEC("tp_btf/sched_process_exit")
int ended(__u64 *ctx)
{
	struct task_struct *task = gadget_task();
	struct signal_struct *signal;
	struct trace_exit *end;
	__u32 status;

	if (bpf_core_type_exists(btf_trace_sched_process_exit___with_last)) {
		if (!(bool)ctx[1])
			return 0;
	} else if (!is_last_thread(task)) {
		return 0;
	}
	signal = gadget_read(task, signal);
	if (gadget_read(signal, flags) & SIGNAL_GROUP_EXIT)
		status = gadget_read(signal, group_exit_code);
	else
		status = gadget_read(task, group_leader, exit_code);
	if ((filter_failed && !status) || (filter_signal && (status & 0x7f) != filter_signal))
		return 0;
	end = gadget_scratch(&exit_scratch);
	if (!end || !gadget_begin(&end->record))
		return 0;
	end->run_time = bpf_ktime_get_boot_ns() - gadget_read(task, group_leader, start_boottime);
	if (end->run_time < filter_longer_ns)
		return 0;
	end->max_rss = gadget_read(signal, maxrss) * gadget_node_page_bytes;
	end->signal = status & 0x7f;
	end->core_dumped = status & CORE_DUMPED;
	end->code = end->signal ? -1 : (status >> 8) & 0xff;
	__builtin_memset(end->unused, 0, sizeof(end->unused));
	gadget_emit(&end->record, sizeof(*end), 0);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";

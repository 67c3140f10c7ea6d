// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * profile cpu: counts the stacks of the code that runs on the CPUs, sampled at a fixed frequency.
 *
 * Hooks: a perf event on each CPU, with the kernel's software clock (a timer), since virtual machines may not have a
 * hardware counter. Where perf_event_open() is refused, the scheduler's tick is used instead, through the tracepoint
 * hrtimer_expire_entry; it runs at most CONFIG_HZ times per second, and not at all on CPUs with nohz_full. Then the
 * kernel stack begins with the frames of the interrupt, which the agent removes.
 */
/* Before Linux 6.1, programs for perf events require preallocated maps. */
#define GADGET_TOTALS_FLAGS 0

#include <gadget/stacks.h>
#include <gadget/totals.h>
#include <gadget/unwind.h>

/* In one interval of the agent. */
#define SAMPLED 16384

/* The innermost function of a sample; the client derives it from the two stacks. */
typedef __u64 gadget_innermost;

struct sample_key {
	gadget_cgroup cgroup;
	/* The PID on the node. */
	__u32 pid;
	__u32 unused;
	gadget_comm comm;
	gadget_stack user_stack;
	gadget_stack kernel_stack;
};

struct sample_value {
	__u64 samples;
	gadget_duration cpu_time;
};

struct profile_cpu {
	struct gadget_total interval;
	struct sample_key key;
	struct sample_value value;
	/* Filled in by the client. */
	gadget_innermost function;
};

GADGET_RECORD(profile_cpu);

GADGET_TOTALS(sample_key, sample_value, SAMPLED);

/* The number of samples of each CPU per second. The agent opens the perf events with it. */
const volatile __u32 gadget_frequency = 99;
const volatile bool user_only = false;
const volatile bool kernel_only = false;

/* The state of one CPU. */
struct ticks {
	/* When the next sample is due. */
	__u64 next;
	__u64 last;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct ticks);
} ticks SEC(".maps");

/* A longer time between two ticks counts as a pause. */
#define LONGEST_TICK 25000000ULL

static __always_inline int sample(void *context, __u64 period, enum gadget_stack_begins begins, bool unwinds)
{
	struct sample_key key = {};
	struct sample_value *value;

	/* 0: the CPU is idle. */
	if (!gadget_node_pid(gadget_task()) || !gadget_counts())
		return 0;
	key.cgroup = gadget_current_cgroup();
	key.pid = gadget_node_pid(gadget_task());
	bpf_get_current_comm(key.comm, sizeof(key.comm));
	if (!kernel_only)
		key.user_stack = unwinds ? gadget_unwound_stack(context) : gadget_user_stack(context);
	if (!user_only)
		key.kernel_stack = gadget_kernel_stack(context, begins);
	value = gadget_total(&key);
	if (!value)
		return 0;
	gadget_add(value->samples, 1);
	gadget_add(value->cpu_time, period);
	return 0;
}

SEC("perf_event")
int unwound_clock(void *context)
{
	return sample(context, 1000000000ULL / gadget_frequency, GADGET_BEGINS_HERE, true);
}

SEC("perf_event")
int clock(void *context)
{
	return sample(context, 1000000000ULL / gadget_frequency, GADGET_BEGINS_HERE, false);
}

struct hrtimer;

/* Runs for all timers. The tick is one of them, and every busy CPU has it. */
static __always_inline int expires(void *context, bool unwinds)
{
	__u64 period = 1000000000ULL / gadget_frequency;
	__u64 time = bpf_ktime_get_ns();
	__u32 zero = 0;
	struct ticks *cpu = bpf_map_lookup_elem(&ticks, &zero);
	__u64 since;

	if (!cpu || time < cpu->next)
		return 0;
	/* Counts the time since the previous sample, since ticks may be rarer than the requested frequency. */
	since = time - cpu->last;
	if (since > LONGEST_TICK)
		since = period;
	cpu->last = time;
	/* Samples that were missed in a pause are not made up for. */
	cpu->next = time > cpu->next + period ? time + period : cpu->next + period;
	return sample(context, since, GADGET_BEGINS_INTERRUPT, unwinds);
}

SEC("tp_btf/hrtimer_expire_entry")
int BPF_PROG(unwound_tick, struct hrtimer *timer, void *now)
{
	return expires(ctx, true);
}

SEC("tp_btf/hrtimer_expire_entry")
int BPF_PROG(tick, struct hrtimer *timer, void *now)
{
	return expires(ctx, false);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";

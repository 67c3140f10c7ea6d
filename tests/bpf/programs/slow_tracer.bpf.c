// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * For a test: another tracer at the entry of system calls, which reads an argument or delays the call.
 *
 * It acts for one thread at a time, which requests it in shared memory (racer.c, struct race). While a program waits
 * here, the kernel does nothing else on this CPU, so it gives up after a tenth of a second.
 */
#include <linux/types.h>

#include <gadget/task.h>

#define PATIENCE 100000000ULL

struct race {
	/* The thread whose calls are delayed. */
	__u32 thread;
	/* The number of calls that have begun, and of those whose argument was replaced. */
	__u32 begun;
	__u32 exchanged;
	/* The third argument of the last exec. */
	char shown[64];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct race);
} slow_tracer_race SEC(".maps");

struct call {
	__u64 unused[2];
	__u64 arguments[6];
};

struct waiting {
	volatile struct race *race;
	__u64 deadline;
};

static __always_inline struct race *own_race(void)
{
	__u32 key = 0;
	struct race *race = bpf_map_lookup_elem(&slow_tracer_race, &key);

	return race && race->thread == (__u32)bpf_get_current_pid_tgid() ? race : NULL;
}

static long is_over(__u32 index, struct waiting *waiting)
{
	return waiting->race->exchanged == waiting->race->begun || bpf_ktime_get_ns() > waiting->deadline;
}

static __always_inline int wait_for_exchange(void)
{
	struct race *race = own_race();
	struct waiting waiting = {.race = race, .deadline = bpf_ktime_get_ns() + PATIENCE};

	if (!race)
		return 0;
	race->begun++;
	bpf_loop(1 << 23, is_over, &waiting, 0);
	return 0;
}

SEC("?tracepoint/syscalls/sys_enter_connect")
int wait_in_connect(void *ctx)
{
	return wait_for_exchange();
}

SEC("?tracepoint/syscalls/sys_enter_execve")
int wait_in_execve(void *ctx)
{
	return wait_for_exchange();
}

SEC("?tracepoint/syscalls/sys_enter_execve")
int show_argument(struct call *ctx)
{
	const char *const *arguments = (const void *)ctx->arguments[1];
	const char *argument = NULL;
	struct race *race = own_race();

	if (!race)
		return 0;
	bpf_probe_read_user(&argument, sizeof(argument), &arguments[2]);
	if (bpf_probe_read_user_str(race->shown, sizeof(race->shown), argument) < 0)
		race->shown[0] = '\0';
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";

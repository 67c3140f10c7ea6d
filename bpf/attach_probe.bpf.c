// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * Programs that do nothing, one for each way to attach a program, with the names of those in policy.bpf.c: if the
 * kernel accepts one of them, it accepts the program of that name too. Emits nothing.
 *
 * Hooks: those that the agent probes, for a moment. At some hooks, the return value decides the call's result, so it
 * must be 0.
 */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

SEC("?lsm")
int on_lsm(void *ctx)
{
	return 0;
}

SEC("?lsm.s")
int on_lsm_sleepable(void *ctx)
{
	return 0;
}

SEC("?fmod_ret")
int on_fmod_ret(void *ctx)
{
	return 0;
}

SEC("?fentry")
int on_fentry(void *ctx)
{
	return 0;
}

SEC("?fexit")
int on_fexit(void *ctx)
{
	return 0;
}

SEC("?kprobe")
int on_kprobe(void *ctx)
{
	return 0;
}

/* Never overrides, since no process has this PID. Probes whether the kernel allows the helper. */
SEC("?kprobe")
int on_kprobe_override(void *ctx)
{
	if (!~bpf_get_current_pid_tgid())
		bpf_override_return(ctx, 0);
	return 0;
}

SEC("?raw_tp")
int on_raw_tracepoint(void *ctx)
{
	return 0;
}

SEC("?tracepoint")
int on_tracepoint(void *ctx)
{
	return 0;
}

SEC("?tracepoint")
int on_syscall_exit(void *ctx)
{
	return 0;
}

SEC("?tp_btf")
int on_call(void *ctx)
{
	return 0;
}

SEC("?tp_btf")
int on_call_exit(void *ctx)
{
	return 0;
}

SEC("?tp_btf/sys_enter")
int on_sys_enter(void *ctx)
{
	return 0;
}

SEC("?tp_btf/sys_exit")
int on_sys_exit(void *ctx)
{
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";

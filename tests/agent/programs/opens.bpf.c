// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
// Minimal gadgets for the agent's tests: one record head for each openat() and mkdir() of a process. The verifier
// refuses `never_loads`, no kernel has the hook of `nowhere`, and `reads_tracepoint` must be attached to a tracepoint,
// since it reads the result from that context.
#include <gadget/output.h>
#include <gadget/process.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

static __always_inline int send(void)
{
	struct gadget_record record;

	if (gadget_begin(&record))
		gadget_emit(&record, sizeof(record), 0);
	return 0;
}

SEC("tracepoint/syscalls/sys_exit_openat")
int openat_exit(void *ctx)
{
	return send();
}

SEC("tracepoint/syscalls/sys_exit_openat")
int openat_again(void *ctx)
{
	return send();
}

SEC("tracepoint/syscalls/sys_exit_openat")
int reads_tracepoint(unsigned long *ctx)
{
	return ctx[2] ? send() : 0;
}

SEC("tracepoint/syscalls/sys_exit_mkdir")
int mkdir_exit(void *ctx)
{
	return send();
}

SEC("tracepoint/syscalls/sys_exit_nowhere")
int nowhere(void *ctx)
{
	return send();
}

SEC("tp_btf/no_such_tracepoint")
int no_such_tracepoint(void *ctx)
{
	return 0;
}

SEC("tracepoint/syscalls/sys_exit_openat")
int never_loads(void *ctx)
{
	long *nowhere = (void *)bpf_get_current_task();

	return *nowhere;
}

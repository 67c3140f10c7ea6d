// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * trace chmod: emits one `struct trace_chmod` for each attempt to change a file's permissions by its path.
 *
 * Hooks: the exits of fchmodat, of fchmodat2 where the kernel has it, and on x86-64 of chmod.
 */
#include <gadget/output.h>
#include <gadget/process.h>
#include <gadget/string.h>
#include <gadget/syscall.h>
#include <kernel/tracepoint.h>

struct trace_chmod {
	struct gadget_record record;
	gadget_mode mode;
	gadget_errno errno;
	gadget_string path;
	/* The record is a multiple of 8 bytes; what fills it up is sent, too, and has to be set. */
	__u32 unused;
};

GADGET_RECORD(trace_chmod);

#define BYTES GADGET_ROOM(sizeof(struct trace_chmod) + GADGET_PATH_BYTES)

GADGET_SCRATCH(scratch, BYTES);

/* Set by --failed before the program is loaded. */
const volatile bool filter_failed = false;

static __always_inline int changed(long result, const void *path, __u32 mode)
{
	struct trace_chmod *change;
	struct gadget_writer writer;

	if (filter_failed && result >= 0)
		return 0;
	change = gadget_scratch(&scratch);
	if (!change || !gadget_begin(&change->record))
		return 0;
	change->mode = mode;
	change->errno = result < 0 ? -result : 0;
	change->unused = 0;
	writer = gadget_write(change, sizeof(*change), BYTES);
	gadget_append_user_string(&writer, &change->path, path, GADGET_PATH_BYTES);
	gadget_send(&writer);
	return 0;
}

SEC("tracepoint/syscalls/sys_exit_fchmodat")
int fchmodat_exit(struct trace_event_raw_sys_exit *ctx)
{
	struct pt_regs *registers = gadget_registers(gadget_task());

	return changed(gadget_result(ctx), (const void *)gadget_argument(registers, 1), gadget_argument(registers, 2));
}

/* Since Linux 6.6. */
SEC("tracepoint/syscalls/sys_exit_fchmodat2")
int fchmodat2_exit(struct trace_event_raw_sys_exit *ctx)
{
	struct pt_regs *registers = gadget_registers(gadget_task());

	return changed(gadget_result(ctx), (const void *)gadget_argument(registers, 1), gadget_argument(registers, 2));
}

SEC("tracepoint/syscalls/sys_exit_chmod")
int chmod_exit(struct trace_event_raw_sys_exit *ctx)
{
	struct pt_regs *registers = gadget_registers(gadget_task());

	return changed(gadget_result(ctx), (const void *)gadget_argument(registers, 0), gadget_argument(registers, 1));
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";

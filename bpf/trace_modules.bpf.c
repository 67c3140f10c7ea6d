// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * trace modules: emits one `struct trace_modules` for each attempt to load or unload a kernel module, with its result,
 * and each time the kernel itself requests a module on behalf of a process.
 *
 * Hooks: the exits of init_module, finit_module and delete_module, and the tracepoints module_load, which has the
 * module's own name, and module_request. A module that the kernel requests is loaded by modprobe on the host; only
 * module_request has the process that caused it.
 */
#include <gadget/files/path_at.h>
#include <gadget/operation.h>
#include <gadget/output.h>
#include <gadget/process.h>
#include <gadget/result.h>
#include <gadget/string.h>
#include <gadget/syscall.h>
#include <kernel/module.h>

/* The maximum number of modules being loaded at the same time. */
#define LOADING 256
#define PARAMETER_BYTES 1023

struct trace_modules {
	struct gadget_record record;
	gadget_operation operation;
	/* The size of the image passed to init_module; ~0 for other operations. */
	gadget_bytes size;
	gadget_errno errno;
	/* MODULE_INIT_… */
	__u32 flags;
	gadget_string module;
	gadget_string parameters;
	/* The file passed to finit_module. */
	gadget_path file;
	__u32 unused_end;
};

GADGET_RECORD(trace_modules);

#define MODULES_BYTES                                                                                                  \
	GADGET_ROOM(sizeof(struct trace_modules) + MODULE_NAME_BYTES + PARAMETER_BYTES + GADGET_PATH_BYTES)

struct name {
	char text[MODULE_NAME_BYTES];
};

/* The module's data from module_load, by thread, until the system call ends. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, LOADING);
	__type(key, __u64);
	__type(value, struct name);
} loading SEC(".maps");

GADGET_SCRATCH(module_scratch, MODULES_BYTES);

struct call {
	struct trace_modules *module;
	struct gadget_writer writer;
};

/* False: not wanted. */
static __always_inline bool begin(struct call *call, long result, const gadget_operation operation)
{
	struct trace_modules *module;

	if ((!gadget_wanted_result(result)) || !gadget_wanted_operation(operation))
		return false;
	module = gadget_scratch(&module_scratch);
	if (!module || !gadget_begin(&module->record))
		return false;
	__builtin_memcpy(module->operation, operation, sizeof(gadget_operation));
	module->size = ~0ULL;
	module->errno = result < 0 ? -result : 0;
	module->flags = 0;
	module->unused_end = 0;
	gadget_no_text(&module->module);
	gadget_no_text(&module->parameters);
	gadget_no_text(&module->file);
	call->module = module;
	call->writer = gadget_write(module, sizeof(*module), MODULES_BYTES);
	return true;
}

static __always_inline int end(struct call *call)
{
	gadget_send(&call->writer);
	return 0;
}

#define BEGIN(WORD)                                                                                                    \
	const gadget_operation word = WORD;                                                                            \
	struct call call;                                                                                              \
                                                                                                                       \
	if (!begin(&call, result, word))                                                                               \
	return 0

SEC("tp_btf/module_load")
int BPF_PROG(named, struct module *module)
{
	__u64 thread = bpf_get_current_pid_tgid();
	struct name name = {};

	bpf_probe_read_kernel_str(name.text, sizeof(name.text), module->name);
	if (bpf_map_update_elem(&loading, &thread, &name, BPF_ANY))
		gadget_count_map_full();
	return 0;
}

/* Appends the module's name, if the kernel got far enough to read it. */
static __always_inline void append_name(struct call *call)
{
	__u64 thread = bpf_get_current_pid_tgid();
	const struct name *name = bpf_map_lookup_elem(&loading, &thread);

	if (name)
		gadget_append_kernel_string(&call->writer, &call->module->module, name->text, MODULE_NAME_BYTES - 1);
}

static __always_inline void forget_name(void)
{
	__u64 thread = bpf_get_current_pid_tgid();

	bpf_map_delete_elem(&loading, &thread);
}

static __always_inline int on_init_module(long result, struct pt_regs *registers)
{
	BEGIN("load");
	call.module->size = gadget_argument(registers, 1);
	append_name(&call);
	gadget_append_user_string(&call.writer, &call.module->parameters, (const void *)gadget_argument(registers, 2),
				  PARAMETER_BYTES);
	return end(&call);
}

static __always_inline int on_finit_module(long result, struct pt_regs *registers)
{
	struct file *file;

	BEGIN("load");
	call.module->flags = gadget_argument(registers, 2);
	append_name(&call);
	gadget_append_user_string(&call.writer, &call.module->parameters, (const void *)gadget_argument(registers, 1),
				  PARAMETER_BYTES);
	gadget_unread(&call.module->file);
	file = gadget_file_of(gadget_argument(registers, 0));
	if (file)
		gadget_append_path(&call.writer, &call.module->file, &file->f_path);
	return end(&call);
}

GADGET_ON_EXIT(init_module)
{
	on_init_module(result, registers);
	forget_name();
	return 0;
}

GADGET_ON_EXIT(finit_module)
{
	on_finit_module(result, registers);
	forget_name();
	return 0;
}

GADGET_ON_EXIT(delete_module)
{
	BEGIN("unload");
	gadget_append_user_string(&call.writer, &call.module->module, (const void *)gadget_argument(registers, 0),
				  MODULE_NAME_BYTES - 1);
	return end(&call);
}

/* No module has been loaded yet; loading may still fail. */
SEC("tp_btf/module_request")
int BPF_PROG(requested, const char *name, bool wait, unsigned long address)
{
	long result = 0;

	BEGIN("request");
	gadget_append_kernel_string(&call.writer, &call.module->module, name, MODULE_NAME_BYTES - 1);
	return end(&call);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";

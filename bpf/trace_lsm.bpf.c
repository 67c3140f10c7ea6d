// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * trace lsm: emits one `struct trace_lsm` each time the kernel asks its security modules for permission, with the
 * arguments and the verdict.
 *
 * Hooks: fexit of security_NAME, where the verdict of all modules is known; else a BPF LSM program, which is called
 * only if all modules before it have allowed the call. The YAML's `when` chooses the hooks that are attached. These
 * programs can preempt each other, so each takes a memory slot and releases it.
 */
#include <gadget/helpers.h>
#include <gadget/network/address.h>
#include <gadget/other_task.h>
#include <gadget/output.h>
#include <gadget/path.h>
#include <gadget/process.h>
#include <gadget/slots.h>
#include <gadget/string.h>
#include <kernel/fs.h>
#include <kernel/socket.h>
#include <kernel/task.h>

/* The maximum length of a name: of an extended attribute, a module or a file system. */
#define NAME_BYTES 255
/* The maximum number of hooks in progress on one CPU. */
#define SLOTS 4

/* The number of arguments. The client knows their meaning from the hook's name (linux/names.py). */
typedef __u32 gadget_lsm_arguments;

struct trace_lsm {
	struct gadget_record record;
	char hook[24];
	/* The target process; all 0 when the target is not a process. */
	gadget_cgroup target;
	gadget_comm target_comm;
	gadget_pid target_pid;
	gadget_errno verdict;
	__u64 argument_1;
	__u64 argument_2;
	__u64 argument_3;
	gadget_lsm_arguments arguments;
	gadget_port port;
	__u16 unused;
	gadget_ip address;
	gadget_path path;
	/* The second path, if there are two. */
	gadget_path to;
	gadget_string name;
	gadget_string file_system;
};

GADGET_RECORD(trace_lsm);

#define LSM_BYTES GADGET_ROOM(sizeof(struct trace_lsm) + 2 * GADGET_PATH_BYTES + 2 * (NAME_BYTES + 2))

const volatile bool filter_denied = false;

GADGET_SLOTS(slots, LSM_BYTES);

/* A call of a hook, and its record. */
struct hook_call {
	struct trace_lsm *lsm;
	struct gadget_writer writer;
};

/* False: not wanted. `target` may be NULL. */
static __always_inline bool begin(struct hook_call *call, const char hook[24], long verdict, struct task_struct *target)
{
	struct trace_lsm *lsm;

	if (filter_denied && verdict >= 0)
		return false;
	lsm = call->lsm = gadget_take_slot(&slots);
	if (!lsm)
		return false;
	if (target ? !gadget_begin_with(&lsm->record, target) : !gadget_begin(&lsm->record)) {
		gadget_give_back(call->lsm);
		return false;
	}
	__builtin_memset(lsm->hook, 0, sizeof(*lsm) - offsetof(struct trace_lsm, hook));
	__builtin_memcpy(lsm->hook, hook, sizeof(lsm->hook));
	lsm->verdict = verdict < 0 ? -verdict : 0;
	if (target) {
		lsm->target = gadget_cgroup_id_of(target);
		lsm->target_pid = gadget_node_pid(target);
		BPF_CORE_READ_INTO(&lsm->target_comm, target, comm);
	}
	gadget_no_ip(lsm->address);
	gadget_no_text(&lsm->path);
	gadget_no_text(&lsm->to);
	gadget_no_text(&lsm->name);
	gadget_no_text(&lsm->file_system);
	call->writer = gadget_write(lsm, sizeof(*lsm), LSM_BYTES);
	return true;
}

static __always_inline void end(struct hook_call *call)
{
	gadget_send(&call->writer);
	gadget_give_back(call->lsm);
}

static __always_inline void add_argument(struct hook_call *call, __u64 value)
{
	struct trace_lsm *lsm = call->lsm;

	switch (lsm->arguments++) {
	case 0:
		lsm->argument_1 = value;
		break;
	case 1:
		lsm->argument_2 = value;
		break;
	default:
		lsm->argument_3 = value;
	}
}

static __always_inline void add_path(struct hook_call *call, const void *path)
{
	gadget_append_path(&call->writer, &call->lsm->path, path);
}

static __always_inline void add_file(struct hook_call *call, __u64 pointer)
{
	struct file *file = (void *)pointer;

	if (file)
		add_path(call, &file->f_path);
}

static __always_inline void add_second_path(struct hook_call *call, const void *path)
{
	gadget_append_path(&call->writer, &call->lsm->to, path);
}

/* Appends the name of `entry` in the directory `folder`, a `struct path`. */
static __always_inline void append_entry(struct hook_call *call, struct gadget_text *text, __u64 folder, __u64 entry)
{
	const struct path *in = (void *)folder;
	struct path where = {.mnt = BPF_CORE_READ(in, mnt), .dentry = (void *)entry};

	gadget_append_path(&call->writer, text, &where);
}

static __always_inline void add_entry(struct hook_call *call, __u64 folder, __u64 entry)
{
	append_entry(call, &call->lsm->path, folder, entry);
}

static __always_inline void add_second_entry(struct hook_call *call, __u64 folder, __u64 entry)
{
	append_entry(call, &call->lsm->to, folder, entry);
}

static __always_inline void add_name(struct hook_call *call, __u64 name)
{
	if (name)
		gadget_append_kernel_string(&call->writer, &call->lsm->name, (void *)name, NAME_BYTES);
}

/* Adds an address that a program has passed; the kernel has copied it to its own memory. */
static __always_inline void add_address(struct hook_call *call, __u64 pointer)
{
	const void *address = (void *)pointer;
	__u16 family = 0;

	bpf_probe_read_kernel(&family, sizeof(family), address);
	add_argument(call, family);
	if (family == AF_UNIX)
		add_name(call, pointer + sizeof(family));
	else
		gadget_kernel_address(call->lsm->address, &call->lsm->port, address);
}

static __always_inline void add_socket(struct hook_call *call, __u64 pointer)
{
	struct socket *socket = (void *)pointer;
	struct sock *sk = BPF_CORE_READ(socket, sk);
	__u16 family = BPF_CORE_READ(sk, __sk_common.skc_family);

	add_argument(call, family);
	if (family != AF_INET && family != AF_INET6)
		return;
	gadget_local_ip(call->lsm->address, sk);
	call->lsm->port = gadget_local_port(sk);
}

/* The return value of the function; `last` is the number of its arguments. */
#define VERDICT(ctx, last)                                                                                             \
	({                                                                                                             \
		__u64 result = 0;                                                                                      \
                                                                                                                       \
		/* Since 5.17. security_bpf() and security_perf_event_open() have changed their arguments since. */    \
		if (gadget_has_helper(get_func_ret))                                                                   \
			bpf_get_func_ret(ctx, &result);                                                                \
		else                                                                                                   \
			result = (ctx)[last];                                                                          \
		(int)result;                                                                                           \
	})

/*
 * Two programs for a hook: at the end of security_SECURITY, which has COUNT arguments, and as a security module. The
 * body reads `ctx`, which begins with the same arguments in both, and writes to `call`. TARGET is a task.
 */
#define ON_HOOK_WITH(HOOK, SECURITY, COUNT, TARGET)                                                                    \
	static __always_inline void HOOK##_describe(struct hook_call *call, __u64 *ctx, bool is_module);               \
	static __always_inline void HOOK##_called(__u64 *ctx, long verdict, bool is_module)                            \
	{                                                                                                              \
		struct hook_call call;                                                                                 \
                                                                                                                       \
		if (!begin(&call, (const char[24]){#HOOK}, verdict, TARGET))                                           \
			return;                                                                                        \
		HOOK##_describe(&call, ctx, is_module);                                                                \
		end(&call);                                                                                            \
	}                                                                                                              \
	SEC("?fexit/security_" #SECURITY)                                                                              \
	int HOOK##_verdict(__u64 *ctx)                                                                                 \
	{                                                                                                              \
		HOOK##_called(ctx, VERDICT(ctx, COUNT), false);                                                        \
		return 0;                                                                                              \
	}                                                                                                              \
	SEC("?lsm/" #HOOK)                                                                                             \
	int HOOK##_module(__u64 *ctx)                                                                                  \
	{                                                                                                              \
		HOOK##_called(ctx, 0, true);                                                                           \
		return 0;                                                                                              \
	}                                                                                                              \
	static __always_inline void HOOK##_describe(struct hook_call *call, __u64 *ctx, bool is_module)

#define ON_HOOK(HOOK, COUNT) ON_HOOK_WITH(HOOK, HOOK, COUNT, NULL)

ON_HOOK_WITH(bprm_check_security, bprm_check, 1, NULL)
{
	struct linux_binprm *program = (void *)ctx[0];

	add_file(call, (__u64)BPF_CORE_READ(program, file));
	add_name(call, (__u64)BPF_CORE_READ(program, filename));
}

static __always_inline void add_open_file(struct hook_call *call, __u64 file)
{
	add_argument(call, BPF_CORE_READ((struct file *)file, f_flags));
	add_file(call, file);
}

ON_HOOK(file_open, 1)
{
	add_open_file(call, ctx[0]);
}

ON_HOOK(file_receive, 1)
{
	add_open_file(call, ctx[0]);
}

ON_HOOK(file_truncate, 1)
{
	add_open_file(call, ctx[0]);
}

ON_HOOK(file_ioctl, 3)
{
	add_argument(call, (__u32)ctx[1]);
	add_argument(call, ctx[2]);
	add_file(call, ctx[0]);
}

ON_HOOK(file_fcntl, 3)
{
	add_argument(call, (__u32)ctx[1]);
	add_argument(call, ctx[2]);
	add_file(call, ctx[0]);
}

ON_HOOK(file_lock, 2)
{
	add_argument(call, (__u32)ctx[1]);
	add_file(call, ctx[0]);
}

/* The hook has both the protection that the program requested and the one that it gets. */
ON_HOOK(mmap_file, 3)
{
	add_argument(call, ctx[1]);
	if (is_module)
		add_argument(call, ctx[3]);
	else
		add_argument(call, ctx[2]);
	add_file(call, ctx[0]);
}

ON_HOOK(file_mprotect, 3)
{
	struct vm_area_struct *area = (void *)ctx[0];

	add_argument(call, ctx[1]);
	add_file(call, (__u64)BPF_CORE_READ(area, vm_file));
}

ON_HOOK(path_unlink, 2)
{
	add_entry(call, ctx[0], ctx[1]);
}

ON_HOOK(path_rmdir, 2)
{
	add_entry(call, ctx[0], ctx[1]);
}

ON_HOOK(path_mkdir, 3)
{
	add_argument(call, (__u16)ctx[2]);
	add_entry(call, ctx[0], ctx[1]);
}

ON_HOOK(path_mknod, 4)
{
	add_argument(call, (__u16)ctx[2]);
	add_argument(call, (__u32)ctx[3]);
	add_entry(call, ctx[0], ctx[1]);
}

ON_HOOK(path_symlink, 3)
{
	add_entry(call, ctx[0], ctx[1]);
	add_name(call, ctx[2]);
}

/* The old name is on the same mount as the new one: links do not cross mounts. */
ON_HOOK(path_link, 3)
{
	add_entry(call, ctx[1], ctx[0]);
	add_second_entry(call, ctx[1], ctx[2]);
}

ON_HOOK(path_rename, 5)
{
	/* Modules get the flags since 100f59d96405 "LSM: Remove double path_rename hook calls" (6.0). */
	if (!is_module)
		add_argument(call, (__u32)ctx[4]);
	add_entry(call, ctx[0], ctx[1]);
	add_second_entry(call, ctx[2], ctx[3]);
}

ON_HOOK(path_truncate, 1)
{
	add_path(call, (void *)ctx[0]);
}

ON_HOOK(path_chmod, 2)
{
	add_argument(call, (__u16)ctx[1]);
	add_path(call, (void *)ctx[0]);
}

ON_HOOK(path_chown, 3)
{
	add_argument(call, (__u32)ctx[1]);
	add_argument(call, (__u32)ctx[2]);
	add_path(call, (void *)ctx[0]);
}

ON_HOOK(path_chroot, 1)
{
	add_path(call, (void *)ctx[0]);
}

ON_HOOK(sb_mount, 5)
{
	add_argument(call, ctx[3]);
	add_path(call, (void *)ctx[1]);
	add_name(call, ctx[0]);
	if (ctx[2])
		gadget_append_kernel_string(&call->writer, &call->lsm->file_system, (void *)ctx[2], NAME_BYTES);
}

ON_HOOK(sb_umount, 2)
{
	struct vfsmount *mount = (void *)ctx[0];
	struct path where = {.mnt = mount, .dentry = BPF_CORE_READ(mount, mnt_root)};

	add_argument(call, (__u32)ctx[1]);
	add_path(call, &where);
}

ON_HOOK(move_mount, 2)
{
	add_path(call, (void *)ctx[0]);
	add_second_path(call, (void *)ctx[1]);
}

ON_HOOK(sb_pivotroot, 2)
{
	add_path(call, (void *)ctx[0]);
	add_second_path(call, (void *)ctx[1]);
}

ON_HOOK_WITH(task_kill, task_kill, 4, (void *)ctx[0])
{
	add_argument(call, (__u32)ctx[2]);
}

ON_HOOK_WITH(ptrace_access_check, ptrace_access_check, 2, (void *)ctx[0])
{
	add_argument(call, (__u32)ctx[1]);
}

ON_HOOK_WITH(ptrace_traceme, ptrace_traceme, 1, (void *)ctx[0])
{
}

ON_HOOK(task_prctl, 5)
{
	add_argument(call, (__u32)ctx[0]);
	add_argument(call, ctx[1]);
	add_argument(call, ctx[2]);
}

ON_HOOK(socket_create, 4)
{
	add_argument(call, (__u32)ctx[0]);
	add_argument(call, (__u32)ctx[1]);
	add_argument(call, (__u32)ctx[2]);
}

ON_HOOK(socket_bind, 3)
{
	add_address(call, ctx[1]);
}

ON_HOOK(socket_connect, 3)
{
	add_address(call, ctx[1]);
}

ON_HOOK(socket_listen, 2)
{
	add_socket(call, ctx[0]);
	add_argument(call, (__u32)ctx[1]);
}

ON_HOOK(socket_accept, 2)
{
	add_socket(call, ctx[0]);
}

ON_HOOK(bpf, 3)
{
	add_argument(call, (__u32)ctx[0]);
}

ON_HOOK(perf_event_open, 2)
{
}

ON_HOOK(kernel_module_request, 1)
{
	add_name(call, ctx[0]);
}

ON_HOOK(kernel_read_file, 3)
{
	add_argument(call, (__u32)ctx[1]);
	add_file(call, ctx[0]);
}

ON_HOOK(kernel_load_data, 2)
{
	add_argument(call, (__u32)ctx[0]);
}

ON_HOOK(locked_down, 1)
{
	add_argument(call, (__u32)ctx[0]);
}

ON_HOOK(syslog, 1)
{
	add_argument(call, (__u32)ctx[0]);
}

ON_HOOK_WITH(userns_create, create_user_ns, 1, NULL)
{
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";

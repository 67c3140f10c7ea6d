/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Reads a slot: gets the value from the slot's source, and converts it to numbers, addresses and a text, depending on
 * the slot's type.
 *
 * The numbers of each type are documented at its reader and in kubectl_gadget/wire/record_reader.py.
 * The trap: for the verifier, all arguments of a hook are plain numbers, so pointers are followed with
 * bpf_probe_read_kernel(), which fails for an invalid pointer.
 */
#pragma once

#include <bpf/bpf_endian.h>
#include <bpf/bpf_tracing.h>
#include <linux/errno.h>
/* usdt.bpf.h uses PT_REGS_IP only on kernels without cookies (before 5.15), and `struct pt_regs` has no such member
 * here. */
#undef PT_REGS_IP
#define PT_REGS_IP(REGISTERS) 0
#include <bpf/usdt.bpf.h>

#include <gadget/credentials.h>
#include <gadget/files/path_at.h>
#include <gadget/network/address.h>
#include <gadget/syscalls/compat.h>
#include <kernel/bpf.h>
#include <kernel/credentials.h>
#include <kernel/fs.h>
#include <kernel/iov_iter.h>
#include <kernel/module.h>
#include <kernel/net_device.h>
#include <kernel/perf_event.h>
#include <kernel/ptrace.h>
#include <kernel/sk_buff.h>
#include <policy/processes.h>
#include <policy/text.h>

/* include/uapi/linux/bpf.h, for BPF_PROG_LOAD. */
struct policy_bpf_attr {
	__u32 prog_type;
	__u32 insn_cnt;
	char unused[40];
	char prog_name[16];
};

/* The maximum number of parameters in registers. */
#define POLICY_PARAMETERS 6

/* The kind of the context `ctx`. */
enum policy_kind {
	/* An array of the arguments: at a tracepoint. */
	POLICY_OF_TRACEPOINT,
	/* Helpers for trampolines read the arguments: fentry, fexit, fmod_ret, LSM. */
	POLICY_OF_TRAMPOLINE,
	/* A struct pt_regs: at a kprobe or uprobe. */
	POLICY_OF_PROBE,
	/* The same, at a static probe; the probe's ELF note says where the arguments are. */
	POLICY_OF_USDT,
};

/* The context of a hook's program. All members are 64 bits wide: the verifier forgets the values of narrower ones on
 * the stack, and would then also check the branches for other kinds of programs, whose helpers this program may not
 * call. */
struct policy_context {
	void *ctx;
	/* enum policy_kind */
	__u64 kind;
	/* At a return: the parameters at the call. */
	const __u64 *parameters;
	/* At a tracepoint where a system call returns: the offset of the result in the context. The caller's registers
	 * are still available. */
	__u64 result_at;
	/* Set by policy_run(): the selector that decided the verdict. */
	__u64 selector;
};

/* The offset of a system call's result in its tracepoint's context: after the common fields and the call's number. */
#define POLICY_SYSCALL_RESULT 16
/* The same for the raw tracepoint, where it is the second argument. */
#define POLICY_RAW_RESULT 8

#if defined(__TARGET_ARCH_x86)
#define POLICY_REGISTER(NAME) __builtin_offsetof(struct policy_registers, NAME)
/* arch/x86/include/uapi/asm/ptrace.h: part of the ABI. */
struct policy_registers {
	__u64 r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di, orig_ax, ip, cs, flags, sp, ss;
};
static const __u16 policy_parameters[POLICY_PARAMETERS] = {POLICY_REGISTER(di), POLICY_REGISTER(si),
							   POLICY_REGISTER(dx), POLICY_REGISTER(cx),
							   POLICY_REGISTER(r8), POLICY_REGISTER(r9)};
static const __u16 policy_call_parameters[6] = {POLICY_REGISTER(di),  POLICY_REGISTER(si), POLICY_REGISTER(dx),
						POLICY_REGISTER(r10), POLICY_REGISTER(r8), POLICY_REGISTER(r9)};
/* The registers of 32-bit calls. */
static const __u16 policy_compat_parameters[6] = {POLICY_REGISTER(bx), POLICY_REGISTER(cx), POLICY_REGISTER(dx),
						  POLICY_REGISTER(si), POLICY_REGISTER(di), POLICY_REGISTER(bp)};
#define POLICY_RESULT POLICY_REGISTER(ax)
#else
static const __u16 policy_parameters[POLICY_PARAMETERS] = {0, 8, 16, 24, 32, 40};
/* orig_x0, after regs[31], sp, pc and pstate, since the result overwrites x0. */
static const __u16 policy_call_parameters[6] = {34 * 8, 8, 16, 24, 32, 40};
#define policy_compat_parameters policy_call_parameters
#define POLICY_RESULT 0
#endif

static __always_inline __u64 policy_load(const void *from)
{
	__u64 value = 0;

	bpf_probe_read_kernel(&value, sizeof(value), from);
	return value;
}

/* Reads from the kernel's memory or the caller's. */
static __always_inline __u64 policy_load_from(const void *from, bool user, bool *failed)
{
	__u64 value = 0;
	long error;

	if (user)
		error = bpf_probe_read_user(&value, sizeof(value), from);
	else
		error = bpf_probe_read_kernel(&value, sizeof(value), from);
	*failed |= error != 0;
	return value;
}

/* An argument of the hook, as a 64-bit number. */
static __always_inline __u64 policy_argument(const struct policy_context *context, __u32 index)
{
	__u64 value = 0;

	if (context->kind == POLICY_OF_USDT)
		bpf_usdt_arg(context->ctx, index, (long *)&value);
	else if (context->parameters)
		value = index < POLICY_PARAMETERS ? context->parameters[index] : 0;
	else if (context->kind == POLICY_OF_TRAMPOLINE)
		bpf_get_func_arg(context->ctx, index, &value);
	else if (context->kind != POLICY_OF_PROBE)
		value = policy_load(context->ctx + index * 8);
	else if (index < 6)
		value = policy_load(context->ctx + policy_parameters[index]);
	return value;
}

/* For static probes, which may have fewer arguments, or an argument in memory that cannot be read. */
static __always_inline bool policy_has_argument(const struct policy_context *context, __u32 index)
{
	long unused;

	return !bpf_usdt_arg(context->ctx, index, &unused);
}

static __always_inline __u64 policy_result(const struct policy_context *context)
{
	__u64 value = 0;

	if (context->kind == POLICY_OF_TRAMPOLINE)
		bpf_get_func_ret(context->ctx, &value);
	else if (context->kind == POLICY_OF_PROBE)
		value = policy_load(context->ctx + POLICY_RESULT);
	else if (context->result_at)
		value = policy_load(context->ctx + context->result_at);
	return value;
}

/* The value from the slot's source after all steps, not yet reduced to its size. Sets `failed` if a step cannot be
 * read. */
static __always_inline __u64 policy_raw_or(const struct policy_context *context,
					   const volatile struct policy_slot *slot, __u32 index, bool *failed)
{
	__u64 value = 0;
	void *registers;

	switch (slot->source) {
	case POLICY_ARGUMENT:
		value = policy_argument(context, index);
		break;
	case POLICY_SYSCALL_ARGUMENT:
		if (index >= POLICY_PARAMETERS)
			break;
		/* Translated by bpf/syscalls.bpf.c. */
		if (gadget_node_compat) {
			const struct gadget_compat_call *translated = gadget_translated_call();

			value = translated ? translated->arguments[index] : 0;
			break;
		}
		registers = context->result_at ? gadget_registers(gadget_task()) : (void *)policy_argument(context, 0);
		if (policy_compat)
			value = (__u32)policy_load(registers + policy_compat_parameters[index]);
		else
			value = policy_load(registers + policy_call_parameters[index]);
		break;
	case POLICY_CONTEXT:
		value = policy_load(context->ctx + index);
		break;
	case POLICY_CONTEXT_ADDRESS:
		value = (__u64)(context->ctx + index);
		break;
	case POLICY_RETURN:
		value = policy_result(context);
		break;
	case POLICY_REGISTERS:
		value = (__u64)context->ctx;
		break;
	case POLICY_CALL_REGISTERS:
		value = (__u64)gadget_registers(gadget_task());
		break;
	case POLICY_TASK:
		value = (__u64)bpf_get_current_task();
		break;
	}
	for (__u32 i = 0; i < POLICY_STEPS; i++) {
		if (i >= slot->steps)
			break;
		value += slot->step[i];
		if (i + 1 == slot->steps && slot->flags & POLICY_EMBEDDED)
			break;
		value = policy_load_from((void *)value, slot->flags & POLICY_USER, failed);
	}
	return value;
}

static __always_inline __u64 policy_raw(const struct policy_context *context, const volatile struct policy_slot *slot,
					__u32 index)
{
	bool failed = false;

	return policy_raw_or(context, slot, index, &failed);
}

/* The size of a buffer; 0 if the function failed, since then it has filled no buffer. */
static __always_inline __u64 policy_size(const struct policy_context *context, const volatile struct policy_slot *slot)
{
	__s64 returned;

	if (!(slot->flags & POLICY_RETURNED_SIZE))
		return policy_raw(context, slot, slot->size_index);
	returned = policy_result(context);
	return returned > 0 ? returned : 0;
}

/* The mark of a 32-bit call, as in Tetragon. */
#define POLICY_COMPAT_CALL (1ULL << 31)

static __always_inline void policy_read_number(struct policy_value *value, const volatile struct policy_slot *slot,
					       __u64 raw)
{
	__u32 unused = 64 - 8 * slot->size;

	if (slot->flags & POLICY_SIGNED)
		value->numbers[0] = (__s64)(raw << unused) >> unused;
	else
		value->numbers[0] = raw << unused >> unused;
	if (slot->flags & POLICY_OF_CALL && gadget_is_compat_call(gadget_task(), gadget_registers(gadget_task())))
		value->numbers[0] |= POLICY_COMPAT_CALL;
}

/* Numbers: mode, inode, device. */
static __always_inline void policy_read_inode(struct policy_value *value, struct inode *inode)
{
	value->numbers[0] = BPF_CORE_READ(inode, i_mode);
	value->numbers[1] = BPF_CORE_READ(inode, i_ino);
	value->numbers[2] = BPF_CORE_READ(inode, i_sb, s_dev);
}

/* PERF_TYPE_BREAKPOINT */
#define POLICY_LAST_PERF_TYPE 5

/* The index of a file's number with its id if it is followed. Not sent. */
#define POLICY_FILE_ID 11

/*
 * Whether this is the file of a lower file system that overlayfs opens for one of its own files, through a private
 * mount (since Linux 6.5; FMODE_BACKING marks such files too, but its bit differs between kernels). A memfd has a
 * private mount as well, but is in no directory.
 */
static __always_inline bool policy_is_below_another(struct file *file)
{
	struct mount *mount = gadget_mount_of(BPF_CORE_READ(file, f_path.mnt));
	struct dentry *dentry = BPF_CORE_READ(file, f_path.dentry);

	return BPF_CORE_READ(mount, mnt_ns) == MNT_NS_INTERNAL && BPF_CORE_READ(dentry, d_parent) != dentry;
}

/* Numbers as above, then the flags. `is_own`: the file is an argument of the hook itself, and was not found through
 * another object. */
static __always_inline void policy_read_file(struct policy_memory *memory, struct file *file, bool is_own)
{
	if (!file) {
		memory->value.lacks = POLICY_UNREADABLE;
		return;
	}
	policy_read_inode(&memory->value, BPF_CORE_READ(file, f_inode));
	memory->value.numbers[3] = BPF_CORE_READ(file, f_flags);
	if (is_own && policy_is_below_another(file)) {
		memory->value.lacks = POLICY_REPEATED;
		return;
	}
	memory->value.file = (__u64)file;
	if (policy_follows_files) {
		const struct gadget_followed *followed = gadget_followed_of(file);

		if (followed)
			memory->file_id = memory->value.numbers[POLICY_FILE_ID] = followed->id;
	}
	policy_read_path(memory, BPF_CORE_READ(file, f_path.mnt), BPF_CORE_READ(file, f_path.dentry));
}

/* Numbers: source port, destination port, protocol, family, state, type, mark, priority; the upper halves of the last
 * two are the address of the struct sock, which identifies the socket. Addresses: source and destination. */
static __always_inline void policy_read_sock(struct policy_value *value, struct sock *sk)
{
	__u16 family;

	if (bpf_core_read(&family, sizeof(family), &sk->__sk_common.skc_family)) {
		value->lacks = POLICY_UNREADABLE;
		return;
	}
	value->file = (__u64)sk;
	value->numbers[3] = family;
	value->numbers[2] = BPF_CORE_READ(sk, sk_protocol);
	value->numbers[4] = BPF_CORE_READ(sk, __sk_common.skc_state);
	value->numbers[5] = BPF_CORE_READ(sk, sk_type);
	value->numbers[6] = BPF_CORE_READ(sk, sk_mark) | (__u64)sk << 32;
	value->numbers[7] = BPF_CORE_READ(sk, sk_priority) | (__u64)sk >> 32 << 32;
	if (family != AF_INET && family != AF_INET6)
		return;
	value->numbers[0] = BPF_CORE_READ(sk, __sk_common.skc_num);
	value->numbers[1] = gadget_remote_port(sk);
	gadget_local_ip(value->addresses[0], sk);
	gadget_remote_ip(value->addresses[1], sk);
}

/* sizeof(sun_path) */
#define POLICY_UNIX_NAME 108

/* The name of a Unix socket: its path, or `@` and an abstract name, which may contain NULs; empty if the kernel is to
 * choose one. `length` is that of the name; ~0: unknown, so the name ends at the first NUL. */
static __always_inline void policy_read_unix_name(struct policy_memory *memory, const void *name, __u32 length,
						  bool user)
{
	char *room = &memory->event[POLICY_EVENT_BYTES - POLICY_TEXT_END];
	const char *from = name;
	__u64 bytes = length;
	bool is_known = length <= POLICY_UNIX_NAME;
	bool is_abstract;
	long read;

	room[0] = 0;
	if (length && (user ? bpf_probe_read_user(room, 1, from) : bpf_probe_read_kernel(room, 1, from))) {
		memory->value.lacks = POLICY_UNREADABLE;
		return;
	}
	is_abstract = length && !room[0];
	if (is_abstract) {
		room[0] = '@';
		room++;
		from++;
		bytes--;
	}
	if (is_known && (is_abstract || !length)) {
		asm volatile("" : "+r"(bytes));
		bytes &= POLICY_TEXT_MASK;
		read = user ? bpf_probe_read_user(room, bytes, from) : bpf_probe_read_kernel(room, bytes, from);
		if (!read)
			read = bytes + 1;
	} else {
		read = user ? gadget_read_user_string(room, POLICY_UNIX_NAME + 1, from)
			    : bpf_probe_read_kernel_str(room, POLICY_UNIX_NAME + 1, from);
		if (is_known && read > 0 && read - 1 > bytes)
			read = bytes + 1;
	}
	if (read <= 0) {
		memory->value.lacks = POLICY_UNREADABLE;
		return;
	}
	policy_move_text(memory, &memory->event[POLICY_EVENT_BYTES - POLICY_TEXT_END], read - 1 + is_abstract);
}

/* The same numbers; the address is the destination. The text is the name of a Unix socket. `length` is the size of the
 * address; 0: unknown. */
static __always_inline void policy_read_sockaddr(struct policy_memory *memory, const void *address, __u32 length,
						 bool user)
{
	struct policy_value *value = &memory->value;
	__u16 family = 0;
	__u16 port = 0;

	if (user ? bpf_probe_read_user(&family, sizeof(family), address)
		 : bpf_probe_read_kernel(&family, sizeof(family), address)) {
		value->lacks = POLICY_UNREADABLE;
		return;
	}
	value->numbers[3] = family;
	if (family == 1) {
		policy_read_unix_name(memory, address + sizeof(family),
				      length >= sizeof(family) ? length - sizeof(family) : ~0U, user);
		return;
	}
	if (gadget_read_address(value->addresses[1], &port, address, user))
		value->numbers[1] = port;
}

/* Numbers: uid, gid, suid, sgid, euid, egid, fsuid, fsgid, then permitted, effective, inheritable, user namespace. The
 * upper halves of the first four: secure bits, and the user namespace's level, owner and group. */
static __always_inline void policy_read_cred(struct policy_value *value, const struct cred *cred)
{
	const struct user_namespace *namespace;
	__u32 uid;

	if (bpf_core_read(&uid, sizeof(uid), &cred->uid.val)) {
		value->lacks = POLICY_UNREADABLE;
		return;
	}
	namespace = BPF_CORE_READ(cred, user_ns);
	value->numbers[0] = uid | (__u64)BPF_CORE_READ(cred, securebits) << 32;
	value->numbers[1] = BPF_CORE_READ(cred, gid.val) | (__u64)(__u32)BPF_CORE_READ(namespace, level) << 32;
	value->numbers[2] = BPF_CORE_READ(cred, suid.val) | (__u64)BPF_CORE_READ(namespace, owner.val) << 32;
	value->numbers[3] = BPF_CORE_READ(cred, sgid.val) | (__u64)BPF_CORE_READ(namespace, group.val) << 32;
	value->numbers[4] = BPF_CORE_READ(cred, euid.val);
	value->numbers[5] = BPF_CORE_READ(cred, egid.val);
	value->numbers[6] = BPF_CORE_READ(cred, fsuid.val);
	value->numbers[7] = BPF_CORE_READ(cred, fsgid.val);
	value->numbers[8] = policy_load(&cred->cap_permitted);
	value->numbers[9] = policy_load(&cred->cap_effective);
	value->numbers[10] = policy_load(&cred->cap_inheritable);
	value->numbers[11] = BPF_CORE_READ(namespace, ns.inum);
}

/* Numbers: uts, ipc, mnt, pid, pid for children, net, time, time for children, cgroup, user; then a bit for each
 * namespace that is the node's own. */
static __always_inline void policy_read_namespaces(struct policy_memory *memory)
{
	/* In the buffer that strings are read to, since the stack has no room. */
	struct gadget_namespaces *now = (void *)&memory->event[POLICY_EVENT_BYTES - POLICY_TEXT_END];
	struct policy_value *value = &memory->value;

	gadget_describe_namespaces(now, (struct task_struct *)bpf_get_current_task());
	value->numbers[0] = now->ns_uts;
	value->numbers[1] = now->ns_ipc;
	value->numbers[2] = now->ns_mnt;
	value->numbers[3] = now->ns_pid;
	value->numbers[4] = now->ns_pid_for_children;
	value->numbers[5] = now->ns_net;
	value->numbers[6] = now->ns_time;
	value->numbers[7] = now->ns_time_for_children;
	value->numbers[8] = now->ns_cgroup;
	value->numbers[9] = now->ns_user;
	value->numbers[10] = now->ns_host == ~0U ? 0 : now->ns_host;
}

/* An IPv4 or IPv6 packet, with the numbers of a socket; the upper halves of the last two are the packet's length and
 * hash. */
static __always_inline void policy_read_packet(struct policy_value *value, const struct sk_buff *skb)
{
	const __u8 *network = BPF_CORE_READ(skb, head) + BPF_CORE_READ(skb, network_header);
	const __u8 *transport = BPF_CORE_READ(skb, head) + BPF_CORE_READ(skb, transport_header);
	__u8 version = 0;
	__be16 ports[2] = {};

	value->numbers[6] = BPF_CORE_READ(skb, mark) | (__u64)BPF_CORE_READ(skb, len) << 32;
	value->numbers[7] = BPF_CORE_READ(skb, priority) | (__u64)BPF_CORE_READ(skb, hash) << 32;
	bpf_probe_read_kernel(&version, 1, network);
	version >>= 4;
	if (version == 4) {
		__be32 v4[2] = {};
		__u8 protocol = 0;

		bpf_probe_read_kernel(v4, sizeof(v4), network + 12);
		bpf_probe_read_kernel(&protocol, 1, network + 9);
		gadget_ip_from_v4(value->addresses[0], v4[0]);
		gadget_ip_from_v4(value->addresses[1], v4[1]);
		value->numbers[2] = protocol;
		value->numbers[3] = AF_INET;
	} else if (version == 6) {
		__u8 protocol = 0;

		bpf_probe_read_kernel(value->addresses[0], 16, network + 8);
		bpf_probe_read_kernel(value->addresses[1], 16, network + 24);
		bpf_probe_read_kernel(&protocol, 1, network + 6);
		value->numbers[2] = protocol;
		value->numbers[3] = AF_INET6;
	} else {
		value->lacks = POLICY_UNREADABLE;
		return;
	}
	bpf_probe_read_kernel(ports, sizeof(ports), transport);
	value->numbers[0] = bpf_ntohs(ports[0]);
	value->numbers[1] = bpf_ntohs(ports[1]);
}

/* The memory of an iov_iter. */
struct policy_spread {
	/* One buffer; NULL: several. */
	const void *buffer;
	const struct policy_iovec *buffers;
	/* The number of buffers. */
	__u64 count;
	/* Bytes to skip in the first buffer. */
	__u64 skip;
	/* Bytes in all buffers. */
	__u64 bytes;
	__u64 user;
};

/* False: the iov_iter refers to pages, which cannot be read here. */
static __always_inline bool policy_spread_of(struct policy_spread *spread, const struct iov_iter *iter)
{
	const struct iov_iter___old *old = (const void *)iter;
	__u8 type = BPF_CORE_READ(iter, iter_type);

	spread->skip = BPF_CORE_READ(iter, iov_offset);
	spread->bytes = BPF_CORE_READ(iter, count);
	spread->buffer = NULL;
	spread->user = true;
	if (bpf_core_enum_value_exists(enum iter_type, ITER_UBUF) &&
	    type == bpf_core_enum_value(enum iter_type, ITER_UBUF)) {
		spread->buffer = BPF_CORE_READ(iter, ubuf) + spread->skip;
		return true;
	}
	spread->user = type == bpf_core_enum_value(enum iter_type, ITER_IOVEC);
	spread->count = BPF_CORE_READ(iter, nr_segs);
	spread->buffers = bpf_core_field_exists(iter->__iov) ? BPF_CORE_READ(iter, __iov) : BPF_CORE_READ(old, iov);
	return spread->user || type == bpf_core_enum_value(enum iter_type, ITER_KVEC);
}

static __always_inline void policy_read_iov_iter(struct policy_memory *memory, const struct iov_iter *iter)
{
	struct policy_gather gather = {.memory = memory};
	struct policy_spread spread = {};

	if (!policy_spread_of(&spread, iter)) {
		memory->value.numbers[0] = spread.bytes;
		memory->value.lacks = POLICY_UNREADABLE;
		return;
	}
	if (spread.buffer) {
		policy_read_bytes(memory, spread.buffer, spread.bytes, true);
		return;
	}
	gather.buffers = spread.buffers;
	gather.skip = spread.skip;
	gather.user = spread.user;
	policy_read_buffers(&gather, spread.count);
	memory->value.numbers[0] = spread.bytes;
}

/* A __data_loc field of a tracepoint: a text, read without its NUL. */
static __always_inline void policy_read_data_loc(struct policy_memory *memory, const void *ctx, __u32 location)
{
	__u32 length = location >> 16;

	policy_read_bytes(memory, ctx + (location & 0xffff), length ? length - 1 : 0, false);
}

static __always_inline void policy_read_binary(struct policy_memory *memory, struct task_struct *task)
{
	struct mm_struct *mm = BPF_CORE_READ(task, mm);
	struct file *file = BPF_CORE_READ(mm, exe_file);

	if (mm)
		policy_read_file(memory, file, false);
	else
		memory->value.lacks = POLICY_UNREADABLE;
}

/* Whether the current task is in a user namespace other than the node's. */
static __always_inline bool policy_in_user_namespace(void)
{
	struct task_struct *task = (void *)bpf_get_current_task();

	return BPF_CORE_READ(task, cred, user_ns, level) > 0;
}

/* Number: which function was called. The text is its name, if it has one. */
static __always_inline void policy_read_function(struct policy_memory *memory, const struct policy_context *context)
{
	__u32 key = context->kind == POLICY_OF_PROBE ? bpf_get_attach_cookie(context->ctx)
						     : gadget_syscall_number(gadget_registers(gadget_task()));
	const char *name = bpf_map_lookup_elem(&policy_functions, &key);

	memory->value.numbers[0] = key;
	if (name)
		policy_read_string(memory, name, false);
}

/* Fills in memory->value. Not inlined: a separate function's stack frame is free again when it returns, and a program
 * and the functions that it calls together have only 512 bytes of stack. */
static __noinline void policy_read(struct policy_memory *memory, const struct policy_context *context,
				   const volatile struct policy_slot *slot)
{
	struct policy_value *value = &memory->value;
	struct task_struct *task = (void *)bpf_get_current_task();
	bool failed = false;
	/* The types for properties of the process do not use the source and its steps. */
	__u64 raw = slot->type < POLICY_PID || slot->type == POLICY_CAPABILITIES_GAINED
			    ? policy_raw_or(context, slot, slot->index, &failed)
			    : 0;
	bool user = slot->flags & POLICY_USER;

	value->lacks = 0;
	value->file = 0;
	value->start = POLICY_TEXT_END;
	if (slot->type != POLICY_NUMBER) {
		__builtin_memset(value->numbers, 0, sizeof(value->numbers));
		__builtin_memset(value->addresses, 0xff, sizeof(value->addresses));
	}
	switch (slot->type) {
	case POLICY_NUMBER:
		policy_read_number(value, slot, raw);
		if (failed)
			value->lacks = POLICY_UNREADABLE;
		if (context->kind == POLICY_OF_USDT && !policy_has_argument(context, slot->index))
			value->lacks = POLICY_UNREADABLE;
		break;
	case POLICY_STRING:
		policy_read_string(memory, (void *)raw, user);
		break;
	case POLICY_BUFFER:
		policy_read_bytes(memory, (void *)raw, policy_size(context, slot), user);
		break;
	case POLICY_FILE:
		policy_read_file(memory, (void *)raw, !slot->steps);
		break;
	case POLICY_FD:
		policy_read_file(memory, gadget_file_of((__s32)raw), false);
		value->numbers[4] = (__s32)raw;
		break;
	case POLICY_KIOCB:
		policy_read_file(memory, BPF_CORE_READ((struct kiocb *)raw, ki_filp), false);
		break;
	case POLICY_PATH:
		if (raw) {
			const struct path *path = (void *)raw;
			struct dentry *dentry = BPF_CORE_READ(path, dentry);

			policy_read_inode(value, BPF_CORE_READ(dentry, d_inode));
			policy_read_path(memory, BPF_CORE_READ(path, mnt), dentry);
		} else {
			value->lacks = POLICY_UNREADABLE;
		}
		break;
	case POLICY_DENTRY:
		policy_read_inode(value, BPF_CORE_READ((struct dentry *)raw, d_inode));
		policy_read_dentry(memory, (void *)raw);
		break;
	case POLICY_BINPRM:
		policy_read_file(memory, BPF_CORE_READ((struct linux_binprm *)raw, file), false);
		break;
	case POLICY_SOCK:
		policy_read_sock(value, (void *)raw);
		break;
	case POLICY_SOCKET:
		policy_read_sock(value, BPF_CORE_READ((struct socket *)raw, sk));
		break;
	case POLICY_SOCKADDR:
		policy_read_sockaddr(memory, (void *)raw,
				     slot->size_index ? policy_raw(context, slot, slot->size_index) : 0, user);
		break;
	case POLICY_CRED:
		policy_read_cred(value, (void *)raw);
		break;
	case POLICY_USER_NAMESPACE: {
		struct user_namespace *namespace = (void *)raw;
		__s32 level = 0;

		if (bpf_core_read(&level, sizeof(level), &namespace->level))
			value->lacks = POLICY_UNREADABLE;
		value->numbers[0] = level;
		value->numbers[1] = BPF_CORE_READ(namespace, owner.val);
		value->numbers[2] = BPF_CORE_READ(namespace, group.val);
		value->numbers[3] = BPF_CORE_READ(namespace, ns.inum);
		break;
	}
	case POLICY_MODULE: {
		struct module *module = (void *)raw;

		/* Numbers: whether its signature is valid, ~0 where the kernel does not check signatures; taints. */
		value->numbers[0] = ~0ULL;
		if (bpf_core_field_exists(module->sig_ok))
			value->numbers[0] = BPF_CORE_READ(module, sig_ok);
		value->numbers[1] = BPF_CORE_READ(module, taints);
		policy_read_string(memory, module->name, false);
		break;
	}
	case POLICY_LOAD_INFO: {
		struct load_info *info = (void *)raw;

		value->numbers[0] = ~0ULL;
		if (bpf_core_field_exists(info->sig_ok))
			value->numbers[0] = BPF_CORE_READ(info, sig_ok);
		value->numbers[1] = BPF_CORE_READ(info, len);
		policy_read_string(memory, BPF_CORE_READ(info, name), false);
		break;
	}
	case POLICY_BPF_ATTR: {
		struct policy_bpf_attr attr = {};
		long failed = user ? bpf_probe_read_user(&attr, sizeof(attr), (void *)raw)
				   : bpf_probe_read_kernel(&attr, sizeof(attr), (void *)raw);

		value->numbers[0] = attr.prog_type;
		value->numbers[1] = attr.insn_cnt;
		policy_read_string(memory, ((struct policy_bpf_attr *)raw)->prog_name, user);
		if (failed)
			value->lacks = POLICY_UNREADABLE;
		break;
	}
	case POLICY_FUNCTION:
		policy_read_function(memory, context);
		break;
	case POLICY_PERF_EVENT: {
		struct perf_event *event = (void *)raw;
		__u64 function = BPF_CORE_READ(event, attr.config1);

		value->numbers[0] = BPF_CORE_READ(event, attr.type);
		value->numbers[1] = BPF_CORE_READ(event, attr.config);
		value->numbers[2] = BPF_CORE_READ(event, attr.config2);
		/* An event type that the kernel numbers dynamically may have the name of a kernel function, or of a
		 * file. */
		if (value->numbers[0] > POLICY_LAST_PERF_TYPE && function)
			policy_read_string(memory, (void *)function, true);
		value->lacks = raw ? 0 : POLICY_UNREADABLE;
		break;
	}
	case POLICY_DATA_LOC:
		policy_read_data_loc(memory, context->ctx, raw);
		break;
	case POLICY_IOVEC: {
		struct policy_gather gather = {
			.memory = memory, .buffers = (void *)raw, .user = true, .user_list = user};

		policy_read_buffers(&gather, policy_raw(context, slot, slot->size_index));
		break;
	}
	case POLICY_IOV_ITER:
		policy_read_iov_iter(memory, (void *)raw);
		break;
	case POLICY_NET_DEVICE:
		policy_read_string(memory, ((struct net_device *)raw)->name, false);
		break;
	case POLICY_BPF_MAP: {
		struct bpf_map *map = (void *)raw;

		value->numbers[0] = BPF_CORE_READ(map, map_type);
		value->numbers[1] = BPF_CORE_READ(map, key_size);
		value->numbers[2] = BPF_CORE_READ(map, value_size);
		value->numbers[3] = BPF_CORE_READ(map, max_entries);
		policy_read_string(memory, map->name, false);
		break;
	}
	case POLICY_BPF_PROGRAM: {
		struct bpf_prog *program = (void *)raw;

		value->numbers[0] = BPF_CORE_READ(program, type);
		value->numbers[1] = BPF_CORE_READ(program, len);
		policy_read_string(memory, BPF_CORE_READ(program, aux)->name, false);
		break;
	}
	case POLICY_SKB:
		policy_read_packet(value, (void *)raw);
		break;
	case POLICY_CAPABILITY_SET:
		value->numbers[0] = raw ? policy_load((void *)raw) : 0;
		value->lacks = raw ? 0 : POLICY_UNREADABLE;
		break;
	case POLICY_PID:
		/* Numbers: the PID on the node, and that in its own namespace, or 0 if that is the node's namespace. */
		value->numbers[0] = gadget_node_pid(gadget_task());
		value->numbers[1] = gadget_own_pid(gadget_task(), 0);
		break;
	case POLICY_BINARY:
		policy_read_binary(memory, task);
		break;
	case POLICY_PARENT_BINARY:
		policy_read_binary(memory, BPF_CORE_READ(task, real_parent));
		break;
	case POLICY_NAMESPACES:
		policy_read_namespaces(memory);
		break;
	case POLICY_CAPABILITIES:
		policy_read_cred(value, BPF_CORE_READ(task, cred));
		break;
	case POLICY_NAMESPACE_CHANGES:
		policy_read_namespace_changes(memory);
		break;
	case POLICY_CAPABILITY_CHANGES:
		policy_read_capability_changes(memory);
		break;
	case POLICY_CAPABILITIES_GAINED: {
		__u64 old = policy_raw(context, slot, slot->size_index);

		if (raw && old)
			value->numbers[0] = policy_load((void *)raw) & ~policy_load((void *)old);
		else
			value->lacks = POLICY_UNREADABLE;
		break;
	}
	}
	if (slot->type >= POLICY_CAPABILITIES && slot->type <= POLICY_CAPABILITY_CHANGES && slot->index &&
	    !policy_in_user_namespace())
		value->lacks = POLICY_UNREADABLE;
}

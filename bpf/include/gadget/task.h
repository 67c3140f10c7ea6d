/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The current task, and the fastest way to read it that the kernel allows.
 *
 * Since 5.11, the verifier knows the type of the current task and lets programs follow its pointers with plain loads; a
 * load that faults returns 0. Before, each step is a call of bpf_probe_read_kernel(). The verifier removes the branch
 * that this kernel does not use. The trap: gadget_read() may only follow pointers that start at gadget_task().
 */
#pragma once

#include <gadget/helpers.h>
#include <gadget/record.h>
#include <kernel/task.h>
#include <kernel/time.h>

#define GADGET_TYPED gadget_has_helper(get_current_task_btf)

extern void *bpf_rdonly_cast(const void *object, __u32 type) __ksym __weak;

/*
 * Where the kernel has bpf_rdonly_cast(), gadget_task() returns an untrusted pointer. For each load of a pointer
 * through a trusted pointer, the verifier searches the names of all BTF types, up to three times; on Linux 6.18, this
 * takes half of the time to load a program. The function exists since 6.2; a type of 6.4 is checked instead, because
 * 6.2 and 6.3 refuse a program that checks whether the function exists. The trap: helpers that take a task need a
 * trusted one, that of bpf_get_current_task_btf().
 */
#define GADGET_CASTS bpf_core_type_exists(struct bpf_iter_num)

/* Casts any address to a pointer to this kernel type. */
#define gadget_cast(TYPE, ADDRESS) ((TYPE *)bpf_rdonly_cast(ADDRESS, bpf_core_type_id_kernel(TYPE)))

static __always_inline struct task_struct *gadget_task(void)
{
	if (GADGET_CASTS)
		return gadget_cast(struct task_struct, bpf_get_current_task_btf());
	if (GADGET_TYPED)
		return bpf_get_current_task_btf();
	return (struct task_struct *)bpf_get_current_task();
}

/* gadget_read(task, real_parent, tgid) is task->real_parent->tgid. */
#define gadget_read(pointer, ...) (GADGET_TYPED ? ___arrow(pointer, __VA_ARGS__) : BPF_CORE_READ(pointer, __VA_ARGS__))

/*
 * gadget_read_at(struct sock, address, sk_protocol) is ((struct sock *)address)->sk_protocol, for any address, such as
 * that of a socket; a load that faults returns 0. It is a load where the kernel has casts, else a call.
 */
#define gadget_read_at(TYPE, ADDRESS, ...)                                                                             \
	(GADGET_CASTS ? ___arrow(gadget_cast(TYPE, ADDRESS), __VA_ARGS__)                                              \
		      : BPF_CORE_READ((TYPE *)(ADDRESS), __VA_ARGS__))

/*
 * The 8 bytes at any address, at the same cost as above. For the verifier, the result is a number even if it is a
 * pointer, so it can be passed to functions that are not static. Uses timespec64 as a type that begins with 64 bits.
 */
static __always_inline __u64 gadget_word_at(const void *address)
{
	__u64 word = 0;

	if (GADGET_CASTS)
		return gadget_cast(struct timespec64, address)->tv_sec;
	bpf_probe_read_kernel(&word, sizeof(word), address);
	return word;
}

/* MAX_PID_NS_LEVEL of include/linux/pid_namespace.h. */
#define GADGET_PID_LEVELS 32

/* The PID in the PID namespace at `level`. */
static __always_inline __u32 gadget_pid_at_level(struct pid *pid, __u32 level)
{
	const void *numbers = &pid->numbers;
	const struct upid *upid;
	__u32 number = 0;

	/* Verifiers before Linux 6.12 reject unbounded additions to a typed pointer, and lose the bounds in a
	 * multiplication by anything but a constant, such as a size from BTF. So sizeof is used: the size has been 16
	 * since Linux 4.15. */
	if (level > GADGET_PID_LEVELS)
		return 0;
	upid = numbers + level * sizeof(*upid);
	/* `nr` needs no CO-RE relocation: it is the first member in every kernel. */
	bpf_probe_read_kernel(&number, sizeof(number), upid);
	return number;
}

/* The TID on the node. */
static __always_inline __u32 gadget_node_tid(struct task_struct *task)
{
	if (!gadget_node_pid_level)
		return gadget_read(task, pid);
	return gadget_pid_at_level(gadget_read(task, thread_pid), gadget_node_pid_level);
}

/* The PID on the node. */
static __always_inline __u32 gadget_node_pid(struct task_struct *task)
{
	if (!gadget_node_pid_level)
		return gadget_read(task, tgid);
	return gadget_pid_at_level(gadget_read(task, group_leader, thread_pid), gadget_node_pid_level);
}

/* The process's PID in its own PID namespace. `pid` is its PID on the node. */
static __always_inline __u32 gadget_own_pid(struct task_struct *task, __u32 pid)
{
	struct pid *numbers = gadget_read(task, group_leader, thread_pid);
	__u32 level = gadget_read(numbers, level);

	if (level == gadget_node_pid_level)
		return pid;
	return gadget_pid_at_level(numbers, level);
}

static __always_inline void gadget_comm_of(struct task_struct *task, gadget_comm comm)
{
	__u64 *words = (__u64 *)comm;

	if (GADGET_TYPED) {
		words[0] = *(__u64 *)&task->comm[0];
		words[1] = *(__u64 *)&task->comm[8];
	} else {
		bpf_core_read(comm, sizeof(gadget_comm), &task->comm);
	}
}

// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * trace malloc: adds up memory that processes have allocated and not freed, by the stack of the allocation.
 *
 * Hooks: uprobes on libc's functions, in all files in which the agent finds them (`libraries` in the YAML), and the
 * tracepoints where a process's whole memory is released. The sums are computed on request, by a walk over all
 * outstanding allocations. PIDs are reused, so an allocation also has the time when its process was first seen.
 */
#include <gadget/allocations.h>
#include <gadget/lifetime.h>
#include <gadget/totals.h>
#include <gadget/walk.h>

/* The maximum number of outstanding allocations of all processes. */
#define OUTSTANDING 524288
/* The maximum number of rows in one answer. */
#define ROWS 32768

struct block_key {
	__u64 address;
	__u32 pid;
	__u32 unused;
};

struct block {
	__u64 size;
	__u64 since;
	__u64 seen;
	gadget_cgroup cgroup;
	gadget_stack user_stack;
	gadget_comm comm;
	gadget_operation operation;
};

struct malloc_key {
	gadget_cgroup cgroup;
	/* The PID on the node. */
	__u32 pid;
	__u32 unused;
	gadget_comm comm;
	gadget_operation operation;
	gadget_stack user_stack;
};

struct malloc_value {
	gadget_bytes bytes;
	__u64 count;
	/* The age of the oldest allocation. */
	gadget_duration oldest;
};

struct trace_malloc {
	struct gadget_total interval;
	struct malloc_key key;
	struct malloc_value value;
};

GADGET_RECORD(trace_malloc);

GADGET_TOTALS(malloc_key, malloc_value, ROWS);

/* Younger allocations are not reported, in milliseconds. */
const volatile __u32 older_than = 0;

/* The outstanding allocations. GADGET_WALK uses the map of this name. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, OUTSTANDING);
	__type(key, struct block_key);
	__type(value, struct block);
} gadget_walked SEC(".maps");

static __always_inline bool gadget_follows_allocations(void)
{
	return gadget_counts();
}

static __always_inline void freed(struct pt_regs *registers, const char *word, __u64 address)
{
	struct block_key block_key = {.address = address, .pid = gadget_node_pid(gadget_task())};

	bpf_map_delete_elem(&gadget_walked, &block_key);
}

static __always_inline void allocated(struct pt_regs *registers, const struct allocating *call, __u64 address)
{
	struct block_key block_key = {.address = address, .pid = gadget_node_pid(gadget_task())};
	struct block block = {
		.size = call->size,
		.since = bpf_ktime_get_boot_ns(),
		.cgroup = gadget_current_cgroup(),
		.user_stack = call->user_stack,
	};

	/* realloc(pointer, 0) frees the memory, a failed realloc does not. */
	if (call->old && (address || !call->size))
		freed(registers, NULL, call->old);
	if (!address || call->size < min_size)
		return;
	block.seen = gadget_first_seen(block_key.pid);
	bpf_get_current_comm(block.comm, sizeof(block.comm));
	__builtin_memcpy(block.operation, call->operation, sizeof(block.operation));
	if (bpf_map_update_elem(&gadget_walked, &block_key, &block, BPF_ANY))
		gadget_count_map_full();
}

/* Adds up one allocation. Deletes nothing, since deletions may make the walk miss elements. */
GADGET_WALK(sum_outstanding)
{
	const struct block_key *block_key = key;
	const struct block *block = value;
	struct malloc_key of = {};
	struct malloc_value *total;
	__u64 age;
	__u32 pid;

	pid = block_key->pid;
	age = bpf_ktime_get_boot_ns() - block->since;
	if (age < older_than * 1000000ULL || !gadget_lives(pid, block->seen))
		return 0;
	of.cgroup = block->cgroup;
	of.pid = pid;
	of.user_stack = block->user_stack;
	__builtin_memcpy(of.comm, block->comm, sizeof(of.comm));
	__builtin_memcpy(of.operation, block->operation, sizeof(of.operation));
	total = gadget_total(&of);
	if (!total)
		return 0;
	gadget_add(total->bytes, block->size);
	gadget_add(total->count, 1);
	if (age > total->oldest)
		total->oldest = age;
	return 0;
}

/* Removes allocations of processes that have ended. An allocation that the walk misses is removed the next time. */
GADGET_WALK(forget_ended)
{
	const struct block *block = value;
	struct block_key block_key = *(const struct block_key *)key;

	if (!gadget_lives(block_key.pid, block->seen))
		bpf_map_delete_elem(&gadget_walked, &block_key);
	return 0;
}

static __always_inline void gadget_thread_ends(void)
{
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";

// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * trace deadlock: emits one `struct lock_order` for each order in which a thread locks two mutexes: it holds `from` and
 * locks `to`. The client's view finds cycles of these, and makes one `struct trace_deadlock` for each step of a cycle.
 *
 * Hooks: uprobes on libc's functions, in all files in which the agent finds them (`libraries` in the YAML). An order is
 * reported before the thread waits, once for each thread and set of held mutexes. The address of a mutex is reused for
 * another mutex, so a mutex is identified by a number, which is dropped when the mutex is destroyed.
 */
#include <gadget/lifetime.h>
#include <gadget/process.h>
#include <gadget/stacks.h>
#include <gadget/unwind.h>

/* The maximum number of mutexes that one thread may hold at the same time. */
#define HELD 16
/* The maximum number of further held mutexes that are reported with an order. */
#define OTHERS 4
#define THREADS 32768
/* The least recently used entries are dropped. */
#define MUTEXES 131072
#define ORDERS 131072

/* An address in the process. */
typedef __u64 gadget_user_address;

struct lock_order {
	struct gadget_record record;
	/* Distinguishes processes with the same PID. */
	__u64 process;
	__u64 from;
	__u64 to;
	gadget_user_address from_address;
	gadget_user_address to_address;
	gadget_stack from_stack;
	gadget_stack to_stack;
	/* Other mutexes that the thread held; 0: none. */
	__u64 other1;
	__u64 other2;
	__u64 other3;
	__u64 other4;
};

/* One step of a cycle: this thread holds a mutex and locks another one. */
struct trace_deadlock {
	struct gadget_record record;
	__u32 circle;
	__u32 step;
	__u32 steps;
	__u32 unused2;
	gadget_user_address holds;
	gadget_user_address wants;
	gadget_stack held_stack;
	gadget_stack wanted_stack;
};

GADGET_RECORD(lock_order);
GADGET_ROW(trace_deadlock);

struct mutex_key {
	__u64 address;
	__u64 process;
	__u32 pid;
	__u32 unused;
};

struct held {
	__u64 mutex;
	__u64 address;
	gadget_stack stack;
	/* How many more times a recursive mutex has been locked. */
	__u64 again;
};

struct thread {
	__u64 process;
	__u64 count;
	struct held held[HELD];
};

struct order_key {
	__u64 thread;
	__u64 from;
	__u64 to;
	/* A hash of all held mutexes. */
	__u64 sum;
};

struct attempt {
	__u64 address;
	gadget_stack stack;
};

/* The number of each mutex. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, MUTEXES);
	__type(key, struct mutex_key);
	__type(value, __u64);
} mutexes SEC(".maps");

/* Orders that were reported. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, ORDERS);
	__type(key, struct order_key);
	__type(value, __u64);
} orders SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, THREADS);
	__type(key, __u64);
	__type(value, struct thread);
} threads SEC(".maps");

/* Calls in progress that may fail. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, THREADS);
	__type(key, __u64);
	__type(value, struct attempt);
} attempts SEC(".maps");

GADGET_SLOTS(slots, sizeof(struct lock_order));

static const struct thread nothing_held = {};
/* Mutexes are numbered in the order in which they are seen; 0 means none. */
__u64 last_mutex = 0;

static __always_inline void gadget_thread_ends(void)
{
	__u64 id = bpf_get_current_pid_tgid();

	bpf_map_delete_elem(&threads, &id);
	bpf_map_delete_elem(&attempts, &id);
}

/* The current thread's entry; NULL when it is not followed. */
static __always_inline struct thread *this_thread(void)
{
	struct gadget_record marks;
	__u64 id = bpf_get_current_pid_tgid();
	struct thread *thread = bpf_map_lookup_elem(&threads, &id);
	__u32 pid;

	if (!gadget_wanted_cgroup(&marks, gadget_current_cgroup()) || !gadget_wanted_task(gadget_task()))
		return NULL;
	pid = gadget_node_pid(gadget_task());
	/* Otherwise, the entry belongs to another process or program that had the same TID. */
	if (thread && thread->process == gadget_first_seen(pid))
		return thread;
	if (bpf_map_update_elem(&threads, &id, &nothing_held, BPF_ANY)) {
		gadget_count_map_full();
		return NULL;
	}
	thread = bpf_map_lookup_elem(&threads, &id);
	if (thread)
		thread->process = gadget_first_seen(pid);
	return thread;
}

static __always_inline struct mutex_key key_of(const struct thread *thread, __u64 address)
{
	return (struct mutex_key){
		.address = address,
		.process = thread->process,
		.pid = gadget_node_pid(gadget_task()),
	};
}

static __always_inline __u64 number_of(const struct thread *thread, __u64 address)
{
	struct mutex_key key = key_of(thread, address);
	const __u64 *known = bpf_map_lookup_elem(&mutexes, &key);
	__u64 number;

	if (known)
		return *known;
	number = __sync_fetch_and_add(&last_mutex, 1) + 1;
	bpf_map_update_elem(&mutexes, &key, &number, BPF_NOEXIST);
	known = bpf_map_lookup_elem(&mutexes, &key);
	return known ? *known : number;
}

static __always_inline void fill(struct lock_order *order, const struct thread *thread, const struct held *from,
				 const struct held *to)
{
	__u64 others[OTHERS] = {};
	__u32 count = 0;

	for (int i = 0; i < HELD; i++) {
		const struct held *held = &thread->held[i];

		if (held->mutex && held->mutex != from->mutex && held->mutex != to->mutex && count < OTHERS)
			others[count++ & (OTHERS - 1)] = held->mutex;
	}
	order->process = thread->process;
	order->from = from->mutex;
	order->to = to->mutex;
	order->from_address = from->address;
	order->to_address = to->address;
	order->from_stack = from->stack;
	order->to_stack = to->stack;
	order->other1 = others[0];
	order->other2 = others[1];
	order->other3 = others[2];
	order->other4 = others[3];
}

static __noinline int report(const struct thread *thread, const struct held *from, const struct held *to)
{
	struct lock_order *order;

	if (!thread || !from || !to)
		return 0;
	order = gadget_take_slot(&slots);
	if (!order)
		return 0;
	if (gadget_begin(&order->record)) {
		fill(order, thread, from, to);
		gadget_emit(&order->record, sizeof(*order), 0);
	}
	gadget_give_back(order);
	return 0;
}

/* Reports the orders in which `to` is locked after each mutex that the thread holds. */
static __always_inline void report_orders(const struct thread *thread, const struct held *to)
{
	struct order_key key = {.thread = bpf_get_current_pid_tgid(), .to = to->mutex};
	__u64 once = 1;

	for (int i = 0; i < HELD; i++)
		key.sum ^= thread->held[i].mutex;
	for (int i = 0; i < HELD; i++) {
		key.from = thread->held[i].mutex;
		if (key.from && !bpf_map_update_elem(&orders, &key, &once, BPF_NOEXIST))
			report(thread, &thread->held[i], to);
	}
}

/* Whether the thread holds it already; then it is counted once more. */
static __always_inline bool takes_again(struct thread *thread, __u64 address)
{
	for (int i = 0; i < HELD; i++) {
		if (thread->held[i].mutex && thread->held[i].address == address) {
			thread->held[i].again++;
			return true;
		}
	}
	return false;
}

static __always_inline void takes(struct thread *thread, const struct held *taken)
{
	for (int i = 0; i < HELD; i++) {
		if (!thread->held[i].mutex) {
			thread->held[i] = *taken;
			thread->count++;
			return;
		}
	}
	gadget_count_map_full();
}

#define ARGUMENT(N) BPF_CORE_READ(registers, GADGET_FUNCTION_ARGUMENT_##N)

/* Not inlined: its memory on the stack is free again while the call stack is unwound. */
static __noinline int take_lock(__u64 address, __u64 stack)
{
	struct thread *thread = this_thread();
	struct held taken = {.address = address, .stack = stack};

	if (!thread)
		return 0;
	taken.mutex = number_of(thread, address);
	if (thread->count)
		report_orders(thread, &taken);
	takes(thread, &taken);
	return 0;
}

static __always_inline int begins_lock(struct pt_regs *registers, bool unwinds)
{
	struct thread *thread = this_thread();
	__u64 address = ARGUMENT(0);

	/* A mutex for which the thread waits already counts as held. If the thread never gets it, it locks no others
	 * either. */
	if (!thread || takes_again(thread, address))
		return 0;
	if (unwinds)
		return take_lock(address, gadget_unwound_callers_stack(registers));
	return take_lock(address, gadget_callers_stack(registers));
}

SEC("uprobe")
int unwound_locks(struct pt_regs *registers)
{
	return begins_lock(registers, true);
}

SEC("uprobe")
int locks(struct pt_regs *registers)
{
	return begins_lock(registers, false);
}

/* Calls that may fail, since they wait for a limited time or not at all. */
static __always_inline int begins_try(struct pt_regs *registers, bool unwinds)
{
	__u64 id = bpf_get_current_pid_tgid();
	struct attempt attempt = {.address = ARGUMENT(0)};

	if (!this_thread())
		return 0;
	attempt.stack = unwinds ? gadget_unwound_callers_stack(registers) : gadget_callers_stack(registers);
	if (bpf_map_update_elem(&attempts, &id, &attempt, BPF_ANY))
		gadget_count_map_full();
	return 0;
}

SEC("uprobe")
int unwound_tries(struct pt_regs *registers)
{
	return begins_try(registers, true);
}

SEC("uprobe")
int tries(struct pt_regs *registers)
{
	return begins_try(registers, false);
}

SEC("uretprobe")
int tried(struct pt_regs *registers)
{
	__u64 id = bpf_get_current_pid_tgid();
	struct attempt *attempt = bpf_map_lookup_elem(&attempts, &id);
	struct thread *thread;
	struct held taken = {};

	if (!attempt)
		return 0;
	taken.address = attempt->address;
	taken.stack = attempt->stack;
	bpf_map_delete_elem(&attempts, &id);
	if ((__s32)BPF_CORE_READ(registers, GADGET_FUNCTION_RESULT))
		return 0;
	thread = this_thread();
	if (!thread || takes_again(thread, taken.address))
		return 0;
	taken.mutex = number_of(thread, taken.address);
	takes(thread, &taken);
	return 0;
}

SEC("uprobe")
int unlocks(struct pt_regs *registers)
{
	struct thread *thread = this_thread();
	__u64 address = ARGUMENT(0);

	if (!thread || !thread->count)
		return 0;
	for (int i = 0; i < HELD; i++) {
		struct held *held = &thread->held[i];

		if (!held->mutex || held->address != address)
			continue;
		if (held->again) {
			held->again--;
		} else {
			held->mutex = 0;
			thread->count--;
		}
		break;
	}
	return 0;
}

/* After this, another mutex may be at the address. */
SEC("uprobe")
int renews(struct pt_regs *registers)
{
	struct thread *thread = this_thread();
	struct mutex_key key;

	if (!thread)
		return 0;
	key = key_of(thread, ARGUMENT(0));
	bpf_map_delete_elem(&mutexes, &key);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Wraps libbpf's header of this name for gadgets of one C file without YAML. Output that such a program prints, or
 * sends through its own ring buffer or perf buffer, goes to the client instead, with process and container. It never
 * goes to the trace pipe, which is global.
 *
 * A file may have included vmlinux.h before, so only built-in types of C are used.
 */
#pragma once

#include_next <bpf/bpf_helpers.h>
#include <gadget/single_file.h>

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, GADGET_SENT_SLOTS);
	__type(key, unsigned int);
	__type(value, struct gadget_sent);
} gadget_sent_slots SEC(".maps");

/* Like gadget_take_slot() (gadget/slots.h), for the same reasons. */
static __always_inline struct gadget_sent *gadget_take_sent(void)
{
	for (unsigned int i = 0; i < GADGET_SENT_SLOTS; i++) {
		unsigned int key = i;
		struct gadget_sent *slot = bpf_map_lookup_elem(&gadget_sent_slots, &key);

		if (!slot)
			continue;
		__sync_fetch_and_add(&slot->taken, 1);
		if (*(volatile unsigned long long *)&slot->taken == 1)
			return slot;
		__sync_fetch_and_add(&slot->taken, -1);
	}
	gadget_lose_sent();
	return (void *)0;
}

static __always_inline void gadget_give_back_sent(struct gadget_sent *slot)
{
	__sync_fetch_and_add(&slot->taken, -1);
}

/* `length` is the result of bpf_snprintf(): the length of the whole line with its NUL, even if it did not fit. */
static __always_inline void gadget_printed(struct gadget_sent *slot, long length)
{
	if (length > 1) {
		slot->cut = length > GADGET_SENT_BYTES;
		slot->length = slot->cut ? GADGET_SENT_BYTES - 1 : length - 1;
		gadget_send_line(slot);
	} else if (length < 0) {
		/* The kernel does not format texts that have more than a kilobyte together. */
		gadget_lose_sent();
	}
	gadget_give_back_sent(slot);
}

#undef bpf_printk
#define bpf_printk(fmt, args...)                                                                                       \
	({                                                                                                             \
		/* Tells the client that lines follow. */                                                              \
		static const char gadget_prints __attribute__((used)) = 1;                                             \
		struct gadget_sent *___sent = gadget_take_sent();                                                      \
		long ___length = -1;                                                                                   \
                                                                                                                       \
		if (___sent) {                                                                                         \
			___length = BPF_SNPRINTF(___sent->data, sizeof(___sent->data), fmt, ##args);                   \
			gadget_printed(___sent, ___length);                                                            \
		}                                                                                                      \
		(int)___length;                                                                                        \
	})

#define bpf_trace_printk(args...)                                                                                      \
	({                                                                                                             \
		_Static_assert(0, "write bpf_printk(\"...\", ...): its lines come to kubectl gadget");                 \
		0L;                                                                                                    \
	})

/* Keeps the type of the sent data in the object: the client derives the columns from it. */
#define GADGET_SENT_TYPE(DATA)                                                                                         \
	static const typeof(*(DATA)) *const volatile gadget_sent_type __attribute__((used)) = (void *)0

static __always_inline void *gadget_reserve_sent(unsigned long long size)
{
	struct gadget_sent *slot;

	if (size > GADGET_SENT_BYTES)
		return (void *)0;
	slot = gadget_take_sent();
	if (!slot)
		return (void *)0;
	slot->length = size;
	return slot->data;
}

#define GADGET_SENT_OF(DATA) ((struct gadget_sent *)((char *)(DATA) - __builtin_offsetof(struct gadget_sent, data)))

#define GADGET_FITS(SIZE)                                                                                              \
	_Static_assert(!__builtin_constant_p(SIZE) || (SIZE) <= GADGET_SENT_BYTES, "more than 1024 bytes at once")

#define bpf_ringbuf_reserve(map, size, flags)                                                                          \
	({                                                                                                             \
		GADGET_FITS(size);                                                                                     \
		(void)(map);                                                                                           \
		gadget_reserve_sent(size);                                                                             \
	})

#define bpf_ringbuf_submit(data, flags)                                                                                \
	({                                                                                                             \
		GADGET_SENT_TYPE(data);                                                                                \
		gadget_send_struct(GADGET_SENT_OF(data));                                                              \
		gadget_give_back_sent(GADGET_SENT_OF(data));                                                           \
	})

#define bpf_ringbuf_discard(data, flags) gadget_give_back_sent(GADGET_SENT_OF(data))

#define bpf_ringbuf_output(map, from, size, flags)                                                                     \
	({                                                                                                             \
		struct gadget_sent *___sent;                                                                           \
		GADGET_SENT_TYPE(from);                                                                                \
		GADGET_FITS(size);                                                                                     \
                                                                                                                       \
		(void)(map);                                                                                           \
		___sent = (size) <= GADGET_SENT_BYTES ? gadget_take_sent() : (void *)0;                                \
		if (___sent) {                                                                                         \
			___sent->length = (size);                                                                      \
			bpf_probe_read_kernel(___sent->data, (size), (from));                                          \
			gadget_send_struct(___sent);                                                                   \
			gadget_give_back_sent(___sent);                                                                \
		}                                                                                                      \
		(long)(___sent ? 0 : -1);                                                                              \
	})

#define bpf_perf_event_output(ctx, map, flags, from, size)                                                             \
	({                                                                                                             \
		(void)(ctx);                                                                                           \
		bpf_ringbuf_output(map, from, size, flags);                                                            \
	})

/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * User stacks of programs that are built without frame pointers: gadget_unwound_stack().
 *
 * Nearly every ELF file has a section .eh_frame, by which exceptions are thrown: for each instruction, it says where
 * the caller's registers are (DWARF's call frame information). The agent puts this section and its index,
 * .eh_frame_hdr, unchanged into memory that programs can read, when a process is sampled for the first time
 * (agent/symbols/unwinding.py). Programs find the entry of an address by binary search, run its instructions up to
 * that address, and keep the result, a row of 16 bytes, since most addresses are seen again.
 *
 * Code that has no entry, such as Go's and what just-in-time compilers write, is followed by frame pointers, in the
 * same stack. A stack that cannot be followed to its end has GADGET_NOT_UNWOUND as its last address.
 *
 * Only for x86-64; elsewhere gadget_unwound_stack() is gadget_user_stack(). It needs bpf_loop() (Linux 5.17).
 *
 * The trap: for the verifier, everything here is kept in a map's memory, not in variables: it forgets what is in there,
 * so it looks at each instruction few times.
 */
#pragma once

#include <gadget/stacks.h>

/* Programs named unwound_… are loaded. Set by the agent. */
const volatile bool gadget_unwinds = false;

/* Defines the program array gadget_unwind_NAME, for programs that tail-call the uprobe unwound_NAME if gadget_unwinds:
 * so the verifier checks the code here in one program instead of many. The agent puts that program there. */
#define GADGET_UNWIND_TAIL(NAME)                                                                                       \
	struct {                                                                                                       \
		__uint(type, BPF_MAP_TYPE_PROG_ARRAY);                                                                 \
		__uint(max_entries, 1);                                                                                \
		__uint(key_size, sizeof(__u32));                                                                       \
		__uint(value_size, sizeof(__u32));                                                                     \
	} gadget_unwind_##NAME SEC(".maps")

/* No process has code there, so the agent shows it as [unknown]. */
#define GADGET_NOT_UNWOUND 1

#if defined(__TARGET_ARCH_x86)

/* Memory for sections, in pages; a page begins with its own bytes, and continues with the first of the next one, so
 * that what begins in a page can be read without a second lookup. As in agent/symbols/unwinding.py. */
#define GADGET_UNWIND_PAGE 4096
#define GADGET_UNWIND_OVERLAP 64
#define GADGET_UNWIND_PAGES 64
#define GADGET_UNWIND_SHARDS 240

struct gadget_unwind_page {
	__u8 bytes[GADGET_UNWIND_PAGE + GADGET_UNWIND_OVERLAP];
};

struct gadget_unwind_shard {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, GADGET_UNWIND_PAGES);
	__type(key, __u32);
	__type(value, struct gadget_unwind_page);
} gadget_unwind_first SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, GADGET_UNWIND_SHARDS);
	__type(key, __u32);
	__array(values, struct gadget_unwind_shard);
} gadget_unwind_memory SEC(".maps") = {.values = {&gadget_unwind_first}};

/* The code of one file in one process. Places are offsets in the memory above. */
struct gadget_unwind_mapping {
	__u64 start;
	__u64 end;
	/* What the addresses in the index are relative to, in the process. */
	__u64 base;
	/* Of the file's sections; never used again for others. */
	__u32 number;
	__u32 index;
	/* 0: the file has none. */
	__u32 entries;
	__u32 frames;
	__u32 frames_bytes;
	/* Is added to an offset in the index, for one in .eh_frame. */
	__s32 distance;
};

#define GADGET_UNWIND_MAPPINGS 16384

/* Those of each process are together, sorted by address. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, GADGET_UNWIND_MAPPINGS);
	__type(key, __u32);
	__type(value, struct gadget_unwind_mapping);
} gadget_unwind_mappings SEC(".maps");

struct gadget_unwind_process {
	/* As in struct gadget_kept_stack. */
	__u64 program;
	__u32 first;
	__u32 count;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, __u32);
	__type(value, struct gadget_unwind_process);
} gadget_unwind_processes SEC(".maps");

/* Processes with code that the agent has not told of yet. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, __u32);
} gadget_unwind_wanted SEC(".maps");

/* Where a register's value in the caller is. */
enum gadget_unwind_rule {
	GADGET_UNCHANGED,
	/* In memory, relative to the canonical frame address, or to the frame pointer. */
	GADGET_AT_CFA,
	GADGET_AT_FRAME,
	/* It has none. */
	GADGET_GONE,
	/* Where this code does not find it. */
	GADGET_NOT_FOLLOWED,
};

/* By their numbers in DWARF. */
#define GADGET_RBX 3
#define GADGET_RBP 6
#define GADGET_RSP 7
#define GADGET_R10 10
#define GADGET_RETURN 16

/* What the canonical frame address is relative to, if not a register: what a register points to, the entry of a PLT, or
 * the registers before a signal. */
#define GADGET_CFA_POINTS 32
#define GADGET_CFA_PLT 64
#define GADGET_CFA_SIGNAL 65
#define GADGET_CFA_FRAME_POINTER 66
#define GADGET_CFA_OTHER 255

struct gadget_unwind_row {
	__u8 cfa;
	__u8 frame;
	__u8 rbx;
	/* Nearly always GADGET_AT_CFA, at -8; GADGET_GONE if there is no caller. */
	__u8 returns;
	__s32 cfa_offset;
	__s32 frame_offset;
	__s32 rbx_offset;
};

/* Rows by file and address. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 32768);
	__type(key, __u64);
	__type(value, struct gadget_unwind_row);
} gadget_unwind_rows SEC(".maps");

/* The depth of DW_CFA_remember_state. */
#define GADGET_UNWIND_REMEMBERED 8
/* Instructions of one entry, up to the address. */
#define GADGET_UNWIND_STEPS 2048

struct gadget_unwinder {
	/* Where the code is now. */
	__u64 pc;
	__u64 sp;
	__u64 bp;
	__u64 bx;
	__u64 r10;
	struct gadget_unwind_mapping mapping;
	struct gadget_unwind_process process;
	__u32 pid;
	__u32 depth;
	/* 1: the address is a return address, so that of the call is lower. */
	__u32 is_call;
	/* The end of the stack was found. */
	__u32 is_whole;
	/* Of a binary search. */
	__u32 low;
	__u32 high;
	/* The next byte that is read, and the end of what is read. */
	__u32 place;
	__u32 end;
	/* The address that is looked for, and the one that the instructions have reached, relative to the mapping's
	 * base. */
	__s32 wanted;
	__s32 reached;
	__u32 code_unit;
	__s32 data_unit;
	__u32 encoding;
	__u32 is_signal;
	__u32 remembered_count;
	__u32 is_refused;
	struct gadget_unwind_row row;
	struct gadget_unwind_row initial;
	struct gadget_unwind_row remembered[GADGET_UNWIND_REMEMBERED];
};

GADGET_SLOTS(gadget_unwind_slots, sizeof(struct gadget_unwinder));

/* What the callbacks of bpf_loop() get. */
struct gadget_unwind_context {
	struct gadget_unwinder *unwinder;
	struct gadget_kept_stack *stack;
};

/* At least GADGET_UNWIND_OVERLAP bytes can be read there. */
static __always_inline const __u8 *gadget_unwind_at(__u32 place)
{
	__u32 shard = place / (GADGET_UNWIND_PAGE * GADGET_UNWIND_PAGES);
	__u32 number = place / GADGET_UNWIND_PAGE % GADGET_UNWIND_PAGES;
	struct gadget_unwind_page *page;
	void *pages = bpf_map_lookup_elem(&gadget_unwind_memory, &shard);

	if (!pages)
		return NULL;
	page = bpf_map_lookup_elem(pages, &number);
	return page ? page->bytes + place % GADGET_UNWIND_PAGE : NULL;
}

static __noinline __u32 gadget_unwind_byte(struct gadget_unwinder *unwinder)
{
	const __u8 *bytes = gadget_unwind_at(unwinder->place);

	unwinder->place++;
	return bytes ? *bytes : 0;
}

static __always_inline __u32 gadget_unwind_word_at(__u32 place)
{
	const __u8 *bytes = gadget_unwind_at(place);

	return bytes ? bytes[0] | bytes[1] << 8 | bytes[2] << 16 | (__u32)bytes[3] << 24 : 0;
}

static __noinline __u32 gadget_unwind_word(struct gadget_unwinder *unwinder)
{
	__u32 place = unwinder->place;

	unwinder->place = place + 4;
	return gadget_unwind_word_at(place);
}

/* A number of up to 35 bits in LEB128: seven bits in each byte, of which the last has no eighth bit. */
static __noinline __u64 gadget_unwind_leb(struct gadget_unwinder *unwinder, bool is_signed)
{
	const __u8 *bytes = gadget_unwind_at(unwinder->place);
	__u64 value;
	__u32 length = 1;

	if (!bytes)
		return 0;
	value = bytes[0] & 0x7f;
	if (bytes[0] & 0x80) {
		value |= (__u64)(bytes[1] & 0x7f) << 7;
		length = 2;
		if (bytes[1] & 0x80) {
			value |= (__u64)(bytes[2] & 0x7f) << 14;
			length = 3;
			if (bytes[2] & 0x80) {
				value |= (__u64)(bytes[3] & 0x7f) << 21;
				length = 4;
				if (bytes[3] & 0x80) {
					value |= (__u64)(bytes[4] & 0x7f) << 28;
					length = 5;
				}
			}
		}
	}
	unwinder->place += length;
	if (is_signed && value >> (7 * length - 1) & 1)
		value |= ~0ULL << (7 * length);
	return value;
}

static __noinline long gadget_unwind_set(struct gadget_unwinder *unwinder, __u32 number, __u32 rule, __s32 offset)
{
	struct gadget_unwind_row *row = &unwinder->row;

	if (number == GADGET_RBP) {
		row->frame = rule;
		row->frame_offset = offset;
	} else if (number == GADGET_RBX) {
		row->rbx = rule;
		row->rbx_offset = offset;
	} else if (number == GADGET_RETURN) {
		row->returns = rule;
		if (rule != GADGET_GONE && (rule != GADGET_AT_CFA || offset != -8))
			row->returns = GADGET_NOT_FOLLOWED;
	}
	return 0;
}

static __noinline long gadget_unwind_restore(struct gadget_unwinder *unwinder, __u32 number)
{
	if (number == GADGET_RBP) {
		unwinder->row.frame = unwinder->initial.frame;
		unwinder->row.frame_offset = unwinder->initial.frame_offset;
	} else if (number == GADGET_RBX) {
		unwinder->row.rbx = unwinder->initial.rbx;
		unwinder->row.rbx_offset = unwinder->initial.rbx_offset;
	} else if (number == GADGET_RETURN) {
		unwinder->row.returns = unwinder->initial.returns;
	}
	return 0;
}

/* From DWARF 5, table 7.9: operations of expressions. */
#define GADGET_OP_DEREF 0x06
#define GADGET_OP_AND 0x1a
#define GADGET_OP_LITERAL 0x30
#define GADGET_OP_REGISTER 0x70

/*
 * Of all expressions, those that compilers and linkers write: the address to which a register points, after the stack
 * was aligned; and a PLT's, whose entries push a word in one of their instructions.
 */
static __noinline long gadget_unwind_cfa_expression(struct gadget_unwinder *unwinder)
{
	struct gadget_unwind_row *row = &unwinder->row;
	__u32 bytes = gadget_unwind_leb(unwinder, false);
	__u32 end = unwinder->place + bytes;
	__u32 operation = gadget_unwind_byte(unwinder);
	__s32 offset = gadget_unwind_leb(unwinder, true);

	row->cfa = GADGET_CFA_OTHER;
	if (operation < GADGET_OP_REGISTER || operation > GADGET_OP_REGISTER + GADGET_RETURN)
		goto out;
	if (unwinder->place == end) {
		row->cfa = operation - GADGET_OP_REGISTER;
		row->cfa_offset = offset;
		goto out;
	}
	if (gadget_unwind_byte(unwinder) == GADGET_OP_DEREF) {
		if (unwinder->place == end) {
			row->cfa = GADGET_CFA_POINTS + operation - GADGET_OP_REGISTER;
			row->cfa_offset = offset;
		}
		goto out;
	}
	/* rsp + 8 + ((rip & 15) >= N) * 8 */
	if (operation == GADGET_OP_REGISTER + GADGET_RSP && offset == 8 && bytes == 11) {
		__u32 after = gadget_unwind_byte(unwinder);
		__u32 mask = gadget_unwind_byte(unwinder);
		__u32 and = gadget_unwind_byte(unwinder);
		__u32 least = gadget_unwind_byte(unwinder);

		if (!after && mask == GADGET_OP_LITERAL + 15 && and== GADGET_OP_AND) {
			row->cfa = GADGET_CFA_PLT;
			row->cfa_offset = least - GADGET_OP_LITERAL;
		}
	}
out:
	unwinder->place = end;
	return 0;
}

static __noinline long gadget_unwind_expression(struct gadget_unwinder *unwinder, __u32 number)
{
	__u32 bytes = gadget_unwind_leb(unwinder, false);
	__u32 end = unwinder->place + bytes;
	__u32 operation = gadget_unwind_byte(unwinder);
	__s32 offset = gadget_unwind_leb(unwinder, true);
	bool is_simple = operation == GADGET_OP_REGISTER + GADGET_RBP && unwinder->place == end;

	unwinder->place = end;
	return gadget_unwind_set(unwinder, number, is_simple ? GADGET_AT_FRAME : GADGET_NOT_FOLLOWED, offset);
}

/* From DWARF 5, table 7.29, and GNU's. */
enum gadget_unwind_instruction {
	GADGET_CFA_NOP,
	GADGET_CFA_SET_LOC,
	GADGET_CFA_ADVANCE_1,
	GADGET_CFA_ADVANCE_2,
	GADGET_CFA_ADVANCE_4,
	GADGET_CFA_OFFSET_EXTENDED,
	GADGET_CFA_RESTORE_EXTENDED,
	GADGET_CFA_UNDEFINED,
	GADGET_CFA_SAME_VALUE,
	GADGET_CFA_REGISTER,
	GADGET_CFA_REMEMBER,
	GADGET_CFA_RESTORE_STATE,
	GADGET_CFA_DEFINE,
	GADGET_CFA_DEFINE_REGISTER,
	GADGET_CFA_DEFINE_OFFSET,
	GADGET_CFA_DEFINE_EXPRESSION,
	GADGET_CFA_EXPRESSION,
	GADGET_CFA_OFFSET_SIGNED,
	GADGET_CFA_DEFINE_SIGNED,
	GADGET_CFA_DEFINE_OFFSET_SIGNED,
	GADGET_CFA_VALUE_OFFSET,
	GADGET_CFA_VALUE_OFFSET_SIGNED,
	GADGET_CFA_VALUE_EXPRESSION,
	GADGET_CFA_ARGUMENTS_SIZE = 0x2e,
};

/* Runs one instruction. Returns 1 at the wanted address. */
static __always_inline long gadget_unwind_run_one(struct gadget_unwinder *unwinder)
{
	struct gadget_unwind_row *row = &unwinder->row;
	__u32 instruction, number, count;
	__u64 advance;
	__s32 offset;

	if (unwinder->place >= unwinder->end)
		return 1;
	instruction = gadget_unwind_byte(unwinder);
	number = instruction & 0x3f;
	switch (instruction >> 6) {
	case 1:
		advance = number;
		goto advance;
	case 2:
		offset = (__s32)gadget_unwind_leb(unwinder, false) * unwinder->data_unit;
		gadget_unwind_set(unwinder, number, GADGET_AT_CFA, offset);
		return 0;
	case 3:
		gadget_unwind_restore(unwinder, number);
		return 0;
	}
	switch (instruction) {
	case GADGET_CFA_NOP:
		return 0;
	case GADGET_CFA_ADVANCE_1:
		advance = gadget_unwind_byte(unwinder);
		goto advance;
	case GADGET_CFA_ADVANCE_2:
		advance = gadget_unwind_byte(unwinder);
		advance |= gadget_unwind_byte(unwinder) << 8;
		goto advance;
	case GADGET_CFA_ADVANCE_4:
		advance = gadget_unwind_word(unwinder);
		goto advance;
	case GADGET_CFA_REMEMBER:
		count = unwinder->remembered_count;
		if (count >= GADGET_UNWIND_REMEMBERED)
			break;
		unwinder->remembered[count] = *row;
		unwinder->remembered_count = count + 1;
		return 0;
	case GADGET_CFA_RESTORE_STATE:
		count = unwinder->remembered_count - 1;
		if (count >= GADGET_UNWIND_REMEMBERED)
			break;
		*row = unwinder->remembered[count];
		unwinder->remembered_count = count;
		return 0;
	case GADGET_CFA_DEFINE_OFFSET:
		row->cfa_offset = gadget_unwind_leb(unwinder, false);
		return 0;
	case GADGET_CFA_DEFINE_OFFSET_SIGNED:
		row->cfa_offset = (__s32)gadget_unwind_leb(unwinder, true) * unwinder->data_unit;
		return 0;
	case GADGET_CFA_DEFINE_EXPRESSION:
		gadget_unwind_cfa_expression(unwinder);
		return 0;
	case GADGET_CFA_ARGUMENTS_SIZE:
		gadget_unwind_leb(unwinder, false);
		return 0;
	case GADGET_CFA_SET_LOC:
		goto refuse;
	}
	if (instruction > GADGET_CFA_VALUE_EXPRESSION)
		goto refuse;
	/* The others begin with a register. */
	number = gadget_unwind_leb(unwinder, false);
	switch (instruction) {
	case GADGET_CFA_DEFINE:
		row->cfa = number < GADGET_CFA_POINTS ? number : GADGET_CFA_OTHER;
		row->cfa_offset = gadget_unwind_leb(unwinder, false);
		return 0;
	case GADGET_CFA_DEFINE_SIGNED:
		row->cfa = number < GADGET_CFA_POINTS ? number : GADGET_CFA_OTHER;
		row->cfa_offset = (__s32)gadget_unwind_leb(unwinder, true) * unwinder->data_unit;
		return 0;
	case GADGET_CFA_DEFINE_REGISTER:
		row->cfa = number < GADGET_CFA_POINTS ? number : GADGET_CFA_OTHER;
		return 0;
	case GADGET_CFA_OFFSET_EXTENDED:
		offset = (__s32)gadget_unwind_leb(unwinder, false) * unwinder->data_unit;
		gadget_unwind_set(unwinder, number, GADGET_AT_CFA, offset);
		return 0;
	case GADGET_CFA_OFFSET_SIGNED:
		offset = (__s32)gadget_unwind_leb(unwinder, true) * unwinder->data_unit;
		gadget_unwind_set(unwinder, number, GADGET_AT_CFA, offset);
		return 0;
	case GADGET_CFA_RESTORE_EXTENDED:
		gadget_unwind_restore(unwinder, number);
		return 0;
	case GADGET_CFA_SAME_VALUE:
		gadget_unwind_set(unwinder, number, GADGET_UNCHANGED, 0);
		return 0;
	case GADGET_CFA_UNDEFINED:
		gadget_unwind_set(unwinder, number, GADGET_GONE, 0);
		return 0;
	case GADGET_CFA_EXPRESSION:
		gadget_unwind_expression(unwinder, number);
		return 0;
	case GADGET_CFA_VALUE_EXPRESSION:
		count = gadget_unwind_leb(unwinder, false);
		unwinder->place += count;
		break;
	case GADGET_CFA_REGISTER:
	case GADGET_CFA_VALUE_OFFSET:
	case GADGET_CFA_VALUE_OFFSET_SIGNED:
		gadget_unwind_leb(unwinder, false);
		break;
	}
	gadget_unwind_set(unwinder, number, GADGET_NOT_FOLLOWED, 0);
	return 0;
advance:
	advance = unwinder->reached + advance * unwinder->code_unit;
	if ((__s64)advance > unwinder->wanted)
		return 1;
	unwinder->reached = advance;
	return 0;
refuse:
	unwinder->is_refused = 1;
	return 1;
}

static long gadget_unwind_run(__u32 index, void *data)
{
	struct gadget_unwind_context *context = data;

	long result = gadget_unwind_run_one(context->unwinder);

	/* The verifier wants to see 0 or 1, and compilers return any register that is 0 here. */
	asm volatile("" : "+r"(result));
	return result > 0;
}

/* Runs instructions up to the wanted address or to the end. Returns whether all were understood: what more steps would
 * change is not known, so the row of an earlier address is none. */
static __always_inline bool gadget_unwind_run_all(struct gadget_unwinder *unwinder)
{
	struct gadget_unwind_context context = {.unwinder = unwinder};
	long steps = bpf_loop(GADGET_UNWIND_STEPS, gadget_unwind_run, &context, 0);

	return steps >= 0 && steps < GADGET_UNWIND_STEPS && !unwinder->is_refused;
}

/* The number of bytes of a pointer in this encoding (DW_EH_PE_…); 0: unknown here. */
static __always_inline __u32 gadget_unwind_pointer_bytes(__u32 encoding)
{
	switch (encoding & 0x0f) {
	case 0x00:
	case 0x04:
	case 0x0c:
		return 8;
	case 0x03:
	case 0x0b:
		return 4;
	case 0x02:
	case 0x0a:
		return 2;
	}
	return 0;
}

/* One character of a CIE's augmentation, which says what its data contains. Returns 1 at the end. */
static long gadget_unwind_augment(__u32 index, void *data)
{
	struct gadget_unwind_context *context = data;
	struct gadget_unwinder *unwinder = context->unwinder;
	const __u8 *letter = gadget_unwind_at(unwinder->low);

	if (!letter)
		return 1;
	unwinder->low++;
	switch (*letter) {
	case 'R':
		unwinder->encoding = gadget_unwind_byte(unwinder);
		return 0;
	case 'L':
		unwinder->place++;
		return 0;
	case 'P':
		unwinder->place += gadget_unwind_pointer_bytes(gadget_unwind_byte(unwinder));
		return 0;
	case 'S':
		unwinder->is_signal = 1;
		return 0;
	case 'z':
	case 'B':
		return 0;
	}
	return 1;
}

/* Reads a CIE, the head that entries share, and its instructions. Returns whether it is understood. */
static __noinline bool gadget_unwind_head(struct gadget_unwinder *unwinder, __u32 place)
{
	struct gadget_unwind_context context = {.unwinder = unwinder};
	const __u8 *bytes = gadget_unwind_at(place);
	__u32 end, data, i;

	if (!bytes || bytes[4] | bytes[5] | bytes[6] | bytes[7] || (bytes[8] != 1 && bytes[8] != 3))
		return false;
	end = place + 4 + gadget_unwind_word_at(place);
	/* The text of the augmentation, which begins with z, and ends with NUL. */
	for (i = 0; i < 8; i++)
		if (!bytes[9 + i])
			break;
	if (i == 8 || (i && bytes[9] != 'z'))
		return false;
	unwinder->low = place + 9;
	unwinder->place = place + 10 + i;
	unwinder->code_unit = gadget_unwind_leb(unwinder, false);
	unwinder->data_unit = gadget_unwind_leb(unwinder, true);
	if (gadget_unwind_leb(unwinder, false) != GADGET_RETURN)
		return false;
	unwinder->encoding = 0;
	unwinder->is_signal = 0;
	if (i) {
		data = gadget_unwind_leb(unwinder, false);
		data += unwinder->place;
		bpf_loop(8, gadget_unwind_augment, &context, 0);
		unwinder->place = data;
	}
	unwinder->end = end;
	return gadget_unwind_run_all(unwinder);
}

/* One step of the search in the index. */
static long gadget_unwind_search(__u32 index, void *data)
{
	struct gadget_unwind_context *context = data;
	struct gadget_unwinder *unwinder = context->unwinder;
	__u32 low = unwinder->low, high = unwinder->high, middle = low + (high - low) / 2;

	if (low >= high)
		return 1;
	if ((__s32)gadget_unwind_word_at(unwinder->mapping.index + middle * 8) <= unwinder->wanted)
		unwinder->low = middle + 1;
	else
		unwinder->high = middle;
	return 0;
}

/* Computes the row of the wanted address. */
static __noinline long gadget_unwind_compute(struct gadget_unwinder *unwinder)
{
	struct gadget_unwind_context context = {.unwinder = unwinder};
	__u32 entry, fde, bytes, length, back;

	unwinder->row = (struct gadget_unwind_row){.cfa = GADGET_CFA_FRAME_POINTER};
	unwinder->low = 0;
	unwinder->high = unwinder->mapping.entries;
	bpf_loop(24, gadget_unwind_search, &context, 0);
	if (!unwinder->low)
		return 0;
	entry = unwinder->mapping.index + (unwinder->low - 1) * 8;
	unwinder->reached = gadget_unwind_word_at(entry);
	fde = gadget_unwind_word_at(entry + 4) + unwinder->mapping.distance;
	if (fde >= unwinder->mapping.frames_bytes)
		return 0;
	fde += unwinder->mapping.frames;
	length = gadget_unwind_word_at(fde);
	back = gadget_unwind_word_at(fde + 4);
	if (!back || length >= 0xfffffff0 || back > fde + 4 - unwinder->mapping.frames)
		return 0;
	unwinder->is_refused = 0;
	unwinder->remembered_count = 0;
	/* A CIE's instructions are for all addresses. */
	unwinder->row = (struct gadget_unwind_row){.cfa = GADGET_CFA_OTHER};
	if (!gadget_unwind_head(unwinder, fde + 4 - back))
		goto refuse;
	unwinder->initial = unwinder->row;
	bytes = gadget_unwind_pointer_bytes(unwinder->encoding);
	if (bytes != 4 && bytes != 8)
		goto refuse;
	/* The rest of 8 bytes is 0. */
	if ((__u32)(unwinder->wanted - unwinder->reached) >= gadget_unwind_word_at(fde + 8 + bytes)) {
		unwinder->row = (struct gadget_unwind_row){.cfa = GADGET_CFA_FRAME_POINTER};
		return 0;
	}
	if (unwinder->is_signal) {
		unwinder->row.cfa = GADGET_CFA_SIGNAL;
		return 0;
	}
	unwinder->place = fde + 8 + 2 * bytes;
	back = gadget_unwind_leb(unwinder, false);
	unwinder->place += back;
	unwinder->end = fde + 4 + length;
	if (gadget_unwind_run_all(unwinder))
		return 0;
refuse:
	unwinder->row = (struct gadget_unwind_row){.cfa = GADGET_CFA_OTHER};
	return 0;
}

/* Finds the row of the wanted address, which was computed before or is computed now. */
static __always_inline long gadget_unwind_find(struct gadget_unwinder *unwinder)
{
	__u64 key = (__u64)unwinder->mapping.number << 32 | (__u32)unwinder->wanted;
	struct gadget_unwind_row *known = bpf_map_lookup_elem(&gadget_unwind_rows, &key);

	if (known) {
		unwinder->row = *known;
		return 0;
	}
	gadget_unwind_compute(unwinder);
	bpf_map_update_elem(&gadget_unwind_rows, &key, &unwinder->row, BPF_ANY);
	return 0;
}

/* One step of the search for a mapping. */
static long gadget_unwind_search_mapping(__u32 index, void *data)
{
	struct gadget_unwind_context *context = data;
	struct gadget_unwinder *unwinder = context->unwinder;
	__u32 low = unwinder->low, high = unwinder->high, middle = low + (high - low) / 2;
	struct gadget_unwind_mapping *mapping;

	if (low >= high)
		return 1;
	mapping = bpf_map_lookup_elem(&gadget_unwind_mappings, &middle);
	if (!mapping)
		return 1;
	if (mapping->end <= unwinder->pc - unwinder->is_call)
		unwinder->low = middle + 1;
	else
		unwinder->high = middle;
	return 0;
}

static __noinline bool gadget_unwind_find_mapping(struct gadget_unwinder *unwinder)
{
	struct gadget_unwind_context context = {.unwinder = unwinder};
	struct gadget_unwind_mapping *mapping;
	__u64 address = unwinder->pc - unwinder->is_call;
	__u32 number;

	if (address >= unwinder->mapping.start && address < unwinder->mapping.end)
		return true;
	unwinder->low = unwinder->process.first;
	unwinder->high = unwinder->process.first + unwinder->process.count;
	bpf_loop(15, gadget_unwind_search_mapping, &context, 0);
	number = unwinder->low;
	if (number >= unwinder->process.first + unwinder->process.count)
		return false;
	mapping = bpf_map_lookup_elem(&gadget_unwind_mappings, &number);
	if (!mapping || address < mapping->start || address >= mapping->end)
		return false;
	unwinder->mapping = *mapping;
	return true;
}

static __always_inline __u64 gadget_unwind_user_word(__u64 address)
{
	__u64 word = 0;

	bpf_probe_read_user(&word, sizeof(word), (const void *)address);
	return word;
}

/* The offsets of registers in struct rt_sigframe, from where the handler's return leaves rsp. */
#define GADGET_SIGNAL_BP 120
#define GADGET_SIGNAL_BX 128
#define GADGET_SIGNAL_SP 160
#define GADGET_SIGNAL_IP 168

static __always_inline __u64 gadget_unwind_saved(struct gadget_unwinder *unwinder, __u32 rule, __s32 offset, __u64 cfa,
						 __u64 now)
{
	switch (rule) {
	case GADGET_UNCHANGED:
		return now;
	case GADGET_AT_CFA:
		return gadget_unwind_user_word(cfa + offset);
	case GADGET_AT_FRAME:
		return gadget_unwind_user_word(unwinder->bp + offset);
	}
	return 0;
}

/* After the call in a trampoline of CPython 3.12 or 3.13 (-X perf), which has no frame pointer: add $8, %rsp; ret. */
#define GADGET_TRAMPOLINE_END 0xc308c48348ULL
#define GADGET_TRAMPOLINE_END_MASK 0xffffffffffULL

/* Follows the frame pointer. Returns whether there is a caller. */
static __noinline bool gadget_unwind_frame_pointer(struct gadget_unwinder *unwinder)
{
	__u64 bp = unwinder->bp;
	struct gadget_frame frame;

	if (unwinder->is_call &&
	    (gadget_unwind_user_word(unwinder->pc) & GADGET_TRAMPOLINE_END_MASK) == GADGET_TRAMPOLINE_END) {
		unwinder->pc = gadget_unwind_user_word(unwinder->sp + 8);
		unwinder->sp += 16;
		return unwinder->pc;
	}
	/* What begins a thread sets it to 0. */
	unwinder->is_whole = !bp;
	if (!bp || bp & 7 || bp < unwinder->sp || bpf_probe_read_user(&frame, sizeof(frame), (const void *)bp))
		return false;
	unwinder->is_whole = !frame.returns_to;
	unwinder->pc = frame.returns_to;
	unwinder->sp = bp + sizeof(frame);
	unwinder->bp = frame.next;
	unwinder->is_call = 1;
	return frame.returns_to;
}

/* Goes to the caller. Returns false at the end of the stack. */
static __always_inline bool gadget_unwind_to_caller(struct gadget_unwinder *unwinder)
{
	struct gadget_unwind_row *row = &unwinder->row;
	__u64 cfa, bp, bx, sp = unwinder->sp;
	__u32 base = row->cfa;

	if (!gadget_unwind_find_mapping(unwinder)) {
		__u32 one = 1;

		bpf_map_update_elem(&gadget_unwind_wanted, &unwinder->pid, &one, BPF_ANY);
		return gadget_unwind_frame_pointer(unwinder);
	}
	if (!unwinder->mapping.entries)
		return gadget_unwind_frame_pointer(unwinder);
	unwinder->wanted = unwinder->pc - unwinder->is_call - unwinder->mapping.base;
	gadget_unwind_find(unwinder);
	base = row->cfa;
	if (base == GADGET_CFA_FRAME_POINTER)
		return gadget_unwind_frame_pointer(unwinder);
	if (base == GADGET_CFA_SIGNAL) {
		unwinder->pc = gadget_unwind_user_word(sp + GADGET_SIGNAL_IP);
		unwinder->bp = gadget_unwind_user_word(sp + GADGET_SIGNAL_BP);
		unwinder->bx = gadget_unwind_user_word(sp + GADGET_SIGNAL_BX);
		unwinder->sp = gadget_unwind_user_word(sp + GADGET_SIGNAL_SP);
		unwinder->is_call = 0;
		return unwinder->pc;
	}
	if (row->returns != GADGET_AT_CFA) {
		unwinder->is_whole = row->returns == GADGET_GONE;
		return false;
	}
	switch (base & ~GADGET_CFA_POINTS) {
	case GADGET_RSP:
		cfa = sp;
		break;
	case GADGET_RBP:
		cfa = unwinder->bp;
		break;
	case GADGET_RBX:
		cfa = unwinder->bx;
		break;
	case GADGET_R10:
		cfa = unwinder->r10;
		break;
	case GADGET_CFA_PLT:
		cfa = sp + 8 + ((unwinder->pc & 15) >= (__u32)row->cfa_offset ? 8 : 0);
		cfa -= row->cfa_offset;
		break;
	default:
		return false;
	}
	cfa += row->cfa_offset;
	if (base & GADGET_CFA_POINTS && base < GADGET_CFA_PLT)
		cfa = gadget_unwind_user_word(cfa);
	if (cfa <= sp)
		return false;
	bp = gadget_unwind_saved(unwinder, row->frame, row->frame_offset, cfa, unwinder->bp);
	bx = gadget_unwind_saved(unwinder, row->rbx, row->rbx_offset, cfa, unwinder->bx);
	if (bpf_probe_read_user(&unwinder->pc, sizeof(unwinder->pc), (const void *)(cfa - 8)))
		return false;
	unwinder->sp = cfa;
	unwinder->bp = bp;
	unwinder->bx = bx;
	/* Only known where the code is now. */
	unwinder->r10 = 0;
	unwinder->is_call = 1;
	unwinder->is_whole = !unwinder->pc;
	return unwinder->pc;
}

/* One frame. Returns 1 at the end. */
static long gadget_unwind_frame(__u32 index, void *data)
{
	struct gadget_unwind_context *context = data;
	struct gadget_unwinder *unwinder = context->unwinder;
	struct gadget_kept_stack *stack = context->stack;
	__u32 depth = unwinder->depth;

	if (depth >= GADGET_FRAMES)
		return 1;
	/* The agent takes all but the first for return addresses. */
	stack->addresses[depth] = unwinder->pc + (depth && !unwinder->is_call);
	unwinder->depth = depth + 1;
	return !gadget_unwind_to_caller(unwinder);
}

/* Unwinds the stack, if the agent has told of the process. `called`: the registers at a function's first instruction,
 * of whose caller the stack is; NULL: the current stack. */
static __always_inline bool gadget_unwind(struct gadget_kept_stack *stack, struct gadget_unwinder *unwinder,
					  struct pt_regs *called)
{
	struct gadget_unwind_context context = {.unwinder = unwinder, .stack = stack};
	struct gadget_unwind_process *process;
	struct pt_regs *registers;
	__u32 pid = stack->pid, depth, one = 1;

	process = bpf_map_lookup_elem(&gadget_unwind_processes, &pid);
	if (!process || process->program != stack->program) {
		bpf_map_update_elem(&gadget_unwind_wanted, &pid, &one, BPF_ANY);
		return false;
	}
	if (!process->count)
		return false;
	unwinder->process = *process;
	registers = called ?: (void *)bpf_task_pt_regs(bpf_get_current_task_btf());
	unwinder->pc = BPF_CORE_READ(registers, ip);
	unwinder->sp = BPF_CORE_READ(registers, sp);
	unwinder->bp = BPF_CORE_READ(registers, bp);
	unwinder->bx = BPF_CORE_READ(registers, bx);
	unwinder->r10 = BPF_CORE_READ(registers, r10);
	unwinder->pid = pid;
	unwinder->depth = 0;
	unwinder->is_call = 0;
	if (called) {
		unwinder->pc = gadget_unwind_user_word(unwinder->sp);
		unwinder->sp += sizeof(unwinder->pc);
		unwinder->is_call = 1;
	}
	unwinder->is_whole = 0;
	unwinder->mapping.start = unwinder->mapping.end = 0;
	bpf_loop(GADGET_FRAMES, gadget_unwind_frame, &context, 0);
	depth = unwinder->depth;
	if (!unwinder->is_whole && depth < GADGET_FRAMES) {
		stack->addresses[depth] = GADGET_NOT_UNWOUND;
		depth++;
	}
	stack->depth = depth;
	return true;
}

static __always_inline __u64 gadget_unwound(void *context, struct pt_regs *called)
{
	struct gadget_kept_stack *stack = gadget_take_slot(&gadget_stack_slots);
	struct gadget_unwinder *unwinder;
	__u64 id = GADGET_NO_STACK;
	long bytes;

	if (!stack)
		return GADGET_LOST_STACK;
	if (gadget_begin_user_stack(stack, gadget_task())) {
		unwinder = gadget_take_slot(&gadget_unwind_slots);
		if (unwinder && gadget_unwind(stack, unwinder, called)) {
			id = gadget_keep_stack(stack);
		} else {
			bytes = bpf_get_stack(context, stack->addresses, sizeof(stack->addresses), BPF_F_USER_STACK);
			if (bytes > 0) {
				stack->depth = (__u64)bytes / sizeof(__u64);
				if (called)
					gadget_begin_with_caller(stack, called);
				id = gadget_keep_stack(stack);
			}
		}
		if (unwinder)
			gadget_give_back(unwinder);
	}
	gadget_give_back(stack);
	return id;
}

/* As gadget_user_stack(), for a program that the kernel runs in the process itself. */
static __always_inline __u64 gadget_unwound_stack(void *context)
{
	return gadget_unwound(context, NULL);
}

/* As gadget_callers_stack(). */
static __always_inline __u64 gadget_unwound_callers_stack(struct pt_regs *registers)
{
	return gadget_unwound(registers, registers);
}

#else

static __always_inline __u64 gadget_unwound_stack(void *context)
{
	return gadget_user_stack(context);
}

static __always_inline __u64 gadget_unwound_callers_stack(struct pt_regs *registers)
{
	return gadget_callers_stack(registers);
}

#endif

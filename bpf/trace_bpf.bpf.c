// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * trace bpf: emits one `struct trace_bpf` for each call of bpf(2) that loads programs, creates maps, attaches or pins
 * them, or opens existing ones by id; on request, for all calls.
 *
 * Hook: the exit of bpf. The attributes are in memory that the program may have rewritten or unmapped by then, so an
 * object that a call has created is described by the kernel's data. Not seen: programs attached by perf_event_open(2)
 * and ioctl, or by netlink (the loading is).
 */
#include <gadget/files/path_at.h>
#include <gadget/output.h>
#include <gadget/process.h>
#include <gadget/result.h>
#include <gadget/string.h>
#include <gadget/syscall.h>
#include <kernel/bpf.h>

struct trace_bpf {
	struct gadget_record record;
	/* The kernel's id of the program, map or BTF; 0 when there is none. */
	gadget_read_number id;
	gadget_errno errno;
	gadget_fd fd;
	gadget_bpf_command command;
	gadget_bpf_program_type program_type;
	gadget_bpf_map_type map_type;
	/* For programs: instructions; for maps: the sizes. 0 for others. */
	gadget_read_number instructions;
	gadget_read_number key_size;
	gadget_read_number value_size;
	gadget_read_number max_entries;
	/* The name of the program or map. */
	gadget_comm object;
	/* The path where it is pinned, or the name of the raw tracepoint. */
	gadget_string path;
	/* Whether the caller's attributes could be read. */
	enum gadget_known_bool attributes_read;
};

GADGET_RECORD(trace_bpf);

#define BPF_BYTES GADGET_ROOM(sizeof(struct trace_bpf) + GADGET_PATH_BYTES)

const volatile bool every_command = false;

/* The beginning of union bpf_attr, as the caller wrote it: the layout is part of the ABI, so it needs no CO-RE. */
struct attributes {
	__u32 words[20];
};

GADGET_SCRATCH(bpf_scratch, BPF_BYTES);

static __always_inline bool is_of_interest(__u32 command)
{
	switch (command) {
	case BPF_MAP_CREATE:
	case BPF_PROG_LOAD:
	case BPF_OBJ_PIN:
	case BPF_OBJ_GET:
	case BPF_PROG_ATTACH:
	case BPF_PROG_DETACH:
	case BPF_PROG_GET_FD_BY_ID:
	case BPF_MAP_GET_FD_BY_ID:
	case BPF_RAW_TRACEPOINT_OPEN:
	case BPF_BTF_LOAD:
	case BPF_LINK_CREATE:
	case BPF_LINK_UPDATE:
	case BPF_LINK_DETACH:
	case 36: /* BPF_TOKEN_CREATE, since 6.9. */
		return true;
	default:
		return every_command;
	}
}

/* Id, type and name of the program of `fd`. */
static __always_inline void set_program(struct trace_bpf *bpf, __s32 fd)
{
	struct file *file = gadget_file_of(fd);
	struct bpf_prog *program = BPF_CORE_READ(file, private_data);

	bpf->program_type = BPF_CORE_READ(program, type);
	bpf->id = BPF_CORE_READ(program, aux, id);
	BPF_CORE_READ_STR_INTO(&bpf->object, program, aux, name);
}

static __always_inline void set_map(struct trace_bpf *bpf, __s32 fd)
{
	struct file *file = gadget_file_of(fd);
	struct bpf_map *map = BPF_CORE_READ(file, private_data);

	bpf->id = BPF_CORE_READ(map, id);
	bpf->map_type = BPF_CORE_READ(map, map_type);
	bpf->key_size = BPF_CORE_READ(map, key_size);
	bpf->value_size = BPF_CORE_READ(map, value_size);
	bpf->max_entries = BPF_CORE_READ(map, max_entries);
	bpf_core_read_str(bpf->object, sizeof(bpf->object), &map->name);
}

/* Sets the fields without the attributes, which could not be read. */
static __always_inline void set_unread(struct trace_bpf *bpf, long result)
{
	switch (bpf->command) {
	case BPF_PROG_LOAD:
		bpf->instructions = ~0U;
		if (result >= 0)
			set_program(bpf, result);
		else
			bpf->id = ~0U;
		break;
	case BPF_MAP_CREATE:
		if (result >= 0)
			set_map(bpf, result);
		else
			bpf->id = bpf->key_size = bpf->value_size = bpf->max_entries = ~0U;
		break;
	case BPF_PROG_GET_FD_BY_ID:
		bpf->id = ~0U;
		if (result >= 0)
			set_program(bpf, result);
		break;
	case BPF_OBJ_PIN:
	case BPF_OBJ_GET:
	case BPF_RAW_TRACEPOINT_OPEN:
		bpf->id = ~0U;
		gadget_unread(&bpf->path);
		break;
	default:
		bpf->id = ~0U;
	}
}

static __always_inline void set_details(struct trace_bpf *bpf, struct gadget_writer *writer,
					const struct attributes *attributes, long result)
{
	const __u32 *words = attributes->words;
	__u64 pointer = (__u64)words[1] << 32 | words[0];

	switch (bpf->command) {
	case BPF_PROG_LOAD:
		bpf->program_type = words[0];
		bpf->instructions = words[1];
		__builtin_memcpy(bpf->object, &words[12], sizeof(bpf->object));
		if (result >= 0)
			set_program(bpf, result);
		break;
	case BPF_MAP_CREATE:
		bpf->map_type = words[0];
		bpf->key_size = words[1];
		bpf->value_size = words[2];
		bpf->max_entries = words[3];
		__builtin_memcpy(bpf->object, &words[7], sizeof(bpf->object));
		if (result >= 0)
			set_map(bpf, result);
		break;
	case BPF_PROG_GET_FD_BY_ID:
		bpf->id = words[0];
		if (result >= 0)
			set_program(bpf, result);
		break;
	case BPF_MAP_GET_FD_BY_ID:
		bpf->id = words[0];
		break;
	case BPF_OBJ_PIN:
	case BPF_OBJ_GET:
		gadget_append_user_string(writer, &bpf->path, (const void *)pointer, GADGET_PATH_BYTES);
		break;
	case BPF_RAW_TRACEPOINT_OPEN:
		if (pointer)
			gadget_append_user_string(writer, &bpf->path, (const void *)pointer, 127);
		if (result >= 0)
			set_program(bpf, words[2]);
		break;
	case BPF_PROG_ATTACH:
		if (result >= 0)
			set_program(bpf, words[1]);
		break;
	case BPF_LINK_CREATE:
		/* For BPF_STRUCT_OPS, the descriptor is that of a map. */
		if (result >= 0 && words[2] != BPF_STRUCT_OPS)
			set_program(bpf, words[0]);
		break;
	}
}

GADGET_ON_EXIT(bpf)
{
	__u32 command = gadget_argument(registers, 0);
	__u32 size = gadget_argument(registers, 2);
	struct attributes attributes = {};
	struct gadget_writer writer;
	struct trace_bpf *bpf;
	long failed = 0;

	if ((!gadget_wanted_result(result)) || !is_of_interest(command))
		return 0;
	bpf = gadget_scratch(&bpf_scratch);
	if (!bpf || !gadget_begin(&bpf->record))
		return 0;
	/* Older programs pass fewer bytes. */
	if (size > sizeof(attributes))
		size = sizeof(attributes);
	asm volatile("" : "+r"(size));
	if (size <= sizeof(attributes))
		failed = bpf_probe_read_user(&attributes, size, (const void *)gadget_argument(registers, 1));
	__builtin_memset(&bpf->id, 0, sizeof(*bpf) - offsetof(struct trace_bpf, id));
	bpf->command = command;
	bpf->program_type = bpf->map_type = ~0U;
	bpf->errno = result < 0 ? -result : 0;
	/* Commands that return no descriptor return 0. */
	bpf->fd = result > 0 ? result : -1;
	gadget_no_text(&bpf->path);
	writer = gadget_write(bpf, sizeof(*bpf), BPF_BYTES);
	bpf->attributes_read = failed ? GADGET_KNOWN_NO : GADGET_KNOWN_YES;
	if (failed)
		set_unread(bpf, result);
	else
		set_details(bpf, &writer, &attributes, result);
	gadget_send(&writer);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";

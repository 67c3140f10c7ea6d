/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Programs and maps in the kernel, as far as gadgets read them. Only the file operations of a bpf(2) file show whether
 * it is a program or a map, so what a descriptor refers to is known only after a call with it succeeded. */
#pragma once

#include <linux/bpf.h>
#include <linux/types.h>

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct bpf_prog_aux {
	__u32 id;
	char name[16];
};

struct bpf_prog {
	enum bpf_prog_type type;
	__u32 len;
	struct bpf_prog_aux *aux;
};

struct bpf_map {
	enum bpf_map_type map_type;
	__u32 key_size;
	__u32 value_size;
	__u32 max_entries;
	__u32 id;
	char name[16];
};

#pragma clang attribute pop

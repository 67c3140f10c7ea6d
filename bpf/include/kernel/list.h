/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Linked lists. The trap: a list leads from one member to another, in the middle of the structs that it links, so the
 * struct begins bpf_core_field_offset() before what a pointer leads to. */
#pragma once

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct hlist_node {
	struct hlist_node *next;
};

struct hlist_head {
	struct hlist_node *first;
};

#pragma clang attribute pop

/* sizeof(struct hlist_node) in the kernel. */
#define GADGET_HLIST_NODE_BYTES 16

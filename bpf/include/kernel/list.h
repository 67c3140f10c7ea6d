/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Linked lists. The trap: a list links members in the middle of structs, so a struct begins bpf_core_field_offset()
 * before the address in the link. */
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

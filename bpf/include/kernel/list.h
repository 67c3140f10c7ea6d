/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Linked lists. The trap: a link points to a member in the middle of the next struct, so subtract the member's
 * bpf_core_field_offset() from the address. */
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

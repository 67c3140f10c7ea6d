/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * What a gadget of one C file without YAML shares with bpf/single_file.bpf.c, which it is linked with: memory for one
 * line or one struct, on its way to the client.
 *
 * The trap: such a file may include vmlinux.h, whose types clash with all headers of ours. So nothing is included here,
 * and only types that C itself has are used.
 */
#pragma once

/* sizeof(struct gadget_record). */
#define GADGET_HEAD_BYTES 80
/* Of a line or of a struct. */
#define GADGET_SENT_BYTES 1024
/* Programs that may be under way on one CPU at the same time; one more is counted as lost. */
#define GADGET_SENT_SLOTS 4

struct gadget_sent {
	unsigned long long taken;
	/* Bytes of data. */
	unsigned int length;
	/* Of a line: there was more of it. */
	unsigned int cut;
	/* The record begins here. */
	char head[GADGET_HEAD_BYTES];
	char data[GADGET_SENT_BYTES];
};

/* Sends data as a struct of the gadget's own. Returns 0. */
int gadget_send_struct(struct gadget_sent *sent);

/* Sends data as a line of text. Returns 0. */
int gadget_send_line(struct gadget_sent *sent);

/* Counts one that was lost. Returns 0. */
int gadget_lose_sent(void);

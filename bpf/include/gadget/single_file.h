/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The interface between a gadget of one C file without YAML and bpf/single_file.bpf.c, with which it is linked: memory
 * for one line or one struct that is sent to the client.
 *
 * The trap: such a file may include vmlinux.h, whose types conflict with our headers. So nothing is included here, and
 * only built-in types of C are used.
 */
#pragma once

/* sizeof(struct gadget_record). */
#define GADGET_HEAD_BYTES 80
/* The maximum size of a line or a struct. */
#define GADGET_SENT_BYTES 1024
/* The maximum number of outputs in progress on one CPU; further ones are counted as lost. */
#define GADGET_SENT_SLOTS 4

struct gadget_sent {
	unsigned long long taken;
	/* The number of bytes of data. */
	unsigned int length;
	/* For lines: whether the line was cut. */
	unsigned int cut;
	/* The record begins here. */
	char head[GADGET_HEAD_BYTES];
	char data[GADGET_SENT_BYTES];
};

/* Sends the data as a struct that the gadget has defined. Returns 0. */
int gadget_send_struct(struct gadget_sent *sent);

/* Sends the data as a line of text. Returns 0. */
int gadget_send_line(struct gadget_sent *sent);

/* Counts a lost line or struct. Returns 0. */
int gadget_lose_sent(void);

/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Terminals. Only the device number shows that a file is a terminal, and the number of /dev/tty is not that of the
 * terminal that it stands for. */
#pragma once

#include <linux/types.h>

/* include/uapi/linux/major.h; the slaves of pseudo-terminals have numbers from PTY_SLAVES to PTY_SLAVES_END. */
#define TTY_MAJOR 4
#define TTYAUX_MAJOR 5
#define PTY_SLAVES 136
#define PTY_SLAVES_END 144
/* include/linux/tty_driver.h */
#define PTY_TYPE_MASTER 1

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct tty_driver {
	short subtype;
};

/* Since Linux 6.16. */
enum tty_driver_subtype {
	SUBTYPE = 1,
};

struct tty_driver___enum {
	enum tty_driver_subtype subtype;
};

struct tty_struct {
	struct tty_driver *driver;
	char name[64];
};

struct tty_file_private {
	struct tty_struct *tty;
};

#pragma clang attribute pop

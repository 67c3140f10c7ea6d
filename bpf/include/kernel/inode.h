/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The file behind a descriptor. The trap: what a path names and what is open may differ, since files are removed. */
#pragma once

#include <linux/types.h>

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct super_block___device {
	/* 12 bits of major, 20 of minor number. */
	__u32 s_dev;
	unsigned long s_flags;
};

struct inode___file {
	unsigned short i_mode;
	unsigned int i_nlink;
	struct super_block___device *i_sb;
	unsigned long i_ino;
	long long i_size;
};

struct file___inode {
	struct inode___file *f_inode;
	unsigned int f_flags;
	long long f_pos;
};

#pragma clang attribute pop

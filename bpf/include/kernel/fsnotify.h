/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* File watches: inotify and fanotify. Both store a group in the file's `private_data`, so it does not tell which of
 * them it is. */
#pragma once

#define IN_Q_OVERFLOW 0x4000

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct fsnotify_group;

struct fsnotify_mark {
	struct fsnotify_group *group;
};

struct inotify_inode_mark {
	struct fsnotify_mark fsn_mark;
	int wd;
};

#pragma clang attribute pop

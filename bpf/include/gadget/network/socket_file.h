/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Finds the socket of a file or a file descriptor.
 *
 * `private_data` is a socket only if the inode's mode says so; other kinds of files store something else there.
 */
#pragma once

#include <gadget/files/open_file.h>
#include <gadget/task.h>
#include <kernel/fs.h>
#include <kernel/socket.h>

/* NULL when the file is not a socket. Read the result with gadget_read_at(). */
static __always_inline struct sock *gadget_socket_of_file(void *file)
{
	struct socket *socket;

	if ((gadget_read_at(struct file, file, f_inode, i_mode) & S_IFMT) != S_IFSOCK)
		return NULL;
	/* A socket opened by its path, with O_PATH, has none. */
	socket = gadget_read_at(struct file, file, private_data);
	return socket ? gadget_read_at(struct socket, socket, sk) : NULL;
}

/* The socket of descriptor `fd` of the current task; NULL when it is not a socket. */
static __always_inline struct sock *gadget_socket_of_fd(long fd)
{
	void *file = gadget_file_of(fd);

	return file ? gadget_socket_of_file(file) : NULL;
}

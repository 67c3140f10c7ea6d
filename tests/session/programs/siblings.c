// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * Opens /own-thread in a thread, and /own-sibling in a process whose parent is its own parent: neither has executed
 * anything, and whose program a runtime started has both below a process of the node. A container's first process may
 * make no sibling, and opens /own-child in a child.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static void *thread(void *unused)
{
	open("/own-thread", O_RDONLY);
	return unused;
}

int main(void)
{
	pthread_t other;
	long pid;

	pthread_create(&other, NULL, thread, NULL);
	pthread_join(other, NULL);
	pid = syscall(SYS_clone, CLONE_PARENT | SIGCHLD, 0, 0, 0, 0);
	if (pid == 0) {
		open("/own-sibling", O_RDONLY);
		_exit(0);
	}
	if (pid < 0 && fork() == 0) {
		open("/own-child", O_RDONLY);
		_exit(0);
	}
	while (wait(NULL) > 0)
		continue;
	usleep(300000); /* a sibling is another's child */
	return 0;
}

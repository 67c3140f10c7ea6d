// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * Opens /own-thread in a thread, and /own-sibling in a process that has the same parent (CLONE_PARENT). Neither has
 * executed anything, so if a container runtime has started the program, both look like forked copies of a process of
 * the node. The init process of a container may not create siblings, so it opens /own-child in a child instead.
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
	usleep(300000); /* cannot wait for a sibling */
	return 0;
}

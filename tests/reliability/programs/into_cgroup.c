// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* into_cgroup FOLDER FILE: opens FILE in a child that is created in the cgroup FOLDER (CLONE_INTO_CGROUP), so that no
 * process moves there. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int count, char **words)
{
	struct clone_args clone = {.flags = CLONE_INTO_CGROUP, .exit_signal = SIGCHLD};
	long child;
	int status;

	clone.cgroup = open(words[1], O_DIRECTORY | O_RDONLY);
	child = syscall(SYS_clone3, &clone, sizeof(clone));
	if (child == 0)
		_exit(open(words[2], O_RDONLY) < 0);
	return child < 0 || waitpid(child, &status, 0) != child || status;
}

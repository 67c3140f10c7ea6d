// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * What any pod can do with cgroups if its processes are root, without any capability that a pod does not have by
 * default: with user, mount and cgroup namespaces of its own, it mounts cgroup v2, and makes cgroups below its own.
 *
 *   nested as NAME FOLDER PROGRAM [ARGUMENT]...   runs the program in this cgroup; its parent stays in FOLDER
 *   nested flood COUNT                     makes so many cgroups, prints their number, and waits for its end
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *top = "/tmp/cgroups";

static void die(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, strerror(errno));
	exit(1);
}

static void write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY);

	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		die(path);
	close(fd);
}

static void mount_cgroups(void)
{
	if (unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWCGROUP))
		die("unshare");
	write_file("/proc/self/setgroups", "deny");
	write_file("/proc/self/uid_map", "0 0 1");
	write_file("/proc/self/gid_map", "0 0 1");
	mkdir(top, 0700);
	if (mount("none", top, "cgroup2", 0, NULL))
		die("mount");
	if (chdir(top))
		die(top);
}

/* With those above it. */
static void make(char *path)
{
	for (char *end = strchr(path, '/'); end; end = strchr(end + 1, '/')) {
		*end = 0;
		mkdir(path, 0755);
		*end = '/';
	}
	if (mkdir(path, 0755) && errno != EEXIST)
		die(path);
}

static void run_as(char **arguments)
{
	char procs[4096];

	make(arguments[0]);
	snprintf(procs, sizeof(procs), "%s/%s/cgroup.procs", top, arguments[0]);
	if (chdir(arguments[1]))
		die(arguments[1]);
	if (!fork()) {
		write_file(procs, "0");
		execvp(arguments[2], arguments + 2);
		die(arguments[2]);
	}
	while (wait(NULL) > 0 || errno == EINTR)
		;
}

static void flood(int count)
{
	char name[80];
	int made;

	for (made = 0; made < count; made++) {
		/* A container's name, and another one each time. */
		snprintf(name, sizeof(name), "f%063d", made);
		if (mkdir(name, 0755))
			break;
	}
	printf("%d\n", made);
	fflush(stdout);
	pause();
}

int main(int count, char **arguments)
{
	if (count < 2)
		return 2;
	mount_cgroups();
	if (!strcmp(arguments[1], "as") && count > 4)
		run_as(arguments + 2);
	else if (!strcmp(arguments[1], "flood") && count > 2)
		flood(atoi(arguments[2]));
	else
		return 2;
	return 0;
}

/* numbered_opens FOLDER N [MICROSECONDS]: opens FOLDER/CPU/NUMBER, which does not exist, N times on each CPU that it
 * may use, as fast as it can. The number counts from 0, so that a list of the paths shows which are missing. With
 * MICROSECONDS, it sleeps that long after each open. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static const char *folder;
static long times, pause_us;

static void *work(void *argument)
{
	long cpu = (long)argument;
	cpu_set_t set;
	char path[128];

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (pthread_setaffinity_np(pthread_self(), sizeof(set), &set))
		abort();
	for (long number = 0; number < times; number++) {
		snprintf(path, sizeof(path), "%s/%ld/%ld", folder, cpu, number);
		open(path, O_RDONLY);
		if (pause_us)
			usleep(pause_us);
	}
	return NULL;
}

int main(int count, char **words)
{
	pthread_t threads[CPU_SETSIZE];
	cpu_set_t set;
	int started = 0;

	if (count < 3 || count > 4 || sched_getaffinity(0, sizeof(set), &set))
		return 2;
	folder = words[1];
	times = atol(words[2]);
	pause_us = count == 4 ? atol(words[3]) : 0;
	for (long cpu = 0; cpu < CPU_SETSIZE; cpu++)
		if (CPU_ISSET(cpu, &set) && pthread_create(&threads[started++], NULL, work, (void *)cpu))
			return 1;
	for (int thread = 0; thread < started; thread++)
		pthread_join(threads[thread], NULL);
	return 0;
}

// SPDX-License-Identifier: Apache-2.0
// A library for LD_PRELOAD: its program loses BYTES each second, like one with a memory leak.
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void *lose(void *unused)
{
	sigset_t all;

	(void)unused;
	// The program's other threads handle its signals.
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, NULL);
	for (;;) {
		void *lost = malloc(BYTES);

		if (lost)
			memset(lost, 1, BYTES);
		sleep(1);
	}
	return NULL;
}

__attribute__((constructor)) static void begin(void)
{
	pthread_t thread;

	pthread_create(&thread, NULL, lose, NULL);
}

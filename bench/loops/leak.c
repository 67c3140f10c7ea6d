// SPDX-License-Identifier: Apache-2.0
// A library to be preloaded: its program loses BYTES each second, as one with a leak would.
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void *lose(void *unused)
{
	sigset_t all;

	(void)unused;
	// Signals are the program's.
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

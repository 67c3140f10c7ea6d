/* Burns CPU in main → early; from SIGUSR1 on, in first() of the library in its argument, which it loads then. */
#include <dlfcn.h>
#include <signal.h>

static volatile unsigned long sink;
static volatile sig_atomic_t goes_on;

static void handles(int number)
{
	goes_on = number;
}

__attribute__((noipa)) void early(void)
{
	for (int i = 0; i < 100000; i++)
		sink += i;
}

int main(int count, char **arguments)
{
	int (*first)(int);
	void *library;

	signal(SIGUSR1, handles);
	while (!goes_on)
		early();
	library = dlopen(arguments[count - 1], RTLD_NOW);
	if (!library)
		return 1;
	first = (int (*)(int))dlsym(library, "first");
	while (first)
		sink += first(100000);
	return 2;
}

/* Opens a file N times for each line "N" on its standard input, and answers each line. Linked statically, so that there
 * are no other opens. */
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

int main(void)
{
	char line[32];
	ssize_t got;

	while ((got = read(0, line, sizeof(line) - 1)) > 0) {
		line[got] = 0;
		for (long left = atol(line); left > 0; left--)
			close(open("/dev/null", O_RDONLY | O_CLOEXEC));
		if (write(1, "done\n", 5) != 5)
			return 1;
	}
	return 0;
}

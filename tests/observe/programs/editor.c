/* Does to a file what an editor does: opens it, writes 1,275 bytes and closes it. Linked statically. */
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

int main(int count, char **words)
{
	char text[1275];
	int fd = count > 1 ? open(words[1], O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644) : -1;

	memset(text, 'x', sizeof(text));
	return write(fd, text, sizeof(text)) != sizeof(text) || close(fd);
}

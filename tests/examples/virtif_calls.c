/* Calls each function of virtif.h, and prints what it returns. tests/examples/test_languages.py compares that. */
#include "virtif.h"

/* Print the name of an errno. */
static void
say(const char *call, int error)
{
	const char *name = error == 0 ? "0" : error == EEXIST ? "EEXIST" : error == EINVAL ? "EINVAL" : "";

	name = error == E2BIG ? "E2BIG" : error == ENXIO ? "ENXIO" : error == EBUSY ? "EBUSY" : name;
	name = error == ENOENT ? "ENOENT" : error == EACCES ? "EACCES" : name;
	if (*name)
		printf("%s: %s\n", call, name);
	else
		printf("%s: %d\n", call, error);
}

int
main(void)
{
	unsigned char mac[6];
	char frame[60] = {0};
	int fd;

	say("virtif_create(3)", virtif_create(3));
	say("virtif_create(3)", virtif_create(3));
	puts(virtif_error());
	say("virtif_create(-1)", virtif_create(-1));
	puts(virtif_error());
	fd = virtif_open(3);
	printf("write: %zd\n", write(fd, frame, sizeof(frame)));
	say("rump_pub_virtif_create(3)", rump_pub_virtif_create(3));
	puts(virtif_error());
	close(fd);
	say("rump_pub_virtif_create(3)", rump_pub_virtif_create(3));
	say("rump_pub_virtif_create(3)", rump_pub_virtif_create(3));
	printf("write: %zd\n", write(virtif_fd(3), frame, sizeof(frame)));
	say("rump_pub_virtif_create(4)", rump_pub_virtif_create(4));
	say("rump_pub_virtif_create(256)", rump_pub_virtif_create(256));
	say("rump_pub_virtif_create(-1)", rump_pub_virtif_create(-1));
	say("virtif_destroy(3)", virtif_destroy(3));
	printf("virtif_fd: %d %d\n", virtif_fd(3), virtif_fd(1000));
	say("virtif_destroy(3)", virtif_destroy(3));
	say("virtif_destroy(-1)", virtif_destroy(-1));
	say("virtif_open(3)", virtif_open(3) == -1 ? errno : 0);
	puts(virtif_error());
	say("rump_pub_virtif_create(-1)", rump_pub_virtif_create(-1));
	puts(virtif_error());
	say("virtif_open_named(virt3)", virtif_open_named("virt3", mac) == -1 ? errno : 0);
	puts(virtif_error());
	say("virtif_open_named(virt4)", virtif_open_named("virt4", mac) == -1 ? errno : 0);
	puts(virtif_error());
	setenv("VIRTFS", "/nowhere", 1);
	say("virtif_create(3)", virtif_create(3));
	puts(virtif_error());
	say("virtif_open(3)", virtif_open(3) == -1 ? errno : 0);
	puts(virtif_error());
	say("virtif_open_named(3)", virtif_open_named("3", mac) == -1 ? errno : 0);
	puts(virtif_error());
	say("virtif_open_stream(virt3)", virtif_open_stream("virt3", mac) == -1 ? errno : 0);
	puts(virtif_error());
	say("virtif_open_named(/nowhere)", virtif_open_named("/nowhere", mac) == -1 ? errno : 0);
	puts(virtif_error());
	return 0;
}

/*
 * testtool: one static program for what tests want a container's process to do.
 * Each verb does one thing, says so on stdout in one line, and exits 0, or 1 with a line on stderr.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <mqueue.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SHM_SIZE 4096

static int fail(const char *what)
{
	fprintf(stderr, "testtool: %s: %s\n", what, strerror(errno));
	return 1;
}

static long number(char **argv, int index, int argc, long otherwise)
{
	return index < argc ? strtol(argv[index], NULL, 0) : otherwise;
}

static void wait_for_ever(long seconds)
{
	if (seconds >= 0) {
		struct timespec left = {.tv_sec = seconds};
		while (nanosleep(&left, &left) && errno == EINTR)
			;
		return;
	}
	for (;;)
		pause();
}

/* mem MIB [SECONDS]: take and touch that much memory, a MiB at a time, and keep it. */
static int verb_mem(int argc, char **argv)
{
	long mib = number(argv, 0, argc, 16);
	for (long i = 0; i < mib; i++) {
		char *block = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (block == MAP_FAILED)
			return fail("mmap");
		memset(block, (int)i + 1, 1 << 20);
	}
	printf("holding %ld MiB\n", mib);
	wait_for_ever(number(argv, 1, argc, -1));
	return 0;
}

/* fork COUNT [SECONDS]: that many children that wait; says how many there came to be and why no more, and ends them. */
static int verb_fork(int argc, char **argv)
{
	long count = number(argv, 0, argc, 100000), made = 0;
	int error = 0;
	pid_t group = getpid();

	setpgid(0, 0);
	while (made < count) {
		pid_t pid = fork();
		if (pid < 0) {
			error = errno;
			break;
		}
		if (pid == 0) {
			wait_for_ever(-1);
			_exit(0);
		}
		made++;
	}
	printf("forked %ld: %s\n", made, error ? strerror(error) : "all");
	wait_for_ever(number(argv, 1, argc, 0));
	signal(SIGTERM, SIG_IGN);
	kill(-group, SIGTERM);
	while (wait(NULL) > 0)
		;
	return 0;
}

static void *spin(void *unused)
{
	(void)unused;
	for (volatile unsigned long i = 0;; i++)
		;
	return NULL;
}

/* spin [THREADS] [SECONDS]: use as much CPU time as there is; says how much it got. */
static int verb_spin(int argc, char **argv)
{
	long threads = number(argv, 0, argc, 1);
	for (long i = 0; i < threads; i++) {
		pthread_t thread;
		if ((errno = pthread_create(&thread, NULL, spin, NULL)))
			return fail("pthread_create");
	}
	wait_for_ever(number(argv, 1, argc, -1));
	printf("used %.3f s\n", (double)clock() / CLOCKS_PER_SEC);
	return 0;
}

/* shm-write KEY TEXT, shm-read KEY: System V shared memory. */
static int verb_shm_write(int argc, char **argv)
{
	if (argc < 2)
		return errno = EINVAL, fail("KEY TEXT");
	int id = shmget((key_t)number(argv, 0, argc, 1), SHM_SIZE, IPC_CREAT | 0666);
	char *memory = id < 0 ? (void *)-1 : shmat(id, NULL, 0);
	if (memory == (void *)-1)
		return fail("shmget");
	snprintf(memory, SHM_SIZE, "%s", argv[1]);
	puts("written");
	return 0;
}

static int verb_shm_read(int argc, char **argv)
{
	int id = shmget((key_t)number(argv, 0, argc, 1), 0, 0);
	char *memory = id < 0 ? (void *)-1 : shmat(id, NULL, SHM_RDONLY);
	if (memory == (void *)-1)
		return fail("shmget");
	printf("%.*s\n", SHM_SIZE, memory);
	return 0;
}

/* mq-send NAME TEXT, mq-receive NAME: POSIX message queues; NAME begins with a slash. */
static int verb_mq_send(int argc, char **argv)
{
	struct mq_attr attributes = {.mq_maxmsg = 4, .mq_msgsize = 256};
	if (argc < 2)
		return errno = EINVAL, fail("NAME TEXT");
	mqd_t queue = mq_open(argv[0], O_WRONLY | O_CREAT, 0666, &attributes);
	if (queue == (mqd_t)-1 || mq_send(queue, argv[1], strlen(argv[1]), 0))
		return fail("mq_open");
	puts("sent");
	return 0;
}

static int verb_mq_receive(int argc, char **argv)
{
	char text[257];
	mqd_t queue = argc < 1 ? (errno = EINVAL, (mqd_t)-1) : mq_open(argv[0], O_RDONLY | O_NONBLOCK);
	ssize_t length = queue == (mqd_t)-1 ? -1 : mq_receive(queue, text, 256, NULL);
	if (length < 0)
		return fail("mq_open");
	printf("%.*s\n", (int)length, text);
	return 0;
}

/* unix-listen PATH TEXT, unix-connect PATH: a stream socket; PATH with a leading @ is in the abstract namespace. */
static int unix_socket(const char *path, struct sockaddr_un *address, socklen_t *length)
{
	size_t size = strlen(path);
	memset(address, 0, sizeof *address);
	address->sun_family = AF_UNIX;
	if (size >= sizeof address->sun_path)
		return errno = ENAMETOOLONG, -1;
	memcpy(address->sun_path, path, size);
	if (path[0] == '@')
		address->sun_path[0] = 0;
	*length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + size);
	return socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
}

static int verb_unix_listen(int argc, char **argv)
{
	struct sockaddr_un address;
	socklen_t length;
	if (argc < 2)
		return errno = EINVAL, fail("PATH TEXT");
	int fd = unix_socket(argv[0], &address, &length);
	if (fd < 0 || bind(fd, (struct sockaddr *)&address, length) || listen(fd, 8))
		return fail("listen");
	puts("listening");
	for (;;) {
		int client = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
		if (client < 0)
			return fail("accept");
		dprintf(client, "%s\n", argv[1]);
		close(client);
	}
}

static int verb_unix_connect(int argc, char **argv)
{
	struct sockaddr_un address;
	socklen_t size;
	char text[256];
	ssize_t length;
	if (argc < 1)
		return errno = EINVAL, fail("PATH");
	int fd = unix_socket(argv[0], &address, &size);
	if (fd < 0 || connect(fd, (struct sockaddr *)&address, size))
		return fail("connect");
	while ((length = read(fd, text, sizeof text)) > 0)
		fwrite(text, 1, (size_t)length, stdout);
	return length < 0 ? fail("read") : 0;
}

/* caps: the credentials of /proc/self/status, as they are there. */
static int verb_caps(int argc, char **argv)
{
	static const char *const wanted[] = {"Uid:", "Gid:", "Groups:", "Cap", "NoNewPrivs:", "Seccomp:"};
	char line[4096];
	FILE *file = fopen("/proc/self/status", "re");
	(void)argc, (void)argv;
	if (!file)
		return fail("/proc/self/status");
	while (fgets(line, sizeof line, file))
		for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++)
			if (!strncmp(line, wanted[i], strlen(wanted[i])))
				fputs(line, stdout);
	fclose(file);
	return 0;
}

static void on_signal(int number)
{
	char text[64];
	int length = snprintf(text, sizeof text, "signal %d %s\n", number, sigabbrev_np(number));
	if (write(STDOUT_FILENO, text, (size_t)length) < 0)
		_exit(1);
}

/* signals: names every signal it gets and goes on; only SIGKILL ends it. */
static int verb_signals(int argc, char **argv)
{
	(void)argc, (void)argv;
	for (int i = 1; i < NSIG; i++)
		if (i != SIGKILL && i != SIGSTOP && i != SIGCONT)
			signal(i, on_signal);
	puts("ready");
	wait_for_ever(-1);
	return 0;
}

/* chatter COUNT [MICROSECONDS] [BYTES]: numbered lines, one in ten on stderr; COUNT 0 is without end. */
static int verb_chatter(int argc, char **argv)
{
	long count = number(argv, 0, argc, 0), pause_us = number(argv, 1, argc, 1000), bytes = number(argv, 2, argc, 0);
	for (long i = 1; count == 0 || i <= count; i++) {
		FILE *out = i % 10 ? stdout : stderr;
		fprintf(out, "line %09ld", i);
		for (long n = 15; n < bytes; n++)
			putc('x', out);
		putc('\n', out);
		if (fflush(out))
			return fail("write");
		if (pause_us)
			usleep((useconds_t)pause_us);
	}
	return 0;
}

/* syscall NUMBER [ARGUMENT...]: make it; prints the result, or the name of the errno. */
static int verb_syscall(int argc, char **argv)
{
	long a[7];
	for (int i = 0; i < 7; i++)
		a[i] = number(argv, i, argc, 0);
	long result = syscall(a[0], a[1], a[2], a[3], a[4], a[5], a[6]);
	if (result == -1)
		printf("%s\n", strerrorname_np(errno));
	else
		printf("%ld\n", result);
	return 0;
}

static void print_size(int number)
{
	struct winsize size = {0};
	(void)number;
	for (int fd = 0; fd < 3; fd++)
		if (!ioctl(fd, TIOCGWINSZ, &size)) {
			dprintf(1, "size %d %d\n", size.ws_row, size.ws_col);
			return;
		}
}

/* tty: which of its descriptors are terminals, and the size of the window each time it changes. */
static int verb_tty(int argc, char **argv)
{
	printf("tty %d %d %d\n", isatty(0), isatty(1), isatty(2));
	print_size(0);
	signal(SIGWINCH, print_size);
	wait_for_ever(number(argv, 0, argc, -1) > 0 ? number(argv, 0, argc, -1) : -1);
	return 0;
}

/* orphans COUNT: that many grandchildren that end after their parent has, for PID 1 to reap. */
static int verb_orphans(int argc, char **argv)
{
	long count = number(argv, 0, argc, 1);
	for (long i = 0; i < count; i++) {
		pid_t pid = fork();
		if (pid < 0)
			return fail("fork");
		if (pid == 0) {
			if (fork() == 0)
				usleep(100000);
			_exit(0);
		}
		waitpid(pid, NULL, 0);
	}
	printf("left %ld\n", count);
	return 0;
}

/* fds: every open descriptor and what it is. */
static int verb_fds(int argc, char **argv)
{
	char path[300], target[4096];
	struct dirent *entry;
	DIR *directory = opendir("/proc/self/fd");
	(void)argc, (void)argv;
	if (!directory)
		return fail("/proc/self/fd");
	while ((entry = readdir(directory))) {
		if (entry->d_name[0] == '.' || atoi(entry->d_name) == dirfd(directory))
			continue;
		snprintf(path, sizeof path, "/proc/self/fd/%s", entry->d_name);
		ssize_t length = readlink(path, target, sizeof target - 1);
		printf("%s %.*s\n", entry->d_name, length < 0 ? 0 : (int)length, target);
	}
	closedir(directory);
	return 0;
}

/* exit CODE, kill SIGNAL: end that way. pause [SECONDS]: wait. */
static int verb_exit(int argc, char **argv)
{
	return (int)number(argv, 0, argc, 0);
}

static int verb_kill(int argc, char **argv)
{
	int signal_number = (int)number(argv, 0, argc, SIGABRT);
	signal(signal_number, SIG_DFL);
	kill(getpid(), signal_number);
	return fail("still here"); /* PID 1 of a namespace can't kill itself */
}

static int verb_pause(int argc, char **argv)
{
	wait_for_ever(number(argv, 0, argc, -1));
	return 0;
}

static const struct {
	const char *name;
	int (*run)(int argc, char **argv);
} verbs[] = {
	{"mem", verb_mem}, {"fork", verb_fork}, {"spin", verb_spin},
	{"shm-write", verb_shm_write}, {"shm-read", verb_shm_read},
	{"mq-send", verb_mq_send}, {"mq-receive", verb_mq_receive},
	{"unix-listen", verb_unix_listen}, {"unix-connect", verb_unix_connect},
	{"caps", verb_caps}, {"signals", verb_signals}, {"chatter", verb_chatter},
	{"syscall", verb_syscall}, {"tty", verb_tty}, {"orphans", verb_orphans},
	{"fds", verb_fds}, {"exit", verb_exit}, {"kill", verb_kill}, {"pause", verb_pause},
};

int main(int argc, char **argv)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	for (size_t i = 0; argc > 1 && i < sizeof verbs / sizeof *verbs; i++)
		if (!strcmp(argv[1], verbs[i].name))
			return verbs[i].run(argc - 2, argv + 2);
	fprintf(stderr, "usage: testtool VERB [ARGUMENT...]; verbs:");
	for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++)
		fprintf(stderr, " %s", verbs[i].name);
	fprintf(stderr, "\n");
	return 2;
}

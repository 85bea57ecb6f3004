/*
 * Carries out a list of system calls, the last of which is execve(2): what stands between a spawn and a command in a
 * running container, where a fork of the supervisor would cost ten times as much.
 *
 * Processes of the container can send signals to whatever is in their PID namespace, and while a spawn is under way the
 * supervisor stands still with its child. So it spawns this program outside; only a copy that the program makes of itself
 * is inside, a child of the supervisor (CLONE_PARENT), which hears of its pid by descriptor 3.
 *
 * The list (podrt/linux/steps.py writes it) is descriptor 6, made to be mapped at BASE: a header, then what the calls
 * point to, then the calls. It decides nothing: a call that fails with an error that its step doesn't tolerate ends it,
 * and descriptor 3 gets the token of argv[1], the number of the step and the errno. Without a C library, so that it has
 * nothing to load and nothing that could be loaded for it.
 */

#if defined(__x86_64__)
enum { NR_mmap = 9, NR_write = 1, NR_exit_group = 231, NR_setns = 308, NR_setsid = 112, NR_prctl = 157 };
#elif defined(__aarch64__)
enum { NR_mmap = 222, NR_write = 64, NR_exit_group = 94, NR_setns = 268, NR_setsid = 157, NR_prctl = 167 };
#else
#error "steps.c: add the system call numbers of this architecture"
#endif

typedef unsigned long word;

#define BASE 0x100000000UL
enum { NR_clone3 = 435 };
enum { REPORT = 3, PIDFD = 4, CGROUP = 5, LIST = 6, MAX_BYTES = 1 << 20, TOKEN = 16, FAILED = 125, MAX_ERRNO = 4095 };
enum { NOT_BEGUN = -1, STARTED = -2 }; /* instead of a step: errno of what comes before the list; pid of the copy */
enum { CLONE_NEWPID = 0x20000000, CLONE_PARENT = 0x8000 };
#define CLONE_INTO_CGROUP 0x200000000UL
enum { PR_SET_DUMPABLE = 4 };
/* PROT_READ | PROT_WRITE; MAP_PRIVATE | MAP_POPULATE | MAP_FIXED_NOREPLACE */
enum { PROTECTION = 3, MAPPING = 0x2 | 0x8000 | 0x100000 };

#define EXPECT ((word)-1) /* no system call: (*address & mask) == value, else errno */

struct step {
	word number;
	word arguments[5];
	word tolerated; /* bit n: errno n is no failure */
};

struct list {
	word count;
	struct step *steps;
};

static word call(word number, word a, word b, word c, word d, word e, word f)
{
#if defined(__x86_64__)
	register word r10 __asm__("r10") = d;
	register word r8 __asm__("r8") = e;
	register word r9 __asm__("r9") = f;
	word result;
	__asm__ volatile("syscall"
			 : "=a"(result)
			 : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return result;
#else
	register word x8 __asm__("x8") = number;
	register word x0 __asm__("x0") = a;
	register word x1 __asm__("x1") = b;
	register word x2 __asm__("x2") = c;
	register word x3 __asm__("x3") = d;
	register word x4 __asm__("x4") = e;
	register word x5 __asm__("x5") = f;
	__asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
	return x0;
#endif
}

/* The errno of one step, 0 if all is well. */
static word carry_out(const struct step *step)
{
	const word *a = step->arguments;
	word result;

	if (step->number == EXPECT)
		return (*(const word *)a[0] & a[1]) == a[2] ? 0 : a[3];
	result = call(step->number, a[0], a[1], a[2], a[3], a[4], 0);
	if (result < (word)-MAX_ERRNO)
		return 0;
	result = -result;
	return result < 64 && step->tolerated >> result & 1 ? 0 : result;
}

/*
 * -errno, or the pid of the copy; 0 in the copy. The memory that it has is not for the container's processes to read.
 * It is born in its cgroup, for there is no moving into one of cgroup2 without waiting for the kernel's RCU.
 */
static word enter(void)
{
	/* flags, pidfd, child_tid, parent_tid, exit_signal (its parent hears of it as of this one), stack, its size, tls,
	   set_tid, its size, cgroup */
	word how[11] = { CLONE_PARENT | CLONE_INTO_CGROUP, 0, 0, 0, 0, 0, 0, 0, 0, 0, CGROUP };
	word result = call(NR_prctl, PR_SET_DUMPABLE, 0, 0, 0, 0, 0);

	if (!result)
		result = call(NR_setns, PIDFD, CLONE_NEWPID, 0, 0, 0, 0);
	return result ? result : call(NR_clone3, (word)how, sizeof how, 0, 0, 0, 0);
}

__attribute__((noreturn, used)) static void run(const word *stack)
{
	struct { char token[TOKEN]; word step, error; } report = { .step = (word)NOT_BEGUN };
	const struct list *list = (const struct list *)BASE;
	word result;

	/* stack: argc, argv[0], argv[1] */
	for (int i = 0; stack[0] == 2 && i < TOKEN; i++)
		report.token[i] = ((const char *)stack[2])[i];
	result = enter();
	if (result && result < (word)-MAX_ERRNO) {
		report.step = (word)STARTED;
		report.error = result;
	} else if (result || (result = call(NR_mmap, BASE, MAX_BYTES, PROTECTION, MAPPING, LIST, 0)) != BASE) {
		report.error = -result;
	} else {
		call(NR_setsid, 0, 0, 0, 0, 0, 0); /* can't fail: its pid is new */
		for (word i = 0; i < list->count && !report.error; i++) {
			report.step = i;
			report.error = carry_out(&list->steps[i]);
		}
	}
	call(NR_write, REPORT, (word)&report, sizeof report, 0, 0, 0);
	for (;;)
		call(NR_exit_group, FAILED, 0, 0, 0, 0, 0);
}

#if defined(__x86_64__)
__asm__(".globl _start\n_start:\n\tmov %rsp, %rdi\n\tand $-16, %rsp\n\tcall run\n");
#else
__asm__(".globl _start\n_start:\n\tmov x0, sp\n\tbl run\n");
#endif

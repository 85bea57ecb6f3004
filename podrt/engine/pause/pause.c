/*
 * PID 1 of a sandbox whose containers share a PID namespace: it reaps orphans and ends on SIGTERM or SIGINT.
 *
 * Without a C library, so that it costs a few pages: it only waits for signals. Signals are blocked and taken one by one
 * with rt_sigtimedwait(2); as PID 1 it would otherwise never see those it has no handler for.
 */

#if defined(__x86_64__)
enum { NR_sigprocmask = 14, NR_wait4 = 61, NR_sigtimedwait = 128, NR_exit_group = 231 };
#elif defined(__aarch64__)
enum { NR_sigprocmask = 135, NR_wait4 = 260, NR_sigtimedwait = 137, NR_exit_group = 94 };
#else
#error "pause.c: add the system call numbers of this architecture"
#endif

enum { SIGINT = 2, SIGTERM = 15, SIGCHLD = 17, SIG_BLOCK = 0, WNOHANG = 1, SET_BYTES = 8 };

static long call(long number, long a, long b, long c, long d)
{
#if defined(__x86_64__)
	register long r10 __asm__("r10") = d;
	long result;
	__asm__ volatile("syscall"
			 : "=a"(result)
			 : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10)
			 : "rcx", "r11", "memory");
	return result;
#else
	register long x8 __asm__("x8") = number;
	register long x0 __asm__("x0") = a;
	register long x1 __asm__("x1") = b;
	register long x2 __asm__("x2") = c;
	register long x3 __asm__("x3") = d;
	__asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3) : "memory");
	return x0;
#endif
}

void _start(void)
{
	unsigned long set = 1UL << (SIGINT - 1) | 1UL << (SIGTERM - 1) | 1UL << (SIGCHLD - 1);

	call(NR_sigprocmask, SIG_BLOCK, (long)&set, 0, SET_BYTES);
	for (;;) {
		long number = call(NR_sigtimedwait, (long)&set, 0, 0, SET_BYTES);

		if (number == SIGCHLD)
			while (call(NR_wait4, -1, 0, WNOHANG, 0) > 0)
				;
		else if (number == SIGINT || number == SIGTERM)
			call(NR_exit_group, 0, 0, 0, 0);
	}
}

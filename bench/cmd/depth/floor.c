//go:build ignore

/* What two threads can do at best with the kernel: hand a word to each other,
 * each sleeping on a futex until it is its turn.
 *
 *     floor CPU_A CPU_B MILLISECONDS
 *
 * binds one thread to each of the processors, which may be the same, and prints
 * the nanoseconds of a round trip. */

#define _GNU_SOURCE
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define END UINT32_MAX

struct word {
	_Alignas(128) _Atomic uint32_t value;
};

static struct word there, back;

static void bind(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (pthread_setaffinity_np(pthread_self(), sizeof set, &set) != 0) {
		fprintf(stderr, "floor: cannot bind to processor %d\n", cpu);
		exit(1);
	}
}

static void hand_over(struct word *w, uint32_t x)
{
	atomic_store(&w->value, x);
	syscall(SYS_futex, &w->value, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

/* Sleeps until the word is no longer old, and returns what it is. */
static uint32_t await(struct word *w, uint32_t old)
{
	uint32_t x;

	while ((x = atomic_load(&w->value)) == old)
		syscall(SYS_futex, &w->value, FUTEX_WAIT_PRIVATE, old, NULL, NULL, 0);
	return x;
}

static void *echo(void *cpu)
{
	uint32_t x = 0;

	bind(*(int *)cpu);
	while ((x = await(&there, x)) != END)
		hand_over(&back, x);
	return NULL;
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e9 + t.tv_nsec;
}

/* Does round trips for a time, and returns what one has taken. */
static double round_trip(uint32_t *x, double nanoseconds)
{
	double start = now(), took;
	int done = 0;

	do {
		for (int i = 0; i < 64; i++, done++) {
			hand_over(&there, ++*x);
			await(&back, *x - 1);
		}
		took = now() - start;
	} while (took < nanoseconds);
	return took / done;
}

int main(int argc, char **argv)
{
	pthread_t other;
	uint32_t x = 0;
	int cpu;
	double budget;

	if (argc != 4)
		return 2;
	cpu = atoi(argv[2]);
	budget = atof(argv[3]) * 1e6;
	bind(atoi(argv[1]));
	if (pthread_create(&other, NULL, echo, &cpu) != 0)
		return 1;
	round_trip(&x, budget / 8);
	printf("%.1f\n", round_trip(&x, budget));
	hand_over(&there, END);
	return pthread_join(other, NULL);
}

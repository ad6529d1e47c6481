/* Preloaded into a server: its processes see a clock that is as far off as a shared file tells. Clocks that only go on
 * (CLOCK_MONOTONIC) are left alone, as they are when an administrator sets the time. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

/* Microseconds, as the campaign writes them: src/parts/clocks.rs. */
static _Atomic int64_t *off;
static int (*real_clock)(clockid_t, struct timespec *);

__attribute__((constructor)) static void map_control(void)
{
	real_clock = (int (*)(clockid_t, struct timespec *)) dlsym(RTLD_NEXT, "clock_gettime");
	const char *path = getenv("FHIR_BULK_CONTROL");
	int fd = path ? open(path, O_RDWR) : -1;
	if (fd < 0)
		return;
	void *mapped = mmap(NULL, sizeof(*off), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (mapped != MAP_FAILED)
		off = mapped;
	close(fd);
}

int clock_gettime(clockid_t clock, struct timespec *at)
{
	if (!real_clock)
		map_control();
	int result = real_clock(clock, at);
	if (result == 0 && off && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
		int64_t micros = at->tv_sec * INT64_C(1000000) + at->tv_nsec / 1000 + atomic_load(off);
		at->tv_sec = micros / 1000000;
		at->tv_nsec = micros % 1000000 * 1000;
	}
	return result;
}

int gettimeofday(struct timeval *at, void *zone)
{
	(void) zone;
	struct timespec now;
	if (clock_gettime(CLOCK_REALTIME, &now) != 0)
		return -1;
	at->tv_sec = now.tv_sec;
	at->tv_usec = now.tv_nsec / 1000;
	return 0;
}

time_t time(time_t *at)
{
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	if (at)
		*at = now.tv_sec;
	return now.tv_sec;
}

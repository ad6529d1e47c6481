/* Preloaded into a server: system calls fail at random in processes that have loaded fhir_bulk, as a shared
 * file tells. What PostgreSQL's other processes do, and its write-ahead log, is left alone: it panics there by design. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

/* As the campaign writes it: src/parts/faults.rs. */
struct control {
	_Atomic uint32_t calls;    /* bits of enum call: which fail */
	_Atomic uint32_t places;   /* bits of enum place: on which files */
	_Atomic uint32_t rate;     /* of 65536 */
	_Atomic uint32_t error;    /* errno, or 0 for a part of the bytes */
	_Atomic uint32_t done;     /* how many failed */
};

enum call { OPEN = 1, WRITE = 2, READ = 4, SYNC = 8, THREAD = 16 };
enum place { TEMPORARY = 1, RELATION = 2, EXPORT = 4, SOURCE = 8 };

#define DESCRIPTORS 65536
static unsigned char place_of[DESCRIPTORS];
static struct control *control;
static atomic_int loaded;
static __thread uint64_t state;
static __thread int inside;

#define REAL(name) \
	static __typeof__(name) *real; \
	if (!real) { inside++; real = (__typeof__(name) *) dlsym(RTLD_NEXT, #name); inside--; }

__attribute__((constructor)) static void map_control(void)
{
	const char *path = getenv("FHIR_BULK_CONTROL");
	int fd = path ? open(path, O_RDWR) : -1;
	if (fd < 0)
		return;
	void *mapped = mmap(NULL, sizeof(struct control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (mapped != MAP_FAILED)
		control = mapped;
	close(fd);
}

static int fails(uint32_t call, int place)
{
	if (!control || inside || !atomic_load(&loaded) || !(atomic_load(&control->calls) & call))
		return 0;
	if (call != THREAD && !(atomic_load(&control->places) & place))
		return 0;
	if (!state)
		state = (uint64_t) getpid() * 0x9E3779B97F4A7C15u ^ (uint64_t) time(NULL) << 20 ^ (uintptr_t) &state;
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	if ((state >> 24 & 65535) >= atomic_load(&control->rate))
		return 0;
	atomic_fetch_add(&control->done, 1);
	return 1;
}

static int place(const char *path)
{
	if (strstr(path, "pgsql_tmp"))
		return TEMPORARY;
	if (strncmp(path, "base/", 5) == 0)
		return RELATION;
	if (strstr(path, "/exports/"))
		return EXPORT;
	if (strstr(path, ".ndjson"))
		return SOURCE;
	return 0;
}

static int place_of_fd(int fd) { return fd >= 0 && fd < DESCRIPTORS ? place_of[fd] : 0; }

static int opened(const char *path, int fd)
{
	if (fd >= 0 && fd < DESCRIPTORS)
		place_of[fd] = place(path);
	return fd;
}

#define OPENS(name, flags_at, ...) \
	REAL(name) \
	mode_t mode = 0; \
	if (flags_at & (O_CREAT | O_TMPFILE)) { va_list more; va_start(more, flags_at); mode = va_arg(more, mode_t); va_end(more); } \
	if (fails(OPEN, place(path))) { errno = atomic_load(&control->error) ? (int) atomic_load(&control->error) : EMFILE; return -1; } \
	return opened(path, real(__VA_ARGS__, mode));

int open(const char *path, int flags, ...) { OPENS(open, flags, path, flags) }
int open64(const char *path, int flags, ...) { OPENS(open64, flags, path, flags) }
int openat(int folder, const char *path, int flags, ...) { OPENS(openat, flags, folder, path, flags) }
int openat64(int folder, const char *path, int flags, ...) { OPENS(openat64, flags, folder, path, flags) }

/* A call on a file: an error, or about half of the bytes. */
#define MOVES(name, call, size, whole, half) \
	REAL(name) \
	if (fails(call, place_of_fd(fd))) { \
		int error = (int) atomic_load(&control->error); \
		if (error) { errno = error; return -1; } \
		if (size > 1) return half; \
	} \
	return whole;

ssize_t write(int fd, const void *from, size_t size)
{ MOVES(write, WRITE, size, real(fd, from, size), real(fd, from, size / 2)) }
ssize_t pwrite(int fd, const void *from, size_t size, off_t at)
{ MOVES(pwrite, WRITE, size, real(fd, from, size, at), real(fd, from, size / 2, at)) }
ssize_t pwrite64(int fd, const void *from, size_t size, off64_t at)
{ MOVES(pwrite64, WRITE, size, real(fd, from, size, at), real(fd, from, size / 2, at)) }
ssize_t writev(int fd, const struct iovec *from, int count)
{ MOVES(writev, WRITE, count, real(fd, from, count), real(fd, from, count / 2)) }
ssize_t read(int fd, void *to, size_t size)
{ MOVES(read, READ, size, real(fd, to, size), real(fd, to, size / 2)) }
ssize_t pread(int fd, void *to, size_t size, off_t at)
{ MOVES(pread, READ, size, real(fd, to, size, at), real(fd, to, size / 2, at)) }
ssize_t pread64(int fd, void *to, size_t size, off64_t at)
{ MOVES(pread64, READ, size, real(fd, to, size, at), real(fd, to, size / 2, at)) }

int fsync(int fd)
{
	REAL(fsync)
	if (fails(SYNC, place_of_fd(fd))) { errno = EIO; return -1; }
	return real(fd);
}

int fdatasync(int fd)
{
	REAL(fdatasync)
	if (fails(SYNC, place_of_fd(fd))) { errno = EIO; return -1; }
	return real(fd);
}

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *), void *argument)
{
	REAL(pthread_create)
	if (fails(THREAD, 0)) return EAGAIN;
	return real(thread, attributes, start, argument);
}

void *dlopen(const char *path, int flags)
{
	REAL(dlopen)
	inside++;
	void *library = real(path, flags);
	inside--;
	if (library && path && strstr(path, "fhir_bulk"))
		atomic_store(&loaded, 1);
	return library;
}

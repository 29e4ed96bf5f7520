/* Loaded into a program by LD_PRELOAD: makes the files below one folder slow, or the disk that they are on full.
 *
 * DISK_FOLDER names the folder. DISK_CONTROL names a file of 16 bytes that is mapped into memory, so that whoever
 * writes to it changes what this does at once: the mode (0 passes everything, 1 is slow, 2 is full), the delay in
 * microseconds, and a count of the calls that were hit.
 *
 * A full disk refuses what needs space (writing, allocating) and allows what does not (creating, truncating, syncing,
 * removing). A slow disk is slow at all of it. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

struct control {
    _Atomic unsigned mode, delay_us;
    _Atomic unsigned long hits;
};

enum { PASS, SLOW, FULL };

static struct control *control;
static char folder[PATH_MAX];
static size_t folder_length;

__attribute__((constructor)) static void load(void)
{
    const char *name = getenv("DISK_FOLDER"), *file = getenv("DISK_CONTROL");
    if (!name || !file || !realpath(name, folder))
        return;
    folder_length = strlen(folder);
    int fd = open(file, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return;
    void *mapped = mmap(NULL, sizeof(struct control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (mapped != MAP_FAILED)
        control = mapped;
}

static int below(int fd)
{
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < (ssize_t)folder_length)
        return 0;
    path[length] = 0;
    return !strncmp(path, folder, folder_length) && (path[folder_length] == '/' || !path[folder_length]);
}

/* Is the disk full for this call? Waits first if it is slow. */
static int hit(int fd, int needs_space)
{
    unsigned mode = control ? control->mode : PASS;
    if (mode == PASS || (mode == FULL && !needs_space))
        return 0;
    int error = errno;
    if (!below(fd)) {
        errno = error;
        return 0;
    }
    control->hits++;
    if (mode == SLOW)
        usleep(control->delay_us);
    errno = mode == FULL ? ENOSPC : error;
    return mode == FULL;
}

#define REAL(name) \
    static __typeof__(name) *real; \
    if (!real) \
        real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

#define INTERPOSE(result, name, parameters, arguments, needs_space) \
    result name parameters \
    { \
        REAL(name); \
        return hit(fd, needs_space) ? -1 : real arguments; \
    }

/* These return the error instead of setting errno. */
#define INTERPOSE_CODE(name, parameters, arguments) \
    int name parameters \
    { \
        REAL(name); \
        return hit(fd, 1) ? ENOSPC : real arguments; \
    }

INTERPOSE(ssize_t, write, (int fd, const void *data, size_t size), (fd, data, size), 1)
INTERPOSE(ssize_t, pwrite, (int fd, const void *data, size_t size, off_t at), (fd, data, size, at), 1)
INTERPOSE(ssize_t, pwrite64, (int fd, const void *data, size_t size, off64_t at), (fd, data, size, at), 1)
INTERPOSE(ssize_t, writev, (int fd, const struct iovec *data, int count), (fd, data, count), 1)
INTERPOSE(ssize_t, pwritev, (int fd, const struct iovec *data, int count, off_t at), (fd, data, count, at), 1)
INTERPOSE(ssize_t, pwritev64, (int fd, const struct iovec *data, int count, off64_t at), (fd, data, count, at), 1)
INTERPOSE(int, fallocate, (int fd, int mode, off_t at, off_t size), (fd, mode, at, size), 1)
INTERPOSE(int, fallocate64, (int fd, int mode, off64_t at, off64_t size), (fd, mode, at, size), 1)
INTERPOSE_CODE(posix_fallocate, (int fd, off_t at, off_t size), (fd, at, size))
INTERPOSE_CODE(posix_fallocate64, (int fd, off64_t at, off64_t size), (fd, at, size))
INTERPOSE(int, fsync, (int fd), (fd), 0)
INTERPOSE(int, fdatasync, (int fd), (fd), 0)
INTERPOSE(int, ftruncate, (int fd, off_t size), (fd, size), 0)
INTERPOSE(int, ftruncate64, (int fd, off64_t size), (fd, size), 0)

/* Fails one call of a process on the files of a store, as the system would. Loaded with LD_PRELOAD.
 *
 *   FAULT_PATH=/store    calls on this directory and what is below it are counted from 1, over all threads
 *   FAULT_LOG=file       without FAULT_AT each call adds a line, "NAME PATH"; with it the one that was hit does
 *   FAULT_AT=12          the call that fails
 *   FAULT_KIND=EIO       how: an error's name; half, one: a short write whose first bytes land; drop: a write that claims
 *                        to have happened; kill: SIGKILL instead of the call
 *   FAULT_KILL=3         so many calls after the one that failed, the process is killed
 *   FAULT_HIDE=ENOSPC    writes, reservations and syncs that find no room claim to have happened; EFBIG: so do those
 *                        over the size that a file may have
 *
 * strace does nearly the same, but it counts by thread, its short writes leave no bytes, and it is slower. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <unistd.h>

enum { GO_ON = 0, HALF = -1, ONE = -2, DROP = -3 };

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static atomic_long calls;

static void note(const char *what, const char *path) {
    const char *log = getenv("FAULT_LOG");
    char line[4200];
    int length = snprintf(line, sizeof line, "%s %s\n", what, path);
    int file = log == NULL ? -1 : (int)syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (file < 0) return;
    syscall(SYS_write, file, line, (long)length);
    syscall(SYS_close, file);
}

static int kind(void) {
    static const struct {
        const char *name;
        int value;
    } kinds[] = {{"EIO", EIO},       {"ENOSPC", ENOSPC}, {"EINTR", EINTR}, {"EMFILE", EMFILE},
                 {"ENOMEM", ENOMEM}, {"half", HALF},     {"one", ONE},     {"drop", DROP}};
    const char *wanted = getenv("FAULT_KIND");
    for (size_t index = 0; wanted != NULL && index < sizeof kinds / sizeof *kinds; index++)
        if (!strcmp(kinds[index].name, wanted)) return kinds[index].value;
    raise(SIGKILL);
    return GO_ON;
}

/* What becomes of a call on a path: an error, something else of the list above, or nothing. */
static int fault(const char *name, const char *path) {
    const char *store = getenv("FAULT_PATH"), *at = getenv("FAULT_AT"), *death = getenv("FAULT_KILL");
    size_t length = store == NULL ? 0 : strlen(store);
    if (length == 0 || strncmp(path, store, length) || (path[length] != 0 && path[length] != '/')) return GO_ON;
    long call = atomic_fetch_add(&calls, 1) + 1;
    if (at == NULL) {
        note(name, path);
        return GO_ON;
    }
    if (death != NULL && call >= atol(at) + atol(death)) raise(SIGKILL);
    if (call != atol(at)) return GO_ON;
    note(name, path);
    return kind();
}

static int fault_fd(const char *name, int fd) {
    char link[64], path[4096];
    int kept = errno;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    errno = kept;
    if (length < 0) return GO_ON;
    path[length] = 0;
    return fault(name, path);
}

static int fault_at(const char *name, int directory, const char *path) {
    char link[64], whole[8192];
    if (path[0] == '/') return fault(name, path);
    snprintf(link, sizeof link, "/proc/self/fd/%d", directory);
    ssize_t length = readlink(link, whole, 4095);
    if (length < 0) return GO_ON;
    snprintf(whole + length, sizeof whole - (size_t)length, "/%s", path);
    return fault(name, whole);
}

#define FAIL(what) \
    do { \
        int error = (what); \
        if (error > 0) { \
            errno = error; \
            return -1; \
        } \
    } while (0)

/* How many bytes of a write land. */
static size_t part(int what, size_t count) {
    if (count < 2 || what == GO_ON) return count;
    return what == HALF ? count / 2 : 1;
}

/* The result of a call, or another one when it failed and nobody shall know. */
static ssize_t hidden(ssize_t result, ssize_t instead) {
    const char *error = getenv("FAULT_HIDE");
    if (result >= 0 || error == NULL) return result;
    if (errno == ENOSPC && !strcmp(error, "ENOSPC")) return instead;
    return errno == EFBIG && !strcmp(error, "EFBIG") ? instead : result;
}

ssize_t pwrite(int fd, const void *buffer, size_t count, off_t offset) {
    int what = fault_fd("pwrite", fd);
    FAIL(what);
    if (what == DROP) return (ssize_t)count;
    return hidden(REAL(pwrite)(fd, buffer, part(what, count), offset), (ssize_t)count);
}

ssize_t pwrite64(int fd, const void *buffer, size_t count, off_t offset) { return pwrite(fd, buffer, count, offset); }

ssize_t write(int fd, const void *buffer, size_t count) {
    int what = fault_fd("write", fd);
    FAIL(what);
    return what == DROP ? (ssize_t)count : REAL(write)(fd, buffer, part(what, count));
}

/* Short means that only the first buffer lands, and of a single one a part. */
ssize_t writev(int fd, const struct iovec *buffers, int count) {
    int what = fault_fd("writev", fd);
    FAIL(what);
    if (what == GO_ON) {
        ssize_t whole = 0;
        for (int index = 0; index < count; index++) whole += (ssize_t)buffers[index].iov_len;
        return hidden(REAL(writev)(fd, buffers, count), whole);
    }
    return REAL(write)(fd, buffers[0].iov_base, part(what, buffers[0].iov_len));
}

ssize_t pread(int fd, void *buffer, size_t count, off_t offset) {
    FAIL(fault_fd("pread", fd));
    return REAL(pread)(fd, buffer, count, offset);
}

ssize_t read(int fd, void *buffer, size_t count) {
    FAIL(fault_fd("read", fd));
    return REAL(read)(fd, buffer, count);
}

int fsync(int fd) {
    FAIL(fault_fd("fsync", fd));
    return REAL(fsync)(fd);
}

int fdatasync(int fd) {
    FAIL(fault_fd("fdatasync", fd));
    return (int)hidden(REAL(fdatasync)(fd), 0);
}

int ftruncate(int fd, off_t length) {
    FAIL(fault_fd("ftruncate", fd));
    return REAL(ftruncate)(fd, length);
}

int fallocate(int fd, int mode, off_t offset, off_t length) {
    FAIL(fault_fd("fallocate", fd));
    return (int)hidden(REAL(fallocate)(fd, mode, offset, length), 0);
}

int flock(int fd, int operation) {
    FAIL(fault_fd("flock", fd));
    return REAL(flock)(fd, operation);
}

int fstat(int fd, struct stat *status) {
    FAIL(fault_fd("fstat", fd));
    return REAL(fstat)(fd, status);
}

int fstatfs(int fd, struct statfs *status) {
    FAIL(fault_fd("fstatfs", fd));
    return REAL(fstatfs)(fd, status);
}

int fstatvfs(int fd, struct statvfs *status) {
    FAIL(fault_fd("fstatvfs", fd));
    return REAL(fstatvfs)(fd, status);
}

/* The descriptor is gone, whatever close returns. */
int close(int fd) {
    int what = fault_fd("close", fd);
    int result = REAL(close)(fd);
    FAIL(what);
    return result;
}

int mkdir(const char *path, mode_t mode) {
    FAIL(fault_at("mkdir", AT_FDCWD, path));
    return REAL(mkdir)(path, mode);
}

int mkdirat(int directory, const char *path, mode_t mode) {
    FAIL(fault_at("mkdirat", directory, path));
    return REAL(mkdirat)(directory, path, mode);
}

int unlinkat(int directory, const char *path, int flags) {
    FAIL(fault_at("unlinkat", directory, path));
    return REAL(unlinkat)(directory, path, flags);
}

int renameat(int from, const char *old, int to, const char *new) {
    FAIL(fault_at("renameat", from, old));
    return REAL(renameat)(from, old, to, new);
}

DIR *fdopendir(int fd) {
    int what = fault_fd("fdopendir", fd);
    if (what > 0) {
        errno = what;
        return NULL;
    }
    return REAL(fdopendir)(fd);
}

void *mmap(void *address, size_t length, int protection, int flags, int fd, off_t offset) {
    int what = fd < 0 ? GO_ON : fault_fd("mmap", fd);
    if (what > 0) {
        errno = what;
        return MAP_FAILED;
    }
    return REAL(mmap)(address, length, protection, flags, fd, offset);
}

int fcntl(int fd, int command, ...) {
    va_list rest;
    va_start(rest, command);
    void *argument = va_arg(rest, void *);
    va_end(rest);
    int isLock = command == F_SETLK || command == F_SETLKW || command == F_OFD_SETLK || command == F_OFD_SETLKW;
    if (isLock) FAIL(fault_fd("fcntl", fd));
    return REAL(fcntl)(fd, command, argument);
}

int open(const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    FAIL(fault_at("open", AT_FDCWD, path));
    return REAL(open)(path, flags, mode);
}

/* openat2 has no function in the C library. */
long syscall(long number, ...) {
    va_list rest;
    long words[6];
    va_start(rest, number);
    for (int index = 0; index < 6; index++) words[index] = va_arg(rest, long);
    va_end(rest);
    if (number == SYS_openat2) FAIL(fault_at("openat2", (int)words[0], (const char *)words[1]));
    return REAL(syscall)(number, words[0], words[1], words[2], words[3], words[4], words[5]);
}

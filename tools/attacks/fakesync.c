/* Syncs that say "done" and do nothing, for negative controls, or that take long. Loaded with LD_PRELOAD into the process
 * under attack.
 *
 *   STALK_FAKE_SYNC=all           every sync, of files and of directories; O_DSYNC is dropped as well
 *   STALK_FAKE_SYNC=directories   syncs of directories alone
 *   STALK_FAKE_SYNC=errors        syncs are done, but never fail
 *   STALK_FAKE_SYNC=slow          syncs of data take 40 ms more
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static int has_mode(const char *wanted) {
    const char *mode = getenv("STALK_FAKE_SYNC");
    return mode && !strcmp(mode, wanted);
}

static int fakes_all(void) { return has_mode("all"); }

static int is_faked(int fd) {
    struct stat status;
    if (fakes_all()) return 1;
    return has_mode("directories") && fstat(fd, &status) == 0 && S_ISDIR(status.st_mode);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static int hidden(int result) { return has_mode("errors") ? 0 : result; }

int fsync(int fd) { return is_faked(fd) ? 0 : hidden(REAL(fsync)(fd)); }

int fdatasync(int fd) {
    if (has_mode("slow")) usleep(40000);
    return is_faked(fd) ? 0 : hidden(REAL(fdatasync)(fd));
}

int syncfs(int fd) { return fakes_all() ? 0 : REAL(syncfs)(fd); }

int msync(void *start, size_t length, int flags) { return fakes_all() ? 0 : REAL(msync)(start, length, flags); }

/* LMDB writes its meta pages through a descriptor that syncs by itself. */
static int without_sync(int flags) { return fakes_all() ? flags & ~(O_SYNC | O_DSYNC) : flags; }

int open(const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    return REAL(open)(path, without_sync(flags), mode);
}

int open64(const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    return REAL(open64)(path, without_sync(flags), mode);
}

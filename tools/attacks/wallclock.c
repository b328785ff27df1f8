/* Shifts the clocks of a process. Loaded with LD_PRELOAD.
 *
 *   CLOCK_FILE=file   three numbers of 64 bits, which may change while the process runs: by how many seconds the wall
 *                     clock is ahead; at which second it stands still, or 0; by how many seconds the clock since boot
 *                     is ahead */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

struct shifts {
    volatile int64_t wall, frozen, boot;
};

static struct shifts none;
static struct shifts *shifts = &none;

__attribute__((constructor)) static void look(void) {
    const char *path = getenv("CLOCK_FILE");
    int file = path == NULL ? -1 : open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) return;
    void *map = mmap(NULL, sizeof *shifts, PROT_READ, MAP_SHARED, file, 0);
    close(file);
    if (map != MAP_FAILED) shifts = map;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    if (syscall(SYS_clock_gettime, clock, now) != 0) return -1;
    if (clock == CLOCK_BOOTTIME) now->tv_sec += shifts->boot;
    if (clock != CLOCK_REALTIME && clock != CLOCK_REALTIME_COARSE) return 0;
    now->tv_sec += shifts->wall;
    if (shifts->frozen != 0) *now = (struct timespec){.tv_sec = shifts->frozen};
    return 0;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    (void)zone;
    struct timespec time;
    clock_gettime(CLOCK_REALTIME, &time);
    *now = (struct timeval){.tv_sec = time.tv_sec, .tv_usec = time.tv_nsec / 1000};
    return 0;
}

time_t time(time_t *result) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (result != NULL) *result = now.tv_sec;
    return now.tv_sec;
}

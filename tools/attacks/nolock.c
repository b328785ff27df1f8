/* For a negative control: a lock that everybody gets. Loaded with LD_PRELOAD into the processes under attack. */
#include <sys/file.h>

int flock(int fd, int operation) {
    (void)fd;
    (void)operation;
    return 0;
}

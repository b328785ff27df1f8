#define _GNU_SOURCE
#include "CStalkSystem.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <malloc.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

int CStalkSystem_fdatasync(int descriptor) { return fdatasync(descriptor); }

int CStalkSystem_fallocate(int descriptor, off_t offset, off_t length) {
    return fallocate(descriptor, 0, offset, length);
}

int CStalkSystem_dropCache(int descriptor) { return posix_fadvise(descriptor, 0, 0, POSIX_FADV_DONTNEED); }

int CStalkSystem_openBeneath(int directory, const char *path, int flags, mode_t mode) {
    struct open_how how = {
        .flags = (uint64_t)flags,
        .mode = (flags & O_CREAT) ? mode : 0,
        .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS,
    };
    return (int)syscall(SYS_openat2, directory, path, &how, sizeof how);
}

int CStalkSystem_lockExclusive(int descriptor) { return flock(descriptor, LOCK_EX | LOCK_NB); }

int CStalkSystem_lockShared(int descriptor) { return flock(descriptor, LOCK_SH | LOCK_NB); }

static int localSocket(int directory, const char *name, struct sockaddr_un *address) {
    memset(address, 0, sizeof *address);
    address->sun_family = AF_UNIX;
    int length = snprintf(address->sun_path, sizeof address->sun_path, "/proc/self/fd/%d/%s", directory, name);
    if (length < 0 || (size_t)length >= sizeof address->sun_path) {
        errno = ENAMETOOLONG;
        return -1;
    }
    return socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
}

static int failClosing(int descriptor) {
    int code = errno;
    close(descriptor);
    errno = code;
    return -1;
}

int CStalkSystem_listenLocal(int directory, const char *name) {
    struct sockaddr_un address;
    int descriptor = localSocket(directory, name, &address);
    if (descriptor < 0) return -1;
    // The mode of the socket that is bound is that of the unbound one, less the umask.
    if (fchmod(descriptor, 0600) != 0 || bind(descriptor, (struct sockaddr *)&address, sizeof address) != 0 ||
        listen(descriptor, 128) != 0) {
        return failClosing(descriptor);
    }
    return descriptor;
}

int CStalkSystem_acceptLocal(int listener) {
    return accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
}

int CStalkSystem_connectLocal(int directory, const char *name) {
    struct sockaddr_un address;
    int descriptor = localSocket(directory, name, &address);
    if (descriptor < 0) return -1;
    if (connect(descriptor, (struct sockaddr *)&address, sizeof address) != 0) return failClosing(descriptor);
    return descriptor;
}

int CStalkSystem_peer(int socket, int32_t *process, uint32_t *user) {
    struct ucred credentials;
    socklen_t length = sizeof credentials;
    if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &credentials, &length) != 0) return -1;
    *process = credentials.pid;
    *user = credentials.uid;
    return 0;
}

ssize_t CStalkSystem_receive(int socket, void *bytes, size_t count) { return recv(socket, bytes, count, 0); }

ssize_t CStalkSystem_send(int socket, const void *bytes, size_t count) {
    return send(socket, bytes, count, MSG_NOSIGNAL);
}

static pthread_mutex_t childMutex = PTHREAD_MUTEX_INITIALIZER;
static int *closedInChildren;
static int closedInChildrenCount;
static int closedInChildrenRoom;

static void beforeFork(void) { pthread_mutex_lock(&childMutex); }
static void inParent(void) { pthread_mutex_unlock(&childMutex); }

static void inChild(void) {
    for (int position = 0; position < closedInChildrenCount; position++) close(closedInChildren[position]);
    closedInChildrenCount = 0;
    pthread_mutex_unlock(&childMutex);
}

static void registerForkHandlers(void) { pthread_atfork(beforeFork, inParent, inChild); }

int CStalkSystem_closeInChildren(int descriptor) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, registerForkHandlers);
    pthread_mutex_lock(&childMutex);
    if (closedInChildrenCount == closedInChildrenRoom) {
        int room = closedInChildrenRoom == 0 ? 64 : 2 * closedInChildrenRoom;
        int *larger = realloc(closedInChildren, (size_t)room * sizeof *larger);
        if (larger != NULL) {
            closedInChildren = larger;
            closedInChildrenRoom = room;
        }
    }
    int hasRoom = closedInChildrenCount < closedInChildrenRoom;
    if (hasRoom) closedInChildren[closedInChildrenCount++] = descriptor;
    pthread_mutex_unlock(&childMutex);
    return hasRoom ? 0 : -1;
}

void CStalkSystem_keepInChildren(int descriptor) {
    pthread_mutex_lock(&childMutex);
    for (int position = 0; position < closedInChildrenCount; position++) {
        if (closedInChildren[position] != descriptor) continue;
        closedInChildren[position] = closedInChildren[--closedInChildrenCount];
        break;
    }
    pthread_mutex_unlock(&childMutex);
}

void CStalkSystem_clearEvent(int event) {
    uint64_t value;
    while (read(event, &value, sizeof value) > 0) {}
}

int CStalkSystem_unlock(int descriptor) { return flock(descriptor, LOCK_UN); }

int64_t CStalkSystem_fileSystemType(int descriptor) {
    struct statfs info;
    return fstatfs(descriptor, &info) == 0 ? (int64_t)info.f_type : -1;
}

int64_t CStalkSystem_freeBytes(int descriptor) {
    struct statvfs info;
    return fstatvfs(descriptor, &info) == 0 ? (int64_t)info.f_bavail * (int64_t)info.f_frsize : -1;
}

int32_t CStalkSystem_threadID(void) { return (int32_t)syscall(SYS_gettid); }

int CStalkSystem_makeEvent(void) { return eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK); }

int CStalkSystem_makeBootTimer(void) { return timerfd_create(CLOCK_BOOTTIME, TFD_CLOEXEC | TFD_NONBLOCK); }

void CStalkSystem_waitForEvent(int event, int timer, int64_t deadline) {
    struct pollfd waits[2] = {{.fd = event, .events = POLLIN}, {.fd = timer, .events = POLLIN}};
    struct itimerspec when = {0};
    if (deadline >= 0) {
        // A value of zero would disarm the timer instead of firing at once.
        when.it_value.tv_sec = deadline / 1000000000;
        when.it_value.tv_nsec = deadline % 1000000000 + (deadline == 0 ? 1 : 0);
        timerfd_settime(timer, TFD_TIMER_ABSTIME, &when, NULL);
    }
    while (poll(waits, deadline >= 0 ? 2 : 1, -1) < 0 && errno == EINTR) {
    }
    uint64_t count;
    if (read(event, &count, sizeof count) < 0) {
        // Not set: the timer fired.
    }
}

void CStalkSystem_setEvent(int event) {
    uint64_t one = 1;
    while (write(event, &one, sizeof one) < 0 && errno == EINTR) {
    }
}

int64_t CStalkSystem_bootNanoseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_BOOTTIME, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

int64_t CStalkSystem_wallMilliseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

void CStalkSystem_nameThread(const char *name) {
    char kept[16] = {0};
    for (int i = 0; i < 15 && name[i] != 0; i++) kept[i] = name[i];
    pthread_setname_np(pthread_self(), kept);
}

void CStalkSystem_ignoreFileSizeSignal(void) {
    struct sigaction now;
    // A handler that the program installed itself stays.
    if (sigaction(SIGXFSZ, NULL, &now) == 0 && now.sa_handler == SIG_DFL) signal(SIGXFSZ, SIG_IGN);
}

void CStalkSystem_returnFreeMemory(void) { malloc_trim(0); }

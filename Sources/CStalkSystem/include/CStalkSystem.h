// The few calls that no Swift package wraps. Every function is prefixed, since C symbols share one namespace.
#ifndef CSTALKSYSTEM_H
#define CSTALKSYSTEM_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

// CRC-32C (Castagnoli, RFC 3720 appendix B.4) of `length` bytes, going on from `crc` (0 to begin).
// Uses the processor's instruction where there is one.
uint32_t CStalkSystem_crc32c(uint32_t crc, const void *bytes, size_t length);

// fdatasync(2): not in the Glibc module map.
int CStalkSystem_fdatasync(int descriptor);

// fallocate(2) with mode 0: reserves the blocks and sets the size.
int CStalkSystem_fallocate(int descriptor, off_t offset, off_t length);

// posix_fadvise(2) POSIX_FADV_DONTNEED for the whole file. Returns an errno, not -1.
int CStalkSystem_dropCache(int descriptor);

// openat2(2) below `directory`, following no symbolic link and leaving by no "..". Returns -1 and sets errno.
int CStalkSystem_openBeneath(int directory, const char *path, int flags, mode_t mode);

// flock(2) LOCK_EX | LOCK_NB.
int CStalkSystem_lockExclusive(int descriptor);

// flock(2) LOCK_SH | LOCK_NB.
int CStalkSystem_lockShared(int descriptor);

// A Unix stream socket that listens below `directory` under `name`, mode 0600, non-blocking. The path is taken through
// /proc/self/fd, so that it may be longer than a socket address allows. Returns -1 and sets errno.
int CStalkSystem_listenLocal(int directory, const char *name);

// The next connection of a listening socket, non-blocking, or -1.
int CStalkSystem_acceptLocal(int listener);

// A connection to the socket `name` below `directory`, non-blocking, or -1.
int CStalkSystem_connectLocal(int directory, const char *name);

// SO_PEERCRED: the process and the user at the other end when the connection was made. Returns 0, or -1.
int CStalkSystem_peer(int socket, int32_t *process, uint32_t *user);

// recv(2) and send(2) without a signal when the other end is gone.
ssize_t CStalkSystem_receive(int socket, void *bytes, size_t count);
ssize_t CStalkSystem_send(int socket, const void *bytes, size_t count);

// Closes `descriptor` in every child that is forked and goes on without exec(2), so that the child holds nothing of its
// parent's open. Returns 0, or -1 when there are too many.
int CStalkSystem_closeInChildren(int descriptor);

// Takes `descriptor` back from CStalkSystem_closeInChildren; to be called before it is closed.
void CStalkSystem_keepInChildren(int descriptor);

// Takes a signal of `event` back.
void CStalkSystem_clearEvent(int event);

// flock(2) LOCK_UN.
int CStalkSystem_unlock(int descriptor);

// statfs(2) f_type of the file system that holds `descriptor`, or -1.
int64_t CStalkSystem_fileSystemType(int descriptor);

// Free bytes for an unprivileged process on the file system that holds `descriptor`, or -1.
int64_t CStalkSystem_freeBytes(int descriptor);

// gettid(2). pthread_self() is declared const, so the optimiser may reuse it across a suspension; this is not.
int32_t CStalkSystem_threadID(void);

// An eventfd(2), non-blocking and close-on-exec.
int CStalkSystem_makeEvent(void);

// A timerfd(2) on CLOCK_BOOTTIME, which goes on while the machine is suspended.
int CStalkSystem_makeBootTimer(void);

// Arms `timer` for `deadline` nanoseconds since boot (negative: never) and blocks until it fires or `event` is set;
// then clears the event.
void CStalkSystem_waitForEvent(int event, int timer, int64_t deadline);

// Sets `event`, so that the thread that waits for it goes on.
void CStalkSystem_setEvent(int event);

// CLOCK_BOOTTIME in nanoseconds.
int64_t CStalkSystem_bootNanoseconds(void);

// CLOCK_REALTIME in milliseconds.
int64_t CStalkSystem_wallMilliseconds(void);

// Names the calling thread, for ps and debuggers; at most 15 bytes are kept.
void CStalkSystem_nameThread(const char *name);

// malloc_trim(3): gives memory that is free back to the system. Not in the Glibc module map.
void CStalkSystem_returnFreeMemory(void);

// Lets a write over RLIMIT_FSIZE return EFBIG instead of killing the process by SIGXFSZ.
void CStalkSystem_ignoreFileSizeSignal(void);

#endif

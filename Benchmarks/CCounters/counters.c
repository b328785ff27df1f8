// An executable's own definition of a symbol is the one that every library in the process gets, so these stand before
// the C library's and pass the work on. Counting in this way sees LMDB too, and needs nothing from the code under test.
#define _GNU_SOURCE
#include "CCounters.h"

#include <errno.h>
#include <malloc.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <unistd.h>

static _Atomic uint64_t syncs;
static _Atomic uint64_t allocations;

static void count(_Atomic uint64_t *counter) { atomic_fetch_add_explicit(counter, 1, memory_order_relaxed); }

uint64_t CCounters_syncs(void) { return atomic_load_explicit(&syncs, memory_order_relaxed); }

uint64_t CCounters_allocations(void) { return atomic_load_explicit(&allocations, memory_order_relaxed); }

uint64_t CCounters_bytesInUse(void) {
    struct mallinfo2 info = mallinfo2();
    return info.uordblks + info.hblkhd;
}

int fsync(int descriptor) {
    count(&syncs);
    return (int)syscall(SYS_fsync, descriptor);
}

int fdatasync(int descriptor) {
    count(&syncs);
    return (int)syscall(SYS_fdatasync, descriptor);
}

// glibc keeps its allocator under these names for programs that put their own in front.
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t number, size_t size);
void *__libc_realloc(void *block, size_t size);
void *__libc_memalign(size_t alignment, size_t size);

void *malloc(size_t size) {
    count(&allocations);
    return __libc_malloc(size);
}

void *calloc(size_t number, size_t size) {
    count(&allocations);
    return __libc_calloc(number, size);
}

void *realloc(void *block, size_t size) {
    count(&allocations);
    return __libc_realloc(block, size);
}

void *memalign(size_t alignment, size_t size) {
    count(&allocations);
    return __libc_memalign(alignment, size);
}

void *aligned_alloc(size_t alignment, size_t size) { return memalign(alignment, size); }

int posix_memalign(void **block, size_t alignment, size_t size) {
    void *new = memalign(alignment, size);
    if (new == NULL) return ENOMEM;
    *block = new;
    return 0;
}

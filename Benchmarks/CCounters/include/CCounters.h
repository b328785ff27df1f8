// Counts what the whole process asks of the disk and of the allocator, libraries such as LMDB included.
#ifndef CCOUNTERS_H
#define CCOUNTERS_H

#include <stdint.h>

// The calls of fsync(2) and fdatasync(2) so far. The page that ends a commit of LMDB, one for each checkpoint, is
// written through O_DSYNC instead and is not among them.
uint64_t CCounters_syncs(void);

// The blocks of memory asked of malloc(3) and its relatives so far.
uint64_t CCounters_allocations(void);

// The bytes in use that came from malloc(3).
uint64_t CCounters_bytesInUse(void);

#endif

// CRC-32C. With the SSE 4.2 instruction three independent streams run side by side, since the instruction takes three
// cycles but one can start in each; their checksums are joined by a shift over zero bytes, as in Mark Adler's crc32c.c
// (the idea, not the code). Without the instruction: eight tables (slicing-by-8; Kounavis and Berry, 2005).
#include "CStalkSystem.h"

#include <pthread.h>
#include <string.h>

#define POLYNOMIAL 0x82f63b78u
#define STREAM 1024

static uint32_t tables[8][256];
static uint32_t shift_one[4][256];  // appends STREAM zero bytes
static uint32_t shift_two[4][256];  // appends 2 * STREAM zero bytes
static pthread_once_t once = PTHREAD_ONCE_INIT;

// The linear map "append `count` zero bytes", as a 32 × 32 bit matrix in `matrix`.
static void zeros_matrix(uint32_t matrix[32], size_t count) {
    for (int bit = 0; bit < 32; bit++) {
        uint32_t crc = 1u << bit;
        for (size_t i = 0; i < count; i++) crc = (crc >> 8) ^ tables[0][crc & 0xff];
        matrix[bit] = crc;
    }
}

static void shift_table(uint32_t table[4][256], size_t count) {
    uint32_t matrix[32];
    zeros_matrix(matrix, count);
    for (int byte = 0; byte < 4; byte++) {
        for (uint32_t value = 0; value < 256; value++) {
            uint32_t sum = 0;
            for (int bit = 0; bit < 8; bit++) {
                if (value & (1u << bit)) sum ^= matrix[byte * 8 + bit];
            }
            table[byte][value] = sum;
        }
    }
}

static void prepare(void) {
    for (uint32_t value = 0; value < 256; value++) {
        uint32_t crc = value;
        for (int bit = 0; bit < 8; bit++) crc = (crc & 1) ? (crc >> 1) ^ POLYNOMIAL : crc >> 1;
        tables[0][value] = crc;
    }
    for (uint32_t value = 0; value < 256; value++) {
        for (int slice = 1; slice < 8; slice++) {
            uint32_t previous = tables[slice - 1][value];
            tables[slice][value] = (previous >> 8) ^ tables[0][previous & 0xff];
        }
    }
    shift_table(shift_one, STREAM);
    shift_table(shift_two, 2 * STREAM);
}

static uint32_t portable(uint32_t crc, const unsigned char *bytes, size_t length) {
    while (length >= 8) {
        uint32_t low, high;
        memcpy(&low, bytes, 4);
        memcpy(&high, bytes + 4, 4);
        low ^= crc;
        crc = tables[7][low & 0xff] ^ tables[6][low >> 8 & 0xff] ^ tables[5][low >> 16 & 0xff] ^ tables[4][low >> 24] ^
              tables[3][high & 0xff] ^ tables[2][high >> 8 & 0xff] ^ tables[1][high >> 16 & 0xff] ^ tables[0][high >> 24];
        bytes += 8;
        length -= 8;
    }
    while (length-- > 0) crc = (crc >> 8) ^ tables[0][(crc ^ *bytes++) & 0xff];
    return crc;
}

#if defined(__x86_64__)
#include <nmmintrin.h>

static uint32_t shifted(uint32_t table[4][256], uint32_t crc) {
    return table[0][crc & 0xff] ^ table[1][crc >> 8 & 0xff] ^ table[2][crc >> 16 & 0xff] ^ table[3][crc >> 24];
}

__attribute__((target("sse4.2"))) static uint32_t accelerated(uint32_t crc, const unsigned char *bytes, size_t length) {
    uint64_t first = crc, word;
    while (length >= 3 * STREAM) {
        uint64_t second = 0, third = 0;
        for (size_t i = 0; i < STREAM; i += 8) {
            memcpy(&word, bytes + i, 8);
            first = _mm_crc32_u64(first, word);
            memcpy(&word, bytes + STREAM + i, 8);
            second = _mm_crc32_u64(second, word);
            memcpy(&word, bytes + 2 * STREAM + i, 8);
            third = _mm_crc32_u64(third, word);
        }
        first = shifted(shift_two, (uint32_t)first) ^ shifted(shift_one, (uint32_t)second) ^ third;
        bytes += 3 * STREAM;
        length -= 3 * STREAM;
    }
    for (; length >= 8; bytes += 8, length -= 8) {
        memcpy(&word, bytes, 8);
        first = _mm_crc32_u64(first, word);
    }
    for (; length > 0; length--) first = _mm_crc32_u8((uint32_t)first, *bytes++);
    return (uint32_t)first;
}
#endif

uint32_t CStalkSystem_crc32c(uint32_t crc, const void *bytes, size_t length) {
    pthread_once(&once, prepare);
#if defined(__x86_64__)
    if (__builtin_cpu_supports("sse4.2")) return ~accelerated(~crc, bytes, length);
#endif
    return ~portable(~crc, bytes, length);
}

// Drives the stores that Stalk is compared with: one thread, so that two cores are the server's and its own.
//
//   client KIND ADDRESS BODIES WORK CONNECTIONS BATCH SECONDS
//
// KIND is beanstalkd, redis or nats (ADDRESS: a Unix socket, or a port of this machine), sqlite (a file and its
// synchronous setting, as FILE:FULL) or lmdb (a directory and sync or nosync, as DIR:sync). BODIES is a file of bodies,
// each behind its length in 32 bits. WORK is publish or life. Servers get BATCH requests on each connection at a time,
// pipelined; databases get BATCH messages in a transaction. Prints one line of JSON.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <lmdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

static void fail(const char *what) {
    fprintf(stderr, "client: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void refuse(const char *what, const char *detail) {
    fprintf(stderr, "client: %s: %s\n", what, detail);
    exit(1);
}

static int64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

// MARK: Bodies

static uint8_t *body_bytes;
static uint32_t *body_offsets;
static size_t body_count;

static void load_bodies(const char *path) {
    FILE *file = fopen(path, "rb");
    if (!file) fail(path);
    fseek(file, 0, SEEK_END);
    long size = ftell(file);
    rewind(file);
    body_bytes = malloc((size_t)size);
    if (fread(body_bytes, 1, (size_t)size, file) != (size_t)size) fail(path);
    fclose(file);
    body_offsets = malloc((size_t)size);
    for (long offset = 0; offset + 4 <= size;) {
        uint32_t length;
        memcpy(&length, body_bytes + offset, 4);
        body_offsets[body_count++] = (uint32_t)offset;
        offset += 4 + (long)length;
    }
    if (body_count == 0) refuse(path, "holds no body");
}

static const uint8_t *body(size_t number, uint32_t *length) {
    const uint8_t *start = body_bytes + body_offsets[number % body_count];
    memcpy(length, start, 4);
    return start + 4;
}

// MARK: Results

static int64_t *times;
static size_t time_count, time_room;

static void record(int64_t elapsed) {
    if (time_count == time_room) {
        time_room = time_room ? time_room * 2 : 4096;
        times = realloc(times, time_room * sizeof *times);
    }
    times[time_count++] = elapsed;
}

static int by_size(const void *left, const void *right) {
    int64_t a = *(const int64_t *)left, b = *(const int64_t *)right;
    return (a > b) - (a < b);
}

static double quantile(double share) {
    return time_count ? (double)times[(size_t)(share * (double)(time_count - 1))] / 1e3 : 0;
}

static void report(uint64_t messages, int64_t elapsed) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    double cpu = (double)usage.ru_utime.tv_sec + (double)usage.ru_utime.tv_usec / 1e6 +
                 (double)usage.ru_stime.tv_sec + (double)usage.ru_stime.tv_usec / 1e6;
    qsort(times, time_count, sizeof *times, by_size);
    printf("{\"messages\": %llu, \"seconds\": %.3f, \"messagesPerSecond\": %.0f, \"p50Micros\": %.1f, "
           "\"p99Micros\": %.1f, \"p999Micros\": %.1f, \"clientCPU\": %.3f}\n",
           (unsigned long long)messages, (double)elapsed / 1e9, (double)messages * 1e9 / (double)elapsed,
           quantile(0.5), quantile(0.99), quantile(0.999), cpu / ((double)elapsed / 1e9));
}

// MARK: Sockets

typedef struct {
    char *bytes;
    size_t count, room, start;
} Buffer;

static void reserve(Buffer *buffer, size_t more) {
    if (buffer->count + more <= buffer->room) return;
    buffer->room = (buffer->count + more) * 2;
    buffer->bytes = realloc(buffer->bytes, buffer->room);
}

static void put(Buffer *buffer, const void *bytes, size_t count) {
    reserve(buffer, count);
    memcpy(buffer->bytes + buffer->count, bytes, count);
    buffer->count += count;
}

static void put_text(Buffer *buffer, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void put_text(Buffer *buffer, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    char text[512];
    int count = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (count < 0 || count >= (int)sizeof text) refuse("request", "too long");
    put(buffer, text, (size_t)count);
}

// A caller: a connection with a window of requests on their way.
typedef struct {
    int descriptor, number;
    Buffer out, in;
    int stage, waiting;
    int64_t began;
    char (*ids)[24];
    int id_count;
} Caller;

static int batch;
static int is_life;
static uint64_t next_body;

static int dial(const char *address) {
    int descriptor;
    if (strchr(address, '/')) {
        struct sockaddr_un name = {.sun_family = AF_UNIX};
        strncpy(name.sun_path, address, sizeof name.sun_path - 1);
        descriptor = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (connect(descriptor, (struct sockaddr *)&name, sizeof name) != 0) fail(address);
    } else {
        struct sockaddr_in name = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(address))};
        name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        descriptor = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (connect(descriptor, (struct sockaddr *)&name, sizeof name) != 0) fail(address);
        int yes = 1;
        setsockopt(descriptor, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    }
    return descriptor;
}

static void flush(Caller *caller) {
    Buffer *out = &caller->out;
    while (out->start < out->count) {
        ssize_t sent = send(caller->descriptor, out->bytes + out->start, out->count - out->start,
                            MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent < 0 && (errno == EAGAIN || errno == EINTR)) return;
        if (sent < 0) fail("send");
        out->start += (size_t)sent;
    }
    out->start = out->count = 0;
}

// A line of the input without its end, or NULL; `length` is its length.
static char *line(Caller *caller, size_t *length) {
    Buffer *in = &caller->in;
    char *start = in->bytes + in->start;
    char *end = memmem(start, in->count - in->start, "\r\n", 2);
    if (!end) return NULL;
    *length = (size_t)(end - start);
    return start;
}

// MARK: beanstalkd

static void beanstalkd_request(Caller *caller) {
    for (int i = 0; i < batch; i++) {
        uint32_t length;
        if (caller->stage == 0) {
            const uint8_t *bytes = body(next_body++, &length);
            put_text(&caller->out, "put 0 0 60 %u\r\n", length);
            put(&caller->out, bytes, length);
            put(&caller->out, "\r\n", 2);
        } else if (caller->stage == 1) {
            put_text(&caller->out, "reserve\r\n");
        } else {
            put_text(&caller->out, "delete %s\r\n", caller->ids[i]);
        }
    }
    caller->waiting = batch;
}

static int beanstalkd_reply(Caller *caller) {
    size_t length;
    char *start = line(caller, &length);
    if (!start) return 0;
    if (caller->stage == 1) {
        unsigned long long id;
        size_t size;
        if (sscanf(start, "RESERVED %llu %zu", &id, &size) != 2) refuse("reserve", "not RESERVED");
        if (caller->in.count - caller->in.start < length + size + 4) return 0;
        snprintf(caller->ids[caller->id_count++], 24, "%llu", id);
        caller->in.start += length + size + 4;
        return 1;
    }
    if (strncmp(start, caller->stage == 0 ? "INSERTED" : "DELETED", 7) != 0) refuse("beanstalkd said", start);
    caller->in.start += length + 2;
    return 1;
}

// MARK: Redis

static void redis_request(Caller *caller) {
    Buffer *out = &caller->out;
    caller->waiting = batch;
    if (caller->stage == 0) {
        for (int i = 0; i < batch; i++) {
            uint32_t length;
            const uint8_t *bytes = body(next_body++, &length);
            put_text(out, "*5\r\n$4\r\nXADD\r\n$1\r\nq\r\n$1\r\n*\r\n$1\r\nb\r\n$%u\r\n", length);
            put(out, bytes, length);
            put(out, "\r\n", 2);
        }
    } else if (caller->stage == 1) {
        char count[16];
        snprintf(count, sizeof count, "%d", batch - caller->id_count);
        put_text(out, "*9\r\n$10\r\nXREADGROUP\r\n$5\r\nGROUP\r\n$1\r\ng\r\n$1\r\nc\r\n$5\r\nCOUNT\r\n$%zu\r\n%s\r\n"
                      "$7\r\nSTREAMS\r\n$1\r\nq\r\n$1\r\n>\r\n", strlen(count), count);
        caller->waiting = 1;
    } else {
        const char *names[] = {"$4\r\nXACK\r\n$1\r\nq\r\n$1\r\ng\r\n", "$4\r\nXDEL\r\n$1\r\nq\r\n"};
        for (int which = 0; which < 2; which++) {
            put_text(out, "*%d\r\n%s", batch + 3 - which, names[which]);
            for (int i = 0; i < batch; i++) put_text(out, "$%zu\r\n%s\r\n", strlen(caller->ids[i]), caller->ids[i]);
        }
        caller->waiting = 2;
    }
}

// Passes over one value from `at`; 0 when it is not whole. Collects the ids of stream entries, which stand four deep.
static size_t redis_value(Caller *caller, size_t at, int depth, int *ids) {
    char *bytes = caller->in.bytes;
    char *end = memmem(bytes + at, caller->in.count - at, "\r\n", 2);
    if (!end) return 0;
    char type = bytes[at];
    long count = strtol(bytes + at + 1, NULL, 10);
    size_t next = (size_t)(end - bytes) + 2;
    if (type == '-') refuse("Redis said", bytes + at);
    if (type == '$' && count >= 0) {
        if (next + (size_t)count + 2 > caller->in.count) return 0;
        if (depth == 4 && count < 24 && memchr(bytes + next, '-', (size_t)count)) {
            if (caller->id_count + *ids < batch) {
                char *id = caller->ids[caller->id_count + *ids];
                memcpy(id, bytes + next, (size_t)count);
                id[count] = 0;
            }
            *ids += 1;
        }
        return next + (size_t)count + 2;
    }
    if (type == '*') {
        for (long i = 0; i < count; i++) {
            next = next < caller->in.count ? redis_value(caller, next, depth + 1, ids) : 0;
            if (!next) return 0;
        }
    }
    return next;
}

static int redis_reply(Caller *caller) {
    int ids = 0;
    if (caller->in.start >= caller->in.count) return 0;
    size_t next = redis_value(caller, caller->in.start, 0, &ids);
    if (!next) return 0;
    caller->in.start = next;
    if (caller->stage == 1) {
        caller->id_count += ids;
        // Others may have taken some meanwhile: ask for the rest.
        if (caller->id_count < batch) {
            redis_request(caller);
            flush(caller);
            return 0;
        }
    }
    return 1;
}

// MARK: NATS JetStream: publishing alone, each answered by the stream

static void nats_request(Caller *caller) {
    for (int i = 0; i < batch; i++) {
        uint32_t length;
        const uint8_t *bytes = body(next_body++, &length);
        put_text(&caller->out, "PUB bench.q inbox.%d %u\r\n", caller->number, length);
        put(&caller->out, bytes, length);
        put(&caller->out, "\r\n", 2);
    }
    caller->waiting = batch;
}

static int nats_reply(Caller *caller) {
    while (1) {
        size_t length;
        char *start = line(caller, &length);
        if (!start) return 0;
        if (strncmp(start, "MSG ", 4) == 0) {
            char *last = memrchr(start, ' ', length);
            size_t size = strtoul(last + 1, NULL, 10);
            if (caller->in.count - caller->in.start < length + size + 4) return 0;
            char *payload = start + length + 2;
            if (memmem(payload, size, "\"error\"", 7)) refuse("NATS said", payload);
            caller->in.start += length + size + 4;
            return 1;
        }
        if (strncmp(start, "-ERR", 4) == 0) refuse("NATS said", start);
        if (strncmp(start, "PING", 4) == 0) put_text(&caller->out, "PONG\r\n");
        caller->in.start += length + 2;
    }
}

// MARK: Servers

static void read_some(Caller *caller) {
    Buffer *in = &caller->in;
    if (in->start == in->count) in->start = in->count = 0;
    if (in->start > 1 << 20) {
        memmove(in->bytes, in->bytes + in->start, in->count - in->start);
        in->count -= in->start;
        in->start = 0;
    }
    reserve(in, (1 << 16) + 1);
    ssize_t count = recv(caller->descriptor, in->bytes + in->count, 1 << 16, MSG_DONTWAIT);
    if (count == 0) refuse("connection", "closed by the server");
    if (count < 0 && errno != EAGAIN && errno != EINTR) fail("recv");
    if (count > 0) in->count += (size_t)count;
    in->bytes[in->count] = 0;
}

static void drive_server(const char *kind, const char *address, int connections, double seconds) {
    void (*request)(Caller *) = strcmp(kind, "redis") == 0  ? redis_request
                                : strcmp(kind, "nats") == 0 ? nats_request
                                                            : beanstalkd_request;
    int (*reply)(Caller *) = strcmp(kind, "redis") == 0  ? redis_reply
                             : strcmp(kind, "nats") == 0 ? nats_reply
                                                         : beanstalkd_reply;
    Caller *callers = calloc((size_t)connections, sizeof *callers);
    struct pollfd *polls = calloc((size_t)connections, sizeof *polls);
    for (int i = 0; i < connections; i++) {
        callers[i].descriptor = dial(address);
        callers[i].number = i;
        callers[i].ids = calloc((size_t)batch, sizeof *callers[i].ids);
        if (strcmp(kind, "nats") == 0) {
            put_text(&callers[i].out, "CONNECT {\"verbose\":false}\r\nSUB inbox.%d 1\r\n", i);
        }
    }
    int64_t start = now(), end = start + (int64_t)(seconds * 1e9);
    uint64_t messages = 0;
    int active = connections;
    for (int i = 0; i < connections; i++) {
        callers[i].began = now();
        request(&callers[i]);
    }
    while (active > 0) {
        for (int i = 0; i < connections; i++) {
            flush(&callers[i]);
            polls[i] = (struct pollfd){callers[i].waiting ? callers[i].descriptor : -1, POLLIN, 0};
            if (callers[i].out.count) polls[i].events |= POLLOUT;
        }
        if (poll(polls, (nfds_t)connections, 10000) <= 0) refuse("poll", "no answer for ten seconds");
        for (int i = 0; i < connections; i++) {
            Caller *caller = &callers[i];
            if (!(polls[i].revents & (POLLIN | POLLHUP | POLLERR))) continue;
            read_some(caller);
            while (caller->waiting > 0 && reply(caller)) caller->waiting--;
            if (caller->waiting > 0) continue;
            caller->stage = is_life ? (caller->stage + 1) % 3 : 0;
            if (caller->stage == 0) {
                int64_t time = now();
                record(time - caller->began);
                messages += (uint64_t)batch;
                caller->began = time;
                caller->id_count = 0;
                if (time >= end) {
                    active--;
                    continue;
                }
            }
            request(caller);
        }
    }
    report(messages, now() - start);
}

// MARK: SQLite

static void check(sqlite3 *database, int code) {
    if (code != SQLITE_OK && code != SQLITE_DONE && code != SQLITE_ROW) refuse("SQLite", sqlite3_errmsg(database));
}

static void drive_sqlite(char *address, double seconds) {
    char *mode = strrchr(address, ':');
    *mode++ = 0;
    sqlite3 *database;
    check(NULL, sqlite3_open(address, &database));
    char text[128];
    snprintf(text, sizeof text, "PRAGMA journal_mode=WAL; PRAGMA synchronous=%s;", mode);
    check(database, sqlite3_exec(database, text, NULL, NULL, NULL));
    check(database, sqlite3_exec(database,
        "CREATE TABLE q(id INTEGER PRIMARY KEY, attempts INTEGER NOT NULL DEFAULT 0, body BLOB NOT NULL);"
        "CREATE INDEX ready ON q(id) WHERE attempts = 0", NULL, NULL, NULL));
    sqlite3_stmt *begin, *commit, *insert, *take, *finish;
    check(database, sqlite3_prepare_v2(database, "BEGIN IMMEDIATE", -1, &begin, NULL));
    check(database, sqlite3_prepare_v2(database, "COMMIT", -1, &commit, NULL));
    check(database, sqlite3_prepare_v2(database, "INSERT INTO q(body) VALUES (?)", -1, &insert, NULL));
    check(database, sqlite3_prepare_v2(database,
        "UPDATE q SET attempts = attempts + 1 WHERE id IN (SELECT id FROM q WHERE attempts = 0 ORDER BY id LIMIT ?) "
        "RETURNING id, body", -1, &take, NULL));
    check(database, sqlite3_prepare_v2(database, "DELETE FROM q WHERE id = ?", -1, &finish, NULL));
    int64_t *ids = calloc((size_t)batch, sizeof *ids);
    int64_t start = now(), time = start, end = start + (int64_t)(seconds * 1e9);
    uint64_t messages = 0;
    while (time < end) {
        sqlite3_step(begin), check(database, sqlite3_reset(begin));
        for (int i = 0; i < batch; i++) {
            uint32_t length;
            const uint8_t *bytes = body(next_body++, &length);
            sqlite3_bind_blob(insert, 1, bytes, (int)length, SQLITE_STATIC);
            sqlite3_step(insert), check(database, sqlite3_reset(insert));
        }
        sqlite3_step(commit), check(database, sqlite3_reset(commit));
        if (is_life) {
            // One statement is a transaction of its own.
            int taken = 0;
            sqlite3_bind_int(take, 1, batch);
            while (sqlite3_step(take) == SQLITE_ROW) {
                if (sqlite3_column_bytes(take, 1) == 0) refuse("SQLite", "lost a body");
                ids[taken++] = sqlite3_column_int64(take, 0);
            }
            check(database, sqlite3_reset(take));
            if (taken != batch) refuse("SQLite", "gave too few");
            sqlite3_step(begin), check(database, sqlite3_reset(begin));
            for (int i = 0; i < taken; i++) {
                sqlite3_bind_int64(finish, 1, ids[i]);
                sqlite3_step(finish), check(database, sqlite3_reset(finish));
            }
            sqlite3_step(commit), check(database, sqlite3_reset(commit));
        }
        messages += (uint64_t)batch;
        int64_t finished = now();
        record(finished - time);
        time = finished;
    }
    report(messages, time - start);
}

// MARK: LMDB

static void check_lmdb(int code) {
    if (code != 0) refuse("LMDB", mdb_strerror(code));
}

static void drive_lmdb(char *address, double seconds) {
    char *mode = strrchr(address, ':');
    *mode++ = 0;
    MDB_env *environment;
    MDB_txn *transaction;
    MDB_dbi table;
    check_lmdb(mdb_env_create(&environment));
    check_lmdb(mdb_env_set_mapsize(environment, (size_t)64 << 30));
    check_lmdb(mdb_env_open(environment, address, strcmp(mode, "nosync") == 0 ? MDB_NOSYNC : 0, 0600));
    check_lmdb(mdb_txn_begin(environment, NULL, 0, &transaction));
    check_lmdb(mdb_dbi_open(transaction, NULL, MDB_INTEGERKEY, &table));
    check_lmdb(mdb_txn_commit(transaction));
    int64_t start = now(), time = start, end = start + (int64_t)(seconds * 1e9);
    uint64_t messages = 0, key = 0;
    while (time < end) {
        check_lmdb(mdb_txn_begin(environment, NULL, 0, &transaction));
        for (int i = 0; i < batch; i++, key++) {
            uint32_t length;
            const uint8_t *bytes = body(next_body++, &length);
            MDB_val name = {sizeof key, &key}, value = {length, (void *)bytes};
            check_lmdb(mdb_put(transaction, table, &name, &value, MDB_APPEND));
        }
        check_lmdb(mdb_txn_commit(transaction));
        if (is_life) {
            // No attempt is counted: the fewest transactions that can be called taking and finishing.
            MDB_cursor *cursor;
            check_lmdb(mdb_txn_begin(environment, NULL, 0, &transaction));
            check_lmdb(mdb_cursor_open(transaction, table, &cursor));
            for (int i = 0; i < batch; i++) {
                MDB_val name, value;
                check_lmdb(mdb_cursor_get(cursor, &name, &value, MDB_FIRST));
                check_lmdb(mdb_cursor_del(cursor, 0));
            }
            mdb_cursor_close(cursor);
            check_lmdb(mdb_txn_commit(transaction));
        }
        messages += (uint64_t)batch;
        int64_t finished = now();
        record(finished - time);
        time = finished;
    }
    report(messages, time - start);
    mdb_env_close(environment);
}

int main(int count, char **words) {
    if (count != 8) refuse("usage", "client KIND ADDRESS BODIES WORK CONNECTIONS BATCH SECONDS");
    load_bodies(words[3]);
    is_life = strcmp(words[4], "life") == 0;
    batch = atoi(words[6]);
    double seconds = atof(words[7]);
    if (batch < 1 || seconds <= 0) refuse("usage", "BATCH and SECONDS are more than zero");
    if (strcmp(words[1], "sqlite") == 0) {
        drive_sqlite(words[2], seconds);
    } else if (strcmp(words[1], "lmdb") == 0) {
        drive_lmdb(words[2], seconds);
    } else {
        drive_server(words[1], words[2], atoi(words[5]), seconds);
    }
    return 0;
}

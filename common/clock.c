#include "common/clock.h"

#include <stdatomic.h>
#include <stdio.h>
#include <time.h>

static _Atomic int64_t test_ms = -1;

static int64_t read_us(clockid_t id)
{
    struct timespec t;
    clock_gettime(id, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

int64_t clock_real_ms(void)
{
    return read_us(CLOCK_MONOTONIC) / 1000;
}

int64_t clock_us(void)
{
    int64_t ms = atomic_load_explicit(&test_ms, memory_order_relaxed);
    return ms >= 0 ? ms * 1000 : read_us(CLOCK_MONOTONIC);
}

int64_t clock_ms(void)
{
    return clock_us() / 1000;
}

void clock_set_test(int64_t ms)
{
    atomic_store_explicit(&test_ms, ms, memory_order_relaxed);
}

int64_t clock_wall_ms(void)
{
    return read_us(CLOCK_REALTIME) / 1000;
}

void clock_stamp(int64_t wall_ms, char ret[24])
{
    /* Years outside 0..9999 would not fit the form. */
    const int64_t least = -62167219200000, most = 253402300799999;
    int64_t at = wall_ms < least ? least : wall_ms > most ? most : wall_ms;
    unsigned ms = (unsigned)((at % 1000 + 1000) % 1000);
    time_t seconds = (time_t)((at - ms) / 1000);
    struct tm tm;
    gmtime_r(&seconds, &tm);
    /* The remainders change nothing; they tell the compiler that the fields fit. */
    snprintf(ret, 24, "%04u-%02u-%02u %02u:%02u:%02u.%03u", (unsigned)(tm.tm_year + 1900) % 10000, (unsigned)(tm.tm_mon + 1) % 100,
             (unsigned)tm.tm_mday % 100, (unsigned)tm.tm_hour % 100, (unsigned)tm.tm_min % 100, (unsigned)tm.tm_sec % 100, ms);
}

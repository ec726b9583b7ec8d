/* Time: a monotonic clock that tests can set, and wall-clock stamps in InvokeAI's form. */
#pragma once
#include <stddef.h>
#include <stdint.h>

/* clock_ms / clock_us return monotonic time; under a test clock (clock_set_test) the time that was set. */
int64_t clock_ms(void);
int64_t clock_us(void);
/* clock_real_ms returns monotonic time under a test clock too: for limits on what the test clock cannot move (children, disks). */
int64_t clock_real_ms(void);
/* clock_set_test freezes the monotonic clock at MS (>= 0); -1 gives the real one back. Tests only. */
void clock_set_test(int64_t ms);
/* clock_wall_ms returns milliseconds since 1970-01-01 UTC. */
int64_t clock_wall_ms(void);
/* clock_stamp writes WALL_MS as "2026-01-31 12:00:00.123" (UTC, 24 bytes with the NUL). */
void clock_stamp(int64_t wall_ms, char ret[24]);

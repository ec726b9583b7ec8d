/* MessagePack reading: a cursor with a sticky fault, no allocation, every length checked. */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/error.h"

struct mp { const uint8_t *at, *end; const char *fault; };  /* fault: static text of the first error; then every read yields zero */

static inline struct mp mp_open(const void *bytes, size_t n)
{
    const uint8_t *at = bytes ? bytes : "";
    return (struct mp){at, at + n, 0};
}
bool mp_ok(const struct mp *c);
enum mp_kind { MP_NIL, MP_BOOL, MP_INT, MP_FLOAT, MP_STR, MP_BIN, MP_ARRAY, MP_MAP, MP_EXT, MP_END };
enum mp_kind mp_peek(const struct mp *c);
/* mp_map / mp_array return the number of pairs / elements; a count that cannot fit in the rest of the frame is a fault. */
uint32_t mp_map(struct mp *c);
uint32_t mp_array(struct mp *c);
int64_t mp_int(struct mp *c);            /* faults past the range of int64 */
uint64_t mp_uint(struct mp *c);
double mp_double(struct mp *c);          /* takes integers too */
bool mp_bool(struct mp *c);
void mp_nil(struct mp *c);
const char *mp_str(struct mp *c, size_t *ret_len);   /* view, not NUL-terminated; "" on a fault; must be UTF-8 */
const void *mp_bin(struct mp *c, size_t *ret_len);   /* view */
void mp_skip(struct mp *c);              /* one value of any kind, iteratively */
/* mp_done faults when bytes are left. mp_check returns BAD_REQUEST with the fault and the offset, or OK. */
void mp_done(struct mp *c);
NODISCARD enum status mp_check(const struct mp *c, const void *start, struct error *err);
/* mp_json reads one value as JSON (map keys must be strings, bin and ext are refused, LIMIT_DEPTH levels). Caller decrefs. */
NODISCARD enum status mp_json(struct mp *c, json_t **ret, struct error *err);

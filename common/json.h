/* JSON from outside, with limits, over jansson. */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include "common/error.h"

static inline void json_decref_cleanup(json_t **j) { json_decref(*j); }
#define AUTO_JSON __attribute__((cleanup(json_decref_cleanup))) json_t

/* json_parse reads one JSON value of at most MAX_BYTES and 200 levels from TEXT. BAD_REQUEST with line and column of the
 * fault, or TOO_LARGE. Keys keep their order; NaN and lone surrogates are refused. Caller decrefs. */
NODISCARD enum status json_parse(const char *text, size_t len, size_t max_bytes, json_t **ret, struct error *err);
/* json_read_file is json_parse on a file's content. */
NODISCARD enum status json_read_file(const char *path, size_t max_bytes, json_t **ret, struct error *err);

/* Reads of an optional member: the default when OBJ is no object, the key is absent or of another type. Borrowed. */
const char *json_str(const json_t *obj, const char *key, const char *fallback);
long long json_int(const json_t *obj, const char *key, long long fallback);   /* takes reals that are whole numbers too */
double json_num(const json_t *obj, const char *key, double fallback);
bool json_flag(const json_t *obj, const char *key, bool fallback);

/* json_text returns J as compact text (caller frees), NULL when out of memory. Floats round-trip (17 digits). */
char *json_text(const json_t *j);
/* nearest_name returns the entry of NAMES (N of them) with the least edit distance to NAME, NULL if all are far (> a third + 1). */
const char *nearest_name(const char *name, const char *const *names, size_t n);

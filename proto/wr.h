/* One writer, two forms: MessagePack (over msgpack-c's packer) or JSON text. A reply is written once for both. */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/buf.h"

enum wr_form { WR_MSGPACK, WR_JSON };
enum { WR_DEPTH = 208 };            /* past LIMIT_DEPTH and an envelope: deeper fails the buffer */
/* Write through the functions only. LEFT counts what the open containers still wait for (keys too): wr_end asserts that it is none. */
struct wr { struct buf *out; enum wr_form form; int depth; bool comma; bool is_map[WR_DEPTH]; uint64_t left[WR_DEPTH]; };

void wr_init(struct wr *w, struct buf *out, enum wr_form form);
/* Maps and arrays say their size at the beginning (MessagePack needs it) and are ended. */
void wr_map(struct wr *w, uint32_t n);
void wr_array(struct wr *w, uint32_t n);
void wr_end(struct wr *w);
void wr_key(struct wr *w, const char *key);
void wr_keyn(struct wr *w, const char *key, size_t n);
/* Texts that are not UTF-8 are mended with U+FFFD: what leaves is always well-formed. */
void wr_str(struct wr *w, const char *s);             /* NULL writes null */
void wr_strn(struct wr *w, const char *s, size_t n);
void wr_int(struct wr *w, int64_t v);
void wr_uint(struct wr *w, uint64_t v);
void wr_double(struct wr *w, double v);               /* not finite: null in JSON */
void wr_bool(struct wr *w, bool v);
void wr_null(struct wr *w);
void wr_bin(struct wr *w, const void *p, size_t n);   /* base64 text in JSON */
void wr_json(struct wr *w, const json_t *j);          /* NULL writes null */
void wr_mp(struct wr *w, const void *bytes, size_t n);/* one well-formed MessagePack value, copied or transcoded; anything else fails the buffer */
/* Pairs, for short. */
static inline void wr_kstr(struct wr *w, const char *k, const char *v) { wr_key(w, k); wr_str(w, v); }
static inline void wr_kint(struct wr *w, const char *k, int64_t v) { wr_key(w, k); wr_int(w, v); }
static inline void wr_kbool(struct wr *w, const char *k, bool v) { wr_key(w, k); wr_bool(w, v); }
static inline void wr_kdouble(struct wr *w, const char *k, double v) { wr_key(w, k); wr_double(w, v); }
static inline void wr_kjson(struct wr *w, const char *k, const json_t *v) { wr_key(w, k); wr_json(w, v); }

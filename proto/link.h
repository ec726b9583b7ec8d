/* Worker link frames as structs, made from messages.def. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/buf.h"
#include "common/error.h"

struct view { const char *p; size_t n; };   /* bytes inside a frame, not NUL-terminated; {NULL, 0} when absent */

enum link_kind {
#define MESSAGE(NAME, number, direction) LINK_##NAME = number,
#define FIELD(name, number, TYPE)
#define END_MESSAGE(NAME)
#include "proto/messages.def"
#undef MESSAGE
#undef FIELD
#undef END_MESSAGE
};

#define LINK_CTYPE_U64 uint64_t
#define LINK_CTYPE_I64 int64_t
#define LINK_CTYPE_F64 double
#define LINK_CTYPE_BOOL bool
#define LINK_CTYPE_STR struct view
#define LINK_CTYPE_BIN struct view
#define MESSAGE(NAME, number, direction) struct link_##NAME {
#define FIELD(name, number, TYPE) LINK_CTYPE_##TYPE name;
#define END_MESSAGE(NAME) char end_; };
#include "proto/messages.def"
#undef MESSAGE
#undef FIELD
#undef END_MESSAGE

struct link_message {
    enum link_kind kind;
    union {
#define MESSAGE(NAME, number, direction) struct link_##NAME NAME;
#define FIELD(name, number, TYPE)
#define END_MESSAGE(NAME)
#include "proto/messages.def"
#undef MESSAGE
#undef FIELD
#undef END_MESSAGE
    };
};

static inline struct view view_of(const char *s) { return (struct view){s, s ? __builtin_strlen(s) : 0}; }
/* view_dup copies V with a NUL (caller frees), NULL when out of memory. view_text copies into RET, cut to SIZE. */
char *view_dup(struct view v);
void view_text(struct view v, char *ret, size_t size);
bool view_is(struct view v, const char *s);

const char *link_name(enum link_kind k);
/* link_encode appends the frame of M. Check buf_ok. */
void link_encode(const struct link_message *m, struct buf *out);
/* link_next reads the first message of FRAME, from a peer in the given direction, and moves FRAME behind it; PROTOCOL names message and field.
 * Views point into the frame. */
NODISCARD enum status link_next(struct view *frame, bool from_worker, struct link_message *ret, struct error *err);
/* link_decode reads a frame that is one message. */
NODISCARD enum status link_decode(const void *bytes, size_t n, bool from_worker, struct link_message *ret, struct error *err);

/* Field types as text: integer number string boolean enum any object, a struct name, list[T], map[T], union[A | B], and null inside unions. */
#pragma once
#include <stdbool.h>
#include <stddef.h>

enum { TYPE_MAX_MEMBERS = 16 };

/* A type, view into its text. NULLABLE counts as a union with null. */
struct type_view {
    const char *text;
    size_t len;
    bool nullable;
};

struct type_view type_view(const char *text, bool nullable);
bool type_is(struct type_view t, const char *text);                 /* T is exactly TEXT, not nullable */
bool type_same(struct type_view a, struct type_view b);
/* type_inner returns whether T is WRAPPER[...] ("list", "map", "union", nullable or not) and what is inside the brackets. */
bool type_inner(struct type_view t, const char *wrapper, struct type_view *ret);
/* type_members splits T as Python's get_args does: the members of a union (with "null" for nullable), the item of a list, key and value of a map;
 * none for a plain type. Returns how many. */
size_t type_members(struct type_view t, struct type_view ret[TYPE_MAX_MEMBERS]);
bool type_is_union(struct type_view t);                             /* written as one, or nullable */
bool type_is_list(struct type_view t);                              /* list[T], not nullable */
bool type_is_any(struct type_view t);                               /* any, or with any as a member: list[any], union[any | x] */
bool type_takes_list(struct type_view t);                           /* a list, or a union with one */
bool type_is_subclass(struct type_view t, struct type_view of);     /* the same, or boolean of integer */
/* type_union_fits: T, or each of its members, is a member of OF. */
bool type_union_fits(struct type_view t, struct type_view of);
/* types_fit is InvokeAI's rule for an edge from a field of type FROM to one of type TO. */
bool types_fit(struct type_view from, struct type_view to);

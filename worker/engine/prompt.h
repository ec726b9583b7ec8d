/* compel's prompt language: weights, .and(), .blend(), .swap(), withLora; see docs/compatibility.md for what is refused. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include "common/error.h"

struct prompt_fragment { char *text; double weight; };
struct prompt_part {                 /* one flattened prompt */
    struct prompt_fragment *fragments;
    size_t n;
    double weight;                   /* in its and/blend */
};
struct prompt {                      /* conjunction of blends of parts */
    struct prompt_blend {
        struct prompt_part *parts;
        size_t n;
        bool is_blend, normalize;
        double weight;               /* of this member of the conjunction */
    } *blends;
    size_t n;
};

/* prompt_parse reads TEXT (at most 32 KiB). BAD_ARGUMENT quotes the place. Free with prompt_free. */
NODISCARD enum status prompt_parse(const char *text, struct prompt **ret, struct error *err);
void prompt_free(struct prompt *p);

#include <stdint.h>
#include <stdlib.h>
#include "worker/engine/plan.h"

static int by_size(const void *a, const void *b)
{
    const struct plan_interval *x = *(struct plan_interval *const *)a, *y = *(struct plan_interval *const *)b;
    if (x->bytes != y->bytes)
        return x->bytes > y->bytes ? -1 : 1;
    if (x->first != y->first)
        return x->first < y->first ? -1 : 1;
    return x < y ? -1 : x > y;
}

static size_t round_64(size_t n)
{
    return (n + 63) & ~(size_t)63;
}

/* lowest_gap returns where V fits between those of the N placed intervals (ordered by offset) that are alive together with it. */
static size_t lowest_gap(struct plan_interval *const *placed, size_t n, const struct plan_interval *v)
{
    size_t at = 0;
    for (size_t i = 0; i < n; i++) {
        const struct plan_interval *o = placed[i];
        if (o->last < v->first || o->first > v->last)
            continue;
        if (o->offset >= at && o->offset - at >= v->bytes)
            break;
        size_t end = round_64(o->offset + o->bytes);
        if (end > at)
            at = end;
    }
    return at;
}

size_t plan_layout(struct plan_interval *v, size_t n)
{
    struct plan_interval **order = malloc(2 * (n + 1) * sizeof(struct plan_interval *));
    if (!order)
        return SIZE_MAX;
    struct plan_interval **placed = order + n;
    size_t total = 0;
    for (size_t i = 0; i < n; i++)
        order[i] = &v[i];
    qsort(order, n, sizeof(struct plan_interval *), by_size);
    for (size_t i = 0; i < n; i++) {
        struct plan_interval *x = order[i];
        x->offset = lowest_gap(placed, i, x);
        size_t end = round_64(x->offset + x->bytes), at = i;
        for (; at > 0 && placed[at - 1]->offset > x->offset; at--)
            placed[at] = placed[at - 1];
        placed[at] = x;
        if (end > total)
            total = end;
    }
    free(order);
    return total;
}

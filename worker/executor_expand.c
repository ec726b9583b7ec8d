/* From nodes of the graph to prepared nodes. A node's copies are the natural join of those of the nodes that feed it: they meet where they
 * share an iterate, and form all pairs where they do not. A collect closes the innermost iterate of its items. */
#include <stdlib.h>
#include <string.h>

#include "common/json.h"
#include "worker/executor_state.h"

/* Rows of indices over AXES, each with the copies it was joined from. */
struct rows {
    struct axes axes;
    int n, cap, n_picks;
    int *values; /* [n][axes.n] */
    int *picks;  /* [n][n_picks] */
};

static void rows_fini(struct rows *r)
{
    free(r->values);
    free(r->picks);
}

static enum status no_memory(struct error *err) { return FAIL(err, OUT_OF_MEMORY, "out of memory preparing a graph"); }

bool executor_grow(void *array, int n, int *cap, size_t size)
{
    if (n < *cap)
        return true;
    int more = *cap ? *cap * 2 : 8;
    void *grown = realloc(*(void **)array, (size_t)more * size);
    if (!grown)
        return false;
    *(void **)array = grown;
    *cap = more;
    return true;
}

/* ---- axes */

static int axis_find(const struct axes *a, int node)
{
    for (int i = 0; i < a->n; i++)
        if (a->node[i] == node)
            return i;
    return -1;
}

/* Adds the axes of B to A, outermost (first in the topological order) first. */
static enum status axes_merge(const struct executor *x, struct axes *a, const struct axes *b, struct error *err)
{
    for (int i = 0; i < b->n; i++) {
        if (axis_find(a, b->node[i]) >= 0)
            continue;
        if (a->n == EXECUTOR_MAX_NESTING)
            return FAIL(err, TOO_LARGE, "iterates nest more than %d deep (at node '%.100s')", EXECUTOR_MAX_NESTING,
                        x->g->nodes[b->node[i]].id);
        int k = a->n++;
        for (; k > 0 && x->rank[a->node[k - 1]] > x->rank[b->node[i]]; k--)
            a->node[k] = a->node[k - 1];
        a->node[k] = b->node[i];
    }
    return ST_OK;
}

/* Puts axes that a collect closed before another axis of the same list began (so that both come from the same iterate) after the others:
 * InvokeAI iterates the later one outside. Bits of SEEN: by iterate, all iterates before it, closed or not. */
static void axes_order(struct executor *x, struct axes *a)
{
    struct axes outer = {.n = 0}, inner = {.n = 0};
    for (int i = 0; i < a->n; i++) {
        bool reentered = false;
        for (int k = 0; k < a->n; k++) {
            const struct source *other = &x->sources[a->node[k]];
            if (k != i && axis_find(&other->axes, a->node[i]) < 0)
                reentered = reentered || (other->seen & x->sources[a->node[i]].bit) != 0;
        }
        struct axes *to = reentered ? &inner : &outer;
        to->node[to->n++] = a->node[i];
    }
    memcpy(outer.node + outer.n, inner.node, (size_t)inner.n * sizeof(int));
    outer.n += inner.n;
    *a = outer;
}

static enum status source_axes(struct executor *x, int node, struct error *err)
{
    struct source *s = &x->sources[node];
    for (int i = 0; i < s->n_edges; i++) {
        int edge = x->edges_into[s->first_edge + i];
        const struct source *feed = &x->sources[x->g->edges[edge].source];
        struct axes axes = feed->axes;
        if (s->is_collect && executor_item_edge(x, edge) && axes.n > 0)
            axes.n--;
        TRY(axes_merge(x, &s->axes, &axes, err));
        if (!s->is_collect)
            TRY(axes_merge(x, &s->live, &feed->live, err));
        s->seen |= feed->seen;
    }
    axes_order(x, &s->axes);
    if (!s->is_iterate)
        return ST_OK;
    if (s->axes.n == EXECUTOR_MAX_NESTING)
        return FAIL(err, TOO_LARGE, "iterates nest more than %d deep (at node '%.100s')", EXECUTOR_MAX_NESTING, x->g->nodes[node].id);
    s->axes.node[s->axes.n++] = node;
    s->live.node[s->live.n++] = node;
    s->bit = x->n_iterates < 64 ? (uint64_t)1 << x->n_iterates : 0;
    s->seen |= s->bit;
    x->n_iterates++;
    return ST_OK;
}

enum status executor_axes(struct executor *x, struct error *err)
{
    for (int i = 0; i < x->g->n_nodes; i++)
        TRY(source_axes(x, x->g->order[i], err));
    return ST_OK;
}

/* ---- matching */

/* How the axes of a source lie in other axes: POSITION of each there, -1 where missing; PREFIX: so many of its first ones are there. */
struct overlay {
    int position[EXECUTOR_MAX_NESTING];
    int prefix;
    bool contiguous; /* the shared axes are exactly the first PREFIX ones: equal copies lie together */
};

static struct overlay overlay_of(const struct source *s, const struct axes *axes)
{
    struct overlay o = {.contiguous = !s->ragged};
    for (int i = 0; i < s->axes.n; i++) {
        o.position[i] = axis_find(axes, s->axes.node[i]);
        if (o.position[i] >= 0 && o.prefix == i)
            o.prefix++;
        else if (o.position[i] >= 0)
            o.contiguous = false;
    }
    return o;
}

static bool agrees(const struct overlay *o, const struct source *s, const struct copy *c, const int *values)
{
    for (int i = 0; i < s->axes.n; i++) {
        int there = o->position[i] < 0 ? -1 : values[o->position[i]];
        if (c->at[i] >= 0 && there >= 0 && c->at[i] != there)
            return false;
    }
    return true;
}

/* First copy of S whose first axes are not before (AFTER: are after) those of VALUES. */
static int bound(const struct executor *x, const struct overlay *o, const struct source *s, const int *values, bool after)
{
    int low = 0, high = s->n_copies;
    while (low < high) {
        int middle = low + (high - low) / 2, order = 0;
        const struct copy *c = x->copies[s->first_copy + middle];
        for (int i = 0; order == 0 && i < o->prefix; i++)
            order = (c->at[i] > values[o->position[i]]) - (c->at[i] < values[o->position[i]]);
        if (order < 0 || (after && order == 0))
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* The copies of S that can agree with VALUES: FROM up to TO, counted from its first; each is still to be checked with agrees. */
static void candidates(const struct executor *x, const struct overlay *o, const struct source *s, const int *values, int *ret_from,
                       int *ret_to)
{
    bool exact = o->contiguous;
    for (int i = 0; exact && i < o->prefix; i++)
        exact = values[o->position[i]] >= 0;
    *ret_from = exact ? bound(x, o, s, values, false) : 0;
    *ret_to = exact ? bound(x, o, s, values, true) : s->n_copies;
}

/* ---- rows */

static enum status rows_add(struct rows *r, struct error *err)
{
    if (r->n == EXECUTOR_MAX_PREPARED)
        return FAIL(err, TOO_LARGE, "the graph expands to more than %d nodes of one kind", EXECUTOR_MAX_PREPARED);
    if (r->n == r->cap) {
        int cap = r->cap ? r->cap * 2 : 8;
        int *values = realloc(r->values, ((size_t)cap * (size_t)r->axes.n + 1) * sizeof *values);
        if (values)
            r->values = values;
        int *picks = realloc(r->picks, ((size_t)cap * (size_t)r->n_picks + 1) * sizeof *picks);
        if (picks)
            r->picks = picks;
        if (!values || !picks)
            return no_memory(err);
        r->cap = cap;
    }
    r->n++;
    return ST_OK;
}

static int *row_values(const struct rows *r, int row) { return r->values + (size_t)row * (size_t)r->axes.n; }

static int *row_picks(const struct rows *r, int row) { return r->picks + (size_t)row * (size_t)r->n_picks; }

/* Adds to OUT the row ROW of IN together with VALUES over AXES, picking copy PICK (-1: none). */
static enum status rows_join_row(struct rows *out, const struct rows *in, int row, const struct axes *axes, const int *values, int pick,
                                 struct error *err)
{
    TRY(rows_add(out, err));
    int *to = row_values(out, out->n - 1);
    for (int i = 0; i < out->axes.n; i++) {
        int left = axis_find(&in->axes, out->axes.node[i]), right = axis_find(axes, out->axes.node[i]);
        int value = left < 0 ? -1 : row_values(in, row)[left];
        to[i] = value >= 0 || right < 0 ? value : values[right];
    }
    if (in->n_picks > 0)
        memcpy(row_picks(out, out->n - 1), row_picks(in, row), (size_t)in->n_picks * sizeof(int));
    if (pick >= 0)
        row_picks(out, out->n - 1)[in->n_picks] = pick;
    return ST_OK;
}

/* Replaces R by its natural join with the copies of SOURCE; each row picks the copy it was joined with. */
static enum status rows_join(const struct executor *x, struct rows *r, int source, struct error *err)
{
    const struct source *s = &x->sources[source];
    struct overlay o = overlay_of(s, &r->axes);
    struct rows out = {.axes = r->axes, .n_picks = r->n_picks + 1};
    enum status st = axes_merge(x, &out.axes, &s->axes, err);
    for (int row = 0; st == ST_OK && row < r->n; row++) {
        int from, to;
        candidates(x, &o, s, row_values(r, row), &from, &to);
        for (int i = from; st == ST_OK && i < to; i++) {
            const struct copy *c = x->copies[s->first_copy + i];
            if (agrees(&o, s, c, row_values(r, row)))
                st = rows_join_row(&out, r, row, &s->axes, c->at, c->index, err);
        }
    }
    rows_fini(st == ST_OK ? r : &out);
    if (st == ST_OK)
        *r = out;
    return st;
}

static int compare_rows(const void *a, const void *b, void *width)
{
    const int *p = a, *q = b;
    for (int i = 0; i < *(int *)width; i++)
        if (p[i] != q[i])
            return p[i] < q[i] ? -1 : 1;
    return 0;
}

/* Sorts the rows by their values. */
static enum status rows_sort(struct rows *r, struct error *err)
{
    int n_values = r->axes.n, n_picks = r->n_picks, width = n_values + n_picks;
    if (r->n < 2)
        return ST_OK;
    int *all = malloc((size_t)r->n * (size_t)width * sizeof *all + 1);
    if (!all)
        return no_memory(err);
    for (int i = 0; i < r->n; i++) {
        memcpy(all + (size_t)i * (size_t)width, row_values(r, i), (size_t)n_values * sizeof *all);
        if (n_picks > 0)
            memcpy(all + (size_t)i * (size_t)width + n_values, row_picks(r, i), (size_t)n_picks * sizeof *all);
    }
    qsort_r(all, (size_t)r->n, (size_t)width * sizeof *all, compare_rows, &width);
    for (int i = 0; i < r->n; i++) {
        memcpy(row_values(r, i), all + (size_t)i * (size_t)width, (size_t)n_values * sizeof *all);
        if (n_picks > 0)
            memcpy(row_picks(r, i), all + (size_t)i * (size_t)width + n_values, (size_t)n_picks * sizeof *all);
    }
    free(all);
    return ST_OK;
}

/* ---- copies */

enum status copy_new(struct executor *x, int source, struct copy **ret, struct error *err)
{
    struct source *s = &x->sources[source];
    const struct graph_node *n = &x->g->nodes[source];
    if (x->n_copies == EXECUTOR_MAX_PREPARED)
        return FAIL(err, TOO_LARGE, "the graph expands to more than %d nodes (at node '%.100s')", EXECUTOR_MAX_PREPARED, n->id);
    struct copy *c = calloc(1, sizeof *c + (size_t)s->axes.n * sizeof(int));
    if (!c || !executor_grow(&x->copies, x->n_copies, &x->cap_copies, sizeof(struct copy *))) {
        free(c);
        return no_memory(err);
    }
    uuid_new(c->id);
    c->p = (struct prepared){.id = c->id, .source_id = n->id, .type = n->type, .is_intermediate = n->is_intermediate};
    c->use_cache = n->use_cache && !s->is_iterate && !s->is_collect;
    c->at = (int *)(c + 1);
    c->index = x->n_copies;
    c->source = source;
    c->first_link = x->n_links;
    c->first_child = -1;
    x->copies[x->n_copies++] = c;
    s->n_copies++;
    *ret = c;
    return ST_OK;
}

enum status copy_link(struct executor *x, struct copy *c, int from, int edge, struct error *err)
{
    if (x->n_links == EXECUTOR_MAX_LINKS)
        return FAIL(err, TOO_LARGE, "the graph expands to more than %d edges (at node '%.100s')", EXECUTOR_MAX_LINKS, c->p.source_id);
    if (!executor_grow(&x->links, x->n_links, &x->cap_links, sizeof *x->links))
        return no_memory(err);
    x->links[x->n_links++] = (struct link){from, edge};
    c->n_links++;
    if (x->copies[from]->done)
        return ST_OK;
    if (!executor_grow(&x->children, x->n_children, &x->cap_children, sizeof *x->children))
        return no_memory(err);
    x->children[x->n_children] = (struct child){c->index, x->copies[from]->first_child};
    x->copies[from]->first_child = x->n_children++;
    c->unmet++;
    return ST_OK;
}

enum status copy_ready(struct executor *x, struct copy *c, struct error *err)
{
    struct source *s = &x->sources[c->source];
    for (int i = 0; i < s->axes.n; i++)
        s->ragged = s->ragged || c->at[i] < 0;
    return c->unmet == 0 ? executor_ready(x, c, err) : ST_OK;
}

/* ---- ordinary nodes and iterates */

/* The nodes that feed SOURCE, each once, those with most axes first (then their shared axes come first in what follows). Caller frees. */
static int *parents_of(const struct executor *x, const struct source *s, int *ret_n)
{
    int *parents = malloc(((size_t)s->n_edges + 1) * sizeof *parents), n = 0;
    bool *seen = calloc((size_t)x->g->n_nodes, sizeof *seen);
    for (int axes = EXECUTOR_MAX_NESTING; parents && seen && axes >= 0; axes--)
        for (int i = 0; i < s->n_edges; i++) {
            int parent = x->g->edges[x->edges_into[s->first_edge + i]].source;
            if (x->sources[parent].axes.n != axes || seen[parent])
                continue;
            seen[parent] = true;
            parents[n++] = parent;
        }
    bool failed = !seen;
    free(seen);
    *ret_n = n;
    if (failed)
        free(parents);
    return failed ? NULL : parents;
}

/* How many copies an iterate makes of a row: the length of the list that its collection edge brings. */
static int iterations(const struct executor *x, const struct source *s, const int *parents, int n_parents, const int *picks)
{
    for (int i = 0; i < s->n_edges; i++) {
        const struct graph_edge *e = &x->g->edges[x->edges_into[s->first_edge + i]];
        if (strcmp(e->destination_field, "collection") != 0)
            continue;
        for (int k = 0; k < n_parents; k++)
            if (parents[k] == e->source)
                return (int)json_array_size(json_object_get(x->copies[picks[k]]->output, e->source_field));
    }
    return 0;
}

/* Makes the copy of SOURCE for one row (INDEX: of an iterate, else -1). PICK_OF tells which pick each edge into it takes. */
static enum status copy_from_row(struct executor *x, int source, const struct rows *r, int row, const int *pick_of, int index,
                                 struct error *err)
{
    struct source *s = &x->sources[source];
    struct copy *c;
    TRY(copy_new(x, source, &c, err));
    for (int i = 0; i < s->axes.n; i++) {
        int k = axis_find(&r->axes, s->axes.node[i]);
        c->at[i] = s->axes.node[i] == source ? index : k < 0 ? -1 : row_values(r, row)[k];
    }
    for (int i = 0; i < s->n_edges; i++)
        TRY(copy_link(x, c, row_picks(r, row)[pick_of[i]], x->edges_into[s->first_edge + i], err));
    return copy_ready(x, c, err);
}

static enum status copies_from_rows(struct executor *x, int source, const struct rows *r, const int *parents, int n_parents,
                                    struct error *err)
{
    const struct source *s = &x->sources[source];
    int *pick_of = malloc(((size_t)s->n_edges + (size_t)x->g->n_nodes + 1) * sizeof *pick_of), *place = pick_of + s->n_edges;
    if (!pick_of)
        return no_memory(err);
    for (int i = 0; i < n_parents; i++)
        place[parents[i]] = i;
    for (int i = 0; i < s->n_edges; i++)
        pick_of[i] = place[x->g->edges[x->edges_into[s->first_edge + i]].source];
    enum status st = ST_OK;
    for (int row = 0; st == ST_OK && row < r->n; row++) {
        if (!s->is_iterate) {
            st = copy_from_row(x, source, r, row, pick_of, -1, err);
            continue;
        }
        int n = iterations(x, s, parents, n_parents, row_picks(r, row));
        for (int i = 0; st == ST_OK && i < n; i++)
            st = copy_from_row(x, source, r, row, pick_of, i, err);
    }
    free(pick_of);
    return st;
}

/* Puts the columns of R into the order of AXES (of which R has all, or all but the last). */
static enum status rows_arrange(struct rows *r, const struct axes *axes, struct error *err)
{
    struct rows out = {.axes = *axes, .n_picks = r->n_picks};
    const struct axes none = {.n = 0};
    out.axes.n = r->axes.n;
    enum status st = ST_OK;
    for (int row = 0; st == ST_OK && row < r->n; row++)
        st = rows_join_row(&out, r, row, &none, NULL, -1, err);
    rows_fini(st == ST_OK ? r : &out);
    if (st == ST_OK)
        *r = out;
    return st;
}

static enum status expand_ordinary(struct executor *x, int source, struct error *err)
{
    int n_parents;
    int *parents = parents_of(x, &x->sources[source], &n_parents);
    if (!parents)
        return no_memory(err);
    struct rows r = {.n = 0};
    enum status st = rows_add(&r, err);
    for (int i = 0; st == ST_OK && i < n_parents; i++)
        st = rows_join(x, &r, parents[i], err);
    if (st == ST_OK)
        st = rows_arrange(&r, &x->sources[source].axes, err);
    if (st == ST_OK)
        st = rows_sort(&r, err);
    if (st == ST_OK)
        st = copies_from_rows(x, source, &r, parents, n_parents, err);
    rows_fini(&r);
    free(parents);
    return st;
}

/* ---- all */

static bool can_expand(const struct executor *x, int node)
{
    const struct source *s = &x->sources[node];
    for (int i = 0; i < s->n_edges; i++) {
        const struct source *feed = &x->sources[x->g->edges[x->edges_into[s->first_edge + i]].source];
        if (!feed->prepared || ((feed->is_iterate || s->is_iterate) && !feed->executed))
            return false;
    }
    return true;
}

enum status executor_expand(struct executor *x, struct error *err)
{
    const struct graph *g = x->g;
    for (int i = x->first_unprepared; i < g->n_nodes; i++) {
        int node = g->order[i];
        struct source *s = &x->sources[node];
        if (s->prepared || !can_expand(x, node))
            continue;
        s->prepared = true;
        s->first_copy = x->n_copies;
        TRY(s->is_collect ? executor_expand_collect(x, node, err) : expand_ordinary(x, node, err));
        if (s->n_copies == 0)
            TRY(executor_source_done(x, node, err));
    }
    while (x->first_unprepared < g->n_nodes && x->sources[g->order[x->first_unprepared]].prepared)
        x->first_unprepared++;
    return ST_OK;
}

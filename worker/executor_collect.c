/* Copies of collect nodes. A collect closes the innermost iterate of its items: there is one copy for each place outside of it. Places are
 * iteration paths as plain lists of indices, which iterate an index belongs to is not looked at: so InvokeAI does, and graphs that collect
 * from independent iterates show it. */
#include <stdlib.h>
#include <string.h>

#include "worker/executor_state.h"

struct path {
    int n;
    int index[EXECUTOR_MAX_NESTING];
};

struct paths {
    struct path *list;
    int n, cap;
};

/* The edges into one collect, by the node they come from. */
struct feeds {
    int *first; /* by node: an edge from it (as a place in the collect's edges), -1 none */
    int *next;  /* by edge: another one from the same node */
};

static struct path path_of(const struct executor *x, int copy)
{
    struct path p;
    p.n = executor_path(x, &x->copies[copy]->p, p.index);
    return p;
}

static bool is_prefix(const struct path *a, const struct path *of)
{
    return a->n <= of->n && memcmp(a->index, of->index, (size_t)a->n * sizeof(int)) == 0;
}

static enum status paths_add(struct paths *ps, struct path p, int depth, struct error *err)
{
    if (!executor_grow(&ps->list, ps->n, &ps->cap, sizeof *ps->list))
        return FAIL(err, OUT_OF_MEMORY, "out of memory preparing a collect");
    if (p.n > depth)
        p.n = depth;
    ps->list[ps->n++] = p;
    return ST_OK;
}

/* Adds the first DEPTH indices of the paths of S's copies, of those that have LEAST indices. */
static enum status add_copies(const struct executor *x, struct paths *ps, const struct source *s, int depth, int least, struct error *err)
{
    for (int i = 0; i < s->n_copies; i++) {
        struct path p = path_of(x, s->first_copy + i);
        if (p.n >= least)
            TRY(paths_add(ps, p, depth, err));
    }
    return ST_OK;
}

/* Adds the places where EDGE may bring something, also where a list on the way came out empty. */
static enum status add_candidates(const struct executor *x, struct paths *ps, int edge, struct error *err)
{
    const struct source *feed = &x->sources[x->g->edges[edge].source];
    int depth = feed->live.n - (executor_item_edge(x, edge) && feed->live.n > 0);
    for (int i = 0; i < feed->live.n; i++) {
        const struct source *iterate = &x->sources[feed->live.node[i]];
        if (depth > 0)
            TRY(add_copies(x, ps, iterate, depth, depth, err));
        for (int k = 0; k < iterate->n_edges; k++) {
            const struct graph_edge *e = &x->g->edges[x->edges_into[iterate->first_edge + k]];
            if (strcmp(e->destination_field, "collection") == 0)
                TRY(add_copies(x, ps, &x->sources[e->source], EXECUTOR_MAX_NESTING, 0, err));
        }
    }
    return depth == 0 ? paths_add(ps, (struct path){.n = 0}, 0, err) : ST_OK;
}

/* Adds the places of what EDGE does bring: of lists as they are, of items one level further out than the deepest. */
static enum status add_inputs(const struct executor *x, struct paths *ps, int edge, struct error *err)
{
    const struct source *feed = &x->sources[x->g->edges[edge].source];
    int depth = 0;
    for (int i = 0; i < feed->n_copies; i++) {
        struct path p = path_of(x, feed->first_copy + i);
        depth = p.n > depth ? p.n : depth;
    }
    if (executor_item_edge(x, edge))
        depth = depth > 0 ? depth - 1 : 0;
    return add_copies(x, ps, feed, depth, 0, err);
}

static int compare_paths(const void *a, const void *b)
{
    const struct path *p = a, *q = b;
    for (int i = 0; i < p->n && i < q->n; i++)
        if (p->index[i] != q->index[i])
            return p->index[i] < q->index[i] ? -1 : 1;
    return p->n - q->n;
}

/* All places of a collect, in order. One that only says less than another is left out: in order, it comes right before it. */
static enum status places_of(const struct executor *x, const struct source *s, struct paths *ps, struct error *err)
{
    for (int i = 0; i < s->n_edges; i++) {
        TRY(add_candidates(x, ps, x->edges_into[s->first_edge + i], err));
        TRY(add_inputs(x, ps, x->edges_into[s->first_edge + i], err));
    }
    if (ps->n == 0)
        TRY(paths_add(ps, (struct path){.n = 0}, 0, err));
    qsort(ps->list, (size_t)ps->n, sizeof *ps->list, compare_paths);
    int kept = 0;
    for (int i = 0; i < ps->n; i++)
        if (i + 1 == ps->n || !is_prefix(&ps->list[i], &ps->list[i + 1]))
            ps->list[kept++] = ps->list[i];
    ps->n = kept;
    return ST_OK;
}

/* The first copy of S whose path, cut to the length of PLACE, is not before PLACE (AFTER: is after). */
static int bound(const struct executor *x, const struct source *s, const struct path *place, bool after)
{
    int low = 0, high = s->n_copies;
    while (low < high) {
        int middle = low + (high - low) / 2;
        struct path p = path_of(x, s->first_copy + middle), q = *place;
        p.n = p.n > q.n ? q.n : p.n;
        q.n = p.n;
        int order = compare_paths(&p, &q);
        if (order < 0 || (after && order == 0))
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Links C to the copies that edge FEED brings to PLACE, as coming over EDGE. */
static enum status link_matching(struct executor *x, struct copy *c, const struct path *place, int feed, int edge, struct error *err)
{
    const struct source *s = &x->sources[x->g->edges[feed].source];
    int from = s->ragged ? 0 : bound(x, s, place, false), to = s->ragged ? s->n_copies : bound(x, s, place, true);
    for (int i = from; i < to; i++) {
        struct path p = path_of(x, s->first_copy + i);
        if (is_prefix(&p, place) || (executor_item_edge(x, feed) && is_prefix(place, &p)))
            TRY(copy_link(x, c, s->first_copy + i, edge, err));
    }
    return ST_OK;
}

static int compare_links(const void *a, const void *b, void *executor)
{
    const struct executor *x = executor;
    const struct link *p = a, *q = b;
    bool p_item = executor_item_edge(x, p->edge), q_item = executor_item_edge(x, q->edge);
    if (p_item != q_item)
        return p_item ? 1 : -1;
    int order = executor_compare(x, x->copies[p->from], x->copies[q->from]);
    return order ? order : p->edge - q->edge;
}

/* Makes the copy at PLACE and links all that belongs to it, lists first, each in order of iteration and then of the edges. Every edge from
 * a node brings what all edges from that node bring: two edges from one node bring everything twice, as in InvokeAI. */
static enum status copy_at(struct executor *x, int source, const struct path *place, const struct feeds *feeds, struct error *err)
{
    const struct source *s = &x->sources[source];
    struct copy *c;
    TRY(copy_new(x, source, &c, err));
    for (int i = 0; i < s->axes.n; i++)
        c->at[i] = i < place->n ? place->index[i] : -1;
    for (int i = 0; i < s->n_edges; i++) {
        int edge = x->edges_into[s->first_edge + i];
        for (int k = feeds->first[x->g->edges[edge].source]; k >= 0; k = feeds->next[k])
            TRY(link_matching(x, c, place, x->edges_into[s->first_edge + k], edge, err));
    }
    if (c->n_links > 1)
        qsort_r(x->links + c->first_link, (size_t)c->n_links, sizeof *x->links, compare_links, x);
    return copy_ready(x, c, err);
}

static bool feeds_init(const struct executor *x, const struct source *s, struct feeds *f)
{
    f->first = malloc(((size_t)x->g->n_nodes + (size_t)s->n_edges + 1) * sizeof *f->first);
    if (!f->first)
        return false;
    f->next = f->first + x->g->n_nodes;
    for (int i = 0; i < x->g->n_nodes; i++)
        f->first[i] = -1;
    for (int i = s->n_edges - 1; i >= 0; i--) {
        int from = x->g->edges[x->edges_into[s->first_edge + i]].source;
        f->next[i] = f->first[from];
        f->first[from] = i;
    }
    return true;
}

enum status executor_expand_collect(struct executor *x, int source, struct error *err)
{
    struct paths places = {.n = 0};
    struct feeds feeds;
    if (!feeds_init(x, &x->sources[source], &feeds))
        return FAIL(err, OUT_OF_MEMORY, "out of memory preparing a collect");
    enum status st = places_of(x, &x->sources[source], &places, err);
    for (int i = 0; st == ST_OK && i < places.n; i++)
        st = copy_at(x, source, &places.list[i], &feeds, err);
    free(feeds.first);
    free(places.list);
    return st;
}

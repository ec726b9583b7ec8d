/* Group and layer normalisation: statistics in float32, from batches of four that are joined pairwise. */
#include "kernels/device.h"

enum { NORM_BATCH = 4, APPLY_GROUPS_MAX = 256 };

/* The threads of a block over ROWS of WIDTH consecutive channels each; ROW >= ROWS: nothing for this one. */
struct lanes {
    int width, rows, lane, row;
};

DEVICE struct lanes lanes_of(int channels)
{
    struct lanes l;
    l.width = channels < block_threads() ? channels : block_threads();
    l.rows = block_threads() / l.width;
    l.row = thread_id() / l.width;
    l.lane = thread_id() - l.row * l.width;
    return l;
}

/* column_stat returns S with COUNT elements from element I of X on, STEP apart. */
DEVICE struct stat column_stat(const struct k_operand *x, struct stat s, int64_t i, int64_t count, int64_t step)
{
    ROLLED
    for (; count >= NORM_BATCH; count -= NORM_BATCH) {
        float v0 = load(x->at, x->dtype, i), v1 = load(x->at, x->dtype, i + step);
        i += 2 * step;
        float v2 = load(x->at, x->dtype, i), v3 = load(x->at, x->dtype, i + step);
        i += 2 * step;
        s = stat_join(s, stat_of_four(v0, v1, v2, v3));
    }
    ROLLED
    for (; count > 0; count--, i += step)
        s = stat_join(s, stat_of_one(load(x->at, x->dtype, i)));
    return s;
}

/* fold_stats joins PART[row][lane] over the rows, then over every SPAN consecutive lanes: the whole is left with the first of them. */
DEVICE void fold_stats(struct stat *part, const struct lanes *l, int span)
{
    int here = thread_id(), of_span = l->lane % span;
    barrier();
    ROLLED
    for (int step = 1; step < l->rows; step *= 2) {
        if (l->row % (2 * step) == 0 && l->row + step < l->rows)
            part[here] = stat_join(part[here], part[here + step * l->width]);
        barrier();
    }
    ROLLED
    for (int step = 1; step < span; step *= 2) {
        if (l->row == 0 && of_span % (2 * step) == 0 && of_span + step < span)
            part[here] = stat_join(part[here], part[here + step]);
        barrier();
    }
}

/* A part of the work: one sample, some consecutive groups, a piece of the plane. */
struct share {
    int64_t from, to; /* pixels of the whole operand */
    int sample, piece, group, groups;
};

DEVICE struct share share_of(const struct k_group_norm *a, int64_t work, int64_t pieces, int groups_each)
{
    int64_t slabs = (a->groups + groups_each - 1) / groups_each, rest = divide(work, slabs), plane = plane_of(&a->x);
    struct share s;
    s.group = (int)(work - rest * slabs) * groups_each;
    s.groups = groups_each < a->groups - s.group ? groups_each : a->groups - s.group;
    s.sample = (int)divide(rest, pieces);
    s.piece = (int)(rest - s.sample * pieces);
    s.from = s.sample * plane + divide(plane * s.piece, pieces);
    s.to = s.sample * plane + divide(plane * (s.piece + 1), pieces);
    return s;
}

DEVICE uint64_t part_at(const struct k_group_norm *a, int sample, int group, int chunk)
{
    return a->parts + (uint64_t)(((int64_t)sample * a->groups + group) * a->chunks + chunk) * sizeof(struct stat);
}

/* A block takes whole groups, as many as it has threads for their channels, so that a thread sees one group only. */
GALLEY_KERNEL(group_norm_sums, k_group_norm)
{
    SHARED struct stat part[THREADS_MAX];
    int each = a.x.c / a.groups, fit = each < block_threads() ? block_threads() / each : 1;
    int64_t works = (int64_t)a.x.n * a.chunks * ((a.groups + fit - 1) / fit);
    for (int64_t work = block_id(); work < works; work += grid_blocks()) {
        struct share s = share_of(&a, work, a.chunks, fit);
        struct lanes l = lanes_of(s.groups * each);
        struct stat own = {0, 0, 0};
        int64_t first = (s.from + l.row) * a.x.ld + s.group * each, count = divide(s.to - s.from + l.rows - 1 - l.row, l.rows);
        for (int c = l.lane; l.row < l.rows && c < s.groups * each; c += l.width)
            own = column_stat(&a.x, own, first + c, count, (int64_t)l.rows * a.x.ld);
        barrier();
        part[thread_id()] = own;
        int span = each < l.width ? each : l.width;
        fold_stats(part, &l, span);
        if (l.row == 0 && l.lane % span == 0)
            *(struct stat *)(uintptr_t)part_at(&a, s.sample, s.group + l.lane / span, s.piece) = part[thread_id()];
    }
}

/* group_stat joins the chunks of a group, by a warp; a batch of reads is under way at once. */
DEVICE struct stat group_stat(const struct k_group_norm *a, int sample, int group)
{
    const struct stat *part = (const struct stat *)(uintptr_t)part_at(a, sample, group, 0), none = {0, 0, 0};
    struct stat all = none;
    ROLLED
    for (int from = thread_id() % WARP; from < a->chunks; from += NORM_BATCH * WARP) {
        struct stat s[NORM_BATCH];
        UNROLL
        for (int k = 0; k < NORM_BATCH; k++)
            s[k] = from + k * WARP < a->chunks ? part[from + k * WARP] : none;
        UNROLL
        for (int k = 0; k < NORM_BATCH; k++)
            all = stat_join(all, s[k]);
    }
    return warp_stat(all);
}

/* share_scale puts mean and 1 / deviation of each group of S into shared memory. */
DEVICE void share_scale(const struct k_group_norm *a, const struct share *s, float *mean, float *scale)
{
    barrier();
    for (int g = thread_id() / WARP; g < s->groups; g += block_threads() / WARP) {
        struct stat all = group_stat(a, s->sample, s->group + g);
        if (thread_id() % WARP == 0) {
            mean[g] = all.mean;
            scale[g] = 1.0f / sqrtf(all.square / all.count + a->eps);
        }
    }
    barrier();
}

/* apply_column rewrites channel C in pixels FROM, FROM + STEP ... < TO: a batch is read before it is written, so that its reads are under
 * way at once. */
DEVICE void apply_column(const struct k_group_norm *a, int64_t c, int64_t from, int64_t to, int step, float mean, float factor)
{
    float shift = weight_get(&a->bias, c, 0);
    factor *= weight_get(&a->weight, c, 1);
    ROLLED
    for (int64_t p = from; p < to; p += NORM_BATCH * step) {
        float v[NORM_BATCH];
        UNROLL
        for (int k = 0; k < NORM_BATCH; k++)
            v[k] = p + k * step < to ? get(&a->x, p + k * step, c) : 0;
        UNROLL
        for (int k = 0; k < NORM_BATCH; k++)
            if (p + k * step < to)
                put(&a->y, p + k * step, c, act_of(a->act, (v[k] - mean) * factor + shift));
    }
}

/* The plane goes in as many pieces as there are blocks for. */
GALLEY_KERNEL(group_norm, k_group_norm)
{
    SHARED float mean[APPLY_GROUPS_MAX], scale[APPLY_GROUPS_MAX];
    int each = a.x.c / a.groups, fit = a.groups < APPLY_GROUPS_MAX ? a.groups : APPLY_GROUPS_MAX;
    int64_t slabs = (int64_t)a.x.n * ((a.groups + fit - 1) / fit), pieces = (grid_blocks() + slabs - 1) / slabs, plane = plane_of(&a.x);
    pieces = pieces < plane ? pieces : plane;
    for (int64_t work = block_id(); work < slabs * pieces; work += grid_blocks()) {
        struct share s = share_of(&a, work, pieces, fit);
        struct lanes l = lanes_of(s.groups * each);
        share_scale(&a, &s, mean, scale);
        for (int c = l.lane; l.row < l.rows && c < s.groups * each; c += l.width)
            apply_column(&a, s.group * each + c, s.from + l.row, s.to, l.rows, mean[c / each], scale[c / each]);
    }
}

/* A warp takes a row. */
GALLEY_KERNEL(layer_norm, k_layer_norm)
{
    int64_t rows = pixels_of(&a.x), step = (int64_t)grid_blocks() * (block_threads() / WARP);
    int lane = thread_id() % WARP;
    for (int64_t p = (int64_t)block_id() * (block_threads() / WARP) + thread_id() / WARP; p < rows; p += step) {
        struct stat s = {0, 0, 0};
        s = warp_stat(column_stat(&a.x, s, p * a.x.ld + lane, (a.x.c + WARP - 1 - lane) / WARP, WARP));
        float scale = 1.0f / sqrtf(s.square / s.count + a.eps);
        for (int c = lane; c < a.x.c; c += WARP)
            put(&a.y, p, c, (get(&a.x, p, c) - s.mean) * scale * weight_get(&a.weight, c, 1) + weight_get(&a.bias, c, 0));
    }
}

/* A plan: a list of ops whose operands lie in one arena, laid out by liveness, made and allocated before anything runs.
 *
 * While a plan is built, an operand's offset is a handle of its value; plan_finish turns handles into bytes. Ops belong to segments that
 * run by themselves (first the prompt's keys and values, then the network once per step). A value that one segment alone touches lives
 * from its first to its last op there; one that several segments touch, or that plan_keep named, keeps its place for good. */
#pragma once
#include "worker/backend/backend.h"
#include "worker/engine/model.h"

enum { PLAN_SEGMENTS = 2 };

struct plan;

NODISCARD enum status plan_new(struct backend *backend, struct plan **ret, struct error *err);   /* BACKEND is borrowed */
void plan_free(struct plan *p);                                           /* accepts NULL */

/* ---- building: failures are kept and reported by plan_finish */
/* plan_value returns a new value of N x H x W pixels of C channels. */
struct operand plan_value(struct plan *p, enum dtype t, int n, int h, int w, int c);
/* plan_view returns channels [FIRST, FIRST + COUNT) of X. FIRST times the element size must be a multiple of 64. */
struct operand plan_view(struct operand x, int first, int count);
/* plan_keep makes the value of X live for good: it is filled or read from outside the plan's ops. */
void plan_keep(struct plan *p, struct operand x);
/* plan_op appends a copy of DESC to SEGMENT. */
void plan_op(struct plan *p, int segment, const struct op_desc *desc);
/* Who keeps what the device's memory is used for: MAKE frees what is idle until NEED more bytes fit. OUT_OF_MEMORY (needed and free): they
 * cannot. */
struct plan_room {
    void *self;
    enum status (*make)(void *self, size_t need, struct error *err);
};
/* plan_ask_room makes plan_finish ask ROOM (borrowed) before it allocates: first for the arena and for the ABOUT bytes that the ops will load of
 * the weights, then for the workspace. */
void plan_ask_room(struct plan *p, const struct plan_room *room, size_t about);
/* plan_loaded returns the bytes of weights that plan_finish has loaded, with a room alone. */
size_t plan_loaded(const struct plan *p);
/* plan_finish lays out, allocates arena and workspace and makes every op, asking HOOKS (may be NULL) before each: the first use of a weight
 * repacks it, so this can take a while. OUT_OF_MEMORY says needed and free. */
NODISCARD enum status plan_finish(struct plan *p, const struct engine_hooks *hooks, struct error *err);

/* ---- a finished plan */
/* plan_operand returns X with its place in the arena. */
struct operand plan_operand(const struct plan *p, struct operand x);
struct bmem *plan_arena(const struct plan *p);
size_t plan_bytes(const struct plan *p);                                  /* arena and workspace */
/* plan_run runs SEGMENT, asking HOOKS (may be NULL) before each op whether to go on: CANCELED if not. A backend with sequences gets the
 * segment as one and is asked once. */
NODISCARD enum status plan_run(struct plan *p, int segment, const struct engine_hooks *hooks, struct error *err);

/* ---- the layout alone */
struct plan_interval { size_t bytes; int first, last; size_t offset; };   /* alive in [first, last] */
/* plan_layout gives each of the N intervals an offset, a multiple of 64, so that two alive at the same time never overlap. Largest
 * first, each at the lowest place that fits. Returns the end of the highest one; SIZE_MAX out of memory. */
size_t plan_layout(struct plan_interval *v, size_t n);

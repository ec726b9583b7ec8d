/* The golden runner: reads folders of recorded cases (cases.json with tensors and pictures beside it), runs each case through the
 * engine and compares. A folder's kind picks the function that runs its cases. */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/arena.h"
#include "common/error.h"

/* KIND(name): cases of that kind are run by kind_NAME, if this build has it. */
#define GOLDEN_KINDS(KIND) \
    KIND(tokenizer) KIND(prompt) KIND(noise) KIND(schedulers) KIND(preview) KIND(images) KIND(networks) KIND(endtoend)

enum golden_result { GOLDEN_PASS, GOLDEN_FAIL, GOLDEN_SKIP };

struct golden_case {
    const char *folder;          /* holds cases.json and the files it names */
    const char *name;
    const json_t *json;          /* the case */
    const json_t *inputs;        /* its "inputs" */
    const json_t *manifest;      /* the whole cases.json */
    struct arena *arena;         /* emptied after the case */
    void *files;                 /* open tensor files of the folder */
    char reason[768];            /* of a failure or skip */
};

typedef enum golden_result golden_run(struct golden_case *c);
#define DECLARE_KIND(name) golden_run kind_##name __attribute__((weak));
GOLDEN_KINDS(DECLARE_KIND)
#undef DECLARE_KIND

/* golden_fail and golden_skip note why and return GOLDEN_FAIL, GOLDEN_SKIP. Skips are counted by their reason: name the missing feature. */
enum golden_result golden_fail(struct golden_case *c, const char *fmt, ...) PRINTF_LIKE(2, 3);
enum golden_result golden_skip(struct golden_case *c, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* GOLDEN_TRY returns from the calling function unless EXPR is GOLDEN_PASS. */
#define GOLDEN_TRY(expr) do { enum golden_result result_ = (expr); if (result_ != GOLDEN_PASS) return result_; } while (0)
/* golden_status turns a failed STATUS of the engine into a result: NOT_AVAILABLE and UNSUPPORTED skip, others fail with the message of ERR. */
enum golden_result golden_status(struct golden_case *c, enum status status, const struct error *err);

/* A recorded tensor, widened to double. */
struct golden_tensor { int ndim; int64_t dim[8]; size_t n; double *data; };

/* golden_has tells whether the case has LABEL under GROUP ("tensors_in", "expect"). */
bool golden_has(const struct golden_case *c, const char *group, const char *label);
/* golden_tensor reads LABEL of GROUP into the case's arena. */
enum golden_result golden_tensor(struct golden_case *c, const char *group, const char *label, struct golden_tensor *ret);
/* golden_floats is golden_tensor narrowed to float. */
enum golden_result golden_floats(struct golden_case *c, const char *group, const char *label, struct golden_tensor *ret_shape, float **ret);
/* golden_tolerance returns the number at KEY (and SUBKEY, unless NULL) of the case's tolerance, else of the folder's, else FALLBACK. */
double golden_tolerance(const struct golden_case *c, const char *key, const char *subkey, double fallback);

enum golden_measure { MEASURE_REL_L2, MEASURE_MAX_ABS };
/* golden_compare measures GOT (N values) against LABEL of "expect": fails when sizes differ, a value is not finite or the measure exceeds
 * TOLERANCE. GOT_F32 takes floats. */
enum golden_result golden_compare(struct golden_case *c, const char *label, const double *got, size_t n, enum golden_measure how, double tolerance);
enum golden_result golden_compare_f32(struct golden_case *c, const char *label, const float *got, size_t n, enum golden_measure how, double tolerance);
/* golden_rel_l2 returns |A - B| / |B| (|A| where B is 0); golden_max_abs the largest difference; both NAN if a value is not finite. */
double golden_rel_l2(const double *a, const double *b, size_t n);
double golden_max_abs(const double *a, const double *b, size_t n);
/* golden_path joins the folder and NAME in the case's arena. */
char *golden_path(struct golden_case *c, const char *name);

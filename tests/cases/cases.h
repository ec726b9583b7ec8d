/* The case runner: reads files of cases and compares what galley does with what InvokeAI did. The forms are described in tests/cases/README.md. */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include "common/error.h"
#include "graph/graph.h"

enum outcome { PASSED, FAILED, SKIPPED };

/* Why a case failed, or under which name it is skipped. */
struct verdict {
    enum outcome outcome;
    char why[400];
};

struct verdict verdict_passed(void);
struct verdict verdict_failed(const char *fmt, ...) PRINTF_LIKE(1, 2);
struct verdict verdict_skipped(const char *fmt, ...) PRINTF_LIKE(1, 2);

/* One function per kind. Each gets the whole case. */
struct verdict case_graph(const json_t *c);
struct verdict case_pairs(const json_t *c);
struct verdict case_values(const json_t *c);
struct verdict case_fields(const json_t *c);
struct verdict case_batch(const json_t *c);
struct verdict case_queue(const json_t *c);

/* cases_quote turns integers beyond 64 bits in TEXT into {"$big": "..."}, which JSON readers take. Caller frees; NULL when out of memory. */
char *cases_quote(const char *text);
bool cases_has(const json_t *j, const char *key);                   /* somewhere inside is an object with KEY */
/* cases_equal compares as the README says: integers and floats apart, null members as absent, "*" as any image name, app_version as any. */
bool cases_equal(const json_t *expected, const json_t *actual);
bool cases_equal_multiset(const json_t *expected, const json_t *actual);
/* cases_missing_type tells the first node type of GRAPH that this build has not, NULL if it has all. */
const char *cases_missing_type(const json_t *graph);
/* cases_check_error compares class, kind and place of a refusal with the expected ERROR object. */
struct verdict cases_check_error(const json_t *error, const struct graph_error *detail, const char *message);

/* Graphs in tests are written with single quotes: quoted("{'nodes': {}}"). */
#pragma once
#include "unit/unit.h"

#include "common/json.h"
#include "graph/graph.h"

static inline json_t *quoted(const char *text)
{
    char *copy = strdup(text);
    struct error err = {0};
    json_t *j = NULL;
    for (char *p = copy; *p; p++)
        if (*p == '\'')
            *p = '"';
    if (json_parse(copy, strlen(copy), 16 << 20, &j, &err) != ST_OK)
        fail_msg("%s: %s", err.message, copy);
    free(copy);
    return j;
}

static inline struct graph *graph_of(const char *text)
{
    struct error err = {0};
    struct graph *g = NULL;
    AUTO_JSON *document = quoted(text);
    assert_ok(graph_parse(document, &g, NULL, &err), err);
    return g;
}

/* The parts of a graph: GRAPH_TEXT(NODE_TEXT("a", "add", ", 'b': 1"), EDGE("x", "value", "a", "a")). */
#define EDGE(a, f, b, g) "{'source': {'node_id': '" a "', 'field': '" f "'}, 'destination': {'node_id': '" b "', 'field': '" g "'}}"
#define NODE_TEXT(id, type, fields) "'" id "': {'id': '" id "', 'type': '" type "'" fields "}"
#define GRAPH_TEXT(nodes, edges) "{'nodes': {" nodes "}, 'edges': [" edges "]}"

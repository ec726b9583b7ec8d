#include "worker/nodes/node_list.h"

#include <string.h>

static const struct {
    const char *type;
    node_fn *fn;
} implementations[] = {
#define NODE(type, class, output, ...) {#type, node_##type},
#include "graph/nodes/all.def"
};

node_fn *node_fn_find(const char *type)
{
    for (size_t i = 0; i < sizeof implementations / sizeof implementations[0]; i++)
        if (strcmp(implementations[i].type, type) == 0)
            return implementations[i].fn;
    return NULL;
}

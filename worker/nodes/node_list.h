/* The implementation of each node type of graph/nodes/all.def: node_NAME. */
#pragma once
#include "worker/nodes/node.h"

#define NODE(type, class, output, ...) node_fn node_##type;
#include "graph/nodes/all.def"

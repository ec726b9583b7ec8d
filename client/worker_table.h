/* The workers as a table for people: used by status and workers. */
#pragma once
#include <jansson.h>
/* worker_table_print prints one line a worker of the node's answer, and below it what is wrong with those that have a reason. */
void worker_table_print(const json_t *workers);

/* A few threads that share loops. What a loop computes never depends on which thread takes which task, nor on their number. */
#pragma once
#include "common/error.h"

struct pool;

/* pool_new starts THREADS - 1 threads beside the caller's (none for 1). They inherit the caller's affinity. Caller frees with pool_free. */
NODISCARD enum status pool_new(int threads, struct pool **ret, struct error *err);
void pool_free(struct pool *p); /* accepts NULL */
int pool_threads(const struct pool *p);
/* pool_run calls RUN(ARG, task) once for each task in [0, TASKS), in any order, on any of the threads, and returns when all are done. One
 * task: run by the caller, nobody is woken. */
void pool_run(struct pool *p, int tasks, void (*run)(void *arg, int task), void *arg);

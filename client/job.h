/* A job from the command line: a node (one that runs, or a private one), a batch, its progress, its pictures as files. */
#pragma once
#include "common/error.h"
#include "proto/client.h"
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

struct job_options {
    const char *node, *config; /* of the command line, NULL: not given */
    const char *pattern;       /* where pictures go, NULL: nowhere */
    bool may_start;            /* a private node if there is none */
    bool quiet, tiles;
};

struct job;
/* job_open finds or starts the node. */
NODISCARD enum status job_open(const struct job_options *o, struct job **ret, struct error *err);
/* job_close stops a private node. Accepts NULL. */
void job_close(struct job *j);
galley_client *job_client(const struct job *j);
/* job_run enqueues ARGS (taken) and waits for all items; each picture is written as its item ends. NODE_FAILED: an item failed or was
 * canceled; CANCELED: interrupted by a signal, the job is canceled; the error of the first picture that could not be written. */
NODISCARD enum status job_run(struct job *j, json_t *args, struct error *err);
/* job_result returns {"item_ids": [ascending], "batch_id", "pictures": [{"path", "item_id", "image_name", ...}]} as far as the job came
 * (borrowed). */
json_t *job_result(const struct job *j);
/* job_exit_code returns the exit code of what job_run returned. */
int job_exit_code(enum status s);

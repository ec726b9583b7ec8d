/* Pictures of one item, staged: written and synced into a folder of the item's own, published by galleyd when the finish is accepted. */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include "common/error.h"
#include "worker/image/picture.h"

struct output;

struct output_file {
    const char *node_id;         /* of the graph */
    bool is_intermediate;
    const struct png_text *texts;
    size_t n_texts;
};

/* output_new prepares staging in folder STAGING (made when the first picture comes). */
NODISCARD enum status output_new(const char *staging, struct output **ret, struct error *err);
void output_free(struct output *o);                     /* accepts NULL; keeps the files */
/* output_put encodes P, writes and syncs it; returns its new name ("<uuid>.png", borrowed). */
NODISCARD enum status output_put(struct output *o, const struct picture *p, const struct output_file *f, const char **ret_name, struct error *err);
/* output_find returns the path of a picture of this item, false if it has none of that NAME. */
bool output_find(const struct output *o, const char *name, char *ret_path, size_t size);
/* output_seal syncs the folder. Call before the finish. */
NODISCARD enum status output_seal(struct output *o, struct error *err);
/* output_files returns [{name, bytes, sha256, width, height, node_id, is_intermediate}] (borrowed). */
const json_t *output_files(const struct output *o);

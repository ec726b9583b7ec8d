/* What a node implementation sees. One file per node family; each node is one function, node_TYPE. */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include "common/error.h"
#include "worker/engine/model.h"
#include "worker/engine/tensor.h"
#include "worker/image/picture.h"

/* Services that the session gives to a running node. SELF is the session's. */
struct node_services {
    void *self;
    /* phase and free text for progress ("denoise", "Denoising"); ends with ST_CANCELED when the item was canceled. */
    enum status (*phase)(void *self, const char *phase, const char *message, struct error *err);
    const struct engine_hooks *hooks;
    /* Tensors of this item by name: put takes ownership and returns the name (borrowed); get borrows. */
    enum status (*tensor_put)(void *self, struct tensor *t, const char *kind, const char **ret_name, struct error *err);
    enum status (*tensor_get)(void *self, const char *name, const struct tensor **ret, struct error *err);
    /* image_put stages P as a PNG with this session's texts; METADATA (object or NULL) becomes invokeai_metadata. Returns the image name (borrowed). */
    enum status (*image_put)(void *self, const struct picture *p, const json_t *metadata, const char **ret_name, struct error *err);
    /* image_get returns the pixels of an image of this item (borrowed). */
    enum status (*image_get)(void *self, const char *name, const struct picture **ret, struct error *err);
    /* model_get resolves a model reference ({key, hash, name, base, type}) and returns the open model (borrowed until the item ends). */
    enum status (*model_get)(void *self, const json_t *reference, struct model **ret, struct error *err);
    /* random_u64: fresh random bits, the same again on a retry of the item. */
    uint64_t (*random_u64)(void *self);
};

/* A node reads INPUTS (every declared field present, coerced; see graph/inputs.h for the typed struct) and returns its output object,
 * which has "type" and the declared outputs. Failures: NODE_FAILED with a message for people, or the engine's own status. */
typedef enum status node_fn(const struct node_services *ns, const json_t *inputs, json_t **ret_output, struct error *err);

/* node_fn_find returns the implementation of a node type, NULL if none. */
node_fn *node_fn_find(const char *type);

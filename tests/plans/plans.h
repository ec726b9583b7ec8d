/* Every convolution and attention that the engine asks a backend for. */
#pragma once
#include "worker/backend/backend.h"

struct network {
    const char *name; /* "sd-1 unet" */
    bool vae;
    int width, height; /* pixels */
    int batch;
};
typedef enum status op_visit(void *arg, const struct op_desc *d, struct error *err);
/* network_ops describes NETWORK in DTYPE and calls VISIT for each of its ops. The networks' sizes are in shapes.c. */
NODISCARD enum status network_ops(const struct network *n, enum dtype dtype, op_visit *visit, void *arg, struct error *err);
/* network_all lists them all; the small list is what every build checks. */
const struct network *network_all(int *n);

/* What is wrong with this installation, and what to do about it. Works without a node and changes nothing. */
#pragma once
#include <jansson.h>
#include <stdbool.h>

struct doctor_options {
    const char *node;   /* control socket, NULL: that of the paths in use */
    const char *config; /* configuration file, NULL: the usual one */
    bool system;        /* look at the system's service */
};
/* doctor_examine returns [{"check", "level": "ok"|"note"|"problem", "text", "remedy"?}], in the order in which a node would stumble (caller
 * decrefs). */
json_t *doctor_examine(const struct doctor_options *o);

/* The part of the doctor that looks at devices and models. */
#pragma once
#include "common/config.h"
#include "common/paths.h"
#include <jansson.h>

/* finding appends one line to the doctor's list: LEVEL "ok", "note" or "problem"; REMEDY may be NULL. */
void finding(json_t *list, const char *check, const char *level, const char *remedy, const char *fmt, ...) PRINTF_LIKE(5, 6);
/* doctor_devices runs galley-worker --probe and judges what it finds against the configuration C (NULL: unknown). */
void doctor_devices(json_t *list, const struct config *c, const struct paths *p);

/* Item ids from the command line, as the arguments of a command. */
#pragma once
#include "common/error.h"
#include <jansson.h>
#include <stdint.h>

/* item_id_read reads one item id. BAD_ARGUMENT names the word. */
NODISCARD enum status item_id_read(const char *word, int64_t *ret, struct error *err);
/* item_ids_read reads N words as {"item_ids": [...]} (caller decrefs). */
NODISCARD enum status item_ids_read(char *const *words, int n, json_t **ret, struct error *err);

/* Rows of the store as clients see them. */
#pragma once
#include "proto/wr.h"
#include "supervisor/queue/queue.h"

struct supervisor;
/* row_write writes one item: InvokeAI's fields, galley's own, and where it is now when it runs. */
void row_write(const struct supervisor *sup, const struct item_row *row, struct wr *w);
/* image_row_write writes one picture. */
void image_row_write(const struct image_row *row, struct wr *w);
/* stamp_write writes a time as InvokeAI does, null for 0. */
void stamp_write(struct wr *w, const char *key, int64_t wall_ms);

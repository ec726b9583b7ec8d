/* Picture files: numbered names, and files that appear whole or not at all. */
#pragma once
#include "common/error.h"
#include "proto/client.h"
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { FILE_NAME_BYTES = 4096 };

/* pattern_numbers is true if PATTERN has a place for a number: %d, or with a width %3d, %03d. */
bool pattern_numbers(const char *pattern);
/* pattern_name writes PATTERN with its first such place replaced by NUMBER; a pattern without one stays as it is. TOO_LARGE past
 * FILE_NAME_BYTES. */
NODISCARD enum status pattern_name(const char *pattern, int64_t number, char ret[FILE_NAME_BYTES], struct error *err);
/* pattern_check refuses a PATTERN under which COUNT pictures cannot be written: no number for several, a name that promises another format
 * than PNG, a folder that is absent or not writable (tried by making a file). "-" is stdout, for one picture. */
NODISCARD enum status pattern_check(const char *pattern, int64_t count, struct error *err);
/* picture_write writes N bytes to PATH through a temporary file beside it that is renamed when the disk has it; "-" is stdout, what is no
 * regular file is written as it is. DISK_FULL, IO, FORBIDDEN name the path; nothing is left behind on failure. */
NODISCARD enum status picture_write(const char *path, const void *bytes, size_t n, struct error *err);

/* picture_of_item returns the row of the item's last picture that is not intermediate (caller decrefs); NOT_FOUND if it made none. */
NODISCARD enum status picture_of_item(galley_client *c, int64_t item_id, json_t **ret, struct error *err);
/* picture_fetch writes the picture IMAGE_NAME of the node to PATH. */
NODISCARD enum status picture_fetch(galley_client *c, const char *image_name, const char *path, struct error *err);

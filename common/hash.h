/* SHA-256 over libsodium, and random bytes. */
#pragma once
#include <stddef.h>
#include <stdint.h>
#include "common/error.h"

enum { SHA256_BYTES = 32, UUID_TEXT = 37 };
void sha256(const void *data, size_t n, uint8_t ret[SHA256_BYTES]);
NODISCARD enum status sha256_file(const char *path, uint8_t ret[SHA256_BYTES], int64_t *ret_bytes, struct error *err);
/* hex writes 2 * N digits and a NUL. */
void hex(const uint8_t *data, size_t n, char *ret);
/* uuid_new writes a random version 4 UUID. */
void uuid_new(char ret[UUID_TEXT]);
/* uuid_derived writes a version 4 shaped UUID that depends on TEXT and N only: names that need no storing. */
void uuid_derived(const char *text, uint64_t n, char ret[UUID_TEXT]);

/* CLIP's byte-level BPE tokenizer (lower case, NFC, whitespace cleaned), any vocabulary. */
#pragma once
#include <stddef.h>
#include <stdint.h>
#include "common/error.h"

struct tokenizer;

/* tokenizer_open reads vocab.json, merges.txt and tokenizer_config.json (pad token) of a diffusers tokenizer folder. BAD_MODEL names file and line. */
NODISCARD enum status tokenizer_open(const char *dir, struct tokenizer **ret, struct error *err);
void tokenizer_free(struct tokenizer *t);
/* tokenizer_encode appends the ids of TEXT (valid UTF-8 or replaced by U+FFFD) without begin and end marks. Caller frees *ret_ids. */
NODISCARD enum status tokenizer_encode(const struct tokenizer *t, const char *text, int32_t **ret_ids, size_t *ret_n, struct error *err);
/* tokenizer_encode_bytes is tokenizer_encode of LEN bytes, which may hold NUL. */
NODISCARD enum status tokenizer_encode_bytes(const struct tokenizer *t, const char *text, size_t len, int32_t **ret_ids, size_t *ret_n, struct error *err);
int32_t tokenizer_bos(const struct tokenizer *t);
int32_t tokenizer_eos(const struct tokenizer *t);
int32_t tokenizer_pad(const struct tokenizer *t);
int32_t tokenizer_size(const struct tokenizer *t);          /* highest id + 1 */
/* tokenizer_ends_word tells whether token ID ends a word ("</w>"); tokenizer_text its vocabulary text (borrowed). */
const char *tokenizer_text(const struct tokenizer *t, int32_t id);

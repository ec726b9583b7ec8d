/* Prompt language: any text. A prompt that is accepted holds fragments with finite weights and no more text than went in. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "worker/engine/prompt.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1);
    if (!text)
        return 0;
    memcpy(text, data, size);
    text[size] = 0;
    struct prompt *p = NULL;
    struct error err = {0};
    enum status status = prompt_parse(text, &p, &err);
    if (status != ST_OK && !err.message[0])
        abort();
    for (size_t b = 0; status == ST_OK && b < p->n; b++)
        for (size_t i = 0; i < p->blends[b].n; i++)
            for (size_t k = 0; k < p->blends[b].parts[i].n; k++) {
                const struct prompt_fragment *f = &p->blends[b].parts[i].fragments[k];
                if (!isfinite(f->weight) || strlen(f->text) > 2 * size)
                    abort();
            }
    if (status == ST_OK)
        prompt_free(p);
    free(text);
    return 0;
}

#include "worker/engine/model.h"

#include <stdio.h>
#include <stdlib.h>
#include "common/json.h"
#include "worker/engine/model_parts.h"

enum { CONFIG_MAX_BYTES = 1 << 20 };

static enum status read_config(const struct model *m, const char *name, json_t **ret, struct error *err)
{
    char path[PATH_BYTES];
    TRY(paths_join(path, sizeof path, m->dir, name, err));
    enum status s = json_read_file(path, CONFIG_MAX_BYTES, ret, err);
    return s == ST_OK || s == ST_OUT_OF_MEMORY ? s : FAIL(err, BAD_MODEL, "model part '%s' cannot be read: it is missing or damaged", path);
}

static enum status open_part(struct model *m, const char *folder, const char *stem, struct weights **ret, struct error *err)
{
    char dir[PATH_BYTES];
    TRY(paths_join(dir, sizeof dir, m->dir, folder, err));
    return weights_open(dir, stem, m->backend, ret, err);
}

static enum status open_unet(struct model *m, struct error *err)
{
    AUTO_JSON *config = NULL;
    TRY(read_config(m, "unet/config.json", &config, err));
    TRY(unet_config_read(config, &m->unet_config, err));
    return open_part(m, "unet", "diffusion_pytorch_model", &m->unet, err);
}

static enum status open_vae(struct model *m, struct error *err)
{
    AUTO_JSON *config = NULL;
    TRY(read_config(m, "vae/config.json", &config, err));
    TRY(vae_config_read(config, &m->vae_config, err));
    return open_part(m, "vae", "diffusion_pytorch_model", &m->vae, err);
}

static enum status open_text(struct model *m, struct error *err)
{
    AUTO_JSON *config = NULL;
    char dir[PATH_BYTES];
    TRY(read_config(m, "text_encoder/config.json", &config, err));
    TRY(clip_config_read(config, &m->clip_config, err));
    TRY(open_part(m, "text_encoder", "model", &m->text, err));
    TRY(paths_join(dir, sizeof dir, m->dir, "tokenizer", err));
    TRY(tokenizer_open(dir, &m->tokenizer, err));
    int vocabulary = m->clip_config.vocabulary;
    if (tokenizer_size(m->tokenizer) > vocabulary)
        return FAIL(err, BAD_MODEL, "%s has token ids up to %d, the text encoder's table %d rows", dir, tokenizer_size(m->tokenizer) - 1, vocabulary);
    if (m->clip_config.width != m->unet_config.context)
        return FAIL(err, BAD_MODEL, "the text encoder is %d wide (hidden_size), the UNet attends to %d (cross_attention_dim)", m->clip_config.width,
                    m->unet_config.context);
    m->texts = calloc((size_t)m->clip_config.layers, sizeof *m->texts);
    return m->texts ? ST_OK : FAIL(err, OUT_OF_MEMORY, "out of memory opening '%s'", m->dir);
}

static enum status open_all(struct model *m, struct error *err)
{
    TRY(open_unet(m, err));
    TRY(open_vae(m, err));
    TRY(open_text(m, err));
    TRY(read_config(m, "scheduler/scheduler_config.json", &m->scheduler_config, err));
    return model_check(m, err);
}

enum status model_open(const char *dir, struct backend *backend, enum dtype compute, struct model **ret, struct error *err)
{
    struct model *m = calloc(1, sizeof *m);
    if (!m)
        return FAIL(err, OUT_OF_MEMORY, "out of memory opening '%s'", dir);
    m->backend = backend;
    m->compute = compute;
    enum status s = ST_OK;
    if (snprintf(m->dir, sizeof m->dir, "%s", dir) >= (int)sizeof m->dir)
        s = FAIL(err, TOO_LARGE, "path '%s' has more than %zu bytes", dir, sizeof m->dir - 1);
    if (s == ST_OK)
        s = open_all(m, err);
    if (s != ST_OK) {
        model_free(m);
        return s;
    }
    *ret = m;
    return ST_OK;
}

void model_free(struct model *m)
{
    if (!m)
        return;
    for (int i = 0; i < MODEL_PLANS; i++)
        plan_free(m->plans[i].plan);
    weights_free(m->unet);
    weights_free(m->vae);
    weights_free(m->text);
    tokenizer_free(m->tokenizer);
    json_decref(m->scheduler_config);
    free(m->texts);
    free(m);
}

size_t model_weight_bytes(const struct model *m)
{
    return (weights_used(m->unet) + weights_used(m->text)) * dtype_bytes(m->compute) + weights_used(m->vae) * dtype_bytes(DT_F32);
}

static size_t plans_bytes(const struct model *m, bool idle)
{
    size_t bytes = 0;
    for (int i = 0; i < MODEL_PLANS; i++)
        if (m->plans[i].plan && !(idle && m->plans[i].pins))
            bytes += plan_bytes(m->plans[i].plan);
    return bytes;
}

size_t model_bytes(const struct model *m)
{
    return m->loaded + plans_bytes(m, false);
}

size_t model_idle_bytes(const struct model *m)
{
    return plans_bytes(m, true);
}

void model_share(struct model *m, const struct model_room *room)
{
    m->room = room;
    m->plan_room = (struct plan_room){room->self, room->make};
}

const struct tokenizer *model_tokenizer(const struct model *m)
{
    return m->tokenizer;
}

const json_t *model_scheduler_config(const struct model *m)
{
    return m->scheduler_config;
}

#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include "common/json.h"
#include "worker/engine/model_parts.h"

enum { INFO_MAX_BYTES = 1 << 20, WIDTH_SD1 = 768 };

/* Families by the class in model_index.json; those with a family are known and not built. The plain class is SD 1 and 2. */
static const struct { const char *class_name, *family; } CLASSES[] = {
    {"StableDiffusionPipeline", NULL},
    {"StableDiffusionInpaintPipeline", "sd-1 or sd-2 inpainting"},
    {"StableDiffusionXLPipeline", "sdxl"},
    {"StableDiffusionXLInpaintPipeline", "sdxl inpainting"},
    {"StableDiffusionXLImg2ImgPipeline", "sdxl-refiner"},
    {"StableDiffusion3Pipeline", "sd-3"},
    {"FluxPipeline", "flux"},
    {"LatentConsistencyModelPipeline", "sd-1 latent consistency"},
};

void model_info_fini(struct model_info *m)
{
    json_decref(m->default_settings);
    m->default_settings = NULL;
}

static enum status read_part(const char *dir, const char *name, json_t **ret, struct error *err)
{
    char path[PATH_BYTES];
    TRY(paths_join(path, sizeof path, dir, name, err));
    enum status s = json_read_file(path, INFO_MAX_BYTES, ret, err);
    if (s != ST_OK && s != ST_OUT_OF_MEMORY && err) {
        err->code = ST_BAD_MODEL;
        s = ST_BAD_MODEL;
    }
    return s;
}

static enum status check_class(const char *dir, struct error *err)
{
    AUTO_JSON *index = NULL;
    TRY(read_part(dir, "model_index.json", &index, err));
    const char *name = json_str(index, "_class_name", "");
    for (size_t i = 0; i < sizeof CLASSES / sizeof *CLASSES; i++) {
        if (strcmp(name, CLASSES[i].class_name))
            continue;
        if (!CLASSES[i].family)
            return ST_OK;
        return FAIL(err, UNSUPPORTED, "'%s' is a model of family %s; this version runs sd-1", dir, CLASSES[i].family);
    }
    return FAIL(err, UNSUPPORTED, "'%s' is a model of class '%.80s'; this version runs StableDiffusionPipeline of family sd-1", dir, name);
}

static enum status check_family(const char *dir, const json_t *unet, struct error *err)
{
    long long in = json_int(unet, "in_channels", 4), context = json_int(unet, "cross_attention_dim", 0);
    const char *family = in == 9 ? "inpainting" : context == 1024 ? "sd-2" : context == 2048 ? "sdxl" : context == 1280 ? "sdxl-refiner" : NULL;
    if (family)
        return FAIL(err, UNSUPPORTED, "'%s' is a model of family %s; this version runs sd-1", dir, family);
    if (context != WIDTH_SD1)
        return FAIL(err, UNSUPPORTED, "'%s' attends to a context of width %lld (unet cross_attention_dim); this version runs sd-1, which has %d", dir,
                    context, WIDTH_SD1);
    return ST_OK;
}

static void add_weight_bytes(const char *dir, const char *part, int64_t *bytes)
{
    char folder[PATH_BYTES], path[PATH_BYTES];
    struct stat st;
    if (paths_join(folder, sizeof folder, dir, part, NULL) != ST_OK)
        return;
    DIR *d = opendir(folder);
    struct dirent *e;
    while (d && (e = readdir(d))) {
        const char *dot = strrchr(e->d_name, '.');
        if (dot && !strcmp(dot, ".safetensors") && paths_join(path, sizeof path, folder, e->d_name, NULL) == ST_OK && stat(path, &st) == 0)
            *bytes += st.st_size;
    }
    if (d)
        closedir(d);
}

/* name_from_dir takes the last part of DIR, trailing slashes aside. */
static enum status name_from_dir(const char *dir, char *ret, size_t size, struct error *err)
{
    size_t end = strlen(dir);
    while (end > 1 && dir[end - 1] == '/')
        end--;
    size_t begin = end;
    while (begin > 0 && dir[begin - 1] != '/')
        begin--;
    if (end - begin >= size)
        return FAIL(err, BAD_MODEL, "folder name '%.40s...' has more than %zu bytes", dir + begin, size - 1);
    snprintf(ret, size, "%.*s", (int)(end - begin), dir + begin);
    return ST_OK;
}

static enum status read_settings(const char *dir, json_t **ret, struct error *err)
{
    char path[PATH_BYTES];
    struct stat st;
    TRY(paths_join(path, sizeof path, dir, "default_settings.json", err));
    if (stat(path, &st) != 0)
        return ST_OK;
    AUTO_JSON *j = NULL;
    TRY(read_part(dir, "default_settings.json", &j, err));
    if (!json_is_object(j))
        return FAIL(err, BAD_MODEL, "%s is not a JSON object", path);
    *ret = json_incref(j);
    return ST_OK;
}

enum status model_identify(const char *dir, struct model_info *ret, struct error *err)
{
    static const char *const PARTS[] = {"unet", "vae", "text_encoder"};
    struct model_info m = {.base = "sd-1", .type = "main"};
    struct unet_config unet;
    struct vae_config vae;
    struct clip_config clip;
    AUTO_JSON *unet_json = NULL, *vae_json = NULL, *clip_json = NULL;
    if (snprintf(m.path, sizeof m.path, "%s", dir) >= (int)sizeof m.path)
        return FAIL(err, BAD_MODEL, "path '%.80s...' has more than %zu bytes", dir, sizeof m.path - 1);
    TRY(name_from_dir(dir, m.name, sizeof m.name, err));
    memcpy(m.key, m.name, sizeof m.key);
    TRY(check_class(dir, err));
    TRY(read_part(dir, "unet/config.json", &unet_json, err));
    TRY(check_family(dir, unet_json, err));
    TRY(unet_config_read(unet_json, &unet, err));
    TRY(read_part(dir, "vae/config.json", &vae_json, err));
    TRY(vae_config_read(vae_json, &vae, err));
    TRY(read_part(dir, "text_encoder/config.json", &clip_json, err));
    TRY(clip_config_read(clip_json, &clip, err));
    for (size_t i = 0; i < sizeof PARTS / sizeof *PARTS; i++)
        add_weight_bytes(dir, PARTS[i], &m.bytes);
    m.sample_size = 8 * unet.sample_size;
    TRY(read_settings(dir, &m.default_settings, err));
    *ret = m;
    return ST_OK;
}

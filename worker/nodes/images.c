/* Picture nodes: save_image, image, img_resize. */
#include <string.h>

#include "common/json.h"
#include "graph/inputs.h"
#include "worker/nodes/node_list.h"

static enum status input_picture(const struct node_services *ns, const json_t *image, const struct picture **ret, struct error *err)
{
    return ns->image_get(ns->self, json_str(image, "image_name", ""), ret, err);
}

static enum status image_output(const char *name, int width, int height, json_t **ret, struct error *err)
{
    *ret = json_pack("{s:s s:{s:s} s:i s:i}", "type", "image_output", "image", "image_name", name, "width", width, "height", height);
    return *ret ? ST_OK : FAIL(err, OUT_OF_MEMORY, "out of memory for the node's output");
}

enum status node_save_image(const struct node_services *ns, const json_t *inputs, json_t **ret, struct error *err)
{
    struct save_image_inputs in;
    const struct picture *p;
    const char *name;
    TRY(save_image_inputs_read(inputs, &in, err));
    TRY(ns->phase(ns->self, "save", "Saving image", err));
    TRY(input_picture(ns, in.image, &p, err));
    TRY(ns->image_put(ns->self, p, in.metadata, &name, err));
    return image_output(name, p->width, p->height, ret, err);
}

enum status node_image(const struct node_services *ns, const json_t *inputs, json_t **ret, struct error *err)
{
    struct image_inputs in;
    const struct picture *p;
    TRY(image_inputs_read(inputs, &in, err));
    TRY(input_picture(ns, in.image, &p, err));
    return image_output(json_str(in.image, "image_name", ""), p->width, p->height, ret, err);
}

static enum status resample_from_name(const char *name, enum resample *ret, struct error *err)
{
    static const struct { const char *name; enum resample how; } table[] = {
        {"nearest", RESAMPLE_NEAREST}, {"box", RESAMPLE_BOX}, {"bilinear", RESAMPLE_BILINEAR},
        {"hamming", RESAMPLE_HAMMING}, {"bicubic", RESAMPLE_BICUBIC}, {"lanczos", RESAMPLE_LANCZOS},
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
        if (strcmp(table[i].name, name) == 0) {
            *ret = table[i].how;
            return ST_OK;
        }
    return FAIL(err, NODE_FAILED, "field 'resample_mode': '%s' is none of nearest box bilinear hamming bicubic lanczos", name);
}

enum status node_img_resize(const struct node_services *ns, const json_t *inputs, json_t **ret, struct error *err)
{
    struct img_resize_inputs in;
    const struct picture *p;
    struct picture *resized;
    enum resample how;
    const char *name;
    TRY(img_resize_inputs_read(inputs, &in, err));
    TRY(resample_from_name(in.resample_mode, &how, err));
    if (in.width > 16384 || in.height > 16384)
        return FAIL(err, NODE_FAILED, "fields 'width', 'height': %lld x %lld exceeds 16384", (long long)in.width, (long long)in.height);
    TRY(input_picture(ns, in.image, &p, err));
    TRY(picture_resize(p, (int)in.width, (int)in.height, how, &resized, err));
    enum status st = ns->phase(ns->self, "save", "Saving image", err);
    if (st == ST_OK)
        st = ns->image_put(ns->self, resized, in.metadata, &name, err);
    int width = resized->width, height = resized->height;
    picture_free(resized);
    TRY(st);
    return image_output(name, width, height, ret, err);
}

/* YAML into a configuration: a whole file, or one value. */
#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "common/config_table.h"
#include "common/json.h"

enum { LIST_ITEMS = 256, TEXT_BYTES = 4096 };

/* Keys of InvokeAI 6 that mean nothing to this node. A key that starts with "external_" is one too (accounts of image services). */
static const char *const foreign_keys[] = {
    "allow_credentials", "allow_headers", "allow_methods", "allow_nodes", "allow_origins", "allow_private_download_urls", "allow_unknown_models",
    "attention_slice_size", "attention_type", "base_url", "conf_path", "convert_cache_dir", "custom_nodes_dir", "db_dir", "deny_nodes", "dev_reload", "device",
    "device_working_mem_gb", "download_cache_dir", "download_proxy", "enable_partial_loading", "force_tiled_decode", "forwarded_allow_ips",
    "hashing_algorithm", "host", "http_compression_level", "image_subfolder_strategy", "keep_ram_copy_of_weights", "lazy_offload", "legacy_conf_dir", "log_handlers",
    "log_level_network", "log_memory_usage", "log_sql", "max_cache_vram_gb", "max_queue_history", "model_cache_keep_alive_min", "multiuser", "node_cache_size",
    "offload_text_encoders_to_idle_gpus", "patchmatch", "pid_memory_optimization", "pil_compress_level", "port", "profile_graphs", "profile_prefix",
    "profiles_dir", "pytorch_cuda_alloc_conf", "ram", "remote_api_tokens", "scan_models_on_startup", "schema_version", "sequential_guidance",
    "ssl_certfile", "ssl_keyfile", "strict_password_checking", "style_presets_dir", "unsafe_disable_picklescan", "use_memory_db", "vram", "wan_memory_optimization",
    "workflow_thumbnails_dir",
};
enum { N_FOREIGN = sizeof foreign_keys / sizeof *foreign_keys };

/* ---- one value from YAML ---- */

/* Where a value came from, for messages: "FILE:LINE: " or "GALLEY_KEY: ". */
struct place {
    const char *name;
    size_t line;     /* 0: no lines */
};

static enum status bad_value(const struct place *at, const struct config_row *row, const char *value, struct error *err)
{
    char allowed[128];
    switch (row->type) {
    case CONFIG_BOOL: snprintf(allowed, sizeof allowed, "true, false"); break;
    case CONFIG_INT: snprintf(allowed, sizeof allowed, "%.0f..%.0f", row->min, row->max); break;
    case CONFIG_FLOAT: snprintf(allowed, sizeof allowed, "%.10g..%.10g", row->min, row->max); break;
    case CONFIG_ENUM: snprintf(allowed, sizeof allowed, "%s", row->choices); break;
    case CONFIG_STRING: snprintf(allowed, sizeof allowed, "a text of at most %d bytes", TEXT_BYTES); break;
    case CONFIG_LIST: snprintf(allowed, sizeof allowed, "a list of at most %d texts", LIST_ITEMS); break;
    }
    FAIL(err, BAD_CONFIG, "%s: %.80s (allowed %s)", row->name, value, allowed);
    return at->line ? error_prefix(err, "%s:%zu", at->name, at->line) : error_prefix(err, "%s", at->name);
}

static bool is_one_of(const char *word, const char *choices)
{
    size_t n = strlen(word);
    for (const char *p = choices; ; p++) {
        size_t length = strcspn(p, "|");
        if (length == n && memcmp(p, word, n) == 0)
            return n > 0;
        p += length;
        if (!*p)
            return false;
    }
}

/* read_bool takes YAML 1.1's words, as PyYAML (and so InvokeAI) does. */
static bool read_bool(const char *word, bool *ret)
{
    static const char yes[] = "true|True|TRUE|yes|Yes|YES|on|On|ON", no[] = "false|False|FALSE|no|No|NO|off|Off|OFF";
    if (!is_one_of(word, yes) && !is_one_of(word, no))
        return false;
    *ret = is_one_of(word, yes);
    return true;
}

static bool read_int(const char *word, const struct config_row *row, int64_t *ret)
{
    char *end;
    errno = 0;
    long long v = strtoll(word, &end, 10);
    if (end == word || *end || errno || isspace((unsigned char)*word) || (double)v < row->min || (double)v > row->max)
        return false;
    *ret = v;
    return true;
}

static bool read_float(const char *word, const struct config_row *row, double *ret)
{
    char *end;
    double v = strtod(word, &end);
    /* The first byte keeps out what strtod alone takes: space, inf, nan. A hexadecimal number has an x. */
    if (end == word || *end || !strchr("+-.0123456789", *word) || strpbrk(word, "xX") || !isfinite(v) || v < row->min || v > row->max)
        return false;
    *ret = v;
    return true;
}

static bool is_null(const yaml_node_t *v)
{
    return v->type == YAML_SCALAR_NODE && v->data.scalar.style == YAML_PLAIN_SCALAR_STYLE && is_one_of((const char *)v->data.scalar.value, "~|null|Null|NULL");
}

static bool is_empty(const yaml_node_t *v)
{
    return v->type == YAML_SCALAR_NODE && v->data.scalar.style == YAML_PLAIN_SCALAR_STYLE && v->data.scalar.length == 0;
}

static const char *scalar_text(const yaml_node_t *v)
{
    if (v->type != YAML_SCALAR_NODE)
        return NULL;
    const char *s = (const char *)v->data.scalar.value;
    return strlen(s) == v->data.scalar.length && v->data.scalar.length <= TEXT_BYTES ? s : NULL;     /* a NUL inside is no text */
}

/* value_name says in a message what was given. */
static const char *value_name(const yaml_node_t *v)
{
    if (v->type == YAML_SEQUENCE_NODE)
        return "a list";
    if (v->type == YAML_MAPPING_NODE)
        return "a mapping";
    return scalar_text(v) ? scalar_text(v) : "a text that is too long or holds a NUL";
}

static bool read_list(yaml_document_t *doc, const yaml_node_t *v, struct strlist *ret)
{
    struct strlist l = {0};
    bool ok = true;
    if (v->type == YAML_SCALAR_NODE) {
        const char *s = scalar_text(v);
        ok = s && *s;
        if (ok)
            strlist_add(&l, s);
        ok = ok && l.n == 1;
    } else if (v->type == YAML_SEQUENCE_NODE) {
        yaml_node_item_t *item = v->data.sequence.items.start, *end = v->data.sequence.items.top;
        ok = end - item <= LIST_ITEMS;
        for (; ok && item < end; item++) {
            const char *s = scalar_text(yaml_document_get_node(doc, *item));
            size_t before = l.n;
            if (s && *s)
                strlist_add(&l, s);
            ok = l.n == before + 1;
        }
    } else {
        ok = false;
    }
    if (!ok) {
        strlist_free(&l);
        return false;
    }
    *ret = l;
    return true;
}

/* member_read puts V over ROW's value in C; false if V is not allowed there (C unchanged). */
static bool member_read(struct config *c, const struct config_row *row, yaml_document_t *doc, const yaml_node_t *v)
{
    void *target = config_member(c, row);
    const char *word = scalar_text(v);
    struct strlist list;
    char *copy;
    if (row->type == CONFIG_LIST) {
        if (!read_list(doc, v, &list))
            return false;
        config_member_free(c, row);
        *(struct strlist *)target = list;
        return true;
    }
    if (!word)
        return false;
    switch (row->type) {
    case CONFIG_BOOL: return read_bool(word, target);
    case CONFIG_INT: return read_int(word, row, target);
    case CONFIG_FLOAT: return read_float(word, row, target);
    case CONFIG_ENUM:
        if (!is_one_of(word, row->choices))
            return false;
        break;
    default: break;
    }
    if (!(copy = strdup(word)))
        return false;
    config_member_free(c, row);
    *(char **)target = copy;
    return true;
}

/* set_row puts V over ROW; null gives the built-in value back, as in InvokeAI's files. */
static enum status set_row(struct config *c, const struct config_row *row, yaml_document_t *doc, const yaml_node_t *v, const struct place *at, enum config_origin origin,
                           struct error *err)
{
    bool null = is_null(v) || is_empty(v);
    if (null && !config_member_default(c, row))
        return FAIL(err, OUT_OF_MEMORY, "out of memory for the configuration");
    if (!null && !member_read(c, row, doc, v))
        return bad_value(at, row, value_name(v), err);
    c->origin[row - config_rows] = null ? CONFIG_BUILT_IN : origin;
    return ST_OK;
}

/* ---- keys ---- */

const struct config_row *config_find_row(const char *key)
{
    for (size_t i = 0; i < CFG_COUNT; i++)
        if (strcmp(config_rows[i].name, key) == 0)
            return &config_rows[i];
    return NULL;
}

static bool is_foreign(const char *key)
{
    if (strncmp(key, "external_", strlen("external_")) == 0)
        return true;
    for (size_t i = 0; i < N_FOREIGN; i++)
        if (strcmp(foreign_keys[i], key) == 0)
            return true;
    return false;
}

static enum status unknown_key(const struct place *at, const char *key, struct error *err)
{
    const char *names[CFG_COUNT];
    for (size_t i = 0; i < CFG_COUNT; i++)
        names[i] = config_rows[i].name;
    const char *nearest = nearest_name(key, names, CFG_COUNT);
    if (nearest)
        FAIL(err, BAD_CONFIG, "unknown key '%.64s': did you mean '%s'?", key, nearest);
    else
        FAIL(err, BAD_CONFIG, "unknown key '%.64s': 'galley config show' lists the keys", key);
    return at->line ? error_prefix(err, "%s:%zu", at->name, at->line) : error_prefix(err, "%s", at->name);
}

/* ---- YAML documents ---- */

static enum status yaml_fault(const yaml_parser_t *parser, const char *name, struct error *err)
{
    if (parser->error == YAML_MEMORY_ERROR)
        return FAIL(err, OUT_OF_MEMORY, "%s: out of memory reading YAML", name);
    return FAIL(err, BAD_CONFIG, "%s:%zu: not valid YAML: %s%s%s", name, parser->problem_mark.line + 1, parser->problem ? parser->problem : "unknown fault",
                parser->context ? ", " : "", parser->context ? parser->context : "");
}

typedef enum status document_fn(void *arg, yaml_document_t *doc, yaml_node_t *root, struct error *err);

/* with_document parses TEXT, hands its one document's root (NULL if empty) to FN, and frees it. NAME is for messages. */
static enum status with_document(const char *text, size_t len, const char *name, document_fn *fn, void *arg, struct error *err)
{
    yaml_parser_t parser;
    if (!yaml_parser_initialize(&parser))
        return FAIL(err, OUT_OF_MEMORY, "%s: out of memory reading YAML", name);
    yaml_parser_set_input_string(&parser, (const unsigned char *)text, len);
    yaml_document_t doc, second;
    enum status s;
    if (!yaml_parser_load(&parser, &doc)) {
        s = yaml_fault(&parser, name, err);
    } else {
        if (!yaml_document_get_root_node(&doc)) {
            s = fn(arg, &doc, NULL, err);
        } else if (!yaml_parser_load(&parser, &second)) {
            s = yaml_fault(&parser, name, err);
        } else {
            bool more = yaml_document_get_root_node(&second) != NULL;
            s = more ? FAIL(err, BAD_CONFIG, "%s: holds more than one YAML document", name) : fn(arg, &doc, yaml_document_get_root_node(&doc), err);
            yaml_document_delete(&second);
        }
        yaml_document_delete(&doc);
    }
    yaml_parser_delete(&parser);
    return s;
}

struct file_job {
    struct config *config;
    const char *path;
};

static enum status read_pair(struct config *c, const char *path, yaml_document_t *doc, const yaml_node_pair_t *pair, bool seen[CFG_COUNT], struct error *err)
{
    const yaml_node_t *key_node = yaml_document_get_node(doc, pair->key);
    const char *key = scalar_text(key_node);
    struct place at = {path, key_node->start_mark.line + 1};
    if (!key)
        return FAIL(err, BAD_CONFIG, "%s:%zu: a key must be a plain name", at.name, at.line);
    const struct config_row *row = config_find_row(key);
    if (!row && is_foreign(key)) {
        strlist_add(&c->ignored, key);
        return ST_OK;
    }
    if (!row)
        return unknown_key(&at, key, err);
    if (seen[row - config_rows])
        return FAIL(err, BAD_CONFIG, "%s:%zu: %s is given twice", at.name, at.line, key);
    seen[row - config_rows] = true;
    return set_row(c, row, doc, yaml_document_get_node(doc, pair->value), &at, CONFIG_FILE, err);
}

static enum status read_mapping(void *arg, yaml_document_t *doc, yaml_node_t *root, struct error *err)
{
    struct file_job *job = arg;
    if (!root || is_null(root) || is_empty(root))
        return ST_OK;
    if (root->type != YAML_MAPPING_NODE)
        return FAIL(err, BAD_CONFIG, "%s:%zu: must hold lines of the form 'key: value'", job->path, root->start_mark.line + 1);
    bool seen[CFG_COUNT] = {false};
    for (yaml_node_pair_t *pair = root->data.mapping.pairs.start; pair < root->data.mapping.pairs.top; pair++)
        TRY(read_pair(job->config, job->path, doc, pair, seen, err));
    return ST_OK;
}

struct value_job {
    struct config *config;
    const struct config_row *row;
    struct place at;
    enum config_origin origin;
};

static enum status read_value(void *arg, yaml_document_t *doc, yaml_node_t *root, struct error *err)
{
    struct value_job *job = arg;
    if (root)
        return set_row(job->config, job->row, doc, root, &job->at, job->origin, err);
    return config_member_default(job->config, job->row) ? ST_OK : FAIL(err, OUT_OF_MEMORY, "out of memory for the configuration");
}

enum status config_yaml_file(struct config *c, const char *path, const char *text, size_t len, struct error *err)
{
    struct file_job job = {c, path};
    return with_document(text, len, path, read_mapping, &job, err);
}

enum status config_yaml_value(struct config *c, const char *key, const char *text, const char *name, enum config_origin origin, struct error *err)
{
    const struct config_row *row = config_find_row(key);
    struct place at = {name, 0};
    if (!row)
        return unknown_key(&at, key, err);
    struct value_job job = {c, row, at, origin};
    return with_document(text, strlen(text), name, read_value, &job, err);
}

/* galley-golden [--only TEXT] [--verbose] FOLDER...: runs the recorded cases of each FOLDER (it holds cases.json, or folders that do)
 * and prints one line per failure and per kind. Exit status 0 only if something ran and nothing failed. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "common/buf.h"
#include "common/json.h"
#include "golden/golden.h"
#include "golden/golden_files.h"

enum { MANIFEST_MAX_BYTES = 64 * 1024 * 1024, REASONS_MAX = 64 };

static const struct { const char *name; golden_run *run; } kinds[] = {
#define ROW(name) { #name, kind_##name },
    GOLDEN_KINDS(ROW)
#undef ROW
};

struct reason { char text[768]; size_t n; };
struct tally {
    size_t passed, failed, skipped;
    struct reason reason[REASONS_MAX];
    size_t n_reasons;
};
struct options { const char *only; bool verbose; };

static void count_skip(struct tally *t, const char *why)
{
    t->skipped++;
    for (size_t i = 0; i < t->n_reasons; i++)
        if (strcmp(t->reason[i].text, why) == 0) {
            t->reason[i].n++;
            return;
        }
    if (t->n_reasons == REASONS_MAX)
        return;
    struct reason *r = &t->reason[t->n_reasons++];
    snprintf(r->text, sizeof r->text, "%s", why);
    r->n = 1;
}

static golden_run *find_kind(const char *name)
{
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (strcmp(kinds[i].name, name) == 0)
            return kinds[i].run;
    return NULL;
}

/* The manifests come from Python, whose writer spells infinities as bare words; no test reads those values, so they become null. */
static void blank_infinities(char *text, size_t len)
{
    static const char *const words[] = { "-Infinity", "Infinity", "NaN" };
    bool quoted = false;
    for (size_t i = 0; i < len; i++) {
        if (text[i] == '\\' && quoted)
            i++;
        else if (text[i] == '"')
            quoted = !quoted;
        for (size_t w = 0; !quoted && w < sizeof words / sizeof *words; w++) {
            size_t n = strlen(words[w]);
            if (i + n <= len && memcmp(text + i, words[w], n) == 0) {
                memset(text + i, ' ', n);
                memcpy(text + i, w == 2 ? "0" : "null", w == 2 ? 1 : 4);
            }
        }
    }
}

static enum status read_manifest(const char *folder, json_t **ret, struct error *err)
{
    AUTO_BUF path = BUF_INIT;
    AUTO_BUF text = BUF_INIT;
    buf_printf(&path, "%s/cases.json", folder);
    FILE *f = buf_ok(&path) ? fopen(path.data, "rb") : NULL;
    if (!f)
        return FAIL(err, IO, "cannot open %s/cases.json", folder);
    char chunk[65536];
    size_t n;
    while ((n = fread(chunk, 1, sizeof chunk, f)) > 0 && text.len <= MANIFEST_MAX_BYTES)
        buf_put(&text, chunk, n);
    fclose(f);
    if (!buf_ok(&text))
        return FAIL(err, OUT_OF_MEMORY, "no memory for %s/cases.json", folder);
    blank_infinities(text.data, text.len);
    json_error_t fault;
    json_t *j = json_loadb(text.data, text.len, JSON_ALLOW_NUL, &fault);     /* some texts to tokenize hold NUL */
    if (!j)
        return FAIL(err, BAD_REQUEST, "cases.json, line %d: %s", fault.line, fault.text);
    *ret = j;
    return ST_OK;
}

static void run_case(struct golden_case *c, golden_run *run, const char *kind, const struct options *o, struct tally *t)
{
    enum golden_result result;
    if (!json_is_object(c->json) || !json_is_string(json_object_get(c->json, "name")) || !json_is_object(c->inputs))
        result = golden_fail(c, "the case has no name or no inputs");
    else if (!run)
        result = golden_skip(c, "kind not in this build");
    else
        result = run(c);
    arena_reset(c->arena);
    if (result == GOLDEN_FAIL)
        printf("FAILED %s/%s: %s\n", kind, c->name, c->reason);
    else if (o->verbose)
        printf("%s %s/%s%s%s\n", result == GOLDEN_PASS ? "passed" : "skipped", kind, c->name, result == GOLDEN_PASS ? "" : ": ", result == GOLDEN_PASS ? "" : c->reason);
    t->passed += result == GOLDEN_PASS;
    t->failed += result == GOLDEN_FAIL;
    if (result == GOLDEN_SKIP)
        count_skip(t, c->reason);
}

static void print_tally(const char *kind, const struct tally *t)
{
    printf("%s: %zu passed, %zu failed, %zu skipped", kind, t->passed, t->failed, t->skipped);
    for (size_t i = 0; i < t->n_reasons; i++)
        printf("%s%zu: %s", i ? "; " : " (", t->reason[i].n, t->reason[i].text);
    printf("%s\n", t->n_reasons ? ")" : "");
    fflush(stdout);
}

/* One folder with a manifest. */
static void run_folder(const char *folder, const struct options *o, struct tally *total)
{
    struct tally *t = calloc(1, sizeof *t);
    struct golden_files *files = golden_files_new();
    struct arena *arena = arena_new(0);
    struct error err;
    AUTO_JSON *manifest = NULL;
    if (!t || !files || !arena || read_manifest(folder, &manifest, &err) != ST_OK) {
        printf("FAILED %s: %s\n", folder, t && files && arena ? err.message : "out of memory");
        total->failed++;
        goto out;
    }
    const char *kind = json_str(manifest, "kind", "?");
    const json_t *cases = json_object_get(manifest, "cases");
    if (!json_is_array(cases) || json_array_size(cases) == 0) {
        printf("FAILED %s: cases.json lists no cases\n", folder);
        total->failed++;
        goto out;
    }
    for (size_t i = 0; i < json_array_size(cases); i++) {
        const json_t *one = json_array_get(cases, i);
        struct golden_case c = { .folder = folder, .name = json_str(one, "name", "?"), .json = one, .inputs = json_object_get(one, "inputs"),
                                 .manifest = manifest, .arena = arena, .files = files };
        if (!o->only || strstr(c.name, o->only))
            run_case(&c, find_kind(kind), kind, o, t);
    }
    print_tally(kind, t);
    total->passed += t->passed;
    total->failed += t->failed;
    total->skipped += t->skipped;
out:
    arena_free(arena);
    golden_files_free(files);
    free(t);
}

static bool has_manifest(const char *folder)
{
    struct stat st;
    char path[4096];
    return snprintf(path, sizeof path, "%s/cases.json", folder) < (int)sizeof path && stat(path, &st) == 0;
}

static void run_path(const char *path, const struct options *o, struct tally *total)
{
    if (has_manifest(path)) {
        run_folder(path, o, total);
        return;
    }
    struct dirent **names = NULL;
    int n = scandir(path, &names, NULL, alphasort), found = 0;
    for (int i = 0; i < n; i++) {
        char sub[4096];
        if (names[i]->d_name[0] != '.' && snprintf(sub, sizeof sub, "%s/%s", path, names[i]->d_name) < (int)sizeof sub && has_manifest(sub)) {
            run_folder(sub, o, total);
            found++;
        }
        free(names[i]);
    }
    free(names);
    if (!found) {
        printf("FAILED %s: holds neither cases.json nor folders with one\n", path);
        total->failed++;
    }
}

int main(int argc, char **argv)
{
    static struct tally total;
    struct options o = { 0 };
    int folders = 0;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--verbose") == 0)
            o.verbose = true;
        else if (strcmp(argv[i], "--only") == 0 && i + 1 < argc)
            o.only = argv[++i];
        else if (argv[i][0] != '-')
            argv[1 + folders++] = argv[i];
        else
            folders = argc = -1;
    }
    if (folders < 1) {
        fprintf(stderr, "usage: galley-golden [--only TEXT] [--verbose] FOLDER...\n");
        return 2;
    }
    for (int i = 0; i < folders; i++)
        run_path(argv[1 + i], &o, &total);
    printf("%zu passed, %zu failed, %zu skipped\n", total.passed, total.failed, total.skipped);
    return total.failed == 0 && total.passed > 0 ? 0 : 1;
}

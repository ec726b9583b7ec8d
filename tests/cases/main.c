/* galley-cases [FOLDER or FILE...]: runs every case file, prints counts per kind, what was skipped under which name, and a last line
 * "N passed, N failed, N skipped". Exit status 1 when a case failed or a file could not be read. */
#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "common/json.h"
#include "tests/cases/cases.h"

enum { MAX_FILES = 4096, MAX_FILE_BYTES = 64 << 20, MAX_KINDS = 16, MAX_REASONS = 512 };

static const struct {
    const char *name;
    struct verdict (*run)(const json_t *c);
} kinds[] = {
    {"graph", case_graph}, {"pairs", case_pairs}, {"values", case_values}, {"fields", case_fields},
    {"batch", case_batch}, {"queue", case_queue}, {"workflow", NULL},
};

struct tally {
    char name[200];
    int n[3];
};

static struct tally by_kind[MAX_KINDS], by_reason[MAX_REASONS];
static char *files[MAX_FILES];
static int n_files, n_kinds, n_reasons, unreadable;

static struct tally *tally_of(struct tally *list, int *n, int max, const char *name)
{
    for (int i = 0; i < *n; i++)
        if (strncmp(list[i].name, name, sizeof list[i].name - 1) == 0)
            return &list[i];
    if (*n == max)
        return &list[max - 1];
    snprintf(list[*n].name, sizeof list[*n].name, "%s", name);
    return &list[(*n)++];
}

static int add_file(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)ftw;
    size_t n = strlen(path);
    if (type == FTW_F && n > 5 && strcmp(path + n - 5, ".json") == 0 && n_files < MAX_FILES)
        files[n_files++] = strdup(path);
    return 0;
}

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static char *read_text(const char *path)
{
    FILE *f = fopen(path, "rb");
    if (!f)
        return NULL;
    struct buf b = BUF_INIT;
    char *to;
    while (b.len < MAX_FILE_BYTES && (to = buf_reserve(&b, 1 << 16))) {
        size_t n = fread(to, 1, 1 << 16, f);
        b.len += n;
        b.data[b.len] = '\0';
        if (n == 0)
            break;
    }
    fclose(f);
    return buf_take(&b, NULL);
}

/* An integer beyond 64 bits in what goes in: galley's JSON reader refuses it, which the format allows. */
static struct verdict check_big(const json_t *input)
{
    const char *key;
    json_t *member, *taken = NULL;
    size_t i;
    const char *digits = json_str(input, "$big", NULL);
    if (digits) {
        struct error err;
        enum status s = json_parse(digits, strlen(digits), 1000, &taken, &err);
        json_decref(taken);
        return s == ST_BAD_REQUEST ? verdict_passed() : verdict_failed("%s is taken", digits);
    }
    json_object_foreach ((json_t *)input, key, member)
        if (cases_has(member, "$big"))
            return check_big(member);
    json_array_foreach (input, i, member)
        if (cases_has(member, "$big"))
            return check_big(member);
    return verdict_passed();
}

static struct verdict run_case(size_t kind, const json_t *c)
{
    AUTO_JSON *input = json_copy((json_t *)c);
    json_object_del(input, "expect");
    json_object_del(input, "galley");
    if (!kinds[kind].run)
        return verdict_skipped("kind '%s'", kinds[kind].name);
    if (cases_has(input, "$big"))
        return check_big(input);
    if (cases_has(input, "$float"))
        return verdict_skipped("numbers that JSON cannot hold");
    return kinds[kind].run(c);
}

static void report(const char *path, size_t index, const json_t *c, const char *kind, const struct verdict *v)
{
    tally_of(by_kind, &n_kinds, MAX_KINDS, kind)->n[v->outcome]++;
    if (v->outcome == SKIPPED)
        tally_of(by_reason, &n_reasons, MAX_REASONS, v->why)->n[SKIPPED]++;
    if (v->outcome == FAILED)
        printf("FAIL %s: case %zu '%s' %s.%s: %s\n", path, index + 1, json_str(c, "name", ""), json_str(c, "type", ""),
               json_str(c, "field", ""), v->why);
}

static void cannot_read(const char *path, const char *why)
{
    printf("FAIL %s: cannot be read: %s\n", path, why);
    unreadable++;
}

/* A text file of cases, or of something else that this runner has no business with (it says so). */
static void run_file(const char *path)
{
    char *text = read_text(path), *quoted = text ? cases_quote(text) : NULL;
    json_error_t error = {.text = "no memory, or no such file"};
    AUTO_JSON *file = quoted ? json_loads(quoted, JSON_ALLOW_NUL, &error) : NULL;
    free(text);
    free(quoted);
    if (!file) {
        cannot_read(path, error.text);
        return;
    }
    const char *format = json_str(file, "format", ""), *kind = json_str(file, "kind", "");
    const json_t *cases = json_object_get(file, "cases");
    if ((strcmp(format, "galley-cases/1") != 0 && strcmp(format, "galley-cases-1") != 0) || !*kind || !json_is_array(cases)) {
        cannot_read(path, "it is not of the form {\"format\": \"galley-cases/1\", \"kind\": ..., \"cases\": [...]}");
        return;
    }
    size_t k = 0, i;
    json_t *c;
    while (k < sizeof kinds / sizeof kinds[0] && strcmp(kinds[k].name, kind) != 0)
        k++;
    json_array_foreach (cases, i, c) {
        struct verdict v = k == sizeof kinds / sizeof kinds[0] ? verdict_skipped("kind '%s'", kind)
                           : !json_is_object(c)                ? verdict_failed("the case is no object")
                                                               : run_case(k, c);
        report(path, i, c, kind, &v);
    }
}

int main(int argc, char **argv)
{
    const char *own[] = {TEST_SOURCE_DIR "/tests/cases/data"};
    const char *const *folders = argc > 1 ? (const char *const *)argv + 1 : own;
    int n_folders = argc > 1 ? argc - 1 : 1, total[3] = {0};
    for (int i = 0; i < n_folders; i++) {
        int before = n_files;
        if (nftw(folders[i], add_file, 16, FTW_PHYS) != 0)
            cannot_read(folders[i], strerror(errno));
        else if (n_files == before)
            cannot_read(folders[i], "no case file in it");
    }
    qsort(files, (size_t)n_files, sizeof *files, by_name);
    for (int i = 0; i < n_files; i++) {
        run_file(files[i]);
        free(files[i]);
    }
    for (int i = 0; i < n_reasons; i++)
        printf("skipped %4d  %s\n", by_reason[i].n[SKIPPED], by_reason[i].name);
    for (int i = 0; i < n_kinds; i++) {
        printf("%-9s %d passed, %d failed, %d skipped\n", by_kind[i].name, by_kind[i].n[PASSED], by_kind[i].n[FAILED],
               by_kind[i].n[SKIPPED]);
        for (int k = 0; k < 3; k++)
            total[k] += by_kind[i].n[k];
    }
    total[FAILED] += unreadable;
    printf("%d passed, %d failed, %d skipped\n", total[PASSED], total[FAILED], total[SKIPPED]);
    return total[FAILED] > 0;
}

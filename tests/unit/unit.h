/* What cmocka wants included before it, and a few helpers for unit tests. */
#pragma once
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/error.h"

/* assert_ok fails the test with the error's message unless EXPR (which fills the struct error ERR) is ST_OK. */
#define assert_ok(expr, err) do { if ((expr) != ST_OK) fail_msg("%s: %s", #expr, (err).message); } while (0)
/* assert_says fails the test unless TEXT holds PART. */
#define assert_says(text, part) do { if (!strstr((text), (part))) fail_msg("\"%s\" does not say \"%s\"", (text), (part)); } while (0)

/* temp_dir makes an empty folder; temp_dir_remove removes it and what it holds. */
static inline char *temp_dir(void)
{
    char *path = strdup("/tmp/galley-unit-XXXXXX");
    assert_non_null(path);
    assert_non_null(mkdtemp(path));
    return path;
}

static inline void temp_dir_remove(char *path)
{
    char command[256];
    snprintf(command, sizeof command, "rm -rf '%s'", path);
    assert_int_equal(system(command), 0);
    free(path);
}

/* write_text writes TEXT to DIR/NAME and returns the path in a static buffer. */
static inline const char *write_text(const char *dir, const char *name, const char *text)
{
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, strlen(text), f), strlen(text));
    assert_int_equal(fclose(f), 0);
    return path;
}

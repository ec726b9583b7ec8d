/* galley-fixture NAME: makes a fixture model and prints its folder, for tests in other languages. */
#include <stdio.h>
#include "golden/fixture.h"

int main(int argc, char **argv)
{
    char path[PATH_BYTES];
    struct error err;
    if (argc != 2) {
        fprintf(stderr, "usage: galley-fixture NAME\n");
        return 2;
    }
    if (fixture_path(argv[1], path, &err) != ST_OK) {
        fprintf(stderr, "galley-fixture: %s\n", err.message);
        return 1;
    }
    printf("%s\n", path);
    return 0;
}

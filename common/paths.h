/* Where things are: XDG for a user, FHS for the service, GALLEY_HOME over both. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include "common/error.h"

enum { PATH_BYTES = 512 };

struct paths {
    char state[PATH_BYTES];      /* database */
    char run[PATH_BYTES];        /* sockets: control, events, previews, worker/ */
    char outputs[PATH_BYTES];    /* default of outputs_dir */
    char config[PATH_BYTES];     /* galley.yaml, may not exist */
    char data[PATH_BYTES];       /* shipped data: models/ with emoji; build tree or installation; "" if there is none (paths_data says why) */
};

enum paths_kind { PATHS_AUTO, PATHS_USER, PATHS_SYSTEM };

/* paths_find fills RET. PATHS_AUTO: GALLEY_HOME, else the system's when STATE_DIRECTORY is set (systemd), else the user's.
 * Nothing is created. GALLEY_HOME=DIR: DIR/state, DIR/run, DIR/outputs, DIR/galley.yaml. BAD_CONFIG if a path is too long or
 * no home can be found; ipc paths may have at most 107 bytes, which is checked for run + "/worker/" + 20. */
NODISCARD enum status paths_find(enum paths_kind kind, struct paths *ret, struct error *err);
/* paths_data finds the shipped data folder: GALLEY_DATA, beside the build tree (../../.. of the program when it holds models/emoji),
 * the installation (PREFIX/share/galley). */
NODISCARD enum status paths_data(char ret[PATH_BYTES], struct error *err);
/* paths_make_private creates DIR and its parents (mode 0700 for what it makes) and checks that DIR belongs to this user and
 * nobody else may write to it. */
NODISCARD enum status paths_make_private(const char *dir, struct error *err);
/* paths_join writes "DIR/NAME"; TOO_LARGE if it does not fit. */
NODISCARD enum status paths_join(char *ret, size_t size, const char *dir, const char *name, struct error *err);

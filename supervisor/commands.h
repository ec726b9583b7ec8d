/* The command table as data: what help, the documentation test and the dispatcher read. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include "supervisor/control.h"

enum argument_type { ARG_INT, ARG_NUM, ARG_STR, ARG_BOOL, ARG_OBJ, ARG_LIST, ARG_ANY, ARG_INTS, ARG_STRS };
struct argument { const char *name; enum argument_type type; bool required, available; double min, max; const char *help; };
struct command { const char *name, *access, *help; command_fn *run; /* NULL: not available yet */ };

const struct command *command_table(size_t *ret_n);
/* command_arguments returns the arguments of C, ended by one without a name. */
const struct argument *command_arguments(const struct command *c);
const char *argument_type_text(enum argument_type t);

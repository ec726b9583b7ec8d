/* The tensor files of one folder, opened once. */
#pragma once
#include "common/error.h"

struct safetensors;
struct golden_files;

struct golden_files *golden_files_new(void);
void golden_files_free(struct golden_files *f);                           /* accepts NULL */
/* golden_file opens PATH or returns it as opened before (borrowed); NULL with ERR filled if it cannot be read. */
struct safetensors *golden_file(struct golden_files *f, const char *path, struct error *err);

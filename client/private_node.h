/* A node for one command: galleyd in a fresh temporary folder. It lives as long as this process holds the write end of a pipe, and takes
 * its folder with it; what a killed machine leaves behind is swept away by the next start. */
#pragma once
#include "common/error.h"
#include "proto/client.h"

struct private_node;
/* private_node_start sweeps left-overs, starts galleyd (CONFIG: its configuration file, NULL: the usual one) and connects. BAD_CONFIG with
 * galleyd's own words, CANCELED on a signal, TIMEOUT if it does not listen in time. */
NODISCARD enum status private_node_start(const char *config, struct private_node **ret, galley_client **ret_client, struct error *err);
/* private_node_stop ends it, waits (bounded, then by force) and removes the folder. Accepts NULL. Close the client before. */
void private_node_stop(struct private_node *p);
/* private_node_death is the error of one that has ended in the middle of a job: UNREACHABLE with its last words. */
NODISCARD enum status private_node_death(const struct private_node *p, struct error *err);
/* private_folders_sweep removes the folders under BASE whose node is gone: named galley-private-*, of this user, their lock free. */
void private_folders_sweep(const char *base);

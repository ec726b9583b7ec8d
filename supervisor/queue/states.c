#include "supervisor/queue/queue.h"
#include <string.h>

static const struct {
    const char *name, *reader;
    bool terminal;
} states[ITEM_STATES] = {
#define STATE(code, number, name, reader, terminal) [ITEM_##code] = {name, reader, terminal},
#define TRANSITION(from, to)
#include "supervisor/queue/states.def"
#undef STATE
#undef TRANSITION
};

static const bool transitions[ITEM_STATES][ITEM_STATES] = {
#define STATE(code, number, name, reader, terminal)
#define TRANSITION(from, to) [ITEM_##from][ITEM_##to] = true,
#include "supervisor/queue/states.def"
#undef STATE
#undef TRANSITION
};

const char *item_state_name(enum item_state s) { return s < ITEM_STATES ? states[s].name : "gone"; }
const char *item_state_reader_name(enum item_state s) { return s < ITEM_STATES ? states[s].reader : "gone"; }
bool item_state_terminal(enum item_state s) { return s >= ITEM_STATES || states[s].terminal; }
bool item_state_allowed(enum item_state from, enum item_state to)
{
    return from < ITEM_STATES && to < ITEM_STATES && transitions[from][to];
}

bool item_state_from_name(const char *name, enum item_state *ret)
{
    for (int i = 0; i < ITEM_STATES; i++)
        if (strcmp(states[i].name, name) == 0) {
            *ret = (enum item_state)i;
            return true;
        }
    return false;
}

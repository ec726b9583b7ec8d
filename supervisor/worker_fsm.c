#include "supervisor/worker_fsm.h"

static const char *const state_names[SLOT_STATES] = {
#define SLOT_STATE(code, name) [SLOT_##code] = name,
#include "supervisor/worker_fsm.def"
#undef SLOT_STATE
};
static const char *const event_names[SLOT_EVENTS] = {
#define SLOT_EVENT(code, name) [SLOT_ON_##code] = name,
#include "supervisor/worker_fsm.def"
#undef SLOT_EVENT
};

static const struct { bool allowed; enum slot_state to; } moves[SLOT_STATES][SLOT_EVENTS] = {
#define SLOT_MOVE(from, event, next) [SLOT_##from][SLOT_ON_##event] = {true, SLOT_##next},
#include "supervisor/worker_fsm.def"
#undef SLOT_MOVE
};

const char *slot_state_name(enum slot_state s)
{
    return state_names[s];
}

const char *slot_event_name(enum slot_event e)
{
    return event_names[e];
}

bool slot_next(enum slot_state state, enum slot_event event, enum slot_state *ret)
{
    if (!moves[state][event].allowed)
        return false;
    *ret = moves[state][event].to;
    return true;
}

/* The state x event table of a worker slot; pure data. */
#pragma once
#include <stdbool.h>

enum slot_state {
#define SLOT_STATE(code, name) SLOT_##code,
#include "supervisor/worker_fsm.def"
#undef SLOT_STATE
    SLOT_STATES
};
enum slot_event {
#define SLOT_EVENT(code, name) SLOT_ON_##code,
#include "supervisor/worker_fsm.def"
#undef SLOT_EVENT
    SLOT_EVENTS
};
const char *slot_state_name(enum slot_state s);
const char *slot_event_name(enum slot_event e);
/* slot_next writes the state after EVENT in STATE; false: the event is refused in that state. */
bool slot_next(enum slot_state state, enum slot_event event, enum slot_state *ret);

/* One epoll loop: file descriptors, timers, signals, wake-ups from other threads. Handlers never block. */
#pragma once
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include "common/error.h"

struct loop;
struct loop_timer;

typedef void loop_fd_fn(void *arg, uint32_t epoll_events);
typedef void loop_fn(void *arg);
typedef void loop_signal_fn(void *arg, int signo);

NODISCARD enum status loop_new(struct loop **ret, struct error *err);
/* loop_free accepts NULL; free timers and wakes before. */
void loop_free(struct loop *l);
/* loop_run dispatches until loop_stop; a stop before the run ends it at once. May be run again. */
NODISCARD enum status loop_run(struct loop *l, struct error *err);
void loop_stop(struct loop *l);
/* loop_fd_add watches FD (borrowed) for EVENTS (EPOLLIN...). loop_fd_del is allowed inside any handler. */
NODISCARD enum status loop_fd_add(struct loop *l, int fd, uint32_t events, loop_fd_fn *fn, void *arg, struct error *err);
void loop_fd_del(struct loop *l, int fd);
/* loop_signals blocks SIGS (a zero-terminated list) in the calling thread and delivers them to FN; call before any thread starts. */
NODISCARD enum status loop_signals(struct loop *l, const int *sigs, loop_signal_fn *fn, void *arg, struct error *err);
/* A timer fires once, DELAY_MS after it was set, on the clock of clock.h; setting it again moves it. Freed by loop_timer_free. */
struct loop_timer *loop_timer_new(struct loop *l, loop_fn *fn, void *arg);
void loop_timer_set(struct loop_timer *t, int64_t delay_ms);
void loop_timer_stop(struct loop_timer *t);
bool loop_timer_armed(const struct loop_timer *t);
void loop_timer_free(struct loop_timer *t);
/* A wake is rung from any thread (loop_wake_ring is async-signal-safe); FN then runs in the loop, once for any number of rings. */
struct loop_wake;
NODISCARD enum status loop_wake_new(struct loop *l, loop_fn *fn, void *arg, struct loop_wake **ret, struct error *err);
void loop_wake_ring(struct loop_wake *w);
void loop_wake_free(struct loop_wake *w);

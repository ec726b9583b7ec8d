/* Inside of the simulated driver. One lock guards all that its files share; work itself runs outside of it.
 *
 * Environment, read by cuInit:
 *   VGPU_DEVICES=N        devices of the machine, 1 to 16; absent: none
 *   VGPU_MEMORY=BYTES     of each device, with K, M or G; 2G
 *   VGPU_CAPABILITY=LIST  compute capability of each, "75,90": 7.5 and 9.0; 9.0
 *   VGPU_STATE=FOLDER     what the processes on a device share: its memory, that it is lost, which faults have struck; absent: nothing
 *   VGPU_FAULTS=...       see faults.c
 *   VGPU_COUNT=FILE       what was called, up to date at any moment (see faults.c); %p in FILE is the process
 *   VGPU_LATE_US=N        every piece of work begins that much later
 *   VGPU_SEED=N           work begins a random moment later, blocks of a kernel run in another order
 *   VGPU_THREADS=N        threads for the blocks of one kernel; 1
 *   VGPU_VERSION=N        of the driver, as cuDriverGetVersion says it
 *   CUDA_VISIBLE_DEVICES  as for the real driver */
#pragma once
#include <cuda.h>
#include <pthread.h>
#include <stdalign.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "tests/vgpu/vgpu.h"

#define ENTRY __attribute__((visibility("default")))

enum { DEVICES_MAX = 16 };

/* What a caller holds is known, so that a stale one is an error and not a crash. */
enum handle_kind { HANDLE_STREAM, HANDLE_EVENT, HANDLE_MODULE, HANDLE_FUNCTION, HANDLE_GRAPH, HANDLE_EXEC, HANDLE_KINDS };
struct handle {
    struct handle *next;
    enum handle_kind kind;
    CUcontext context;
};

/* One piece of work. RUN may run many times (in a graph), or never (discarded, or after an error), on the stream's thread; DROP runs once,
 * at the end, under the lock. */
struct work {
    struct work *next;
    vgpu_fn *run, *drop;    /* either may be NULL */
    alignas(max_align_t) unsigned char args[];
};
struct queue {
    struct work *first, **last;
};

/* A place in a stream: done once all before it is. */
struct mark {
    int refs;
    bool done;
};

/* The nodes of a graph, shared by the graph, what was instantiated of it and the launches on their way. */
struct nodes {
    int refs;
    struct queue queue;
};

struct account;             /* memory.c: a device's memory among processes */

/* A device that this process sees, and its one context. */
struct CUctx_st {
    int number;             /* among the machine's */
    CUuuid uuid;
    size_t total, used;     /* bytes; used: by this process */
    struct account *account; /* NULL: the device is not shared */
    int account_file, account_slot;
    int retained;
    bool lost;
    CUresult error;         /* kept since a sticky one */
    CUstream default_stream;
};

struct CUstream_st {
    struct handle handle;   /* first */
    unsigned flags;
    pthread_t thread;
    pthread_cond_t arrived;
    struct queue queue;
    bool busy, stop;
    uint64_t random;
    CUgraph capture;        /* NULL: not being captured */
};

struct CUevent_st {
    struct handle handle;
    struct mark *mark;      /* NULL: never recorded */
    uint64_t capture;       /* != 0: recorded last in that capture */
};

struct CUgraph_st {
    struct handle handle;
    struct nodes *nodes;
    uint64_t id;
    CUstreamCaptureMode mode;
    pthread_t thread;       /* that began the capture */
    bool invalid;
};

struct CUgraphExec_st {
    struct handle handle;
    struct nodes *nodes;
    long *launched;         /* counts of all calls at its last launch, NULL: never launched */
};

struct rig {
    pthread_mutex_t lock;
    pthread_cond_t changed; /* a mark is done, or a stream has nothing to do */
    bool ready, gone;       /* gone: the process ends, or is a fork's child */
    int machine, count;     /* devices of the machine, and those that are seen */
    struct CUctx_st devices[DEVICES_MAX];
    const char *state;
    long late_us, seed, threads;
    struct handle *handles;
};
extern struct rig rig;

static inline void rig_lock(void) { pthread_mutex_lock(&rig.lock); }
static inline void rig_unlock(void) { pthread_mutex_unlock(&rig.lock); }

/* ---- driver.c */
extern _Thread_local CUcontext context_here;
/* handle_add and handle_remove keep the list, handle_live tells whether P is in it. All under the lock. */
void handle_add(void *p, enum handle_kind kind, CUcontext context);
void handle_remove(void *p);
bool handle_live(const void *p, enum handle_kind kind);
/* text_number reads decimal digits, and the suffix K, M or G where SUFFIX; false: it is something else. */
bool text_number(const char *text, bool suffix, uint64_t *ret);

/* ---- faults.c: enter is vgpu_enter for calls of this library. */
enum enter_how {
    ENTER_PLAIN,            /* needs no context */
    ENTER_CONTEXT           /* needs one */
};
CUresult enter(const char *call, CUcontext context, enum enter_how how);
bool faults_read(const char *text);
bool counts_open(const char *path);
void counts_launch(CUgraphExec exec);   /* EXEC is launched: under the lock */
void counts_left(CUcontext context);    /* what CONTEXT has left when it ends: under the lock */

/* ---- memory.c */
bool account_open(CUcontext context);
void account_close(CUcontext context);
bool account_is_lost(CUcontext context); /* under the lock, both */
void account_lose(CUcontext context);
void memory_drop(CUcontext context);    /* all of CONTEXT's: under the lock */
long memory_left(CUcontext context, bool host);  /* allocations */

/* ---- stream.c: all under the lock; stream_wait, stream_idle and stream_stop let go of it while they wait */
CUresult stream_find(CUstream *stream);             /* NULL becomes the default stream of the current context */
CUresult stream_put(CUstream stream, vgpu_fn *run, vgpu_fn *drop, const void *args, size_t bytes);
CUresult stream_wait(CUstream stream);              /* until all that is in it now is done */
void stream_idle(CUcontext context);                /* until no stream of CONTEXT has anything to do */
void stream_stop(CUstream stream, bool discard);    /* ends the thread */
void stream_free(CUstream stream);
void event_free(CUevent event);
uint64_t stream_random(uint64_t *state);
struct work *work_new(vgpu_fn *run, vgpu_fn *drop, const void *args, size_t bytes);
void queue_put(struct queue *q, struct work *w);
void work_drop(struct work *w);
void queue_drop(struct queue *q);

/* ---- graph.c: all under the lock */
void nodes_unref(struct nodes *n);
void graph_free(CUgraph graph);
void exec_free(CUgraphExec exec);
/* capture_forbids returns the error of a call that must not be made while this thread (or, for a global capture, any) captures, and spoils
 * the capture. */
CUresult capture_forbids(void);
CUresult capture_spoil(CUgraph graph, CUresult r);
/* capture_of_default returns the error of using the default stream while a stream that it waits for is being captured. */
CUresult capture_of_default(CUcontext context);

/* ---- kernels.c */
void module_free(CUmodule module);                  /* and its functions */

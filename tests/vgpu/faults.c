/* What goes wrong by plan, and what was called.
 *
 * VGPU_FAULTS="DEVICE:CALL:COUNT:KIND[;...]": the COUNT-th CALL on the machine's device number DEVICE (* for any) has a fault; COUNT+ means
 * that one and all later ones. CALL is a symbol of one of the three libraries without its _v2, `memory` for allocations of device memory,
 * or * for any call. Calls that know of no device count for the first that is seen. KIND:
 *   oom      the call returns OUT_OF_MEMORY
 *   fail     the call returns LAUNCH_OUT_OF_RESOURCES; error=N: the CUresult N
 *   sticky   ILLEGAL_ADDRESS, now and ever after in this process
 *   lost     DEVICE_UNAVAILABLE, now and ever after: with VGPU_STATE in every process
 *   hang     the call never returns
 *   slow=MS  the call takes that much longer
 * With VGPU_STATE a fault without + strikes in one process only: one that is started again gets on.
 *
 * VGPU_COUNT: lines "SCOPE NAME COUNT". SCOPE is calls (since the start), after_first_graph_launch, between_graph_launches (from a launch
 * of a graph to its next), left (what a context had not freed when it ended) or faults (those that struck). */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
#include "tests/vgpu/inside.h"

enum { CALLS_MAX = 128, FAULTS_MAX = 32, LINE = 88, LINES_MAX = 512 };
enum fault_kind { FAULT_ERROR, FAULT_STICKY, FAULT_LOST, FAULT_HANG, FAULT_SLOW };

struct fault {
    char text[96], call[48];
    int device;             /* -1: any */
    long count, seen, value; /* value: the CUresult, or milliseconds */
    bool onward, done;
    enum fault_kind kind;
};

struct counter {
    const char *scope;
    char name[48];
    long count;
    int line;               /* in the file, -1: none yet */
};

static struct {
    struct fault faults[FAULTS_MAX];
    int n_faults;
    struct counter calls[CALLS_MAX], after[CALLS_MAX], between[CALLS_MAX], left[16], struck[FAULTS_MAX];
    int n_calls, n_left, n_struck;
    bool launched;
    int file, lines;
    char *at;
} plan = {.file = -1};

/* ---- counts */

bool counts_open(const char *path)
{
    char name[512];
    const char *mark = path ? strstr(path, "%p") : NULL;
    if (!path)
        return true;
    if (mark)
        snprintf(name, sizeof name, "%.*s%d%s", (int)(mark - path), path, (int)getpid(), mark + 2);
    else
        snprintf(name, sizeof name, "%s", path);
    unlink(name); /* another process may have mapped it */
    plan.file = open(name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (plan.file < 0)
        return false;
    plan.at = mmap(NULL, LINE * LINES_MAX, PROT_READ | PROT_WRITE, MAP_SHARED, plan.file, 0);
    if (plan.at == MAP_FAILED)
        plan.at = NULL;
    return plan.at != NULL;
}

/* counter_add adds to C and says so in the file. */
static void counter_add(struct counter *c, const char *scope, const char *name, long more)
{
    if (!c->scope) {
        c->scope = scope;
        c->line = -1;
        snprintf(c->name, sizeof c->name, "%s", name);
    }
    c->count += more;
    if (!plan.at)
        return;
    if (c->line < 0) {
        if (plan.lines == LINES_MAX || ftruncate(plan.file, (off_t)(plan.lines + 1) * LINE))
            return;
        c->line = plan.lines++;
    }
    char line[LINE + 1];
    snprintf(line, sizeof line, "%-24s %-47s %14ld\n", c->scope, c->name, c->count);
    memcpy(plan.at + (size_t)c->line * LINE, line, LINE);
}

/* call_index returns the place of CALL in the table, CALLS_MAX if that is full. */
static int call_index(const char *call)
{
    int i = 0;
    while (i < plan.n_calls && strcmp(plan.calls[i].name, call))
        i++;
    if (i == plan.n_calls && i < CALLS_MAX)
        plan.n_calls++;
    return i;
}

static void count_call(const char *call)
{
    int i = call_index(call);
    if (i == CALLS_MAX)
        return;
    counter_add(&plan.calls[i], "calls", call, 1);
    if (plan.launched)
        counter_add(&plan.after[i], "after_first_graph_launch", call, 1);
}

void counts_launch(CUgraphExec exec)
{
    plan.launched = true;
    if (!exec->launched) {
        exec->launched = calloc(CALLS_MAX, sizeof *exec->launched);
    } else {
        for (int i = 0; i < plan.n_calls; i++)
            if (plan.calls[i].count > exec->launched[i])
                counter_add(&plan.between[i], "between_graph_launches", plan.calls[i].name, plan.calls[i].count - exec->launched[i]);
    }
    for (int i = 0; exec->launched && i < plan.n_calls; i++)
        exec->launched[i] = plan.calls[i].count;
}

static void count_left(const char *what, long n)
{
    int i = 0;
    while (i < plan.n_left && strcmp(plan.left[i].name, what))
        i++;
    plan.n_left += i == plan.n_left;
    counter_add(&plan.left[i], "left", what, n);
}

void counts_left(CUcontext context)
{
    static const char *const names[HANDLE_KINDS] = {
        [HANDLE_STREAM] = "streams", [HANDLE_EVENT] = "events",     [HANDLE_MODULE] = "modules",
        [HANDLE_GRAPH] = "graphs",   [HANDLE_EXEC] = "graph_execs",
    };
    long n[HANDLE_KINDS] = {0};
    for (struct handle *h = rig.handles; h; h = h->next)
        if (h->context == context && (void *)h != context->default_stream)
            n[h->kind]++;
    for (int k = 0; k < HANDLE_KINDS; k++)
        if (names[k])
            count_left(names[k], n[k]);
    count_left("device_memory", memory_left(context, false));
    count_left("host_memory", memory_left(context, true));
}

/* ---- the plan */

/* next_field cuts the text up to the next ':' off *S into BUF. */
static bool next_field(const char **s, char *buf, size_t room)
{
    const char *end = strchr(*s, ':');
    if (!end || end == *s || (size_t)(end - *s) >= room)
        return false;
    memcpy(buf, *s, (size_t)(end - *s));
    buf[end - *s] = 0;
    *s = end + 1;
    return true;
}

static bool kind_read(struct fault *f, const char *kind)
{
    uint64_t n = 0;
    bool number = strchr(kind, '=') && text_number(strchr(kind, '=') + 1, false, &n);
    f->value = (long)n;
    if (!strcmp(kind, "oom"))
        f->value = CUDA_ERROR_OUT_OF_MEMORY;
    else if (!strcmp(kind, "fail"))
        f->value = CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES;
    else if (!strcmp(kind, "sticky"))
        f->kind = FAULT_STICKY;
    else if (!strcmp(kind, "lost"))
        f->kind = FAULT_LOST;
    else if (!strcmp(kind, "hang"))
        f->kind = FAULT_HANG;
    else if (number && !strncmp(kind, "slow=", 5))
        f->kind = FAULT_SLOW;
    else
        return number && !strncmp(kind, "error=", 6);
    return true;
}

static bool fault_read(struct fault *f, const char *text)
{
    char device[8], count[16];
    uint64_t n;
    snprintf(f->text, sizeof f->text, "%s", text);
    if (!next_field(&text, device, sizeof device) || !next_field(&text, f->call, sizeof f->call) || !next_field(&text, count, sizeof count))
        return false;
    f->device = -1;
    if (strcmp(device, "*")) {
        if (!text_number(device, false, &n) || n >= DEVICES_MAX)
            return false;
        f->device = (int)n;
    }
    size_t digits = strlen(count) - 1;
    f->onward = count[digits] == '+';
    if (f->onward)
        count[digits] = 0;
    if (!text_number(count, false, &n) || !n)
        return false;
    f->count = (long)n;
    size_t end = strlen(f->call);
    if (end > 3 && !strcmp(f->call + end - 3, "_v2"))
        f->call[end - 3] = 0;
    return kind_read(f, text);
}

bool faults_read(const char *text)
{
    char one[96];
    for (size_t n; text && *text; text += n + (text[n] == ';')) {
        n = strcspn(text, ";");
        if (!n)
            continue;
        if (n >= sizeof one || plan.n_faults == FAULTS_MAX)
            return false;
        memcpy(one, text, n);
        one[n] = 0;
        if (!fault_read(&plan.faults[plan.n_faults++], one))
            return false;
    }
    return true;
}

/* fault_claim tells whether F is this process's: the first that asks gets it. */
static bool fault_claim(const struct fault *f)
{
    char path[512];
    if (f->onward || !rig.state)
        return true;
    snprintf(path, sizeof path, "%s/fault %s", rig.state, f->text);
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (fd >= 0)
        close(fd);
    return fd >= 0;
}

/* fault_now returns the fault that this call has. */
static struct fault *fault_now(const char *call, CUcontext context)
{
    struct fault *now = NULL;
    for (struct fault *f = plan.faults; f < plan.faults + plan.n_faults; f++) {
        bool same = !strcmp(f->call, "*") || !strcmp(f->call, call) || (!strcmp(f->call, "memory") && !strcmp(call, "cuMemAlloc"));
        if (!same || f->done || (f->device >= 0 && f->device != context->number) || ++f->seen < f->count)
            continue;
        f->done = !f->onward;
        if (!now && fault_claim(f))
            now = f;
    }
    return now;
}

static void sleep_ms(long ms)
{
    struct timespec t = {ms / 1000, ms % 1000 * 1000000};
    while (nanosleep(&t, &t) && errno == EINTR)
        ;
}

/* fault_strike does what F says. Under the lock, which it lets go of to sleep. */
static CUresult fault_strike(const struct fault *f, CUcontext context)
{
    counter_add(&plan.struck[f - plan.faults], "faults", f->text, 1);
    switch (f->kind) {
    case FAULT_ERROR: return (CUresult)f->value;
    case FAULT_STICKY: return context->error = CUDA_ERROR_ILLEGAL_ADDRESS;
    case FAULT_LOST: account_lose(context); return CUDA_ERROR_DEVICE_UNAVAILABLE;
    case FAULT_HANG:
        rig_unlock();
        for (;;)
            pause();
    case FAULT_SLOW:
        rig_unlock();
        sleep_ms(f->value);
        rig_lock();
    }
    return CUDA_SUCCESS;
}

/* ---- what every call begins with */

static CUresult enter_locked(const char *call, CUcontext context, enum enter_how how)
{
    if (!rig.ready)
        return CUDA_ERROR_NOT_INITIALIZED;
    if (rig.gone)
        return CUDA_ERROR_DEINITIALIZED;
    CUcontext of = context ? context : &rig.devices[0];
    count_call(call);
    struct fault *f = fault_now(call, of);
    CUresult r = f ? fault_strike(f, of) : CUDA_SUCCESS;
    if (r)
        return r;
    if (how == ENTER_PLAIN)
        return CUDA_SUCCESS;
    if (!context)
        return CUDA_ERROR_INVALID_CONTEXT;
    if (account_is_lost(context))
        return CUDA_ERROR_DEVICE_UNAVAILABLE;
    if (!context->retained)
        return CUDA_ERROR_CONTEXT_IS_DESTROYED;
    return context->error;
}

CUresult enter(const char *call, CUcontext context, enum enter_how how)
{
    rig_lock();
    CUresult r = enter_locked(call, context, how);
    rig_unlock();
    return r;
}

ENTRY CUresult vgpu_enter(const char *call)
{
    rig_lock();
    CUresult r = !rig.ready ? CUDA_SUCCESS : enter_locked(call, context_here, context_here ? ENTER_CONTEXT : ENTER_PLAIN);
    rig_unlock();
    return r;
}

ENTRY void vgpu_fail(CUresult r, const char *what)
{
    rig_lock();
    if (context_here && !context_here->error) {
        context_here->error = r;
        if (what)
            fprintf(stderr, "vgpu: device %d fails with %d: %s\n", context_here->number, r, what);
    }
    rig_unlock();
}

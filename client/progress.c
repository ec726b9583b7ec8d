#include "client/progress.h"

#include <stdio.h>
#include <string.h>

#include "client/terminal.h"

enum { BAR_MAX = 24, BAR_SHORT = 8, BAR_MIN = 5, MESSAGE_WISH = 14, TEXT_BYTES = 320 };

static void rate_text(const galley_item *it, char *ret, size_t size)
{
    if (it->total <= 0)
        ret[0] = 0; /* the speed is of a phase with steps */
    else if (it->it_per_s >= 1)
        snprintf(ret, size, "%.1f it/s", it->it_per_s);
    else if (it->it_per_s > 0)
        snprintf(ret, size, "%.1f s/it", 1 / it->it_per_s);
    else
        ret[0] = 0;
}

static void eta_text(const galley_item *it, char *ret, size_t size)
{
    ret[0] = 0;
    if (it->it_per_s <= 0 || it->total <= it->step)
        return;
    double left = (double)(it->total - it->step) / it->it_per_s + 0.5;
    long long s = left < 360000 ? (long long)left : 359999;
    if (s >= 3600)
        snprintf(ret, size, "ETA %lld:%02lld:%02lld", s / 3600, s / 60 % 60, s % 60);
    else
        snprintf(ret, size, "ETA %lld:%02lld", s / 60, s % 60);
}

static void put_bar(const struct progress_view *v, const galley_item *it, int width, struct buf *out)
{
    double part = it->total > 0 ? (double)it->step / (double)it->total : 0;
    int full = (int)((part < 0 ? 0 : part > 1 ? 1 : part) * width + 0.001);
    buf_puts(out, v->utf8 ? "" : "[");
    if (v->color)
        buf_puts(out, "\033[36m");
    for (int i = 0; i < full; i++)
        buf_puts(out, v->utf8 ? "\u2588" : "#");
    if (v->color)
        buf_puts(out, "\033[2m");
    for (int i = full; i < width; i++)
        buf_puts(out, v->utf8 ? "\u2591" : "-");
    if (v->color)
        buf_puts(out, "\033[0m");
    buf_puts(out, v->utf8 ? " " : "] ");
}

/* doing returns what the item does: the worker's own words, else the phase. */
static const char *doing(const galley_item *it) { return it->message[0] ? it->message : it->phase; }

/* put_item writes "ID DEVICE BAR STEP/TOTAL SPEED ETA MESSAGE": the message is cut first, then the bar goes, then the line is cut. */
static void put_item(const struct progress_view *v, const galley_item *it, struct buf *out)
{
    char left[96], facts[TEXT_BYTES], rate[32], eta[32], steps[48] = "";
    int room = v->columns - 1;
    rate_text(it, rate, sizeof rate);
    eta_text(it, eta, sizeof eta);
    if (it->total > 0)
        snprintf(steps, sizeof steps, "%lld/%lld", (long long)it->step, (long long)it->total);
    snprintf(left, sizeof left, "%5lld %-8s ", (long long)it->item_id, it->device);
    snprintf(facts, sizeof facts, "%-7s %-9s %-8s", steps, rate, eta);
    int used = text_width(left, strlen(left)) + text_width(facts, strlen(facts)), brackets = v->utf8 ? 1 : 3;
    int spare = room - used - brackets, bar = spare - MESSAGE_WISH;
    bar = bar > BAR_MAX ? BAR_MAX : bar >= BAR_SHORT ? bar : spare < BAR_SHORT ? spare : BAR_SHORT;
    if (bar < BAR_MIN) {
        AUTO_BUF line = BUF_INIT;
        buf_printf(&line, "%s%s %s", left, facts, doing(it));
        text_put(out, line.data ? line.data : "", room);
        buf_putc(out, '\n');
        return;
    }
    text_put(out, left, -1);
    put_bar(v, it, bar, out);
    text_put(out, facts, -1);
    int rest = room - used - brackets - bar - 1;
    if (rest > 0) {
        buf_putc(out, ' ');
        text_put(out, doing(it), rest);
    }
    buf_putc(out, '\n');
}

void progress_bars(const struct progress_view *v, struct buf *out)
{
    size_t max = v->max_lines > 0 ? (size_t)v->max_lines : 0, note = v->note ? 1 : 0;
    size_t room = max > note ? max - note : 0, shown = v->n <= room ? v->n : room > 0 ? room - 1 : 0;
    for (size_t i = 0; i < shown; i++)
        put_item(v, &v->items[i], out);
    if (shown < v->n && room > 0) {
        char more[64];
        snprintf(more, sizeof more, "      and %zu more running", v->n - shown);
        text_put(out, more, v->columns - 1);
        buf_putc(out, '\n');
    }
    if (v->note && max > 0) {
        text_put(out, v->note, v->columns - 1);
        buf_putc(out, '\n');
    }
}

void progress_line(const struct progress_view *v, struct buf *out)
{
    enum { NAMED = 4 };
    for (size_t i = 0; i < v->n && i < NAMED; i++) {
        const galley_item *it = &v->items[i];
        char rate[32], eta[32], text[TEXT_BYTES];
        rate_text(it, rate, sizeof rate);
        eta_text(it, eta, sizeof eta);
        int used = snprintf(text, sizeof text, "%sitem %lld on %s: %s", i ? "; " : "", (long long)it->item_id, it->device, doing(it));
        if (it->total > 0)
            used += snprintf(text + used, sizeof text - (size_t)used, " %lld/%lld", (long long)it->step, (long long)it->total);
        snprintf(text + used, sizeof text - (size_t)used, "%s%s%s%s", rate[0] ? ", " : "", rate, eta[0] ? ", " : "", eta);
        text_put(out, text, -1);
    }
    if (v->n > NAMED)
        buf_printf(out, "; and %zu more running", v->n - NAMED);
    if (v->note) {
        buf_puts(out, v->n ? "; " : "");
        text_put(out, v->note, -1);
    }
    buf_putc(out, '\n');
}

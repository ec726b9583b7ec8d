#include "client/progress.h"

#include <stdlib.h>
#include <string.h>

#ifdef GALLEY_CHAFA
#include <chafa.h>

enum { TILE_ROWS_MAX = 16, TILE_ROWS_MIN = 3, TILES_MAX = 16 };

bool tiles_available(void) { return true; }

static ChafaCanvasMode canvas_mode(void)
{
    const char *color = getenv("COLORTERM"), *term = getenv("TERM"), *no = getenv("NO_COLOR");
    if (no && no[0])
        return CHAFA_CANVAS_MODE_FGBG;
    if (color && (strcmp(color, "truecolor") == 0 || strcmp(color, "24bit") == 0))
        return CHAFA_CANVAS_MODE_TRUECOLOR;
    return term && strstr(term, "256color") ? CHAFA_CANVAS_MODE_INDEXED_256 : CHAFA_CANVAS_MODE_INDEXED_16;
}

/* draw returns the preview of IT as WIDTH x HEIGHT cells, rows ended by newlines (g_string_free), NULL without memory. */
static GString *draw(const galley_item *it, int width, int height, ChafaTermInfo *term)
{
    ChafaSymbolMap *symbols = chafa_symbol_map_new();
    ChafaCanvasConfig *config = chafa_canvas_config_new();
    chafa_symbol_map_add_by_tags(symbols, CHAFA_SYMBOL_TAG_SPACE | CHAFA_SYMBOL_TAG_BLOCK | CHAFA_SYMBOL_TAG_HALF | CHAFA_SYMBOL_TAG_QUAD);
    chafa_canvas_config_set_geometry(config, width, height);
    chafa_canvas_config_set_symbol_map(config, symbols);
    chafa_canvas_config_set_canvas_mode(config, canvas_mode());
    ChafaCanvas *canvas = chafa_canvas_new(config);
    chafa_canvas_draw_all_pixels(canvas, CHAFA_PIXEL_RGB8, it->preview, it->preview_width, it->preview_height, 3 * it->preview_width);
    GString *text = chafa_canvas_print(canvas, term);
    chafa_canvas_unref(canvas);
    chafa_canvas_config_unref(config);
    chafa_symbol_map_unref(symbols);
    return text;
}

/* put_row appends row R of TEXT, and leaves the colours as they were. */
static void put_row(const GString *text, int r, struct buf *out)
{
    const char *at = text->str, *end;
    while (r-- > 0 && (at = strchr(at, '\n')))
        at++;
    if (at && (end = strchrnul(at, '\n')) > at)
        buf_put(out, at, (size_t)(end - at));
    buf_puts(out, "\033[0m ");
}

/* fit writes the cells a preview takes: cells are about twice as high as wide. */
static void fit(const galley_item *it, int rows, int *ret_width)
{
    int width = 2 * rows * it->preview_width / it->preview_height;
    *ret_width = width < 2 ? 2 : width;
}

void tiles_lines(const galley_item *items, size_t n, int columns, int max_lines, struct buf *out)
{
    int rows = max_lines < TILE_ROWS_MAX ? max_lines : TILE_ROWS_MAX, used = 0;
    if (rows < TILE_ROWS_MIN)
        return;
    GString *tiles[TILES_MAX];
    size_t n_tiles = 0;
    gchar *none[] = {NULL};
    ChafaTermInfo *term = chafa_term_db_detect(chafa_term_db_get_default(), none);
    for (size_t i = 0; i < n && n_tiles < TILES_MAX; i++) {
        const galley_item *it = &items[i];
        int width;
        if (!it->preview || it->preview_width < 1 || it->preview_height < 1)
            continue;
        fit(it, rows, &width);
        if (used + width + 1 > columns - 1)
            break;
        GString *tile = draw(it, width, rows, term);
        if (!tile)
            continue;
        tiles[n_tiles++] = tile;
        used += width + 1;
    }
    for (int r = 0; r < rows && n_tiles; r++) {
        for (size_t i = 0; i < n_tiles; i++)
            put_row(tiles[i], r, out);
        buf_putc(out, '\n');
    }
    for (size_t i = 0; i < n_tiles; i++)
        g_string_free(tiles[i], TRUE);
    chafa_term_info_unref(term);
}
#else
bool tiles_available(void) { return false; }

void tiles_lines(const galley_item *items, size_t n, int columns, int max_lines, struct buf *out)
{
    (void)items, (void)n, (void)columns, (void)max_lines, (void)out;
}
#endif

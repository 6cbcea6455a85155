// Both passes of a transformer block over one part of an image. All steps of a strip are taken in
// one call: what a step leaves is in the cache for the next, and threads seldom wait for Python.
//
// Maps, windows and scales are dense. Rows are numbered as the part is stored, with its halo.
// passes.py has these structures as well.

// A 1×1 convolution; bias may be NULL.
typedef struct {
    ptrdiff_t outputs;
    const Value *panels;
    const float *bias;
} Matrix;

// LayerNorm is folded into the 1×1 convolution but for the scales of pixels.
typedef struct {
    Matrix point;
    Filter depth;
} Projection;

typedef struct {
    Projection qk, v, gate, value;
    Matrix project_out;
    ptrdiff_t heads, center;
    double epsilon;
} Block;

typedef struct {
    Value *x;
    float *scales;  // of each pixel, found in the first pass
    ptrdiff_t height, width, channels;
    ptrdiff_t is_top, is_bottom;  // whether it ends where the image does: beyond, there are zeros
} Part;

// Projected rows, to slide under a depthwise convolution: rows `start` to `end` - 1 of the buffer;
// `next` is the row of the part that is projected next. All are 0 at first, but `next` may be 1.
typedef struct {
    Value *data;
    ptrdiff_t capacity, start, end, next;
} Sliding;

typedef struct {
    Sliding qk;
    ptrdiff_t step;    // rows of a strip: some groups
    ptrdiff_t group;   // rows whose products are summed as floats
    ptrdiff_t scaled;  // rows whose scales are found
    Value *by_head;    // [2 * heads][step][widest unit][channels / heads]
    double *row_squares;  // [step][2 * channels]
    float *sums;
    Value *pairs;
} FirstPass;

typedef struct {
    Sliding v, gate, value;
    ptrdiff_t step;
    ptrdiff_t done;    // rows that are finished
    Value *convolved;  // [step][width][channels]
    Value *gated;      // [step + 1][width][outputs of gate]
    float *scales;     // [step][width]
} SecondPass;

// Columns `left` to `right` - 1 of some rows, and what they are multiplied by or summed into.
typedef struct {
    ptrdiff_t left, right;
    Matrix matrix;
    double *gram, *squares;
} Cell;

INLINE ptrdiff_t smaller(ptrdiff_t a, ptrdiff_t b)
{
    return a < b ? a : b;
}

// Project rows up to `last` - 1; `scales` are of the first of them on.
static void push(const Part *part, const Projection *projection, Sliding *window, ptrdiff_t last,
                 const float *scales)
{
    const Matrix *point = &projection->point;
    const ptrdiff_t row = part->width * point->outputs, from = part->width * part->channels;
    const ptrdiff_t count = last - window->next, zeros = part->is_bottom && last == part->height;
    if (window->end == 0 && part->is_top) {
        memset(window->data, 0, row * sizeof *window->data);
        window->end = 1;
    }
    if (window->end + count + zeros > window->capacity) {
        window->end -= window->start;
        memmove(window->data, window->data + window->start * row,
                window->end * row * sizeof *window->data);
        window->start = 0;
    }
    NAME(product)(1, count, part->width, part->channels, point->outputs, 0,
                  part->x + window->next * from, 0, from, part->channels, scales, 0, part->width,
                  point->panels, point->bias, window->data + window->end * row, 0, row,
                  point->outputs);
    window->end += count;
    window->next = last;
    if (zeros)
        memset(window->data + window->end++ * row, 0, row * sizeof *window->data);
}

INLINE const Value *slid(const Part *part, const Projection *projection, const Sliding *window)
{
    return window->data + window->start * part->width * projection->point.outputs;
}

static void find_scales(const Part *part, const Block *block, ptrdiff_t first, ptrdiff_t last,
                        float *scales)
{
    const ptrdiff_t row = part->width * part->channels;
    NAME(normalise)(1, last - first, part->width, part->channels, block->center, block->epsilon,
                    part->x + first * row, 0, row, part->channels, NULL, 0, 0, 0, scales, 0,
                    part->width);
}

// Adds q·kᵀ and the squares of q and k, of rows `first` to `last` - 1, to those of their units, of
// which there are `columns` side by side.
EXPORT void NAME(attend)(const Block *block, const Part *part, FirstPass *pass, ptrdiff_t first,
                         ptrdiff_t last, const Cell *units, ptrdiff_t columns)
{
    const ptrdiff_t channels = 2 * part->channels, per_head = part->channels / block->heads;
    for (ptrdiff_t row = first, end; row < last; row = end) {
        end = smaller(row + pass->step, last);
        const ptrdiff_t rows = end - row;
        // The second pass needs those of the whole halo.
        const ptrdiff_t scaled = smaller(end + 2, part->height);
        find_scales(part, block, pass->scaled, scaled, part->scales + pass->scaled * part->width);
        pass->scaled = scaled;
        push(part, &block->qk, &pass->qk, smaller(end + 1, part->height),
             part->scales + pass->qk.next * part->width);
        const Value *in = slid(part, &block->qk, &pass->qk);
        for (const Cell *unit = units; unit < units + columns; unit++) {
            const int before = unit->left > 0, behind = unit->right < part->width;
            const ptrdiff_t width = unit->right - unit->left, out_group = rows * width * per_head;
            NAME(depthwise)(1, rows, before + width + behind, channels, !before, !behind,
                            in + (unit->left - before) * channels, 0, part->width * channels,
                            channels, block->qk.depth.taps, block->qk.depth.bias, pass->by_head,
                            out_group, 0, width * per_head, per_head, per_head,
                            pass->row_squares);
            NAME(gram)(1, rows, width, per_head, block->heads, pass->group, pass->by_head,
                       out_group, 0, pass->row_squares, 0, unit->gram, 0, unit->squares, 0,
                       pass->sums, pass->pairs);
        }
        pass->qk.start += rows;
    }
}

// x += v · M in rows `first` to `last` - 1, cell by cell, and GDFN in the rows whose neighbours
// have that behind them.
EXPORT void NAME(apply)(const Block *block, const Part *part, SecondPass *pass, ptrdiff_t first,
                        ptrdiff_t last, const Cell *cells, ptrdiff_t columns)
{
    const ptrdiff_t width = part->width, channels = part->channels, line = width * channels;
    const ptrdiff_t hidden = block->gate.point.outputs;
    const Filter *v = &block->v.depth, *gate = &block->gate.depth, *value = &block->value.depth;
    for (ptrdiff_t row = first, end; row < last; row = end) {
        end = smaller(row + pass->step, last);
        const ptrdiff_t rows = end - row;
        push(part, &block->v, &pass->v, smaller(end + 1, part->height),
             part->scales + pass->v.next * width);
        NAME(depthwise)(1, rows, width, channels, 1, 1, slid(part, &block->v, &pass->v), 0, line,
                        channels, v->taps, v->bias, pass->convolved, 0, 0, line, channels, channels,
                        NULL);
        pass->v.start += rows;
        for (const Cell *cell = cells; cell < cells + columns; cell++) {
            const ptrdiff_t left = cell->left * channels;
            NAME(product)(1, rows, cell->right - cell->left, channels, channels, 1,
                          pass->convolved + left, 0, line, channels, NULL, 0, 0,
                          cell->matrix.panels, cell->matrix.bias, part->x + row * line + left, 0,
                          line, channels);
        }

        find_scales(part, block, row, end, pass->scales);
        push(part, &block->gate, &pass->gate, end, pass->scales);
        push(part, &block->value, &pass->value, end, pass->scales);
        const ptrdiff_t ready = end - !(part->is_bottom && end == part->height) - pass->done;
        if (ready <= 0)
            continue;
        NAME(gate)(1, ready, width, hidden, 1, 1, slid(part, &block->gate, &pass->gate),
                   slid(part, &block->value, &pass->value), 0, width * hidden, hidden, gate->taps,
                   gate->bias, value->taps, value->bias, pass->gated, 0, width * hidden, hidden);
        NAME(product)(1, ready, width, hidden, channels, 1, pass->gated, 0, width * hidden, hidden,
                      NULL, 0, 0, block->project_out.panels, block->project_out.bias,
                      part->x + pass->done * line, 0, line, channels);
        pass->gate.start += ready;
        pass->value.start += ready;
        pass->done += ready;
    }
}

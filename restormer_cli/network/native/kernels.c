// Depthwise convolutions and what follows them, on maps of pixels × channels.
//
// Compiled once for each kind of processor and each precision (BFLOAT16: 0 or 1), with VARIANT as the
// ending of all names. Sums are float32. A kernel computes each pixel by the same operations in the
// same order, wherever in a call it lies: results do not depend on how a map is split.
//
// Rows, pixels and images lie as far apart as their distances say, in values; channels side by side.

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#if defined(__AVX__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

#define INLINE static inline __attribute__((always_inline))
#define ALIGNED __attribute__((aligned(64)))
#define NAME__(name, variant) restormer_##name##_##variant
#define NAME_(name, variant) NAME__(name, variant)
#define NAME(name) NAME_(name, VARIANT)
#if defined(_WIN32)
#define EXPORT __declspec(dllexport)
#else
#define EXPORT __attribute__((visibility("default")))
#endif
#define DEGREE(coefficients) ((int)(sizeof coefficients / sizeof *coefficients) - 1)

// Columns that are worked on together, so that what lies between two steps stays in the cache.
#define TILE 32

// Added to a small number, it rounds that to a whole one, which then stands in the low bits.
#define TO_WHOLE 12582912.f

// Coefficients, from the lowest, of log2(Φ(-a)) for 0 ≤ a ≤ 6, and of 2^f for |f| ≤ 1/2. The
// relative error of Φ(-a) is at most 7e-6 for bfloat16; else 4e-6, and 5e-7 below 2.
#if BFLOAT16
typedef uint16_t Value;
static const float tail[] = {-0.99999434f, -1.15126915f, -0.458409777f, -0.0540206871f,
                             0.00853946133f, -0.000938867933f, 6.2681401e-05f, -1.88962623e-06f};
static const float power[] = {0.999999191f, 0.693121968f, 0.240249811f, 0.0559170392f,
                              0.00956051021f};
#if defined(__AVX512F__)
// Φ(-a) by pieces: the polynomial in a·TAIL_PIECES - i of the nearest whole number i is
// tail_pieces[0][i] and so on. The relative error is at most 1e-3, and 2e-4 below 4.
#define TAIL_PIECES (15.4f / 6)
static const float tail_pieces[5][16] ALIGNED = {
    {5.00000000e-01f, 3.48412305e-01f, 2.17924848e-01f, 1.21235862e-01f, 5.95643409e-02f,
     2.57043913e-02f, 9.70238447e-03f, 3.19300056e-03f, 9.13859520e-04f, 2.27019860e-04f,
     4.88733858e-05f, 9.10665949e-06f, 1.46716900e-06f, 2.04207225e-07f, 2.45374423e-08f,
     2.54390398e-09f},
    {-1.55431494e-01f, -1.44070506e-01f, -1.14734091e-01f, -7.85030574e-02f, -4.61482480e-02f,
     -2.33074855e-02f, -1.01135504e-02f, -3.77029995e-03f, -1.20755821e-03f, -3.32273718e-04f,
     -7.85481243e-05f, -1.59523333e-05f, -2.78329230e-06f, -4.17194286e-07f, -5.37233582e-08f,
     -5.94340355e-09f},
    {-8.87094757e-06f, 1.09351836e-02f, 1.74157228e-02f, 1.78733543e-02f, 1.40088815e-02f,
     8.84430390e-03f, 4.60570399e-03f, 2.00358033e-03f, 7.33650639e-04f, 2.27234807e-04f,
     5.97344952e-05f, 1.33594713e-05f, 2.54652332e-06f, 4.14284528e-07f, 5.75854529e-08f,
     6.84490331e-09f},
    {3.98146641e-03f, 3.07349837e-03f, 1.14205619e-03f, -7.11770379e-04f, -1.65260164e-03f,
     -1.64065138e-03f, -1.14237075e-03f, -6.17101847e-04f, -2.68990378e-04f, -9.65018990e-05f,
     -2.88232422e-05f, -7.21997276e-06f, -1.52430937e-06f, -2.72203323e-07f, -4.12222967e-08f,
     -5.30459365e-09f},
    {-1.11691828e-04f, -3.93428490e-04f, -5.22880175e-04f, -3.64007283e-04f, -9.75417570e-05f,
     8.98246508e-05f, 1.42485413e-04f, 1.10808011e-04f, 6.10169045e-05f, 2.59995631e-05f,
     8.89558032e-06f, 2.49182358e-06f, 5.78189258e-07f, 1.11985187e-07f, 1.82015736e-08f,
     2.49233967e-09f},
};
#endif
#else
typedef float Value;
static const float tail[] = {-0.999999936f, -1.15110711f, -0.459200812f, -0.0524900076f,
                             0.00699918963f, -2.30963294e-05f, -0.00028105747f, 8.20932884e-05f,
                             -1.33840258e-05f, 1.34849043e-06f, -7.84375408e-08f, 2.01998097e-09f};
static const float power[] = {1.f, 0.693147206f, 0.240226466f, 0.05550329f, 0.00961851953f,
                              0.00133998604f, 0.000153375768f};
#endif

typedef struct {
    Value *data;
    ptrdiff_t row, pixel;
} Map;

// A map with a row more above and below than come out, and likewise a column, except on the left
// side where pad_left is 1, and the right one where `columns` end: there are zeros instead.
typedef struct {
    const Value *data;
    ptrdiff_t row, pixel, columns, channels;
    int pad_left;
} Window;

// taps[tap][channel], from the upper left to the lower right; bias may be NULL.
typedef struct {
    const float *taps, *bias;
} Filter;

#define LANES 1
#include "lanes.h"
#define LANES 4
#include "lanes.h"
#define LANES 8
#define HALF floats_4
#include "lanes.h"
#define LANES 16
#define HALF floats_8
#include "lanes.h"
#if defined(__AVX512BF16__) && BFLOAT16
#include "dot_products.h"
#endif

// Pixel-unshuffle: of two by two pixels each channel's values side by side.
EXPORT void NAME(unshuffle)(ptrdiff_t images, ptrdiff_t rows, ptrdiff_t width, ptrdiff_t channels,
                            const Value *in, ptrdiff_t in_image, ptrdiff_t in_row,
                            ptrdiff_t in_pixel, Value *out, ptrdiff_t out_image, ptrdiff_t out_row,
                            ptrdiff_t out_pixel)
{
    for (ptrdiff_t image = 0; image < images; image++)
        for (ptrdiff_t row = 0; row < rows; row++)
            for (ptrdiff_t x = 0; x < width; x++) {
                const Value *upper = in + image * in_image + 2 * row * in_row + 2 * x * in_pixel;
                const Value *lower = upper + in_row;
                Value *restrict to = out + image * out_image + row * out_row + x * out_pixel;
                for (ptrdiff_t channel = 0; channel < channels; channel++, to += 4) {
                    to[0] = upper[channel];
                    to[1] = upper[in_pixel + channel];
                    to[2] = lower[channel];
                    to[3] = lower[in_pixel + channel];
                }
            }
}

// Elsewhere the libraries that PyTorch calls multiply faster.
#if (BFLOAT16 && defined(__AVX512BF16__)) || (!BFLOAT16 && defined(__AVX2__))
// Input channels that are multiplied at once.
#define STEP (BFLOAT16 ? 2 : 1)
// Pixels whose sums of two vectors fit the registers, with what they are made of.
#if defined(__AVX512F__)
#define MOST_PIXELS 12
#else
#define MOST_PIXELS 6
#endif
// Pixels that all panels are applied to before the next: they stay in the cache. A multiple of
// MOST_PIXELS.
#define CHUNK 96
// Pixels that all sums of q·kᵀ are taken over before the next; even.
#define SOME_PIXELS 64

// Of each output pixel, the products of `taps` pixels, that far from the one at hand, and the
// matrices that stand in these places of the panels.
typedef struct {
    ptrdiff_t in_channels, in_pixel, out_pixel;
    const float *bias;
    int add, taps;
    ptrdiff_t offsets[9];
    int places[9];
} Product;

// Values of a panel for one output channel and tap.
INLINE ptrdiff_t panel_depth(ptrdiff_t in_channels)
{
    return (in_channels + STEP - 1) / STEP * STEP;
}

#define LANES 1
#include "products.h"
#define LANES 4
#include "products.h"
#define LANES 8
#include "products.h"
#if defined(__AVX512F__)
#define LANES 16
#include "products.h"
#endif
#define PANELS(lanes, vectors, channels, call)                                                     \
    for (; channel + lanes * vectors <= channels; channel += lanes * vectors)                      \
        call(lanes, vectors);
#if defined(__AVX512F__)
#define EACH_PANEL(channels, call)                                                                 \
    PANELS(16, 2, channels, call) PANELS(16, 1, channels, call) PANELS(8, 1, channels, call)       \
    PANELS(4, 1, channels, call) PANELS(1, 1, channels, call)
#else
#define EACH_PANEL(channels, call)                                                                 \
    PANELS(8, 2, channels, call) PANELS(8, 1, channels, call) PANELS(4, 1, channels, call)         \
    PANELS(1, 1, channels, call)
#endif

// Lay out weights[out_channels][taps][in_channels] in panels.
EXPORT void NAME(pack)(ptrdiff_t out_channels, ptrdiff_t taps, ptrdiff_t in_channels,
                       const float *weights, Value *panels)
{
    ptrdiff_t channel = 0;
#define CALL(lanes, vectors)                                                                       \
    pack_panel_##lanes(weights + channel * taps * in_channels, taps, in_channels, vectors,         \
                       panels + channel * taps * panel_depth(in_channels))
    EACH_PANEL(out_channels, CALL)
#undef CALL
}

// Some pixels of a row.
INLINE void multiply(const Product *of, ptrdiff_t out_channels, ptrdiff_t all_taps, const Value *in,
                     const Value *panels, ptrdiff_t count, const float *scales, Value *out)
{
    ptrdiff_t channel = 0;
#define CALL(lanes, vectors)                                                                       \
    product_panel_##lanes(of, in, panels + channel * all_taps * panel_depth(of->in_channels),      \
                          channel, vectors, count, scales, out)
    EACH_PANEL(out_channels, CALL)
#undef CALL
}

// A 1×1 convolution; with scales, of pixels times their number there; with `add`, the result is
// added to what is in `out`.
EXPORT void NAME(product)(ptrdiff_t images, ptrdiff_t rows, ptrdiff_t width, ptrdiff_t in_channels,
                          ptrdiff_t out_channels, int add, const Value *in, ptrdiff_t in_image,
                          ptrdiff_t in_row, ptrdiff_t in_pixel, const float *scales,
                          ptrdiff_t scales_image, ptrdiff_t scales_row, const Value *panels,
                          const float *bias, Value *out, ptrdiff_t out_image, ptrdiff_t out_row,
                          ptrdiff_t out_pixel)
{
    const Product of = {in_channels, in_pixel, out_pixel, bias, add, 1, {0}, {0}};
    if (in_row == width * in_pixel && out_row == width * out_pixel
        && (!scales || scales_row == width))
        width *= rows, rows = 1;
    for (ptrdiff_t image = 0; image < images; image++)
        for (ptrdiff_t row = 0; row < rows; row++)
            for (ptrdiff_t first = 0; first < width; first += CHUNK)
                multiply(&of, out_channels, 1,
                         in + image * in_image + row * in_row + first * in_pixel, panels,
                         width - first < CHUNK ? width - first : CHUNK,
                         scales ? scales + image * scales_image + row * scales_row + first : scales,
                         out + image * out_image + row * out_row + first * out_pixel);
}

// A 3×3 convolution of rows + 2 rows; on both sides of the columns there are zeros.
EXPORT void NAME(convolution)(ptrdiff_t images, ptrdiff_t rows, ptrdiff_t width,
                              ptrdiff_t in_channels, ptrdiff_t out_channels, const Value *in,
                              ptrdiff_t in_image, ptrdiff_t in_row, ptrdiff_t in_pixel,
                              const Value *panels, const float *bias, Value *out,
                              ptrdiff_t out_image, ptrdiff_t out_row, ptrdiff_t out_pixel)
{
    // By whether there are a column before and one behind.
    Product of[2][2];
    for (int before = 0; before < 2; before++)
        for (int behind = 0; behind < 2; behind++) {
            Product made = {in_channels, in_pixel, out_pixel, bias, 0, 0, {0}, {0}};
            for (int place = 0; place < 9; place++) {
                const int side = place % 3 - 1;
                if ((side < 0 && !before) || (side > 0 && !behind))
                    continue;
                made.offsets[made.taps] = place / 3 * in_row + side * in_pixel;
                made.places[made.taps++] = place;
            }
            of[before][behind] = made;
        }
    for (ptrdiff_t image = 0; image < images; image++)
        for (ptrdiff_t row = 0; row < rows; row++)
            for (ptrdiff_t first = 0, count; first < width; first += count) {
                const int before = first > 0, behind = first < width - 1;
                count = width - 1 - first < CHUNK ? width - 1 - first : CHUNK;
                if (!before || !behind)
                    count = 1;
                multiply(&of[before][behind], out_channels, 9,
                         in + image * in_image + row * in_row + first * in_pixel, panels, count,
                         NULL, out + image * out_image + row * out_row + first * out_pixel);
            }
}

#if BFLOAT16
// Pixels by twos, as products take them: of each channel its values of both.
INLINE void pair_up(const Value *in, ptrdiff_t pixels, ptrdiff_t channels, Value *out)
{
    for (ptrdiff_t pixel = 0; pixel < pixels; pixel += 2, in += 2 * channels)
        for (ptrdiff_t channel = 0; channel < channels; channel++, out += 2) {
            out[0] = in[channel];
            out[1] = pixel + 1 < pixels ? in[channels + channel] : 0;
        }
}
#endif

// Adds q·kᵀ of each group of rows, summed as floats, to `total` [image][head][c][c], and the squares
// of each row to `squares_total` [image][2 * heads * c]. qk is [q's heads, k's heads][image] with
// rows and pixels side by side; `sums` is memory for c * c floats, `pairs` for 2 * SOME_PIXELS * c
// values.
EXPORT void NAME(gram)(ptrdiff_t images, ptrdiff_t rows, ptrdiff_t width, ptrdiff_t channels,
                       ptrdiff_t heads, ptrdiff_t group, const Value *qk, ptrdiff_t qk_head,
                       ptrdiff_t qk_image, const double *squares, ptrdiff_t squares_image,
                       double *total, ptrdiff_t total_image, double *squares_total,
                       ptrdiff_t squares_total_image, float *sums, Value *pairs)
{
    for (ptrdiff_t image = 0; image < images; image++) {
        const ptrdiff_t both = 2 * heads * channels;
        double *norms = squares_total + image * squares_total_image;
        for (ptrdiff_t row = 0; row < rows; row++)
            for (ptrdiff_t i = 0; i < both; i++)
                norms[i] += squares[image * squares_image + row * both + i];
        for (ptrdiff_t row = 0; row < rows; row += group)
            for (ptrdiff_t head = 0; head < heads; head++) {
                const ptrdiff_t pixels = (row + group < rows ? group : rows - row) * width;
                const Value *q = qk + head * qk_head + image * qk_image + row * width * channels;
                const Value *k = q + heads * qk_head;
                memset(sums, 0, channels * channels * sizeof *sums);
                for (ptrdiff_t first = 0; first < pixels; first += SOME_PIXELS) {
                    ptrdiff_t count = pixels - first < SOME_PIXELS ? pixels - first : SOME_PIXELS;
                    const Value *a = q + first * channels, *b = k + first * channels;
#if BFLOAT16
                    pair_up(a, count, channels, pairs);
                    pair_up(b, count, channels, pairs + SOME_PIXELS * channels);
                    a = pairs, b = pairs + SOME_PIXELS * channels;
#endif
                    count = (count + STEP - 1) / STEP;
                    ptrdiff_t channel = 0;
#define CALL(lanes, vectors) gram_panel_##lanes(a, b, channels, count, channel, vectors, sums)
                    EACH_PANEL(channels, CALL)
#undef CALL
                }
                double *to = total + image * total_image + head * channels * channels;
                for (ptrdiff_t i = 0; i < channels * channels; i++)
                    to[i] += sums[i];
            }
    }
}
#endif

// Call a function's form for so many lanes, from many to few, for channels from `channel` up to `end`.
#define RUN(lanes, channel, end, call)                                                             \
    for (; channel + lanes <= (end); channel += lanes)                                             \
        call(lanes);
#if defined(__AVX512F__)
#define EACH_CHANNEL(channel, end, call)                                                           \
    RUN(16, channel, end, call)                                                                    \
    RUN(8, channel, end, call) RUN(4, channel, end, call) RUN(1, channel, end, call)
#elif defined(__AVX__)
#define EACH_CHANNEL(channel, end, call)                                                           \
    RUN(8, channel, end, call) RUN(4, channel, end, call) RUN(1, channel, end, call)
#else
#define EACH_CHANNEL(channel, end, call) RUN(4, channel, end, call) RUN(1, channel, end, call)
#endif

// `rows` output rows, 1 or 2: two have two rows of input in common.
INLINE void gate_rows(const Window *gates, const Window *values, ptrdiff_t row, int rows,
                      ptrdiff_t width, const Filter *gate, const Filter *value, const Map *out)
{
    for (ptrdiff_t first = 0; first < width; first += TILE) {
        const ptrdiff_t count = width - first < TILE ? width - first : TILE;
        ptrdiff_t channel = 0;
#define CALL(lanes)                                                                                \
    gate_tile_##lanes(gates, values, row, channel, rows, first, count, gate, value, out)
#if defined(__AVX512BF16__) && BFLOAT16
        RUN(32, channel, gates->channels, CALL)
#endif
        EACH_CHANNEL(channel, gates->channels, CALL)
#undef CALL
    }
}

INLINE void depthwise_rows(const Window *in, ptrdiff_t row, int rows, ptrdiff_t width,
                           const Filter *filter, const Map *out, ptrdiff_t group_channels,
                           ptrdiff_t out_group, double *squares)
{
    if (squares)
        for (ptrdiff_t i = row * in->channels; i < (row + rows) * in->channels; i++)
            squares[i] = 0;
    for (ptrdiff_t first = 0; first < width; first += TILE) {
        const ptrdiff_t count = width - first < TILE ? width - first : TILE;
        ptrdiff_t channel = 0;
#if defined(__AVX512BF16__) && BFLOAT16
        for (; channel + 32 <= in->channels; channel += 32)
            depthwise_tile_32(in, row, channel, rows, first, count, filter, out, group_channels,
                              out_group, squares);
#endif
        while (channel < in->channels) {
            const ptrdiff_t group = channel / group_channels, end = (group + 1) * group_channels;
            Map to = *out;
#define CALL(lanes)                                                                                \
    (to.data = out->data + group * (out_group - group_channels) + channel,                         \
     depthwise_tile_##lanes(in, row, channel, rows, first, count, filter, &to, squares))
            EACH_CHANNEL(channel, end, CALL)
#undef CALL
        }
    }
}

// Of a pixel, the sum of the values less `mean`, or of their squares, in four parts, always in the
// same order.
INLINE void add_up(const Value *pixel, ptrdiff_t channels, float mean, int squared, float *parts)
{
    ptrdiff_t channel = 0;
#define ADD(lanes)                                                                                 \
    for (; channel + lanes <= channels; channel += lanes) {                                        \
        floats_##lanes value = load_##lanes(pixel + channel) - mean;                               \
        sum_##lanes += squared ? value * value : value;                                            \
    }
#if defined(__AVX512F__)
    floats_16 sum_16 = {0};
    ADD(16)
    floats_8 sum_8 = folded_16(sum_16);
#else
    floats_8 sum_8 = {0};
#endif
    ADD(8)
    floats_4 sum_4 = folded_8(sum_8);
    ADD(4)
    memcpy(parts, &sum_4, sizeof sum_4);
    floats_1 sum_1 = {parts[0]};
    if (channel < channels) {
        ADD(1)
        parts[0] = sum_1[0];
    }
#undef ADD
}

INLINE void normalise_row(const Value *in, ptrdiff_t in_pixel, ptrdiff_t width, ptrdiff_t channels,
                          int center, float epsilon, Value *out, ptrdiff_t out_pixel,
                          float *scales)
{
    const float share = 1.f / channels;
    for (ptrdiff_t first = 0; first < width; first += TILE) {
        const ptrdiff_t count = width - first < TILE ? width - first : TILE;
        float parts[TILE][4] ALIGNED = {{0}}, means[TILE] ALIGNED, factors[TILE] ALIGNED;
        const Value *from = in + first * in_pixel;
        for (ptrdiff_t x = 0; x < count; x++)
            add_up(from + x * in_pixel, channels, 0, 0, parts[x]);
        for (int x = 0; x < TILE; x++)
            means[x] = ((parts[x][0] + parts[x][2]) + (parts[x][1] + parts[x][3])) * share;
        for (ptrdiff_t x = 0; x < count; x++)
            add_up(from + x * in_pixel, channels, means[x], 1, parts[x]);
        for (int x = 0; x < TILE; x++) {
            float sum = (parts[x][0] + parts[x][2]) + (parts[x][1] + parts[x][3]);
            factors[x] = 1 / sqrtf(sum * share + epsilon);
        }
        if (scales)
            memcpy(scales + first, factors, count * sizeof *factors);
        if (!out)
            continue;
        Value *to = out + first * out_pixel;
        for (ptrdiff_t x = 0; x < count; x++, from += in_pixel, to += out_pixel) {
            const float mean = center ? means[x] : 0, factor = factors[x];
            ptrdiff_t channel = 0;
#define CALL(lanes)                                                                                \
    store_##lanes(to + channel, (load_##lanes(from + channel) - mean) * factor)
            EACH_CHANNEL(channel, channels, CALL)
#undef CALL
        }
    }
}

// The functions that the library gives.

// GELU of one convolution times another. Gates and values have the same distances; of windows come
// rows + 2 rows, of which `columns` are given.
EXPORT void NAME(gate)(ptrdiff_t images, ptrdiff_t rows, ptrdiff_t columns, ptrdiff_t channels,
                       int pad_left, int pad_right, const Value *gates, const Value *values,
                       ptrdiff_t in_image, ptrdiff_t in_row, ptrdiff_t in_pixel,
                       const float *gate_taps, const float *gate_bias, const float *value_taps,
                       const float *value_bias, Value *out, ptrdiff_t out_image,
                       ptrdiff_t out_row, ptrdiff_t out_pixel)
{
    const ptrdiff_t width = columns + pad_left + pad_right - 2;
    const Filter gate = {gate_taps, gate_bias}, value = {value_taps, value_bias};
    for (ptrdiff_t image = 0; image < images; image++) {
        const Window left = {gates + image * in_image, in_row, in_pixel, columns, channels, pad_left};
        Window right = left;
        right.data = values + image * in_image;
        const Map to = {out + image * out_image, out_row, out_pixel};
        ptrdiff_t row = 0;
        for (; row + 2 <= rows; row += 2)
            gate_rows(&left, &right, row, 2, width, &gate, &value, &to);
        if (row < rows)
            gate_rows(&left, &right, row, 1, width, &gate, &value, &to);
    }
}

// Channels come out in groups of group_channels, out_group apart. squares[image][row][channel], if
// not NULL, become the sums over each row of the squared results, as rounded.
EXPORT void NAME(depthwise)(ptrdiff_t images, ptrdiff_t rows, ptrdiff_t columns,
                            ptrdiff_t channels, int pad_left, int pad_right, const Value *in,
                            ptrdiff_t in_image, ptrdiff_t in_row, ptrdiff_t in_pixel,
                            const float *taps, const float *bias, Value *out,
                            ptrdiff_t out_group, ptrdiff_t out_image, ptrdiff_t out_row,
                            ptrdiff_t out_pixel, ptrdiff_t group_channels, double *squares)
{
    const ptrdiff_t width = columns + pad_left + pad_right - 2;
    const Filter filter = {taps, bias};
    for (ptrdiff_t image = 0; image < images; image++) {
        const Window from = {in + image * in_image, in_row, in_pixel, columns, channels, pad_left};
        const Map to = {out + image * out_image, out_row, out_pixel};
        ptrdiff_t row = 0;
        for (; row + 2 <= rows; row += 2)
            depthwise_rows(&from, row, 2, width, &filter, &to, group_channels, out_group, squares);
        if (row < rows)
            depthwise_rows(&from, row, 1, width, &filter, &to, group_channels, out_group, squares);
        if (squares)
            squares += rows * channels;
    }
}

// LayerNorm without its affine part; what pixels are multiplied by goes to scales. Either may be
// NULL.
EXPORT void NAME(normalise)(ptrdiff_t images, ptrdiff_t rows, ptrdiff_t width, ptrdiff_t channels,
                            int center, float epsilon, const Value *in, ptrdiff_t in_image,
                            ptrdiff_t in_row, ptrdiff_t in_pixel, Value *out, ptrdiff_t out_image,
                            ptrdiff_t out_row, ptrdiff_t out_pixel, float *scales,
                            ptrdiff_t scales_image, ptrdiff_t scales_row)
{
    for (ptrdiff_t image = 0; image < images; image++)
        for (ptrdiff_t row = 0; row < rows; row++)
            normalise_row(in + image * in_image + row * in_row, in_pixel, width, channels, center,
                          epsilon, out ? out + image * out_image + row * out_row : out, out_pixel,
                          scales ? scales + image * scales_image + row * scales_row : scales);
}

// Each pixel times its number in scales.
EXPORT void NAME(scale)(ptrdiff_t images, ptrdiff_t rows, ptrdiff_t width, ptrdiff_t channels,
                        const Value *in, ptrdiff_t in_image, ptrdiff_t in_row, ptrdiff_t in_pixel,
                        Value *out, ptrdiff_t out_image, ptrdiff_t out_row, ptrdiff_t out_pixel,
                        const float *scales, ptrdiff_t scales_image, ptrdiff_t scales_row)
{
    for (ptrdiff_t image = 0; image < images; image++)
        for (ptrdiff_t row = 0; row < rows; row++) {
            const Value *from = in + image * in_image + row * in_row;
            Value *to = out + image * out_image + row * out_row;
            for (ptrdiff_t x = 0; x < width; x++, from += in_pixel, to += out_pixel) {
                const float factor = scales[image * scales_image + row * scales_row + x];
                ptrdiff_t channel = 0;
#define CALL(lanes) store_##lanes(to + channel, load_##lanes(from + channel) * factor)
                EACH_CHANNEL(channel, channels, CALL)
#undef CALL
            }
        }
}

#ifdef STEP
#include "passes.h"
#endif

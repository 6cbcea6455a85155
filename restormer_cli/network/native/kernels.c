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

// LayerNorm without its affine part; what pixels are multiplied by goes to scales, if not NULL.
EXPORT void NAME(normalise)(ptrdiff_t images, ptrdiff_t rows, ptrdiff_t width, ptrdiff_t channels,
                            int center, float epsilon, const Value *in, ptrdiff_t in_image,
                            ptrdiff_t in_row, ptrdiff_t in_pixel, Value *out, ptrdiff_t out_image,
                            ptrdiff_t out_row, ptrdiff_t out_pixel, float *scales,
                            ptrdiff_t scales_image, ptrdiff_t scales_row)
{
    for (ptrdiff_t image = 0; image < images; image++)
        for (ptrdiff_t row = 0; row < rows; row++)
            normalise_row(in + image * in_image + row * in_row, in_pixel, width, channels, center,
                          epsilon, out + image * out_image + row * out_row, out_pixel,
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

// Depthwise convolutions and what follows them, on maps of pixels × channels.
//
// Compiled once for each kind of processor, with TARGET as the ending of all names. Values are
// float32 or bfloat16, sums float32. A kernel computes each pixel by the same operations in the same
// order, wherever in a call it lies: results do not depend on how a map is split.

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
#define NAME__(name, target) restormer_##name##_##target
#define NAME_(name, target) NAME__(name, target)
#define NAME(name) NAME_(name, TARGET)
#if defined(_WIN32)
#define EXPORT __declspec(dllexport)
#else
#define EXPORT __attribute__((visibility("default")))
#endif
#define DEGREE(coefficients) ((int)(sizeof coefficients / sizeof *coefficients) - 1)

// Columns that are worked on together, so that what lies between two steps stays in the cache.
#define TILE 32

// Coefficients, from the lowest, of log2(Φ(-a)) for 0 ≤ a ≤ 6, and of 2^f for |f| ≤ 1/2.
// The relative error of Φ(-a) is at most 7e-6 (coarse) and 4e-6, 5e-7 below 2 (fine).
static const float tail_coarse[] = {-0.99999434f, -1.15126915f, -0.458409777f, -0.0540206871f,
                                    0.00853946133f, -0.000938867933f, 6.2681401e-05f,
                                    -1.88962623e-06f};
static const float power_coarse[] = {0.999999191f, 0.693121968f, 0.240249811f, 0.0559170392f,
                                     0.00956051021f};
static const float tail_fine[] = {-0.999999936f, -1.15110711f, -0.459200812f, -0.0524900076f,
                                  0.00699918963f, -2.30963294e-05f, -0.00028105747f,
                                  8.20932884e-05f, -1.33840258e-05f, 1.34849043e-06f,
                                  -7.84375408e-08f, 2.01998097e-09f};
static const float power_fine[] = {1.f, 0.693147206f, 0.240226466f, 0.05550329f, 0.00961851953f,
                                   0.00133998604f, 0.000153375768f};

// Rows with their halo: two more than come out. Distances are in bytes.
typedef struct {
    const char *data;
    ptrdiff_t row, pixel, columns, channels, pad_left;
} Source;

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

// Run the statement for channels `from` up to `to`, in the widest vectors that fit.
#define RUN(lanes, channel, to, call)                                                              \
    for (; channel + lanes <= (to); channel += lanes)                                              \
        call(lanes);
#if defined(__AVX512F__)
#define EACH_CHANNEL(channel, to, call)                                                            \
    RUN(16, channel, to, call) RUN(8, channel, to, call) RUN(4, channel, to, call)                 \
        RUN(1, channel, to, call)
#elif defined(__AVX__)
#define EACH_CHANNEL(channel, to, call)                                                            \
    RUN(8, channel, to, call) RUN(4, channel, to, call) RUN(1, channel, to, call)
#else
#define EACH_CHANNEL(channel, to, call) RUN(4, channel, to, call) RUN(1, channel, to, call)
#endif

INLINE void gate_rows(const Source *gate, const Source *value, ptrdiff_t row, int rows,
                      ptrdiff_t width, const Filter *gate_filter, const Filter *value_filter,
                      char *out, ptrdiff_t out_row, ptrdiff_t out_pixel, int bfloat16)
{
    for (ptrdiff_t first = 0; first < width; first += TILE) {
        const ptrdiff_t count = width - first < TILE ? width - first : TILE;
        ptrdiff_t channel = 0;
#define CALL(lanes)                                                                                \
    gate_tile_##lanes(gate, value, row, channel, rows, first, count, gate_filter, value_filter,    \
                      out, out_row, out_pixel, bfloat16)
        EACH_CHANNEL(channel, gate->channels, CALL)
#undef CALL
    }
}

INLINE void gate(const void *gates, const void *values, ptrdiff_t in_row, ptrdiff_t in_pixel,
                 ptrdiff_t rows, ptrdiff_t columns, ptrdiff_t channels, int pad_left,
                 int pad_right, const float *gate_taps, const float *gate_bias,
                 const float *value_taps, const float *value_bias, void *out, ptrdiff_t out_row,
                 ptrdiff_t out_pixel, int bfloat16)
{
    const ptrdiff_t size = bfloat16 ? 2 : 4, width = columns + pad_left + pad_right - 2;
    const Source gate = {gates, in_row * size, in_pixel * size, columns, channels, pad_left};
    const Source value = {values, in_row * size, in_pixel * size, columns, channels, pad_left};
    const Filter gate_filter = {gate_taps, gate_bias}, value_filter = {value_taps, value_bias};
    ptrdiff_t row = 0;
    for (; row + 2 <= rows; row += 2)
        gate_rows(&gate, &value, row, 2, width, &gate_filter, &value_filter, out, out_row * size,
                  out_pixel * size, bfloat16);
    if (row < rows)
        gate_rows(&gate, &value, row, 1, width, &gate_filter, &value_filter, out, out_row * size,
                  out_pixel * size, bfloat16);
}

INLINE void depthwise_rows(const Source *in, ptrdiff_t row, int rows, ptrdiff_t width,
                           const Filter *filter, char *out, ptrdiff_t group_channels,
                           ptrdiff_t out_group, ptrdiff_t out_row, ptrdiff_t out_pixel,
                           double *squares, int bfloat16)
{
    const ptrdiff_t size = bfloat16 ? 2 : 4;
    if (squares) {
        squares += row * in->channels;
        for (ptrdiff_t i = 0; i < rows * in->channels; i++)
            squares[i] = 0;
    }
    for (ptrdiff_t first = 0; first < width; first += TILE) {
        const ptrdiff_t count = width - first < TILE ? width - first : TILE;
        ptrdiff_t channel = 0;
        for (ptrdiff_t end = group_channels; end <= in->channels; end += group_channels) {
            char *group = out + (end / group_channels - 1) * out_group
                          - (end - group_channels) * size;
#define CALL(lanes)                                                                                \
    depthwise_tile_##lanes(in, row, channel, rows, first, count, filter, group + channel * size,   \
                           out_row, out_pixel, squares, bfloat16)
            EACH_CHANNEL(channel, end, CALL)
#undef CALL
        }
    }
}

INLINE void depthwise(const void *data, ptrdiff_t in_row, ptrdiff_t in_pixel, ptrdiff_t rows,
                      ptrdiff_t columns, ptrdiff_t channels, int pad_left, int pad_right,
                      const float *taps, const float *bias, void *out, ptrdiff_t group_channels,
                      ptrdiff_t out_group, ptrdiff_t out_row, ptrdiff_t out_pixel, double *squares,
                      int bfloat16)
{
    const ptrdiff_t size = bfloat16 ? 2 : 4, width = columns + pad_left + pad_right - 2;
    const Source in = {data, in_row * size, in_pixel * size, columns, channels, pad_left};
    const Filter filter = {taps, bias};
    ptrdiff_t row = 0;
    for (; row + 2 <= rows; row += 2)
        depthwise_rows(&in, row, 2, width, &filter, out, group_channels, out_group * size,
                       out_row * size, out_pixel * size, squares, bfloat16);
    if (row < rows)
        depthwise_rows(&in, row, 1, width, &filter, out, group_channels, out_group * size,
                       out_row * size, out_pixel * size, squares, bfloat16);
}

// The sum of the values less `mean`, or of their squares; always in the same order.
INLINE float total(const char *pixel, ptrdiff_t channels, float mean, int squared, int bfloat16)
{
    const ptrdiff_t size = bfloat16 ? 2 : 4;
    ptrdiff_t channel = 0;
#define ADD(lanes)                                                                                 \
    for (; channel + lanes <= channels; channel += lanes) {                                        \
        floats_##lanes v = load_##lanes(pixel + channel * size, bfloat16) - mean;                  \
        sum_##lanes += squared ? v * v : v;                                                        \
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
    floats_1 sum_1 = (sum_4[0] + sum_4[2]) + (sum_4[1] + sum_4[3]) - (floats_1){0};
    ADD(1)
#undef ADD
    return sum_1[0];
}

// LayerNorm without its affine part, for a row of pixels.
INLINE void normalise(const char *in, ptrdiff_t in_pixel, ptrdiff_t width, ptrdiff_t channels,
                      int center, float epsilon, char *out, ptrdiff_t out_pixel, float *scales,
                      int bfloat16)
{
    const ptrdiff_t size = bfloat16 ? 2 : 4;
    for (ptrdiff_t first = 0; first < width; first += TILE, in += TILE * in_pixel,
                   out += TILE * out_pixel) {
        const ptrdiff_t count = width - first < TILE ? width - first : TILE;
        float means[TILE] ALIGNED, factors[TILE] ALIGNED = {0};
        for (ptrdiff_t x = 0; x < count; x++) {
            const char *pixel = in + x * in_pixel;
            means[x] = total(pixel, channels, 0, 0, bfloat16) / channels;
            factors[x] = total(pixel, channels, means[x], 1, bfloat16) / channels;
        }
        for (int x = 0; x < TILE; x++)
            factors[x] = 1 / sqrtf(factors[x] + epsilon);
        for (ptrdiff_t x = 0; x < count; x++) {
            const float mean = center ? means[x] : 0, factor = factors[x];
            ptrdiff_t channel = 0;
            if (scales)
                scales[first + x] = factor;
#define CALL(lanes)                                                                                \
    store_##lanes(out + x * out_pixel + channel * size,                                            \
                  (load_##lanes(in + x * in_pixel + channel * size, bfloat16) - mean) * factor,    \
                  bfloat16)
            EACH_CHANNEL(channel, channels, CALL)
#undef CALL
        }
    }
}

INLINE void scale(const char *in, ptrdiff_t in_pixel, ptrdiff_t width, ptrdiff_t channels,
                  const float *scales, char *out, ptrdiff_t out_pixel, int bfloat16)
{
    const ptrdiff_t size = bfloat16 ? 2 : 4;
    for (ptrdiff_t x = 0; x < width; x++, in += in_pixel, out += out_pixel) {
        ptrdiff_t channel = 0;
#define CALL(lanes)                                                                                \
    store_##lanes(out + channel * size, load_##lanes(in + channel * size, bfloat16) * scales[x],   \
                  bfloat16)
        EACH_CHANNEL(channel, channels, CALL)
#undef CALL
    }
}

#define GATE(type, bfloat16)                                                                       \
    EXPORT void NAME(gate_##type)(                                                                 \
        const void *gates, const void *values, ptrdiff_t in_row, ptrdiff_t in_pixel,               \
        ptrdiff_t rows, ptrdiff_t columns, ptrdiff_t channels, int pad_left, int pad_right,        \
        const float *gate_taps, const float *gate_bias, const float *value_taps,                   \
        const float *value_bias, void *out, ptrdiff_t out_row, ptrdiff_t out_pixel)                \
    {                                                                                              \
        gate(gates, values, in_row, in_pixel, rows, columns, channels, pad_left, pad_right,        \
             gate_taps, gate_bias, value_taps, value_bias, out, out_row, out_pixel, bfloat16);     \
    }
#define DEPTHWISE(type, bfloat16)                                                                  \
    EXPORT void NAME(depthwise_##type)(                                                            \
        const void *in, ptrdiff_t in_row, ptrdiff_t in_pixel, ptrdiff_t rows, ptrdiff_t columns,   \
        ptrdiff_t channels, int pad_left, int pad_right, const float *taps, const float *bias,     \
        void *out, ptrdiff_t group_channels, ptrdiff_t out_group, ptrdiff_t out_row,               \
        ptrdiff_t out_pixel, double *squares)                                                      \
    {                                                                                              \
        depthwise(in, in_row, in_pixel, rows, columns, channels, pad_left, pad_right, taps, bias,  \
                  out, group_channels, out_group, out_row, out_pixel, squares, bfloat16);          \
    }
#define NORMALISE(type, bfloat16)                                                                  \
    EXPORT void NAME(normalise_##type)(                                                            \
        const char *in, ptrdiff_t in_row, ptrdiff_t in_pixel, ptrdiff_t rows, ptrdiff_t width,     \
        ptrdiff_t channels, int center, float epsilon, char *out, ptrdiff_t out_row,               \
        ptrdiff_t out_pixel, float *scales, ptrdiff_t scales_row)                                  \
    {                                                                                              \
        const ptrdiff_t size = bfloat16 ? 2 : 4;                                                   \
        for (ptrdiff_t row = 0; row < rows; row++)                                                 \
            normalise(in + row * in_row * size, in_pixel * size, width, channels, center, epsilon, \
                      out + row * out_row * size, out_pixel * size,                                \
                      scales ? scales + row * scales_row : scales, bfloat16);                      \
    }
#define SCALE(type, bfloat16)                                                                      \
    EXPORT void NAME(scale_##type)(const char *in, ptrdiff_t in_row, ptrdiff_t in_pixel,           \
                                   ptrdiff_t rows, ptrdiff_t width, ptrdiff_t channels,            \
                                   const float *scales, ptrdiff_t scales_row, char *out,           \
                                   ptrdiff_t out_row, ptrdiff_t out_pixel)                         \
    {                                                                                              \
        const ptrdiff_t size = bfloat16 ? 2 : 4;                                                   \
        for (ptrdiff_t row = 0; row < rows; row++)                                                 \
            scale(in + row * in_row * size, in_pixel * size, width, channels,                      \
                  scales + row * scales_row, out + row * out_row * size, out_pixel * size,         \
                  bfloat16);                                                                       \
    }
GATE(float32, 0)
GATE(bfloat16, 1)
DEPTHWISE(float32, 0)
DEPTHWISE(bfloat16, 1)
NORMALISE(float32, 0)
NORMALISE(bfloat16, 1)
SCALE(float32, 0)
SCALE(bfloat16, 1)

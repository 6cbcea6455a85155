// 1×1 and 3×3 convolutions: products of pixels and matrices, for vectors of LANES output channels.
// kernels.c includes this once for each width, behind lanes.h.
//
// The matrix lies in panels of neighbouring output channels, the widest first, so that any number
// is possible. A panel is read from front to back: for each input channel (in bfloat16, each two,
// which one instruction multiplies) its weights for all channels of the panel.

#define JOIN_(name, lanes) name##_##lanes
#define JOIN(name, lanes) JOIN_(name, lanes)
#define L(name) JOIN(name, LANES)
#define V L(floats)

#if BFLOAT16
// Adds two input channels of one pixel times their weights.
INLINE V L(fed)(V sum, const Value *values, const Value *weights)
{
#if LANES == 1
    for (int i = 0; i < 2; i++)
        sum = load_1(values + i) * load_1(weights + i) + sum;
    return sum;
#else
    uint32_t pair;
    memcpy(&pair, values, sizeof pair);
#if LANES == 16
    return (V)_mm512_dpbf16_ps((__m512)sum, (__m512bh)_mm512_set1_epi32(pair),
                               (__m512bh)_mm512_loadu_si512(weights));
#elif LANES == 8
    return (V)_mm256_dpbf16_ps((__m256)sum, (__m256bh)_mm256_set1_epi32(pair),
                               (__m256bh)_mm256_loadu_si256((const __m256i *)weights));
#elif LANES == 4
    return (V)_mm_dpbf16_ps((__m128)sum, (__m128bh)_mm_set1_epi32(pair),
                            (__m128bh)_mm_loadu_si128((const __m128i *)weights));
#endif
#endif
}
#else
INLINE V L(fed)(V sum, const Value *values, const Value *weights)
{
    return *values * L(load)(weights) + sum;
}
#endif

// `pixels` pixels, of `vectors` vectors of output channels from `channel` on: as many sums as fit
// the registers, so that each weight and each value is loaded for several of them.
INLINE void L(product_block)(const Product *of, const Value *in, const Value *panel,
                             ptrdiff_t channel, int vectors, int pixels, const float *scales,
                             Value *out)
{
    V sums[MOST_PIXELS][2];
    for (int p = 0; p < pixels; p++)
        for (int v = 0; v < vectors; v++)
            sums[p][v] = L(all)(0);
    for (int tap = 0; tap < of->taps; tap++) {
        const Value *from = in + of->offsets[tap];
        const Value *weights = panel + of->places[tap] * panel_depth(of->in_channels) * LANES * vectors;
        ptrdiff_t input = 0;
        for (; input + STEP <= of->in_channels; input += STEP, weights += STEP * LANES * vectors)
            for (int p = 0; p < pixels; p++)
                for (int v = 0; v < vectors; v++)
                    sums[p][v] = L(fed)(sums[p][v], from + p * of->in_pixel + input,
                                        weights + v * STEP * LANES);
        if (input < of->in_channels)
            for (int p = 0; p < pixels; p++) {
                const Value last[2] = {from[p * of->in_pixel + input], 0};
                for (int v = 0; v < vectors; v++)
                    sums[p][v] = L(fed)(sums[p][v], last, weights + v * STEP * LANES);
            }
    }
    V biases[2] = {L(all)(0), L(all)(0)};
    if (of->bias)
        for (int v = 0; v < vectors; v++)
            biases[v] = L(load_floats)(of->bias + channel + v * LANES);
#pragma GCC unroll 16
    for (int p = 0; p < pixels; p++) {
        Value *to = out + p * of->out_pixel + channel;
        const float scale = scales ? scales[p] : 1.f;
        for (int v = 0; v < vectors; v++) {
            sums[p][v] = sums[p][v] * scale + biases[v];
            if (of->add)
                sums[p][v] += L(load)(to + v * LANES);
        }
#if BFLOAT16 && LANES == 16
        if (vectors == 2)
            _mm512_storeu_si512(
                to, (__m512i)_mm512_cvtne2ps_pbh((__m512)sums[p][1], (__m512)sums[p][0]));
        else
#endif
            for (int v = 0; v < vectors; v++)
                L(store)(to + v * LANES, sums[p][v]);
    }
}

INLINE void L(product_panel)(const Product *of, const Value *in, const Value *panel,
                             ptrdiff_t channel, int vectors, ptrdiff_t count, const float *scales,
                             Value *out)
{
#define BLOCKS(pixels)                                                                             \
    for (; count >= pixels; count -= pixels) {                                                     \
        L(product_block)(of, in, panel, channel, vectors, pixels, scales, out);                    \
        in += pixels * of->in_pixel, out += pixels * of->out_pixel;                                \
        scales = scales ? scales + pixels : scales;                                                \
    }
    BLOCKS(MOST_PIXELS)
    BLOCKS(3)
    BLOCKS(1)
#undef BLOCKS
}

// Adds to sums[q's channel][k's channel], rows `stride` apart, the products of q's channels from
// `row` on and k's from `channel` on, over some steps of pixels.
INLINE void L(gram_block)(const Value *q, const Value *k, ptrdiff_t channels, ptrdiff_t steps,
                          ptrdiff_t row, ptrdiff_t channel, int rows, int vectors, float *into)
{
    V sums[MOST_PIXELS][2];
    into += row * channels + channel;
    q += row * STEP;
    k += channel * STEP;
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < vectors; v++)
            sums[r][v] = L(load_floats)(into + r * channels + v * LANES);
    for (ptrdiff_t step = 0; step < steps; step++, q += channels * STEP, k += channels * STEP)
        for (int r = 0; r < rows; r++)
            for (int v = 0; v < vectors; v++)
                sums[r][v] = L(fed)(sums[r][v], q + r * STEP, k + v * LANES * STEP);
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < vectors; v++)
            memcpy(into + r * channels + v * LANES, &sums[r][v], sizeof sums[r][v]);
}

INLINE void L(gram_panel)(const Value *q, const Value *k, ptrdiff_t channels, ptrdiff_t steps,
                          ptrdiff_t channel, int vectors, float *into)
{
    ptrdiff_t row = 0;
#define BLOCKS(rows)                                                                               \
    for (; row + rows <= channels; row += rows)                                                    \
        L(gram_block)(q, k, channels, steps, row, channel, rows, vectors, into);
    BLOCKS(MOST_PIXELS)
    BLOCKS(3)
    BLOCKS(1)
#undef BLOCKS
}

// One panel from weights[output channel][tap][input channel].
INLINE void L(pack_panel)(const float *weights, ptrdiff_t taps, ptrdiff_t channels, int vectors,
                          Value *panel)
{
    for (ptrdiff_t tap = 0; tap < taps; tap++)
        for (ptrdiff_t input = 0; input < channels; input += STEP)
            for (int lane = 0; lane < LANES * vectors; lane++)
                for (int i = 0; i < STEP; i++, panel++) {
                    const float *weight = weights + (lane * taps + tap) * channels + input + i;
                    store_1(panel, all_1(input + i < channels ? *weight : 0));
                }
}

#undef V
#undef L
#undef JOIN
#undef JOIN_
#undef LANES

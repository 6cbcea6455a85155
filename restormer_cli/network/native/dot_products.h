// Depthwise convolutions of 32 channels of bfloat16 by AVX-512's dot products: two taps, one below
// the other, in one instruction. The channels lie in two vectors of pairs, as unpacking leaves them:
// of each eight the first four in the one, the last four in the other.

typedef struct {
    __m512bh low, high;
} Pairs;

INLINE Pairs paired(__m512i upper, __m512i lower)
{
    return (Pairs){(__m512bh)_mm512_unpacklo_epi16(upper, lower),
                   (__m512bh)_mm512_unpackhi_epi16(upper, lower)};
}

// 32 floats, rounded, in their order.
INLINE __m512i rounded_32(const float *from)
{
    return (__m512i)_mm512_cvtne2ps_pbh(_mm512_loadu_ps(from + 16), _mm512_loadu_ps(from));
}

// Two vectors of floats in the order of pairs, rounded, to 32 values in their order.
INLINE void store_32(Value *to, __m512 low, __m512 high)
{
    const __m512i order = _mm512_set_epi16(
        31, 30, 29, 28, 15, 14, 13, 12, 27, 26, 25, 24, 11, 10, 9, 8, 23, 22, 21, 20, 7, 6, 5, 4, 19,
        18, 17, 16, 3, 2, 1, 0);
    __m512i values = (__m512i)_mm512_cvtne2ps_pbh(high, low);
    _mm512_storeu_si512(to, _mm512_permutexvar_epi16(order, values));
}

// As convolve in lanes.h, to out[row][column][low or high][lane].
INLINE void convolve_32(const Window *in, ptrdiff_t row, ptrdiff_t channel, int rows,
                        ptrdiff_t first, ptrdiff_t count, const Filter *filter, float *out)
{
    const Value *data = in->data + row * in->row + channel;
    const __m512i zero = _mm512_setzero_si512();
    Pairs upper[3], lower[3];  // of each column: taps of the rows 0 and 1, of row 2 and none
    for (int side = 0; side < 3; side++) {
        const float *taps = filter->taps + side * in->channels + channel;
        const ptrdiff_t below = 3 * in->channels;
        upper[side] = paired(rounded_32(taps), rounded_32(taps + below));
        lower[side] = paired(rounded_32(taps + 2 * below), zero);
    }
    __m512 bias_low = _mm512_setzero_ps(), bias_high = bias_low;
    if (filter->bias) {
        const float *bias = filter->bias + channel;
        const __m512i low = _mm512_set_epi32(27, 26, 25, 24, 19, 18, 17, 16, 11, 10, 9, 8, 3, 2, 1, 0);
        const __m512i four = _mm512_set1_epi32(4);
        __m512 a = _mm512_loadu_ps(bias), b = _mm512_loadu_ps(bias + 16);
        bias_low = _mm512_permutex2var_ps(a, low, b);
        bias_high = _mm512_permutex2var_ps(a, _mm512_add_epi32(low, four), b);
    }
    __m512 sums[3][2][2];
    for (int i = 0; i < 3; i++)
        for (int r = 0; r < 2; r++)
            sums[i][r][0] = bias_low, sums[i][r][1] = bias_high;
#define FEED(column, from, to)                                                                     \
    {                                                                                              \
        __m512i values[4];                                                                         \
        for (int k = 0; k < rows + 2; k++)                                                         \
            values[k] = _mm512_loadu_si512(data + k * in->row + (column) * in->pixel);             \
        for (int r = 0; r < rows; r++) {                                                           \
            const Pairs a = paired(values[r], values[r + 1]), b = paired(values[r + 2], zero);     \
            for (int side = from; side <= to; side++) {                                            \
                __m512 *sum = sums[side][r];                                                       \
                sum[0] = _mm512_dpbf16_ps(sum[0], a.low, upper[2 - side].low);                     \
                sum[1] = _mm512_dpbf16_ps(sum[1], a.high, upper[2 - side].high);                   \
                sum[0] = _mm512_dpbf16_ps(sum[0], b.low, lower[2 - side].low);                     \
                sum[1] = _mm512_dpbf16_ps(sum[1], b.high, lower[2 - side].high);                   \
            }                                                                                      \
        }                                                                                          \
    }
#define MOVE_ON(to, from)                                                                          \
    for (int r = 0; r < rows; r++)                                                                 \
        sums[to][r][0] = sums[from][r][0], sums[to][r][1] = sums[from][r][1];
    ptrdiff_t column = first - in->pad_left;
    if (column >= 0)
        FEED(column, 2, 2)
    MOVE_ON(1, 2)
    for (int r = 0; r < rows; r++)
        sums[2][r][0] = bias_low, sums[2][r][1] = bias_high;
    column++;
    if (column < in->columns)
        FEED(column, 1, 2)
    MOVE_ON(0, 1)
    MOVE_ON(1, 2)
    column++;
    for (ptrdiff_t x = 0; x < count; x++, column++) {
        for (int r = 0; r < rows; r++)
            sums[2][r][0] = bias_low, sums[2][r][1] = bias_high;
        if (column < in->columns)
            FEED(column, 0, 2)
        for (int r = 0; r < rows; r++) {
            _mm512_store_ps(out + (r * TILE + x) * 32, sums[0][r][0]);
            _mm512_store_ps(out + (r * TILE + x) * 32 + 16, sums[0][r][1]);
        }
        MOVE_ON(0, 1)
        MOVE_ON(1, 2)
    }
#undef MOVE_ON
#undef FEED
}

INLINE void gate_tile_32(const Window *gates, const Window *values, ptrdiff_t row,
                         ptrdiff_t channel, int rows, ptrdiff_t first, ptrdiff_t count,
                         const Filter *gate, const Filter *value, const Map *out)
{
    float left[2 * TILE * 32] ALIGNED, right[2 * TILE * 32] ALIGNED;
    convolve_32(gates, row, channel, rows, first, count, gate, left);
    convolve_32(values, row, channel, rows, first, count, value, right);
    for (int r = 0; r < rows; r++) {
        Value *to = out->data + (row + r) * out->row + first * out->pixel + channel;
        for (ptrdiff_t at = r * TILE; at < r * TILE + count; at++, to += out->pixel) {
            floats_16 low = gelu_16(load_floats_16(left + at * 32));
            floats_16 high = gelu_16(load_floats_16(left + at * 32 + 16));
            low *= load_floats_16(right + at * 32);
            high *= load_floats_16(right + at * 32 + 16);
            store_32(to, (__m512)low, (__m512)high);
        }
    }
}

INLINE void depthwise_tile_32(const Window *in, ptrdiff_t row, ptrdiff_t channel, int rows,
                              ptrdiff_t first, ptrdiff_t count, const Filter *filter,
                              const Map *out, double *squares)
{
    float sums[2 * TILE * 32] ALIGNED;
    convolve_32(in, row, channel, rows, first, count, filter, sums);
    for (int r = 0; r < rows; r++) {
        Value *to = out->data + (row + r) * out->row + first * out->pixel;
        floats_16 low = {0}, high = {0};
        for (ptrdiff_t at = r * TILE; at < r * TILE + count; at++, to += out->pixel) {
            store_32(to, _mm512_load_ps(sums + at * 32), _mm512_load_ps(sums + at * 32 + 16));
            if (squares) {
                floats_16 a = load_16(to), b = load_16(to + 16);  // as rounded
                low = a * a + low;
                high = b * b + high;
            }
        }
        if (squares)
            for (int lane = 0; lane < 16; lane++) {
                squares[(row + r) * in->channels + channel + lane] += low[lane];
                squares[(row + r) * in->channels + channel + 16 + lane] += high[lane];
            }
    }
}

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

// Two vectors of floats in the order of pairs, rounded to 32 values in their order.
INLINE __m512i rounded_pairs(__m512 low, __m512 high)
{
    const __m512i order = _mm512_set_epi16(
        31, 30, 29, 28, 15, 14, 13, 12, 27, 26, 25, 24, 11, 10, 9, 8, 23, 22, 21, 20, 7, 6, 5, 4, 19,
        18, 17, 16, 3, 2, 1, 0);
    return _mm512_permutexvar_epi16(order, (__m512i)_mm512_cvtne2ps_pbh(high, low));
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
            _mm512_storeu_si512(to, rounded_pairs((__m512)low, (__m512)high));
        }
    }
}

// `out` begins with the first channel of all; each `group_channels` lie out_group behind the former.
INLINE void depthwise_tile_32(const Window *in, ptrdiff_t row, ptrdiff_t channel, int rows,
                              ptrdiff_t first, ptrdiff_t count, const Filter *filter,
                              const Map *out, ptrdiff_t group_channels, ptrdiff_t out_group,
                              double *squares)
{
    float sums[2 * TILE * 32] ALIGNED;
    convolve_32(in, row, channel, rows, first, count, filter, sums);
    __mmask32 masks[32];  // which of the 32 channels are of one group
    ptrdiff_t places[32], groups = 0;
    for (ptrdiff_t begin = channel; begin < channel + 32; groups++) {
        const ptrdiff_t group = begin / group_channels, behind = (group + 1) * group_channels;
        const ptrdiff_t end = behind < channel + 32 ? behind : channel + 32;
        masks[groups] = (__mmask32)((((uint64_t)1 << (end - begin)) - 1) << (begin - channel));
        places[groups] = group * (out_group - group_channels) + channel;
        begin = end;
    }
    for (int r = 0; r < rows; r++) {
        Value *to = out->data + (row + r) * out->row + first * out->pixel;
        floats_16 even = {0}, odd = {0};
        for (ptrdiff_t at = r * TILE; at < r * TILE + count; at++, to += out->pixel) {
            const __m512i values = rounded_pairs(_mm512_load_ps(sums + at * 32),
                                                 _mm512_load_ps(sums + at * 32 + 16));
            if (groups == 1)
                _mm512_storeu_si512(to + places[0], values);
            else
                for (ptrdiff_t group = 0; group < groups; group++)
                    _mm512_mask_storeu_epi16(to + places[group], masks[group], values);
            if (squares) {
                floats_16 a = (floats_16)_mm512_slli_epi32(values, 16);
                floats_16 b = (floats_16)((words_16)values & 0xffff0000);
                even = a * a + even;
                odd = b * b + odd;
            }
        }
        if (squares)
            for (int lane = 0; lane < 16; lane++) {
                squares[(row + r) * in->channels + channel + 2 * lane] += even[lane];
                squares[(row + r) * in->channels + channel + 2 * lane + 1] += odd[lane];
            }
    }
}

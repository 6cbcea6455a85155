// The kernels for vectors of LANES floats. kernels.c includes this once for each width: channels are
// worked on in the widest vectors that fit, then in narrower ones, so that any number is possible.

#define JOIN_(name, lanes) name##_##lanes
#define JOIN(name, lanes) JOIN_(name, lanes)
#define L(name) JOIN(name, LANES)
#define V L(floats)
#define U L(words)
#define H L(halves)

typedef float V __attribute__((vector_size(4 * LANES)));
typedef uint32_t U __attribute__((vector_size(4 * LANES)));
typedef uint16_t H __attribute__((vector_size(2 * LANES)));

INLINE V L(all)(float value)
{
    return value - (V){0};
}

INLINE V L(load_floats)(const float *from)
{
    V floats;
    memcpy(&floats, from, sizeof floats);
    return floats;
}

INLINE V L(load)(const Value *from)
{
#if BFLOAT16
    H halves;
    memcpy(&halves, from, sizeof halves);
    return (V)(__builtin_convertvector(halves, U) << 16);
#else
    return L(load_floats)(from);
#endif
}

INLINE void L(store)(Value *to, V floats)
{
#if !BFLOAT16
    V halves = floats;
#elif defined(__AVX512BF16__) && LANES == 16
    __m256bh halves = _mm512_cvtneps_pbh((__m512)floats);
#elif defined(__AVX512BF16__) && defined(__AVX512VL__) && LANES == 8
    __m128bh halves = _mm256_cvtneps_pbh((__m256)floats);
#else  // to nearest, ties to even
    U words = (U)floats;
    words = (words + (((words >> 16) & 1) + 0x7fff)) >> 16;
    H halves = __builtin_convertvector(words, H);
#endif
    memcpy(to, &halves, sizeof halves);
}

INLINE V L(larger)(V a, V b)
{
#if defined(__AVX512F__) && LANES == 16
    return (V)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined(__AVX__) && LANES == 8
    return (V)_mm256_max_ps((__m256)a, (__m256)b);
#elif defined(__SSE__) && LANES == 4
    return (V)_mm_max_ps((__m128)a, (__m128)b);
#elif defined(__ARM_NEON) && LANES == 4
    return (V)vmaxq_f32((float32x4_t)a, (float32x4_t)b);
#else
    for (int i = 0; i < LANES; i++)
        a[i] = a[i] > b[i] ? a[i] : b[i];
    return a;
#endif
}

// x·Φ(x). With Φ(-a) = 2^g(a) for a ≥ 0, which a polynomial follows with a small *relative* error,
// it is max(x, 0) - |x|·2^g(|x|). Beyond 6, where that is less than one step of max(x, 0) in
// float32, g goes on as a straight line.
INLINE V L(gelu)(V x)
{
    V magnitude = (V)((U)x & 0x7fffffff);
    V near = -L(larger)(-magnitude, L(all)(-6));
#if BFLOAT16 && defined(__AVX512F__) && LANES == 16
    // Half of the work, and exact enough.
    V piece = near * TAIL_PIECES + TO_WHOLE;
    V within = near * TAIL_PIECES - (piece - TO_WHOLE);
    V result = {0};
#pragma GCC unroll 5
    for (int i = 4; i >= 0; i--)
        result = result * within
                 + (V)_mm512_permutexvar_ps((__m512i)piece, _mm512_load_ps(tail_pieces[i]));
#else
    V exponent = L(all)(tail[DEGREE(tail)]);
#pragma GCC unroll 16
    for (int i = DEGREE(tail) - 1; i >= 0; i--)
        exponent = exponent * near + L(all)(tail[i]);
    exponent = (near - magnitude) * 9.f + exponent;
    exponent = L(larger)(exponent, L(all)(-125));
    V shifted = exponent + TO_WHOLE;
    V fraction = exponent - (shifted - TO_WHOLE);
    V result = L(all)(power[DEGREE(power)]);
#pragma GCC unroll 16
    for (int i = DEGREE(power) - 1; i >= 0; i--)
        result = result * fraction + L(all)(power[i]);
    result = (V)((U)result + ((U)shifted << 23));
#endif
    return L(larger)(x, L(all)(0)) - magnitude * result;
}

// Columns first to first + count - 1 of `rows` output rows (1 or 2), of LANES channels, as floats
// to out[row][column][lane]. Each output adds up its taps in the same order wherever it lies.
INLINE void L(convolve)(const Window *in, ptrdiff_t row, ptrdiff_t channel, int rows,
                        ptrdiff_t first, ptrdiff_t count, const Filter *filter, float *out)
{
    const Value *data = in->data + row * in->row + channel;
    V taps[9], bias = {0};
    for (int tap = 0; tap < 9; tap++)
        taps[tap] = L(load_floats)(filter->taps + tap * in->channels + channel);
    if (filter->bias)
        bias = L(load_floats)(filter->bias + channel);

    // Sums of the output column at hand, and of the two behind it.
    V sums[3][2] = {{bias, bias}, {bias, bias}, {bias, bias}};
// Adds column `column` of the input to the output columns that it is one of the three for.
#define FEED(column, from, to)                                                                     \
    for (int k = 0; k < rows + 2; k++) {                                                           \
        V value = L(load)(data + k * in->row + (column) * in->pixel);                              \
        for (int r = 0; r < rows; r++)                                                             \
            if (k >= r && k < r + 3)                                                               \
                for (int side = from; side <= to; side++)                                          \
                    sums[side][r] = value * taps[3 * (k - r) + 2 - side] + sums[side][r];          \
    }
    // sums[0], [1], [2] take the column as their right, middle, left one.
    ptrdiff_t column = first - in->pad_left;
    if (column >= 0)
        FEED(column, 2, 2)
    for (int r = 0; r < rows; r++)
        sums[1][r] = sums[2][r], sums[2][r] = bias;
    column++;
    if (column < in->columns)
        FEED(column, 1, 2)
    for (int r = 0; r < rows; r++)
        sums[0][r] = sums[1][r], sums[1][r] = sums[2][r];
    column++;
    for (ptrdiff_t x = 0; x < count; x++, column++) {
        for (int r = 0; r < rows; r++)
            sums[2][r] = bias;
        if (column < in->columns)
            FEED(column, 0, 2)
        for (int r = 0; r < rows; r++) {
            memcpy(out + (r * TILE + x) * LANES, &sums[0][r], sizeof bias);
            sums[0][r] = sums[1][r], sums[1][r] = sums[2][r];
        }
    }
#undef FEED
}

INLINE void L(gate_tile)(const Window *gates, const Window *values, ptrdiff_t row,
                         ptrdiff_t channel, int rows, ptrdiff_t first, ptrdiff_t count,
                         const Filter *gate, const Filter *value, const Map *out)
{
    float left[2 * TILE * LANES] ALIGNED, right[2 * TILE * LANES] ALIGNED;
    L(convolve)(gates, row, channel, rows, first, count, gate, left);
    L(convolve)(values, row, channel, rows, first, count, value, right);
    for (int r = 0; r < rows; r++) {
        Value *to = out->data + (row + r) * out->row + first * out->pixel + channel;
        for (ptrdiff_t at = r * TILE; at < r * TILE + count; at++, to += out->pixel)
            L(store)(to, L(gelu)(L(load_floats)(left + at * LANES))
                             * L(load_floats)(right + at * LANES));
    }
}

// `out` begins with the channel at hand. If there are sums of squares, they are added to.
INLINE void L(depthwise_tile)(const Window *in, ptrdiff_t row, ptrdiff_t channel, int rows,
                              ptrdiff_t first, ptrdiff_t count, const Filter *filter,
                              const Map *out, double *squares)
{
    float sums[2 * TILE * LANES] ALIGNED;
    L(convolve)(in, row, channel, rows, first, count, filter, sums);
    for (int r = 0; r < rows; r++) {
        Value *to = out->data + (row + r) * out->row + first * out->pixel;
        V square = {0};
        for (ptrdiff_t at = r * TILE; at < r * TILE + count; at++, to += out->pixel) {
            V sum = L(load_floats)(sums + at * LANES);
            L(store)(to, sum);
            if (squares) {
                sum = L(load)(to);  // as rounded
                square = sum * sum + square;
            }
        }
        if (squares)
            for (int lane = 0; lane < LANES; lane++)
                squares[(row + r) * in->channels + channel + lane] += square[lane];
    }
}

#ifdef HALF
INLINE HALF L(folded)(V v)
{
    HALF parts[2];
    memcpy(parts, &v, sizeof v);
    return parts[0] + parts[1];
}
#undef HALF
#endif

#undef V
#undef U
#undef H
#undef L
#undef JOIN
#undef JOIN_
#undef LANES

// Which of the kernels' variants this processor can run.

#if defined(_WIN32)
#define EXPORT __declspec(dllexport)
#else
#define EXPORT __attribute__((visibility("default")))
#endif

#if defined(__x86_64__)
#include <cpuid.h>

// The states that the operating system saves when it switches between programs.
static unsigned saved_states(void)
{
    unsigned low, high;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}

EXPORT const char *restormer_processor(void)
{
    unsigned a, b, c, d;
    const unsigned avx_state = 0x6, avx512_state = 0xe6;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE) || !(c & bit_FMA))
        return "";
    const unsigned saved = saved_states();
    if ((saved & avx_state) != avx_state || !__get_cpuid_count(7, 0, &a, &b, &c, &d)
        || !(b & bit_AVX2))
        return "";
    const unsigned avx512 = bit_AVX512F | bit_AVX512BW | bit_AVX512DQ | bit_AVX512VL;
    if ((saved & avx512_state) != avx512_state || (b & avx512) != avx512)
        return "avx2";
    return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & 1 << 5) ? "avx512bf16" : "avx512";
}

// Whether it has a unit for products of matrices of bfloat16 (AMX), which PyTorch's libraries use.
EXPORT int restormer_has_matrix_unit(void)
{
    unsigned a, b, c, d;
    const unsigned unit = 1 << 22 | 1 << 24;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & unit) == unit;
}
#elif defined(__aarch64__)
EXPORT const char *restormer_processor(void)
{
    return "neon";
}

EXPORT int restormer_has_matrix_unit(void)
{
    return 0;
}
#else
EXPORT const char *restormer_processor(void)
{
    return "";
}

EXPORT int restormer_has_matrix_unit(void)
{
    return 0;
}
#endif

// Vectors of numbers, which are the compiler's own (GCC, Clang), so that one text serves every processor.

#include <cstdint>
#include <cstring>

#define INLINE inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")  // a short loop over vectors, which then stay in registers

namespace {

struct bfloat16 {
    uint16_t bits;
};

template <typename Number, int LANES>
struct VectorOf {
    typedef Number type __attribute__((vector_size(sizeof(Number) * LANES)));
};
template <typename Number>
struct VectorOf<Number, 1> {
    typedef Number type;
};

// How values of a map are read into a vector of numbers to compute with, and written.
template <typename Value, int LANES>
struct Memory {
    typedef Value Number;
    typedef typename VectorOf<Number, LANES>::type Vector;

    static INLINE Vector load(const Value* from) {
        Vector values;
        std::memcpy(&values, from, sizeof values);
        return values;
    }

    static INLINE void store(Value* to, Vector values) { std::memcpy(to, &values, sizeof values); }
};

// A bfloat16 is the upper half of a float; it is rounded to the nearest, to the even one of two.
template <int LANES>
struct Memory<bfloat16, LANES> {
    typedef float Number;
    typedef typename VectorOf<float, LANES>::type Vector;
    typedef typename VectorOf<uint32_t, LANES>::type Bits;
    typedef typename VectorOf<uint16_t, LANES>::type Halves;

    static INLINE Bits widened(Halves halves) {
        if constexpr (LANES == 1)
            return halves;
        else
            return __builtin_convertvector(halves, Bits);
    }

    static INLINE Halves narrowed(Bits bits) {
        if constexpr (LANES == 1)
            return static_cast<Halves>(bits);
        else
            return __builtin_convertvector(bits, Halves);
    }

    static INLINE Vector load(const bfloat16* from) {
        Halves halves;
        std::memcpy(&halves, from, sizeof halves);
        Bits bits = widened(halves) << 16;
        Vector values;
        std::memcpy(&values, &bits, sizeof values);
        return values;
    }

    static INLINE void store(bfloat16* to, Vector values) {
        Bits bits;
        std::memcpy(&bits, &values, sizeof bits);
        Halves halves = narrowed((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
        std::memcpy(to, &halves, sizeof halves);
    }
};

template <typename Value>
using NumberOf = typename Memory<Value, 1>::Number;

template <int LANES>
struct Width {
    static constexpr int lanes = LANES;
};

// Numbers of four bytes in a register. Measured for AVX2: with longer vectors a step takes five times as long.
#if defined(__AVX512F__)
constexpr int REGISTER = 16;
#elif defined(__AVX__)
constexpr int REGISTER = 8;
#else
constexpr int REGISTER = 4;
#endif

// Calls `work` with every channel in one vector or another: of 16, 8, 4 and 1, as far as registers go. Numbers in double
// precision go one by one, which takes the compiler a third less time.
template <typename Number, typename Work>
INLINE void for_channels(int channels, Work work) {
    int c = 0;
    if constexpr (sizeof(Number) == sizeof(float)) {
        if constexpr (REGISTER >= 16)
            for (; c + 16 <= channels; c += 16) work(Width<16>(), c);
        if constexpr (REGISTER >= 8)
            for (; c + 8 <= channels; c += 8) work(Width<8>(), c);
        for (; c + 4 <= channels; c += 4) work(Width<4>(), c);
    }
    for (; c < channels; c++) work(Width<1>(), c);
}

template <int LANES, typename Vector>
INLINE void add(double* sums, Vector values) {
    if constexpr (LANES == 1)
        *sums += values;
    else
        for (int i = 0; i < LANES; i++) sums[i] += values[i];
}

// The sum of a vector, half by half.
template <int LANES, typename Number>
INLINE double total(typename VectorOf<Number, LANES>::type values) {
    if constexpr (LANES == 1)
        return values;
    else {
        typename VectorOf<Number, LANES / 2>::type halves[2];
        std::memcpy(halves, &values, sizeof halves);
        return total<LANES / 2, Number>(halves[0] + halves[1]);
    }
}

// `b` where one of them is not a number.
template <typename Vector>
INLINE Vector larger(Vector a, Vector b) {
    return a > b ? a : b;
}

}  // namespace

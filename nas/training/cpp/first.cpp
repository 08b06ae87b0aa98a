// The first convolution of a network, of 3 by 3 on grey images, together with the block behind it: see block.cpp.
//
// Nothing asks for the gradient of the images, and a patch has 9 values only ("taps"). So the convolution is computed
// anew wherever its values are needed, and its map is never stored. The statistics of batch normalization follow from
// mean and covariance of the patches:
//
//     mean = w . E[patch],  variance = w . Cov[patch] w
//
// and so does what batch normalization adds to the gradient of w.

#include <cmath>

#include "vectors.h"

namespace {

constexpr int SIZE = 3, TAPS = SIZE * SIZE;

template <typename Number>
struct First {
    int64_t images, height, width, padding, channels;
    int64_t window;  // 1 or 2, as in block.cpp
    double floor, momentum, eps;
    const Number *kernels;  // (TAPS, channels)
    const Number *shift;    // the convolution's own bias, or null
    const Number *weight, *bias;
    Number *running_mean, *running_var;
    Number* numbers;  // a padded image, then (TAPS + 1) * channels, then up to 16 padded images
    double* sums;     // (TAPS + 1) * channels
};

// Sizes that follow.
template <typename Number>
struct Plan {
    int channels, padded_height, padded_width;
    int height, width;  // of the convolution's map

    int64_t plane() const { return int64_t(padded_height) * padded_width; }

    explicit Plan(const First<Number>& first) {
        channels = int(first.channels);
        padded_height = int(first.height + 2 * first.padding);
        padded_width = int(first.width + 2 * first.padding);
        height = padded_height - SIZE + 1;
        width = padded_width - SIZE + 1;
    }
};

template <typename Number>
void pad(const First<Number>& first, const Plan<Number>& plan, const Number* image, Number* padded) {
    std::memset(padded, 0, sizeof(Number) * plan.plane());
    for (int64_t i = 0; i < first.height; i++)
        std::memcpy(padded + (i + first.padding) * plan.padded_width + first.padding, image + i * first.width,
                    sizeof(Number) * first.width);
}

// COUNT places at which the convolution is computed together: those of a window of two by two, or neighbours in a line.
template <int WINDOW>
INLINE constexpr int row_of(int k) {
    return WINDOW == 2 ? k / 2 : 0;
}
template <int WINDOW>
INLINE constexpr int column_of(int k) {
    return WINDOW == 2 ? k % 2 : k;
}

// Calls `work` with every tap of the patch at `first`, and its number.
template <typename Number, typename Work>
INLINE void for_taps(const Plan<Number>& plan, const Number* first, Work work) {
    UNROLL
    for (int u = 0; u < SIZE; u++)
        UNROLL
        for (int v = 0; v < SIZE; v++) work(u * SIZE + v, first + int64_t(u) * plan.padded_width + v);
}

// Images of a group, each in a lane of the vectors: sums over pixels then need no sum over lanes before the end.
template <typename Number>
constexpr int GROUP = sizeof(Number) == sizeof(float) ? REGISTER : 1;

// Writes `count` images as one padded map (padded_height, padded_width, GROUP); lanes without an image are zeros.
template <typename Number>
void interleave(const First<Number>& first, const Plan<Number>& plan, const Number* images, int count, Number* pixels) {
    constexpr int lanes = GROUP<Number>;
    std::memset(pixels, 0, sizeof(Number) * plan.plane() * lanes);
    for (int lane = 0; lane < count; lane++)
        for (int64_t i = 0; i < first.height; i++) {
            const Number* line = images + (lane * first.height + i) * first.width;
            Number* to = pixels + ((i + first.padding) * plan.padded_width + first.padding) * lanes + lane;
            for (int64_t j = 0; j < first.width; j++) to[j * lanes] = line[j];
        }
}

// Adds the sums of the patches of a group and of the products of their taps: `product` is (TAPS, TAPS), its upper half.
//
// The product of two taps is that of two pixels so many rows and columns apart, summed over a part of the image that
// depends on the first tap. These parts differ in two rows and columns at the edges only.
template <typename Number>
void patch_moments(const Plan<Number>& plan, const Number* pixels, double* sum, double* product) {
    constexpr int lanes = GROUP<Number>, REACH = SIZE - 1, OWN = 2 * SIZE - 1;  // OWN: the pixel itself, times one
    typedef Memory<Number, lanes> N;
    typedef typename N::Vector Vector;
    const Vector one = Number(1) - Vector{};
    int edges[2 * REACH], count = 0;
    for (int j = 0; j < plan.padded_width; j++)
        if (j < REACH || j >= plan.width) edges[count++] = j;
    for (int down = 0; down < SIZE; down++) {
        Vector totals[SIZE][SIZE][OWN + 1] = {};
        for (int i = 0; i + down < plan.padded_height; i++) {
            const Number *line = pixels + int64_t(i) * plan.padded_width * lanes;
            const Number *other = line + int64_t(down) * plan.padded_width * lanes;
            Vector inner[OWN + 1] = {};
            for (int j = REACH; j < plan.width; j++) {
                Vector pixel = N::load(line + j * lanes);
                UNROLL
                for (int k = 0; k < OWN; k++) inner[k] += pixel * N::load(other + (j + k - REACH) * lanes);
                inner[OWN] += pixel;
            }
            Vector rows[SIZE][OWN + 1];
            for (int v = 0; v < SIZE; v++) std::memcpy(rows[v], inner, sizeof inner);
            for (int e = 0; e < count; e++) {
                int j = edges[e];
                Vector pixel = N::load(line + j * lanes);
                for (int k = 0; k <= OWN; k++) {
                    int there = j + k - REACH;
                    bool outside = k < OWN && (there < 0 || there >= plan.padded_width);
                    if (outside) continue;
                    Vector value = pixel * (k < OWN ? N::load(other + there * lanes) : one);
                    for (int v = 0; v < SIZE; v++)
                        if (v <= j && j < v + plan.width) rows[v][k] += value;
                }
            }
            for (int u = 0; u < SIZE; u++)
                if (u <= i && i < u + plan.height)
                    for (int v = 0; v < SIZE; v++) {
                        UNROLL
                        for (int k = 0; k <= OWN; k++) totals[u][v][k] += rows[v][k];
                    }
        }
        for (int u = 0; u + down < SIZE; u++)
            for (int v = 0; v < SIZE; v++) {
                int t = u * SIZE + v;
                if (down == 0) sum[t] += total<lanes, Number>(totals[u][v][OWN]);
                for (int w = down ? 0 : v; w < SIZE; w++)
                    product[t * TAPS + (u + down) * SIZE + w] += total<lanes, Number>(totals[u][v][w - v + REACH]);
            }
    }
}

template <int WINDOW, int COUNT, typename Vector, typename Number>
INLINE void convolve(const Plan<Number>& plan, const Number* first, const Vector* kernels, Vector start,
                     Vector (&values)[COUNT]) {
    UNROLL
    for (int k = 0; k < COUNT; k++) values[k] = start;
    for_taps(plan, first, [&](int t, const Number* tap) {
        UNROLL
        for (int k = 0; k < COUNT; k++)
            values[k] += kernels[t] * tap[row_of<WINDOW>(k) * int64_t(plan.padded_width) + column_of<WINDOW>(k)];
    });
}

// Adds the products of gradients and taps.
template <int WINDOW, int COUNT, typename Vector, typename Number>
INLINE void learn(const Plan<Number>& plan, const Number* first, const Vector (&gradients)[COUNT], Vector* products) {
    for_taps(plan, first, [&](int t, const Number* tap) {
        UNROLL
        for (int k = 0; k < COUNT; k++)
            products[t] += gradients[k] * tap[row_of<WINDOW>(k) * int64_t(plan.padded_width) + column_of<WINDOW>(k)];
    });
}

// Calls `several` with four places at a time, where their values go in the result and how many there are, and `one`
// with each place that is left of a line.
template <int WINDOW, typename Number, typename Several, typename One>
INLINE void for_places(const Plan<Number>& plan, const Number* padded, Several several, One one) {
    int rows = plan.height / WINDOW, columns = plan.width / WINDOW;
    for (int i = 0; i < rows; i++) {
        const Number* line = padded + int64_t(i) * WINDOW * plan.padded_width;
        int64_t out = int64_t(i) * columns * plan.channels;
        int j = 0;
        if constexpr (WINDOW == 2)
            for (; j < columns; j++) several(line + 2 * j, out + j * plan.channels);
        else {
            for (; j + 4 <= columns; j += 4) several(line + j, out + j * plan.channels);
            for (; j < columns; j++) one(line + j, out + j * plan.channels);
        }
    }
}

template <int WINDOW, typename Value, typename Number = NumberOf<Value>>
void apply(const Plan<Number> plan, const Number* padded, const Number* kernels, const Number* offset,
           const Number* factors, Number floor, Value* y) {
    for_channels<Number>(plan.channels, [&](auto width, int c) {
        constexpr int lanes = decltype(width)::lanes;
        typedef Memory<Value, lanes> M;
        typedef Memory<Number, lanes> N;
        typedef typename M::Vector Vector;
        Vector b = N::load(offset + c), one = Number(1) - Vector{}, factor = factors ? N::load(factors + c) : one;
        Vector least = floor - Vector{}, kernel[TAPS];
        UNROLL
        for (int t = 0; t < TAPS; t++) kernel[t] = N::load(kernels + t * plan.channels + c);
        for_places<WINDOW>(
            plan, padded,
            [&](const Number* first, int64_t out) {
                Vector v[4];
                convolve<WINDOW>(plan, first, kernel, b, v);
                if constexpr (WINDOW == 2)
                    M::store(y + out + c, factor * larger(least, larger(larger(v[0], v[1]), larger(v[2], v[3]))));
                else
                    UNROLL
                    for (int k = 0; k < 4; k++) M::store(y + out + k * plan.channels + c, factor * larger(least, v[k]));
            },
            [&](const Number* first, int64_t out) {
                Vector v[1];
                convolve<WINDOW>(plan, first, kernel, b, v);
                M::store(y + out + c, factor * larger(least, v[0]));
            });
    });
}

// Adds the gradient that passes the activation, and its products with the taps of the chosen patches.
template <int WINDOW, typename Value, typename Number = NumberOf<Value>>
void reduce(const Plan<Number> plan, const Number* padded, const Number* kernels, const Number* offset,
            const Number* factors, Number floor, const Value* dy, double* sum, double* product) {
    for_channels<Number>(plan.channels, [&](auto width, int c) {
        constexpr int lanes = decltype(width)::lanes;
        typedef Memory<Value, lanes> M;
        typedef Memory<Number, lanes> N;
        typedef typename M::Vector Vector;
        Vector b = N::load(offset + c), one = Number(1) - Vector{}, factor = factors ? N::load(factors + c) : one;
        Vector least = floor - Vector{}, none = {}, total = {}, kernel[TAPS], products[TAPS];
        UNROLL
        for (int t = 0; t < TAPS; t++) {
            kernel[t] = N::load(kernels + t * plan.channels + c);
            products[t] = none;
        }
        for_places<WINDOW>(
            plan, padded,
            [&](const Number* first, int64_t out) {
                Vector v[4];
                convolve<WINDOW>(plan, first, kernel, b, v);
                if constexpr (WINDOW == 2) {
                    Vector best = larger(larger(v[0], v[1]), larger(v[2], v[3]));
                    Vector gradient = M::load(dy + out + c);
                    gradient = best > least ? gradient : none;
                    total += gradient;
                    UNROLL
                    for (int k = 0; k < 4; k++) {  // the first of equals gets it
                        Vector part = v[k] == best ? gradient : none;
                        gradient = v[k] == best ? none : gradient;
                        v[k] = part;
                    }
                } else {
                    UNROLL
                    for (int k = 0; k < 4; k++) {
                        Vector gradient = M::load(dy + out + k * plan.channels + c);
                        v[k] = v[k] > least ? gradient : none;
                    }
                    total += (v[0] + v[1]) + (v[2] + v[3]);
                }
                learn<WINDOW>(plan, first, v, products);
            },
            [&](const Number* first, int64_t out) {
                Vector v[1], gradient = M::load(dy + out + c);
                convolve<WINDOW>(plan, first, kernel, b, v);
                v[0] = v[0] > least ? gradient : none;
                total += v[0];
                learn<WINDOW>(plan, first, v, products);
            });
        add<lanes>(sum + c, factor * total);
        UNROLL
        for (int t = 0; t < TAPS; t++) add<lanes>(product + t * plan.channels + c, factor * products[t]);
    });
}

// The kernels with batch normalization's factor, and what it adds to their sums.
template <typename Number>
void fold(const First<Number>& first, const Plan<Number>& plan, const Number* mean, const Number* scale,
          Number* kernels, Number* offset) {
    for (int c = 0; c < plan.channels; c++) {
        Number slope = first.weight[c] * scale[c];
        for (int t = 0; t < TAPS; t++) {
            int at = t * plan.channels + c;
            kernels[at] = first.kernels[at] * slope;
        }
        offset[c] = first.bias[c] - slope * mean[c];
    }
}

// y from the images, with folded kernels.
template <typename Value, typename Number = NumberOf<Value>>
void transform(const First<Number>& first, const Plan<Number>& plan, const Number* images, Value* y,
               const Number* factors, const Number* kernels, const Number* offset) {
    int window = int(first.window), channels = plan.channels;
    int64_t out = int64_t(plan.height / window) * (plan.width / window) * channels;
    for (int64_t i = 0; i < first.images; i++) {
        const Number* factor = factors ? factors + i * channels : nullptr;
        Number floor = Number(first.floor);
        pad(first, plan, images + i * first.height * first.width, first.numbers);
        Value* to = y + i * out;
        if (window == 1)
            apply<1>(plan, first.numbers, kernels, offset, factor, floor, to);
        else
            apply<2>(plan, first.numbers, kernels, offset, factor, floor, to);
    }
}

// With the running statistics, as networks are judged. Writes the mean without `shift`, and 1 / deviation.
template <typename Value, typename Number = NumberOf<Value>>
void evaluate(const First<Number>& first, const Number* images, Value* y, Number* mean, Number* scale) {
    Plan<Number> plan(first);
    Number *kernels = first.numbers + plan.plane(), *offset = kernels + TAPS * plan.channels;
    for (int c = 0; c < plan.channels; c++) {
        mean[c] = first.running_mean[c] - (first.shift ? first.shift[c] : 0);
        scale[c] = Number(1 / std::sqrt(first.running_var[c] + first.eps));
    }
    fold(first, plan, mean, scale, kernels, offset);
    transform(first, plan, images, y, static_cast<const Number*>(nullptr), kernels, offset);
}

// `moments` are written: means (TAPS) and covariances (TAPS, TAPS) of the patches. `mean` is without `shift`.
template <typename Value, typename Number = NumberOf<Value>>
void forward(const First<Number>& first, const Number* images, Value* y, const Number* factors, double* moments,
             Number* mean, Number* scale) {
    Plan<Number> plan(first);
    int channels = plan.channels;
    int64_t image = first.height * first.width;
    double n = double(first.images) * plan.height * plan.width, *middle = moments, *spread = moments + TAPS;
    Number* kernels = first.numbers + plan.plane();
    Number *offset = kernels + TAPS * channels, *group = offset + channels;
    std::memset(moments, 0, sizeof(double) * TAPS * (TAPS + 1));
    for (int64_t i = 0; i < first.images; i += GROUP<Number>) {
        int count = first.images - i < GROUP<Number> ? int(first.images - i) : GROUP<Number>;
        interleave(first, plan, images + i * image, count, group);
        patch_moments(plan, group, middle, spread);
    }
    for (int t = 0; t < TAPS; t++) middle[t] /= n;
    for (int t = 0; t < TAPS; t++)
        for (int u = t; u < TAPS; u++)
            spread[u * TAPS + t] = spread[t * TAPS + u] = spread[t * TAPS + u] / n - middle[t] * middle[u];
    for (int c = 0; c < channels; c++) {
        double average = 0, variance = 0;
        for (int t = 0; t < TAPS; t++) {
            double kernel = first.kernels[t * channels + c], row = 0;
            average += kernel * middle[t];
            for (int u = 0; u < TAPS; u++) row += spread[t * TAPS + u] * first.kernels[u * channels + c];
            variance += kernel * row;
        }
        if (variance < 0) variance = 0;
        mean[c] = Number(average);
        scale[c] = Number(1 / std::sqrt(variance + first.eps));
        double moved = average + (first.shift ? first.shift[c] : 0), unbiased = variance * n / (n - 1);
        first.running_mean[c] = Number((1 - first.momentum) * first.running_mean[c] + first.momentum * moved);
        first.running_var[c] = Number((1 - first.momentum) * first.running_var[c] + first.momentum * unbiased);
    }
    fold(first, plan, mean, scale, kernels, offset);
    transform(first, plan, images, y, factors, kernels, offset);
}

template <typename Value, typename Number = NumberOf<Value>>
void backward(const First<Number>& first, const Number* images, const Value* dy, const Number* factors,
              const double* moments, const Number* mean, const Number* scale, Number* dkernels, Number* dweight,
              Number* dbias) {
    Plan<Number> plan(first);
    int channels = plan.channels, window = int(first.window);
    int64_t image = first.height * first.width;
    const double *middle = moments, *spread = moments + TAPS;
    Number *padded = first.numbers, *kernels = padded + plan.plane();
    Number* offset = kernels + TAPS * channels;
    double *sum = first.sums, *product = sum + channels;
    std::memset(sum, 0, sizeof(double) * (TAPS + 1) * channels);
    fold(first, plan, mean, scale, kernels, offset);
    int64_t out = int64_t(plan.height / window) * (plan.width / window) * channels;
    for (int64_t i = 0; i < first.images; i++) {
        const Number* factor = factors ? factors + i * channels : nullptr;
        Number floor = Number(first.floor);
        pad(first, plan, images + i * image, padded);
        const Value* from = dy + i * out;
        if (window == 1)
            reduce<1>(plan, padded, kernels, offset, factor, floor, from, sum, product);
        else
            reduce<2>(plan, padded, kernels, offset, factor, floor, from, sum, product);
    }
    for (int c = 0; c < channels; c++) {
        double bend = 0;
        for (int t = 0; t < TAPS; t++) {
            int at = t * channels + c;
            bend += first.kernels[at] * (product[at] - middle[t] * sum[c]);
        }
        bend *= scale[c];
        dweight[c] = Number(bend);
        dbias[c] = Number(sum[c]);
        for (int t = 0; t < TAPS; t++) {
            double row = 0;
            for (int u = 0; u < TAPS; u++) row += spread[t * TAPS + u] * first.kernels[u * channels + c];
            double own = product[t * channels + c] - sum[c] * middle[t] - bend * scale[c] * row;
            dkernels[t * channels + c] = Number(first.weight[c] * scale[c] * own);
        }
    }
}

}  // namespace

#define FIRST(NAME, Value, Number)                                                                                   \
    extern "C" void first_forward_##NAME(const First<Number>* first, const Number* images, Value* y,                 \
                                         const Number* factors, double* moments, Number* mean, Number* scale) {      \
        forward(*first, images, y, factors, moments, mean, scale);                                                   \
    }                                                                                                                \
    extern "C" void first_evaluate_##NAME(const First<Number>* first, const Number* images, Value* y, Number* mean,  \
                                          Number* scale) {                                                           \
        evaluate(*first, images, y, mean, scale);                                                                    \
    }                                                                                                                \
    extern "C" void first_backward_##NAME(const First<Number>* first, const Number* images, const Value* dy,         \
                                          const Number* factors, const double* moments, const Number* mean,          \
                                          const Number* scale, Number* dkernels, Number* dweight, Number* dbias) {   \
        backward(*first, images, dy, factors, moments, mean, scale, dkernels, dweight, dbias);                       \
    }

FIRST(bfloat16, bfloat16, float)
FIRST(float32, float, float)
FIRST(float64, double, double)

// Batch normalization, ReLU, channel dropout and max-pooling as one operation, forward and backward.
//
// A map is read as often as it must be: forward once for the statistics and once for the result, backward once for the
// gradients of the parameters and once for that of the map. Maps lie as (images, height, width, channels). Sums over
// images are in double precision.

#include <cmath>

#include "vectors.h"

namespace {

constexpr int TILE = 64;  // pixels, which stay in the first cache while the next channels are read

// What the program hands over: a block, and the shape of the maps that it is given. Vectors are of one value a channel.
template <typename Number>
struct Block {
    int64_t images, height, width, channels;
    int64_t window;  // of the max-pooling, along both axes; 1: none
    double floor;    // of the activation: 0 for ReLU, minus infinity for none
    double momentum, eps;
    const Number *weight, *bias;
    Number *running_mean, *running_var;
    Number* numbers;  // 6 * channels
    double* sums;     // 2 * channels
};

// The windows of one image: `at` is where the first value of a window lies, `rest` the lines below the last window.
template <int WINDOW>
struct Windows {
    int height, width, channels, size, rows, columns;

    Windows(int64_t height, int64_t width, int64_t channels, int64_t window)
        : height(int(height)), width(int(width)), channels(int(channels)), size(WINDOW ? WINDOW : int(window)) {
        rows = this->height / size;
        columns = this->width / size;
    }

    INLINE int64_t at(int row, int column, int u = 0, int v = 0) const {
        return ((int64_t(row) * size + u) * width + column * size + v) * channels;
    }

    INLINE int64_t out(int row, int column) const { return (int64_t(row) * columns + column) * channels; }

    // The largest of slope * x in a window, and the first x that gives it.
    template <typename M, typename Value>
    INLINE void best(const Value* x, typename M::Vector slope, typename M::Vector& scaled,
                     typename M::Vector& chosen) const {
        chosen = M::load(x);
        scaled = slope * chosen;
        for (int u = 0; u < size; u++)
            for (int v = u ? 0 : 1; v < size; v++) {
                auto value = M::load(x + (u * width + v) * channels);
                auto other = slope * value;
                chosen = other > scaled ? value : chosen;
                scaled = larger(other, scaled);
            }
    }
};

// Sums of x - shift and of its square.
template <typename Value, typename Number = NumberOf<Value>>
void moments(const Value* x, int64_t pixels, int channels, const Number* shift, double* sum, double* square) {
    for (int64_t start = 0; start < pixels; start += TILE) {
        const Value* tile = x + start * channels;
        int count = pixels - start < TILE ? int(pixels - start) : TILE;
        for_channels<Number>(channels, [&](auto width, int c) {
            constexpr int lanes = decltype(width)::lanes;
            typedef Memory<Value, lanes> M;
            typedef typename M::Vector Vector;
            Vector middle = Memory<Number, lanes>::load(shift + c), totals[4] = {}, squares[4] = {};
            for (int p = 0; p < count;) {  // four at a time: additions wait for each other
                int part = count - p < 4 ? 1 : 4;
                for (int k = 0; k < part; k++) {
                    Vector distance = M::load(tile + (p + k) * channels + c) - middle;
                    totals[k] += distance;
                    squares[k] += distance * distance;
                }
                p += part;
            }
            add<lanes>(sum + c, (totals[0] + totals[1]) + (totals[2] + totals[3]));
            add<lanes>(square + c, (squares[0] + squares[1]) + (squares[2] + squares[3]));
        });
    }
}

// y = max(floor, slope * x + offset) for the x of each window that makes it largest.
template <int WINDOW, typename Value, typename Number = NumberOf<Value>>
void apply(const Value* x, Value* y, const Windows<WINDOW>& windows, const Number* slope, const Number* offset,
           Number floor) {
    for (int i = 0; i < windows.rows; i++)
        for_channels<Number>(windows.channels, [&](auto width, int c) {
            constexpr int lanes = decltype(width)::lanes;
            typedef Memory<Value, lanes> M;
            typedef Memory<Number, lanes> N;
            typename M::Vector a = N::load(slope + c), b = N::load(offset + c), least = floor - typename M::Vector{};
            for (int j = 0; j < windows.columns; j++) {
                typename M::Vector scaled, chosen;
                windows.template best<M>(x + windows.at(i, j) + c, a, scaled, chosen);
                M::store(y + windows.out(i, j) + c, larger(least, scaled + b));
            }
        });
}

// Sums of the gradient that passes the activation, and of its product with x - mean.
template <int WINDOW, typename Value, typename Number = NumberOf<Value>>
void reduce(const Value* x, const Value* dy, const Windows<WINDOW>& windows, const Number* slope, const Number* offset,
            const Number* factor, const Number* mean, Number floor, double* sum, double* product) {
    for (int i = 0; i < windows.rows; i++)
        for_channels<Number>(windows.channels, [&](auto width, int c) {
            constexpr int lanes = decltype(width)::lanes;
            typedef Memory<Value, lanes> M;
            typedef Memory<Number, lanes> N;
            typedef typename M::Vector Vector;
            Vector a = N::load(slope + c), b = N::load(offset + c), middle = N::load(mean + c), least = floor - Vector{};
            Vector total = {}, products = {}, none = {};
            for (int j = 0; j < windows.columns; j++) {
                Vector scaled, chosen, gradient = M::load(dy + windows.out(i, j) + c);
                windows.template best<M>(x + windows.at(i, j) + c, a, scaled, chosen);
                gradient = scaled + b > least ? gradient : none;
                total += gradient;
                products += gradient * (chosen - middle);
            }
            Vector by = N::load(factor + c);
            add<lanes>(sum + c, by * total);
            add<lanes>(product + c, by * products);
        });
}

// dx = tilt * x + level, and gain * dy more at the first x of each window that makes slope * x largest.
template <int WINDOW, typename Value, typename Number = NumberOf<Value>>
void spread(const Value* x, const Value* dy, Value* dx, const Windows<WINDOW>& windows, const Number* slope,
            const Number* offset, const Number* gain, const Number* tilt, const Number* level, Number floor) {
    int64_t line = int64_t(windows.width) * windows.channels;
    for (int i = 0; i < windows.rows; i++)
        for_channels<Number>(windows.channels, [&](auto width, int c) {
            constexpr int lanes = decltype(width)::lanes;
            typedef Memory<Value, lanes> M;
            typedef Memory<Number, lanes> N;
            typedef typename M::Vector Vector;
            Vector a = N::load(slope + c), b = N::load(offset + c), least = floor - Vector{}, none = {};
            Vector up = N::load(gain + c), t = N::load(tilt + c), l = N::load(level + c);
            for (int j = 0; j < windows.columns; j++) {
                Vector scaled, chosen, gradient = up * M::load(dy + windows.out(i, j) + c);
                int64_t at = windows.at(i, j) + c;
                windows.template best<M>(x + at, a, scaled, chosen);
                gradient = scaled + b > least ? gradient : none;
                for (int u = 0; u < windows.size; u++)
                    for (int v = 0; v < windows.size; v++) {
                        int64_t here = at + u * line + v * windows.channels;
                        Vector value = M::load(x + here);
                        M::store(dx + here, t * value + l + (value == chosen ? gradient : none));
                        gradient = value == chosen ? none : gradient;
                    }
            }
            for (int u = 0; u < windows.size; u++)  // columns beside the last window
                for (int j = windows.columns * windows.size; j < windows.width; j++) {
                    int64_t here = windows.at(i, 0, u) + int64_t(j) * windows.channels + c;
                    M::store(dx + here, t * M::load(x + here) + l);
                }
        });
    for (int64_t at = windows.at(windows.rows, 0); at < windows.height * line; at += windows.channels)  // below it
        for_channels<Number>(windows.channels, [&](auto width, int c) {
            constexpr int lanes = decltype(width)::lanes;
            typedef Memory<Value, lanes> M;
            typedef Memory<Number, lanes> N;
            M::store(dx + at + c, N::load(tilt + c) * M::load(x + at + c) + N::load(level + c));
        });
}

// y (images, height / window, width / window, channels) from x (images, height, width, channels); `factors` are
// dropout's (images, channels) or null.
template <int WINDOW, typename Value, typename Number = NumberOf<Value>>
void forward_windows(const Block<Number>& block, const Value* x, Value* y, const Number* factors, const Number* mean,
                     const Number* scale) {
    int channels = int(block.channels);
    bool flat = WINDOW == 1;  // without pooling, an image is one long line
    int64_t pixels = block.height * block.width;
    Windows<WINDOW> windows(flat ? 1 : block.height, flat ? pixels : block.width, channels, block.window);
    Number *slope = block.numbers, *offset = slope + channels;
    for (int64_t i = 0; i < block.images; i++) {
        for (int c = 0; c < channels; c++) {
            Number factor = factors ? factors[i * channels + c] : Number(1), a = block.weight[c] * scale[c];
            slope[c] = factor * a;
            offset[c] = factor * (block.bias[c] - a * mean[c]);
        }
        apply<WINDOW>(x + i * pixels * channels, y + i * windows.out(windows.rows, 0), windows, slope, offset,
                      Number(block.floor));
    }
}

template <typename Value, typename Number = NumberOf<Value>>
void transform(const Block<Number>& block, const Value* x, Value* y, const Number* factors, const Number* mean,
               const Number* scale) {
    switch (block.window) {
        case 1: return forward_windows<1>(block, x, y, factors, mean, scale);
        case 2: return forward_windows<2>(block, x, y, factors, mean, scale);
        default: return forward_windows<0>(block, x, y, factors, mean, scale);
    }
}

// With the statistics of these maps. Writes mean and 1 / deviation, and moves the running statistics.
template <typename Value, typename Number = NumberOf<Value>>
INLINE void forward(const Block<Number>& block, const Value* x, Value* y, const Number* factors, Number* mean,
                    Number* scale) {
    int channels = int(block.channels);
    int64_t n = block.images * block.height * block.width;
    double *sum = block.sums, *square = sum + channels;
    for (int c = 0; c < channels; c++) {
        mean[c] = Memory<Value, 1>::load(x + c);  // any value near the mean keeps the sums of squares exact
        sum[c] = square[c] = 0;
    }
    moments(x, n, channels, mean, sum, square);
    for (int c = 0; c < channels; c++) {
        double distance = sum[c] / double(n), middle = mean[c] + distance;
        double variance = square[c] / double(n) - distance * distance;
        if (variance < 0) variance = 0;
        mean[c] = Number(middle);
        scale[c] = Number(1 / std::sqrt(variance + block.eps));
        double unbiased = variance * double(n) / double(n - 1);
        block.running_mean[c] = Number((1 - block.momentum) * block.running_mean[c] + block.momentum * middle);
        block.running_var[c] = Number((1 - block.momentum) * block.running_var[c] + block.momentum * unbiased);
    }
    transform(block, x, y, factors, mean, scale);
}

// With the running statistics, as networks are judged. Writes 1 / deviation.
template <typename Value, typename Number = NumberOf<Value>>
INLINE void evaluate(const Block<Number>& block, const Value* x, Value* y, Number* scale) {
    for (int c = 0; c < block.channels; c++) scale[c] = Number(1 / std::sqrt(block.running_var[c] + block.eps));
    transform(block, x, y, static_cast<const Number*>(nullptr), block.running_mean, scale);
}

// The gradients of x, weight and bias from that of y: of S. Ioffe and C. Szegedy, "Batch Normalization" (2015), with
// the sums taken over the values that dropout, the maximum and the activation let through.
template <int WINDOW, typename Value, typename Number = NumberOf<Value>>
void backward_windows(const Block<Number>& block, const Value* x, const Value* dy, Value* dx, const Number* factors,
                      const Number* mean, const Number* scale, Number* dweight, Number* dbias) {
    int channels = int(block.channels);
    bool flat = WINDOW == 1;
    int64_t pixels = block.height * block.width, n = block.images * pixels;
    Windows<WINDOW> windows(flat ? 1 : block.height, flat ? pixels : block.width, channels, block.window);
    int64_t out = windows.out(windows.rows, 0);
    Number *slope = block.numbers, *offset = slope + channels, *factor = offset + channels;
    Number *gain = factor + channels, *tilt = gain + channels, *level = tilt + channels;
    double *sum = block.sums, *product = sum + channels;
    for (int c = 0; c < channels; c++) {
        slope[c] = block.weight[c] * scale[c];
        offset[c] = block.bias[c] - slope[c] * mean[c];
        factor[c] = 1;
        sum[c] = product[c] = 0;
    }
    for (int64_t i = 0; i < block.images; i++)
        reduce<WINDOW>(x + i * pixels * channels, dy + i * out, windows, slope, offset,
                       factors ? factors + i * channels : factor, mean, Number(block.floor), sum, product);
    for (int c = 0; c < channels; c++) {
        dbias[c] = Number(sum[c]);
        dweight[c] = Number(product[c] * scale[c]);
        double bend = double(scale[c]) * scale[c] * product[c] / double(n);
        tilt[c] = Number(-slope[c] * bend);
        level[c] = Number(slope[c] * (bend * mean[c] - sum[c] / double(n)));
    }
    for (int64_t i = 0; i < block.images; i++) {
        for (int c = 0; c < channels; c++) gain[c] = (factors ? factors[i * channels + c] : Number(1)) * slope[c];
        spread<WINDOW>(x + i * pixels * channels, dy + i * out, dx + i * pixels * channels, windows, slope, offset, gain,
                       tilt, level, Number(block.floor));
    }
}

template <typename Value, typename Number = NumberOf<Value>>
INLINE void backward(const Block<Number>& block, const Value* x, const Value* dy, Value* dx, const Number* factors,
                     const Number* mean, const Number* scale, Number* dweight, Number* dbias) {
    switch (block.window) {
        case 1: return backward_windows<1>(block, x, dy, dx, factors, mean, scale, dweight, dbias);
        case 2: return backward_windows<2>(block, x, dy, dx, factors, mean, scale, dweight, dbias);
        default: return backward_windows<0>(block, x, dy, dx, factors, mean, scale, dweight, dbias);
    }
}

}  // namespace

#define BLOCK(NAME, Value, Number)                                                                                  \
    extern "C" void block_forward_##NAME(const Block<Number>* block, const Value* x, Value* y, const Number* factors,     \
                                   Number* mean, Number* scale) {                                                   \
        forward(*block, x, y, factors, mean, scale);                                                                \
    }                                                                                                               \
    extern "C" void block_evaluate_##NAME(const Block<Number>* block, const Value* x, Value* y, Number* scale) {    \
        evaluate(*block, x, y, scale);                                                                              \
    }                                                                                                               \
    extern "C" void block_backward_##NAME(const Block<Number>* block, const Value* x, const Value* dy, Value* dx,         \
                                    const Number* factors, const Number* mean, const Number* scale, Number* dweight, \
                                    Number* dbias) {                                                                \
        backward(*block, x, dy, dx, factors, mean, scale, dweight, dbias);                                          \
    }

BLOCK(bfloat16, bfloat16, float)
BLOCK(float32, float, float)
BLOCK(float64, double, double)  // for checks of the gradients

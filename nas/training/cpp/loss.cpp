// The cross-entropy of class scores, and its gradient.

#include <cmath>
#include <cstdint>

namespace {

struct Scores {
    int64_t images, classes;
    int64_t batch;  // images whose mean is wanted; these are some of them
};

}  // namespace

// `loss` is the sum of -log softmax(scores)[label], divided by `batch`; it is NaN where a label is no class.
extern "C" void loss_float32(const Scores* what, const float* scores, const int64_t* labels, float* gradients,
                             float* loss) {
    double sum = 0;
    int64_t classes = what->classes;
    float share = 1 / float(what->batch);
    for (int64_t i = 0; i < what->images; i++) {
        const float* own = scores + i * classes;
        float *gradient = gradients + i * classes, largest = own[0], total = 0;
        for (int64_t k = 1; k < classes; k++) largest = own[k] > largest ? own[k] : largest;
        for (int64_t k = 0; k < classes; k++) total += gradient[k] = std::exp(own[k] - largest);
        for (int64_t k = 0; k < classes; k++) gradient[k] *= share / total;
        if (labels[i] < 0 || labels[i] >= classes) {
            sum = NAN;
            continue;
        }
        gradient[labels[i]] -= share;
        sum += std::log(total) - (own[labels[i]] - largest);
    }
    *loss = float(sum / double(what->batch));
}

// Repeats recorded calls of the kernels: reads them from the standard input, writes what they leave in memory.
//
// A call is a line "NAME STRUCTURE POINTERS BUFFERS" and its bytes: the structure, of so many bytes; for each pointer
// in it, where it stands and the buffer that it names; for each buffer its size and its bytes. The buffers that the
// structure does not name are the arguments, in order; one of no bytes is null.

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#define KERNEL(NAME)                \
    extern "C" void NAME##_float32();  \
    extern "C" void NAME##_bfloat16(); \
    extern "C" void NAME##_float64();
KERNEL(block_forward)
KERNEL(block_backward)
KERNEL(block_evaluate)
KERNEL(first_evaluate)
KERNEL(first_forward)
KERNEL(first_backward)

namespace {

#define NAMES(NAME) {#NAME "_float32", NAME##_float32}, {#NAME "_bfloat16", NAME##_bfloat16}, {#NAME "_float64", NAME##_float64}
const struct {
    const char* name;
    void (*function)();
} KERNELS[] = {NAMES(block_forward), NAMES(block_backward), NAMES(block_evaluate), NAMES(first_evaluate), NAMES(first_forward), NAMES(first_backward)};

typedef void (*Function)(void*, void*, void*, void*, void*, void*, void*, void*, void*, void*);  // the rest is ignored

int64_t number() {
    int64_t value;
    if (fread(&value, sizeof value, 1, stdin) != 1) exit(2);
    return value;
}

std::vector<char> bytes(int64_t size) {
    std::vector<char> values(size);
    if (size && fread(values.data(), size, 1, stdin) != 1) exit(2);
    return values;
}

}  // namespace

int main() {
    char name[64];
    int structure_size, pointers, buffers;
    while (scanf("%63s %d %d %d", name, &structure_size, &pointers, &buffers) == 4) {
        getchar();  // the end of the line
        std::vector<char> structure = bytes(structure_size);
        std::vector<int64_t> places;
        for (int i = 0; i < pointers; i++) places.push_back(number());
        std::vector<std::vector<char>> all;
        for (int i = 0; i < buffers; i++) all.push_back(bytes(number()));
        void* arguments[9] = {};
        for (int i = 0; i < buffers; i++) {
            void* at = all[i].empty() ? nullptr : all[i].data();
            if (i < pointers)
                std::memcpy(structure.data() + places[i], &at, sizeof at);
            else
                arguments[i - pointers] = at;
        }
        void** a = arguments;
        bool known = false;
        for (auto& kernel : KERNELS)
            if (!strcmp(kernel.name, name)) {
                Function(kernel.function)(structure.data(), a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], a[8]);
                known = true;
            }
        if (!known) return 3;
        for (auto& buffer : all) fwrite(buffer.data(), 1, buffer.size(), stdout);
    }
}

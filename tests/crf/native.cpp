// Runs the core without Python: under sanitizers and on emulated machines. Jobs come in on stdin and results go out on stdout, one
// after another: 4 integers and 5 floats as in CrfJob, image, probabilities -> an int status, the result.
#include <cstdio>
#include <new>
#include <stdexcept>
#include <vector>

#include "crf.h"

namespace TAG2MASK_ISA {
void run(const CrfJob& job);
}

int main() {
    int head[4];
    float settings[5];
    while (std::fread(head, sizeof head, 1, stdin) == 1 && std::fread(settings, sizeof settings, 1, stdin) == 1) {
        const size_t pixels = static_cast<size_t>(head[0]) * head[1], values = pixels * head[2];
        std::vector<uint8_t> image(pixels * 3);
        std::vector<float> probs(values), out(values);
        if (std::fread(image.data(), 1, image.size(), stdin) != image.size()) return 1;
        if (std::fread(probs.data(), sizeof(float), values, stdin) != values) return 1;
        int status = 0;
        try {
            TAG2MASK_ISA::run({image.data(), probs.data(), out.data(), head[0], head[1], head[2], head[3], settings[0], settings[1],
                               settings[2], settings[3], settings[4]});
        } catch (const std::overflow_error&) {
            status = 1;
        }
        std::fwrite(&status, sizeof status, 1, stdout);
        std::fwrite(out.data(), sizeof(float), values, stdout);
    }
    return std::fflush(stdout);
}

// The few functions that llama-bench takes from llama.cpp's common/arg.cpp, without the downloader behind them:
// benchctl fetches models itself, and this llama-bench is given files.

#include "arg.h"
#include "common.h"
#include "ggml-backend.h"

#include <cstdio>
#include <initializer_list>

static bool is_one_of(const std::string & word, std::initializer_list<const char *> words) {
    for (const char * candidate : words) {
        if (word == candidate) {
            return true;
        }
    }
    return false;
}

bool common_arg_utils::is_truthy(const std::string & word) {
    return is_one_of(word, { "on", "enabled", "true", "1" });
}

bool common_arg_utils::is_falsey(const std::string & word) {
    return is_one_of(word, { "off", "disabled", "false", "0" });
}

bool common_arg_utils::is_autoy(const std::string & word) {
    return is_one_of(word, { "auto", "-1" });
}

// What --list-devices prints, in llama.cpp's words, so that one parser reads both.
void common_print_available_devices() {
    ggml_backend_load_all();
    printf("Available devices:\n");
    bool found = false;
    for (size_t i = 0; i < ggml_backend_dev_count(); i++) {
        ggml_backend_dev_t device = ggml_backend_dev_get(i);
        if (ggml_backend_dev_type(device) == GGML_BACKEND_DEVICE_TYPE_CPU) {
            continue;
        }
        size_t free_bytes  = 0;
        size_t total_bytes = 0;
        ggml_backend_dev_memory(device, &free_bytes, &total_bytes);
        printf("  %s: %s (%zu MiB, %zu MiB free)\n", ggml_backend_dev_name(device), ggml_backend_dev_description(device),
               total_bytes >> 20, free_bytes >> 20);
        found = true;
    }
    if (!found) {
        printf("  (none)\n");
    }
}

common_models_handler common_models_handler_init(const common_params &, llama_example) {
    return {};
}

// llama-bench ends with an error when this leaves the path of the model empty.
void common_models_handler_apply(common_models_handler &, common_params &, common_download_callback *) {
    fprintf(stderr, "error: this llama-bench downloads nothing; name a file with -m\n");
}

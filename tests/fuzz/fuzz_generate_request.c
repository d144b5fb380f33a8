/* Fuzz entry (libFuzzer's): any bytes as the body of POST /generate. What is accepted must survive being stored and read back;
 * what is refused must say why, and both must agree with the fingerprint.
 *
 *     clang -g -fsanitize=fuzzer,address,undefined -D_GNU_SOURCE -I. -Iengine tests/fuzz/fuzz_generate_request.c ... -o fuzz
 *     ./fuzz tests/fuzz/corpus/generate_request
 *
 * tests/api/test_fuzz_generate_request.c replays the corpus, and changes of it, wherever there is no clang. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "tests/api/models.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool condition)
{
    if (!condition) {
        abort();
    }
}

static void stored_form_survives(const api_request *request)
{
    api_request again;
    char *json = api_request_json(request);
    require(json != NULL);
    require(api_request_from_json(&again, json, strlen(json)));
    char *second = api_request_json(&again);
    require(second && strcmp(json, second) == 0);
    require(api_request_cost(request) == api_request_cost(&again) && api_request_cost(request) > 0);
    free(json);
    free(second);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    api_request *requests = NULL;
    api_problem problem;
    size_t count = 0;
    bool is_array = false;
    unsigned char digest[32];
    bool ok = api_parse_generate(&requests, &count, &is_array, (const char *)data, size, find_model, NULL, &problem);
    require(ok == (problem.code == API_NONE));
    require(ok || problem.detail[0]);
    bool has_digest = api_fingerprint(digest, "/generate", (const char *)data, size);
    require(!ok || has_digest);
    for (size_t i = 0; ok && i < count; i++) {
        stored_form_survives(&requests[i]);
    }
    if (ok) {
        free(requests);
    } else {
        char *json = api_problem_json(&problem, "fuzz");
        require(json != NULL);
        free(json);
    }
    return 0;
}

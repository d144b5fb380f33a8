/* POST /verify: whether a PNG is what its own metadata says. Reads the recipe that api_recipe_json wrote, turns it into the request that
 * makes the picture again, and says what came of it. Pure; any thread.
 *
 * A file is a stranger's: of its recipe only what this program would have written is taken, and the request goes through the validator
 * of POST /generate like any other. */
#ifndef API_VERIFICATION_H
#define API_VERIFICATION_H

#include "api/generate_request.h"
#include "api/views.h"

#define API_VERIFY_REASONS_MAX 8

typedef struct api_recipe {
    api_request request; /* of this one picture: n is 1 */
    uint32_t width, height, channels;
    int numerics;
    char weights_sha256[65], pixels_sha256[65], build[65], noise[32], device[64];
    char gpu[192], plan[65]; /* "": made on a CPU */
} api_recipe;

/* False: no recipe as api_recipe_json writes it (or no memory, which a file cannot be blamed for: *no_memory). */
bool api_recipe_read(api_recipe *out, const char *json, size_t bytes, bool *no_memory);
bool api_recipe_has_inputs(const api_recipe *recipe); /* it was made from a picture, of which only the hash is known */

/* The body of POST /generate that makes the picture again with the model of this name. Pictures it was made from: in base64, or NULL.
 * malloc'd; NULL: no memory. */
char *api_recipe_body(const api_recipe *recipe, const char *model, const char *init_image, const char *mask_image);

/* What a client sends to POST /verify as JSON: {"image": BASE64, "init_image": BASE64, "mask_image": BASE64}. The picture comes decoded,
 * the others as they are. False with *problem filled. */
typedef struct api_verify_request {
    unsigned char *png; /* malloc'd */
    size_t png_bytes;
    char *init_image, *mask_image; /* malloc'd; NULL: not sent */
} api_verify_request;
bool api_parse_verify(api_verify_request *out, const char *body, size_t bytes, api_problem *problem);
void api_verify_request_done(api_verify_request *request);

typedef enum api_verdict {
    API_VERDICT_OPEN,
    API_VERDICT_SAME_BYTES,
    API_VERDICT_SAME_PIXELS,
    API_VERDICT_DIFFERENT,
    API_VERDICT_CANNOT
} api_verdict;
const char *api_verdict_name(api_verdict verdict); /* NULL for one that is open */

/* Why files differ, or why nothing can be said. */
#define API_VERIFY_CODES(X)                                                                                                                \
    X(NO_METADATA, "no-metadata") /* the file does not say how it was made */                                                              \
    X(BAD_METADATA, "bad-metadata") /* what it says is no recipe of denoised */                                                            \
    X(NEEDS_INPUTS, "needs-inputs") /* pictures it was made from are not in the file */                                                    \
    X(OTHER_INPUTS, "other-inputs") /* those that were sent are not the ones it was made from */                                           \
    X(OTHER_WEIGHTS, "other-weights") /* no model here has these weights */                                                                \
    X(REFUSED, "refused") /* what it asks for is not taken here */                                                                         \
    X(JOB_ENDED, "job-ended") /* the picture was not made: the job failed or was cancelled */                                              \
    X(UNREADABLE, "unreadable") /* the file's pixels cannot be decoded */                                                                  \
    X(OTHER_BUILD, "other-build") /* made by another build, device or precision */                                                         \
    X(OTHER_NUMERICS, "other-numerics") /* by another version of the arithmetic or of the noise */                                         \
    X(OTHER_NAME, "other-name") /* the model is called otherwise here */                                                                   \
    X(EDITED_PIXELS, "edited-pixels") /* not the pixels that it was written with */                                                        \
    X(EDITED_FILE, "edited-file") /* its text or compression is not what denoised wrote */

typedef enum api_verify_code {
#define X(name, text) API_VERIFY_##name,
    API_VERIFY_CODES(X)
#undef X
        API_VERIFY_CODE_COUNT
} api_verify_code;
const char *api_verify_code_name(api_verify_code code);

typedef struct api_verification {
    api_verdict verdict;
    uint32_t reason_count;
    struct {
        api_verify_code code;
        char detail[320];
    } reasons[API_VERIFY_REASONS_MAX];
    const api_recipe *claimed; /* NULL: none could be read */
    /* The file that came. */
    uint64_t bytes;
    char sha256[65], pixels_sha256[65]; /* pixels: "" while they are not known */
    /* What was made again. */
    bool made;
    const char *model;
    char found_sha256[65], found_pixels_sha256[65], found_device[64], found_build[65];
    char found_gpu[192], found_plan[65]; /* "": on a CPU, or not known */
    uint64_t found_bytes;
    const char *job_json; /* NULL: no job was made */
} api_verification;

/* One reason more; beyond the last place it is left out. */
void api_verify_reason(api_verification *v, api_verify_code code, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* With claimed, the file's hashes and what was made filled in: the verdict and its reasons. */
void api_verify_judge(api_verification *v);
/* {"verdict":...,"reasons":[...],"claimed":...,"file":...,"found":...,"job":...}; malloc'd. */
char *api_verification_body(const api_verification *v);

#endif

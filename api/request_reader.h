/* One object of a POST /generate body while it is read: its members, the model and the sampler they are read for, and how a
 * member is refused. Inside api/ only; callers outside use generate_request.h. One thread a reader. */
#ifndef API_REQUEST_READER_H
#define API_REQUEST_READER_H

#include <cjson/cJSON.h>

#include "api/generate_request.h"
#include "api/json_walk.h"

#define API_REQUEST_FIELDS(X)                                                                                                              \
    X(MODEL, "model")                                                                                                                      \
    X(CLASS_LABEL, "class_label")                                                                                                          \
    X(CLASS_MIXTURE, "class_mixture")                                                                                                      \
    X(NEGATIVE_CLASS, "negative_class")                                                                                                    \
    X(GUIDANCE_SCALE, "guidance_scale")                                                                                                    \
    X(STEPS, "steps")                                                                                                                      \
    X(SAMPLER, "sampler")                                                                                                                  \
    X(INIT_IMAGE, "init_image")                                                                                                            \
    X(MASK_IMAGE, "mask_image")                                                                                                            \
    X(VARIATION_SEED, "variation_seed")                                                                                                    \
    X(SEED, "seed")                                                                                                                        \
    X(N, "n")                                                                                                                              \
    X(PRIORITY, "priority")                                                                                                                \
    X(DEADLINE_MS, "deadline_ms")                                                                                                          \
    X(WEBHOOK, "webhook")

typedef enum api_field {
#define X(name, text) API_FIELD_##name,
    API_REQUEST_FIELDS(X)
#undef X
        API_FIELD_COUNT
} api_field;

/* A request's members: the fields above, then the options of the engine's table. */
#define API_MEMBER_COUNT (API_FIELD_COUNT + DN_OPT_COUNT)

const char *api_member_name(uint32_t index);

typedef struct api_member {
    const cJSON *value; /* NULL: not sent */
    api_raw raw;
} api_member;

typedef struct api_reader {
    char at[24]; /* the object's JSON Pointer: "", or "/3" in an array */
    api_member members[API_MEMBER_COUNT];
    const api_model *model;
    const dn_sampler *sampler; /* what "model" resolves to, too; NULL: not read yet */
    unsigned char *room; /* where the bytes of its input images go: 3/4 of the body's size are there */
    api_problem *problem;
} api_reader;

typedef struct api_pointer {
    char text[128];
} api_pointer;

api_pointer api_pointer_to(const api_reader *r, const char *name);
/* "NAME RULE" at the member, as invalid-field or as unsupported-option. Return false. */
bool api_refuse_member(api_reader *r, const char *name, const char *rule);
bool api_refuse_unsupported(api_reader *r, const char *name, const char *rule);

/* An integer token within [minimum, maximum], both within 2^53; 20.0 and 2e1 are none. */
bool api_integer_of(const api_member *m, int64_t minimum, int64_t maximum, int64_t *out);

/* One function a group of fields; a field left out takes the model's default. False with the problem filled. */
bool api_read_classes(api_reader *r, api_request *out); /* class_label, class_mixture, negative_class */
bool api_read_options(api_reader *r, api_request *out);
bool api_read_images(api_reader *r, api_request *out);
/* What makes sense together alone, when all else is read. */
bool api_check_together(api_reader *r, const api_request *request);

#endif

/* Classes by weight, what is guided away from, guidance methods, pictures and variations: bodies with their exact answers, and the stored
 * form of what is accepted. @GREY, @RGB, @ALPHA, @SMALL, @BIRD and @WIDE in a body stand for pictures in base64. */
#include <math.h>

#include "api/base64.h"
#include "api/text.h"
#include "base/sha256.h"
#include "format/png_image.h"
#include "tests/api/models.h"
#include "tests/test.h"

#define OK API_NONE, "", ""
#define BASE64(name) API_INVALID_FIELD, "/" name, name " must be a PNG in base64, padded and without line ends or a data: prefix"
#define NO_PNG(name) API_INVALID_FIELD, "/" name, name " must be a PNG in base64: the bytes are none"
#define ODD_OPTION(name) API_UNSUPPORTED_OPTION, "/" name, name " is not an option of the "
#define NEEDS(name, what) API_INVALID_FIELD, "/" name, name " needs " what
#define MIXTURE API_INVALID_FIELD, "/class_mixture", "class_mixture must be an array of 1 to 8 objects of a class_label and a weight"
#define ELEMENT API_INVALID_FIELD, "/class_mixture/0", "class_mixture must hold objects of a class_label and a weight"
#define WEIGHT API_INVALID_FIELD, "/class_mixture/0/weight", "weight must be a number from -10 to 10"

static const struct {
    const char *body;
    api_code code;
    const char *field, *detail;
} ROWS[] = {
    /* class_mixture */
    {"{\"class_mixture\":[{\"class_label\":2,\"weight\":0.5},{\"class_label\":\"Ankle boot\",\"weight\":0.5}]}", OK},
    {"{\"class_mixture\":[{\"weight\":1,\"class_label\":0}]}", OK},
    {"{\"class_mixture\":[{\"class_label\":0,\"weight\":-10}]}", OK},
    {"{\"class_mixture\":[{\"class_label\":0,\"weight\":0}]}", OK},
    {"{\"class_mixture\":null,\"class_label\":3}", OK},
    {"{\"class_label\":null,\"class_mixture\":[{\"class_label\":0,\"weight\":1}]}", OK},
    {"{\"model\":\"bare\",\"class_mixture\":[{\"class_label\":0,\"weight\":1}]}", OK},
    {"{\"class_mixture\":[{\"class_label\":0,\"weight\":1},{\"class_label\":1,\"weight\":1},{\"class_label\":2,\"weight\":1},"
     "{\"class_label\":3,\"weight\":1},{\"class_label\":4,\"weight\":1},{\"class_label\":5,\"weight\":1},{\"class_label\":6,\"weight\":1},"
     "{\"class_label\":7,\"weight\":1}]}",
     OK},
    {"{\"class_mixture\":[]}", MIXTURE},
    {"{\"class_mixture\":{}}", MIXTURE},
    {"{\"class_mixture\":{\"class_label\":0,\"weight\":1}}", MIXTURE},
    {"{\"class_mixture\":\"2:0.5\"}", MIXTURE},
    {"{\"class_mixture\":7}", MIXTURE},
    {"{\"class_mixture\":[{},{},{},{},{},{},{},{},{}]}", MIXTURE},
    {"{\"class_mixture\":[7]}", ELEMENT},
    {"{\"class_mixture\":[null]}", ELEMENT},
    {"{\"class_mixture\":[[0,1]]}", ELEMENT},
    {"{\"class_mixture\":[{}]}", ELEMENT},
    {"{\"class_mixture\":[{\"class_label\":1}]}", ELEMENT},
    {"{\"class_mixture\":[{\"weight\":1}]}", ELEMENT},
    {"{\"class_mixture\":[{\"class_label\":1,\"weight\":1,\"name\":2}]}", ELEMENT},
    {"{\"class_mixture\":[{\"class_label\":1,\"weight\":10.5}]}", WEIGHT},
    {"{\"class_mixture\":[{\"class_label\":1,\"weight\":\"1\"}]}", WEIGHT},
    {"{\"class_mixture\":[{\"class_label\":1,\"weight\":null}]}", WEIGHT},
    {"{\"class_mixture\":[{\"class_label\":10,\"weight\":1}]}", API_INVALID_FIELD, "/class_mixture/0/class_label",
     "class_label must be an integer from 0 to 9, a class name"},
    {"{\"class_mixture\":[{\"class_label\":1.0,\"weight\":1}]}", API_INVALID_FIELD, "/class_mixture/0/class_label",
     "class_label must be an integer from 0 to 9"},
    {"{\"class_mixture\":[{\"class_label\":null,\"weight\":1}]}", API_INVALID_FIELD, "/class_mixture/0/class_label",
     "class_label must be a class name, an index"},
    {"{\"class_mixture\":[{\"class_label\":1,\"weight\":1},{\"class_label\":\"Sneeker\",\"weight\":1}]}", API_INVALID_FIELD,
     "/class_mixture/1/class_label", "class_label names no class of this model; did you mean \"Sneaker\""},
    {"{\"class_mixture\":[{\"class_label\":7,\"weight\":1},{\"class_label\":\"Sneaker\",\"weight\":1}]}", API_INVALID_FIELD,
     "/class_mixture/1", "class_mixture names a class twice"},
    {"{\"class_label\":7,\"class_mixture\":[{\"class_label\":7,\"weight\":1}]}", API_INVALID_FIELD, "/class_mixture",
     "class_mixture takes the place of class_label"},
    {"{\"model\":\"plain\",\"class_mixture\":[{\"class_label\":0,\"weight\":1}]}", API_INVALID_FIELD, "/class_mixture/0/class_label",
     "class_label must be null or left out: this model has no classes"},
    {"[{},{\"class_mixture\":[{\"class_label\":1,\"weight\":99}]}]", API_INVALID_FIELD, "/1/class_mixture/0/weight", "weight must be"},
    /* negative_class */
    {"{\"class_label\":7,\"negative_class\":\"Sandal\"}", OK},
    {"{\"class_label\":7,\"negative_class\":null}", OK},
    {"{\"class_label\":7,\"negative_class\":7,\"guidance_scale\":3,\"guidance_method\":\"apg\"}", OK},
    {"{\"class_mixture\":[{\"class_label\":0,\"weight\":1}],\"negative_class\":1}", OK},
    {"{\"class_label\":7,\"negative_class\":\"sandle\"}", API_INVALID_FIELD, "/negative_class",
     "negative_class names no class of this model; did you mean \"Sandal\""},
    {"{\"class_label\":7,\"negative_class\":\"5\"}", API_INVALID_FIELD, "/negative_class",
     "negative_class names no class of this model: a string is a name"},
    {"{\"class_label\":7,\"negative_class\":10}", API_INVALID_FIELD, "/negative_class",
     "negative_class must be an integer from 0 to 9, a class name or null"},
    {"{\"class_label\":7,\"negative_class\":[5]}", API_INVALID_FIELD, "/negative_class",
     "negative_class must be a class name, an index or null"},
    {"{\"model\":\"birds\",\"class_label\":0,\"negative_class\":\"crane\"}", API_INVALID_FIELD, "/negative_class",
     "negative_class is the name of 2 classes: send one of the indices 1, 3"},
    {"{\"negative_class\":5}", NEEDS("negative_class", "a class_label")},
    {"{\"class_label\":7,\"guidance_scale\":1,\"negative_class\":5}", NEEDS("negative_class", "a guidance_scale other than 1")},
    {"{\"model\":\"bare\",\"class_label\":7,\"negative_class\":5}", NEEDS("negative_class", "a guidance_scale other than 1")},
    {"{\"model\":\"birds\",\"class_label\":0,\"guidance_scale\":2,\"guidance_method\":\"autoguidance\",\"negative_class\":1}",
     API_INVALID_FIELD, "/negative_class", "negative_class has no place in guidance_method autoguidance"},
    {"{\"model\":\"birds\",\"class_mixture\":[{\"class_label\":0,\"weight\":1}],\"guidance_method\":\"classifier\"}", API_INVALID_FIELD,
     "/class_mixture", "class_mixture has no place in guidance_method classifier"},
    {"{\"model\":\"birds\",\"guidance_scale\":3,\"guidance_method\":\"autoguidance\"}", OK},
    {"{\"class_label\":7,\"guidance_sigma_min\":5,\"guidance_sigma_max\":5}", API_INVALID_FIELD, "/guidance_sigma_max",
     "guidance_sigma_max must be above guidance_sigma_min"},
    {"{\"class_label\":7,\"guidance_sigma_max\":0}", API_INVALID_FIELD, "/guidance_sigma_max",
     "guidance_sigma_max must be above guidance_sigma_min"},
    {"{\"class_label\":7,\"sampler\":\"ddim\",\"guidance_method\":\"cfg_pp\"}", API_INVALID_FIELD, "/guidance_scale",
     "guidance_scale must be a number from 0 to 1 with guidance_method cfg_pp"},
    {"{\"class_label\":7,\"sampler\":\"ddim\",\"guidance_scale\":1,\"guidance_method\":\"cfg_pp\",\"negative_class\":2}", OK},
    {"{\"class_label\":7,\"guidance_method\":\"apg\",\"guidance_channels\":1}", NEEDS("guidance_channels", "guidance_method cfg,")},
    {"{\"class_label\":7,\"sampler\":\"ddim\",\"guidance_scale\":0.5,\"guidance_method\":\"cfg_pp\",\"guidance_rescale\":1}",
     NEEDS("guidance_rescale", "guidance_method cfg, apg or autoguidance")},
    /* What the engine says of a sampler with its options and steps. */
    {"{\"sampler\":\"ddpm\",\"variance_type\":\"learned_range\"}", API_UNSUPPORTED_OPTION, "/variance_type",
     "variance_type wants a learned variance, and this model has none"},
    {"{\"sampler\":\"edm_euler\",\"sigma_min\":10,\"sigma_max\":5}", API_INVALID_FIELD, "/sigma_min", "sigma_min must be below sigma_max"},
    {"{\"sampler\":\"ddim_inverse\"}", API_INVALID_FIELD, "/sampler", "sampler goes from a picture to its noise: it needs an init_image"},
    {"{\"sampler\":\"ddim_inverse\",\"init_image\":\"@GREY\"}", OK},
    {"{\"sampler\":\"ddim_inverse\",\"init_image\":\"@GREY\",\"strength\":0.5}", API_UNSUPPORTED_OPTION, "/strength",
     "strength has no place in a sampler that goes from a picture"},
    {"{\"sampler\":\"ddim_inverse\",\"init_image\":\"@GREY\",\"mask_image\":\"@GREY\"}", API_UNSUPPORTED_OPTION, "/mask_image",
     "mask_image has no place"},
    {"{\"sampler\":\"rk45\",\"init_image\":\"@GREY\"}", API_UNSUPPORTED_OPTION, "/init_image",
     "init_image has no place in a sampler that chooses"},
    {"{\"sampler\":\"dpmpp_2m\",\"init_image\":\"@GREY\",\"mask_image\":\"@GREY\",\"resample\":2}", API_UNSUPPORTED_OPTION, "/resample",
     "resample must be 1 with this sampler"},
    {"{\"sampler\":\"dpmpp_2m\",\"init_image\":\"@GREY\",\"mask_image\":\"@GREY\",\"resample\":1}", OK},
    /* guidance methods and what steers them */
    {"{\"class_label\":7,\"guidance_method\":\"cfg\"}", OK},
    {"{\"class_label\":7,\"guidance_method\":\"apg\",\"apg_eta\":0,\"apg_norm_threshold\":15,\"apg_momentum\":-0.5}", OK},
    {"{\"class_label\":7,\"guidance_sigma_min\":0.2,\"guidance_sigma_max\":5,\"guidance_rescale\":0.7}", OK},
    {"{\"model\":\"birds\",\"class_label\":0,\"guidance_scale\":2,\"guidance_channels\":3}", OK},
    {"{\"model\":\"birds\",\"class_label\":0,\"guidance_scale\":2,\"guidance_method\":\"autoguidance\"}", OK},
    {"{\"model\":\"birds\",\"class_label\":0,\"guidance_scale\":1,\"guidance_method\":\"classifier\",\"classifier_scale\":4}", OK},
    {"{\"class_label\":7,\"guidance_method\":\"autoguidance\"}", API_UNSUPPORTED_OPTION, "/guidance_method",
     "guidance_method autoguidance needs a model with a second, weaker network"},
    {"{\"class_label\":7,\"guidance_method\":\"classifier\"}", API_UNSUPPORTED_OPTION, "/guidance_method",
     "guidance_method classifier needs a model with a noise-aware classifier"},
    {"{\"class_label\":7,\"sampler\":\"dpmpp_2m\",\"guidance_method\":\"cfg_pp\"}", API_UNSUPPORTED_OPTION, "/guidance_method",
     "guidance_method cfg_pp is not defined for the sampler dpmpp_2m"},
    {"{\"class_label\":7,\"guidance_method\":\"magic\"}", API_INVALID_FIELD, "/guidance_method",
     "guidance_method must be cfg, cfg_pp, apg, autoguidance or classifier"},
    {"{\"class_label\":7,\"guidance_method\":0}", API_INVALID_FIELD, "/guidance_method", "guidance_method must be cfg"},
    {"{\"class_label\":7,\"guidance_rescale\":1.1}", API_INVALID_FIELD, "/guidance_rescale",
     "guidance_rescale must be a number from 0 to 1"},
    {"{\"class_label\":7,\"guidance_channels\":5}", API_INVALID_FIELD, "/guidance_channels",
     "guidance_channels must be an integer from 0 to 4"},
    {"{\"class_label\":7,\"guidance_channels\":1.0}", API_INVALID_FIELD, "/guidance_channels", "guidance_channels must be an integer"},
    {"{\"class_label\":7,\"classifier_scale\":1}", ODD_OPTION("classifier_scale")},
    {"{\"model\":\"birds\",\"class_label\":0,\"guidance_scale\":2,\"classifier_scale\":1}",
     NEEDS("classifier_scale", "guidance_method classifier")},
    {"{\"class_label\":7,\"apg_eta\":0}", NEEDS("apg_eta", "guidance_method apg")},
    {"{\"class_label\":7,\"guidance_method\":\"cfg\",\"apg_momentum\":0}", NEEDS("apg_momentum", "guidance_method apg")},
    {"{\"guidance_rescale\":0.5}", NEEDS("guidance_rescale", "a class_label to be guided to")},
    {"{\"guidance_method\":\"cfg\"}", NEEDS("guidance_method", "a class_label to be guided to")},
    {"{\"class_label\":7,\"guidance_scale\":1,\"guidance_sigma_max\":4}", NEEDS("guidance_sigma_max", "a guidance_scale other than 1")},
    {"{\"model\":\"plain\",\"guidance_rescale\":0.5}", ODD_OPTION("guidance_rescale")},
    {"{\"model\":\"bare\",\"class_label\":1,\"guidance_method\":\"cfg\"}", ODD_OPTION("guidance_method")},
    /* init_image, mask_image and what belongs to them */
    {"{\"init_image\":\"@GREY\"}", OK},
    {"{\"init_image\":\"@RGB\",\"strength\":0.5}", OK},
    {"{\"init_image\":\"@GREY\",\"mask_image\":\"@GREY\"}", OK},
    {"{\"sampler\":\"ddim\",\"init_image\":\"@GREY\",\"mask_image\":\"@RGB\",\"resample\":4,\"strength\":1}", OK},
    {"{\"model\":\"birds\",\"init_image\":\"@BIRD\"}", OK},
    {"{\"model\":\"plain\",\"init_image\":\"@SMALL\"}", OK},
    {"[{\"init_image\":\"@GREY\"},{\"init_image\":\"@RGB\",\"mask_image\":\"@GREY\"}]", OK},
    {"{\"init_image\":\"@SMALL\"}", API_INVALID_FIELD, "/init_image", "init_image must be 32 pixels wide and 32 high"},
    {"{\"model\":\"birds\",\"init_image\":\"@GREY\"}", API_INVALID_FIELD, "/init_image", "init_image must be 64 pixels wide and 48 high"},
    {"{\"init_image\":\"@WIDE\"}", API_INVALID_FIELD, "/init_image", "init_image must be 32 pixels wide and 32 high"},
    {"{\"init_image\":\"@ALPHA\"}", API_INVALID_FIELD, "/init_image", "init_image must be grey or RGB, without transparency"},
    {"{\"init_image\":\"@GREY\",\"mask_image\":\"@SMALL\"}", API_INVALID_FIELD, "/mask_image", "mask_image must be 32 pixels wide"},
    {"{\"init_image\":\"\"}", BASE64("init_image")},
    {"{\"init_image\":null}", BASE64("init_image")},
    {"{\"init_image\":7}", BASE64("init_image")},
    {"{\"init_image\":[\"@GREY\"]}", BASE64("init_image")},
    {"{\"init_image\":\"iVBO\\nRw0K\"}", BASE64("init_image")},
    {"{\"init_image\":\"data:image/png;base64,@GREY\"}", BASE64("init_image")},
    {"{\"init_image\":\"http://127.0.0.1/secret.png\"}", BASE64("init_image")},
    {"{\"init_image\":\"/etc/passwd\"}", BASE64("init_image")},
    {"{\"init_image\":\"iVBORw0KG\"}", BASE64("init_image")},
    {"{\"init_image\":\"iVBORw0KGgo=\"}", NO_PNG("init_image")},
    {"{\"init_image\":\"R0lGODlhAQABAAAAACw=\"}", NO_PNG("init_image")},
    {"{\"init_image\":\"/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAMCAgICAgMCAgIDAwMDBAYEBAQEBAgGBgUG\"}", NO_PNG("init_image")},
    {"{\"mask_image\":\"@GREY\"}", NEEDS("mask_image", "an init_image")},
    {"{\"strength\":0.5}", NEEDS("strength", "an init_image")},
    {"{\"init_image\":\"@GREY\",\"resample\":2}", NEEDS("resample", "a mask_image")},
    {"{\"init_image\":\"@GREY\",\"strength\":1.5}", API_INVALID_FIELD, "/strength", "strength must be a number from 0 to 1"},
    {"{\"init_image\":\"@GREY\",\"mask_image\":\"@GREY\",\"resample\":0}", API_INVALID_FIELD, "/resample",
     "resample must be an integer from 1 to 32"},
    {"{\"model\":\"bare\",\"class_label\":1,\"strength\":0.5}", ODD_OPTION("strength")},
    {"[{},{\"strength\":0.5}]", API_INVALID_FIELD, "/1/strength", "strength needs an init_image"},
    {"[{\"init_image\":\"@GREY\"},{\"init_image\":\"@SMALL\"}]", API_INVALID_FIELD, "/1/init_image", "init_image must be 32 pixels wide"},
    /* variation_seed */
    {"{\"variation_seed\":7,\"variation_strength\":0.1}", OK},
    {"{\"variation_seed\":\"18446744073709551615\",\"variation_strength\":1}", OK},
    {"{\"variation_seed\":0,\"variation_strength\":0}", OK},
    {"{\"variation_seed\":7}", NEEDS("variation_seed", "a variation_strength")},
    {"{\"variation_strength\":0.1}", NEEDS("variation_strength", "a variation_seed")},
    {"{\"variation_seed\":-1,\"variation_strength\":0.1}", API_INVALID_FIELD, "/variation_seed", "variation_seed must be an integer or"},
    {"{\"variation_seed\":1.5,\"variation_strength\":0.1}", API_INVALID_FIELD, "/variation_seed", "variation_seed must be an integer or"},
    {"{\"variation_seed\":null,\"variation_strength\":0.1}", API_INVALID_FIELD, "/variation_seed", "variation_seed must be an integer or"},
    {"{\"variation_seed\":7,\"variation_strength\":2}", API_INVALID_FIELD, "/variation_strength",
     "variation_strength must be a number from 0 to 1"},
};

/* ---- Pictures in bodies */

static unsigned char *picture(uint32_t width, uint32_t height, uint32_t channels, size_t *bytes)
{
    unsigned char *png = NULL;
    uint8_t *pixels = calloc((size_t)width * height, channels);
    if (!pixels || dn_png_encode(&png, bytes, pixels, width, height, channels, NULL, 0, NULL) != DN_OK) {
        abort();
    }
    free(pixels);
    return png;
}

static char *base64_of(const char *word)
{
    static const struct {
        const char *word;
        uint32_t width, height, channels;
    } pictures[] = {{"@GREY", 32, 32, 1},  {"@RGB", 32, 32, 3},  {"@ALPHA", 32, 32, 3},
                    {"@SMALL", 16, 16, 1}, {"@BIRD", 64, 48, 3}, {"@WIDE", 48, 32, 1}};
    size_t i = 0, bytes;
    while (strncmp(word, pictures[i].word, strlen(pictures[i].word)) != 0) {
        i++;
    }
    unsigned char *png = picture(pictures[i].width, pictures[i].height, pictures[i].channels, &bytes);
    if (i == 2) {
        png[25] = 6; /* RGB with alpha */
    }
    api_text text = API_TEXT_INIT;
    api_text_base64(&text, png, bytes);
    free(png);
    return api_text_take(&text);
}

/* The body with its pictures in, malloc'd. */
static char *filled(const char *body)
{
    api_text text = API_TEXT_INIT;
    const char *at;
    while ((at = strchr(body, '@')) != NULL) {
        char *base64 = base64_of(at);
        api_text_bytes(&text, body, (size_t)(at - body));
        api_text_add(&text, base64);
        free(base64);
        body = at + 1 + strspn(at + 1, "ABCDEFGHIJKLMNOPQRSTUVWXYZ");
    }
    api_text_add(&text, body);
    return api_text_take(&text);
}

static bool parse(api_request **out, size_t *count, const char *body, api_problem *problem)
{
    bool is_array;
    char *whole = filled(body);
    bool ok = api_parse_generate(out, count, &is_array, whole, strlen(whole), find_model, NULL, problem);
    free(whole);
    return ok;
}

static void every_row_is_answered_as_written(void)
{
    for (size_t i = 0; i < sizeof ROWS / sizeof ROWS[0]; i++) {
        api_request *requests = NULL;
        api_problem problem;
        size_t count = 0;
        bool ok = parse(&requests, &count, ROWS[i].body, &problem);
        free(requests);
        CHECK_MSG(ok == (ROWS[i].code == API_NONE) && problem.code == ROWS[i].code, "row %zu %s: %d %s", i, ROWS[i].body, (int)problem.code,
                  problem.detail);
        CHECK_MSG(strcmp(problem.field, ROWS[i].field) == 0, "row %zu %s: field %s", i, ROWS[i].body, problem.field);
        CHECK_MSG(strncmp(problem.detail, ROWS[i].detail, strlen(ROWS[i].detail)) == 0, "row %zu %s: %s", i, ROWS[i].body, problem.detail);
    }
}

/* CFG++ is for samplers that move by estimate and noise apart; a picture is sent, for samplers that want one. */
static void cfg_pp_is_for_samplers_that_renoise(void)
{
    const dn_sampler *sampler;
    train_fashion();
    for (uint32_t i = 0; (sampler = dn_sampler_at(i)) != NULL; i++) {
        char body[256];
        api_request *requests = NULL;
        api_problem problem;
        size_t count;
        if (!api_model_serves(&fashion, sampler)) {
            continue;
        }
        snprintf(body, sizeof body,
                 "{\"class_label\":7,\"sampler\":\"%s\",\"guidance_scale\":0.6,\"guidance_method\":\"cfg_pp\",\"init_image\":\"@GREY\"}",
                 sampler->name);
        bool ok = parse(&requests, &count, body, &problem);
        free(requests);
        CHECK_MSG(ok == sampler->renoises, "%s: %s", sampler->name, problem.detail);
        CHECK(ok || (problem.code == API_UNSUPPORTED_OPTION && strcmp(problem.field, "/guidance_method") == 0));
    }
}

static void values_arrive(void)
{
    api_request *r = NULL;
    api_problem problem;
    size_t count;
    CHECK(parse(
        &r, &count,
        "{\"class_mixture\":[{\"class_label\":\"tinca tinca\",\"weight\":0.25},{\"weight\":-1.5,\"class_label\":2}],\"model\":\"birds\","
        "\"negative_class\":1,\"guidance_scale\":3,\"variation_seed\":9007199254740993,\"variation_strength\":0.5}",
        &problem));
    bool classes = r->has_class && r->mixture_count == 2 && r->mixture[0].label.index == 0 &&
                   strcmp(r->mixture[0].label.name, "tench") == 0 && r->mixture[0].weight == 0.25 && r->mixture[1].label.index == 2 &&
                   r->mixture[1].weight == -1.5 && r->has_negative && r->negative.index == 1 && !r->class_name[0];
    bool seed = r->has_variation && r->variation_seed == UINT64_C(9007199254740993) && r->options.value[DN_OPT_VARIATION_STRENGTH] == 0.5;
    free(r);
    CHECK(classes && seed);
}

/* Pictures of an array lie one behind the other, each as it was sent. */
static void pictures_arrive_whole(void)
{
    api_request *r = NULL;
    api_problem problem;
    size_t count, bytes[3];
    unsigned char *sent[3] = {picture(32, 32, 3, &bytes[0]), picture(32, 32, 1, &bytes[1]), picture(16, 16, 1, &bytes[2])};
    CHECK(parse(&r, &count, "[{\"init_image\":\"@RGB\",\"mask_image\":\"@GREY\"},{},{\"model\":\"plain\",\"init_image\":\"@SMALL\"}]",
                &problem));
    const api_input_image *got[3] = {&r[0].init_image, &r[0].mask_image, &r[2].init_image};
    bool same = count == 3 && !r[1].init_image.sha256[0] && !r[1].init_image.bytes;
    for (int i = 0; i < 3; i++) {
        unsigned char digest[DN_SHA256_BYTES];
        char hex[DN_SHA256_HEX_BYTES];
        dn_sha256_of(digest, sent[i], bytes[i]);
        dn_sha256_hex(hex, digest);
        same = same && got[i]->byte_count == bytes[i] && memcmp(got[i]->bytes, sent[i], bytes[i]) == 0 && strcmp(got[i]->sha256, hex) == 0;
        free(sent[i]);
    }
    free(r);
    CHECK(same);
}

/* Only a body with a picture may be longer than others. */
static void a_picture_makes_room(void)
{
    char *base64 = base64_of("@GREY");
    size_t room = API_BODY_IMAGE_BYTES_MAX + 2, used = 0;
    char *body = malloc(room);
    api_request *r = NULL;
    api_problem problem;
    size_t count;
    bool is_array;
    CHECK(base64 && body);
    memset(body, ' ', room);
    used = (size_t)snprintf(body, room, "{\"init_image\":\"%s\"}", base64);
    body[used] = ' ';
    bool whole = api_parse_generate(&r, &count, &is_array, body, API_BODY_IMAGE_BYTES_MAX, find_model, NULL, &problem);
    if (whole) {
        free(r);
    }
    bool beyond = api_parse_generate(&r, &count, &is_array, body, API_BODY_IMAGE_BYTES_MAX + 1, find_model, NULL, &problem);
    bool too_large = problem.code == API_TOO_LARGE;
    free(body);
    free(base64);
    CHECK(whole && !beyond && too_large);
}

static void the_stored_form_round_trips(void)
{
    static const char *const bodies[] = {
        "{\"class_mixture\":[{\"class_label\":2,\"weight\":0.1},{\"class_label\":9,\"weight\":0.9}],\"negative_class\":\"Bag\"}",
        "{\"model\":\"birds\",\"class_mixture\":[{\"class_label\":\"\\u00e9toile\",\"weight\":1}]}",
        "{\"init_image\":\"@GREY\",\"mask_image\":\"@RGB\",\"strength\":0.3}",
        "{\"variation_seed\":\"18446744073709551615\",\"variation_strength\":0.25,\"class_label\":1}",
        "{\"class_label\":7,\"guidance_method\":\"apg\",\"apg_eta\":0.1,\"guidance_sigma_max\":3}",
    };
    for (size_t i = 0; i < sizeof bodies / sizeof bodies[0]; i++) {
        api_request *first = NULL, second;
        api_problem problem;
        size_t count;
        CHECK_MSG(parse(&first, &count, bodies[i], &problem), "%s: %s", bodies[i], problem.detail);
        char *json = api_request_json(first);
        bool read = json && api_request_from_json(&second, json, strlen(json));
        char *again = read ? api_request_json(&second) : NULL;
        bool same = again && strcmp(json, again) == 0 && !second.init_image.bytes && second.mixture_count == first->mixture_count &&
                    second.variation_seed == first->variation_seed && second.init_image.byte_count == first->init_image.byte_count;
        free(again);
        free(first);
        CHECK_MSG(same, "%s: %s", bodies[i], json);
        free(json);
    }
}

static void the_stored_form_is_the_wires(void)
{
    api_request *r = NULL;
    api_problem problem;
    size_t count;
    CHECK(
        parse(&r, &count,
              "{\"class_mixture\":[{\"class_label\":2,\"weight\":0.5},{\"class_label\":9,\"weight\":0.5}],\"negative_class\":5,\"seed\":42,"
              "\"guidance_rescale\":0.5,\"variation_seed\":8,\"variation_strength\":0.25}",
              &problem));
    char *json = api_request_json(r);
    free(r);
    static const char wanted[] =
        "{\"model\":\"fashion-mnist\",\"class_label\":null,\"class_name\":null,\"class_mixture\":[{\"class_label\":2,\"class_name\":"
        "\"Pullover\",\"weight\":0.5},{\"class_label\":9,\"class_name\":\"Ankle boot\",\"weight\":0.5}],\"negative_class\":5,"
        "\"negative_class_name\":\"Sandal\",\"guidance_scale\":2.0,\"steps\":20,\"sampler\":\"dpmpp_2m\",\"guidance_rescale\":0.5,"
        "\"variation_strength\":0.25,\"variation_seed\":\"8\",\"seed\":\"42\",\"n\":1,\"priority\":0}";
    CHECK_MSG(json && strcmp(json, wanted) == 0, "%s", json ? json : "");
    free(json);
}

static void a_damaged_stored_form_is_refused(void)
{
    static const char *const changes[][2] = {
        {"\"class_mixture\":[", "\"class_mixture\":[],\"x\":["},
        {"\"weight\":0.5}", "\"weight\":\"0.5\"}"},
        {"\"class_name\":\"Pullover\"", "\"class_nam\":\"Pullover\""},
        {"\"negative_class\":5", "\"negative_class\":-5"},
        {"\"variation_seed\":\"8\"", "\"variation_seed\":8"},
        {"\"bytes\":", "\"bytes\":0,\"x\":"},
        {"\"init_image\":{\"sha256\":\"", "\"init_image\":{\"sha256\":\"X"},
    };
    api_request *r = NULL;
    api_problem problem;
    size_t count;
    CHECK(parse(&r, &count,
                "{\"class_mixture\":[{\"class_label\":2,\"weight\":0.5}],\"negative_class\":5,\"seed\":42,\"variation_seed\":8,"
                "\"variation_strength\":0.25,\"init_image\":\"@GREY\"}",
                &problem));
    char *json = api_request_json(r);
    free(r);
    CHECK(json);
    for (size_t i = 0; i < sizeof changes / sizeof changes[0]; i++) {
        char changed[2048];
        api_request read;
        const char *at = strstr(json, changes[i][0]);
        CHECK_MSG(at, "row %zu", i);
        snprintf(changed, sizeof changed, "%.*s%s%s", (int)(at - json), json, changes[i][1], at + strlen(changes[i][0]));
        CHECK_MSG(!api_request_from_json(&read, changed, strlen(changed)), "%s", changed);
    }
    free(json);
}

static void cost_is_an_upper_bound_of_rows(void)
{
    static const struct {
        const char *body;
        uint64_t cost;
    } rows[] = {
        {"{\"class_mixture\":[{\"class_label\":7,\"weight\":1}],\"steps\":20,\"sampler\":\"ddim\"}", 40},
        {"{\"class_label\":7,\"init_image\":\"@GREY\",\"strength\":0.5,\"steps\":20,\"sampler\":\"ddim\"}", 20},
        {"{\"class_label\":7,\"init_image\":\"@GREY\",\"strength\":0,\"steps\":20,\"sampler\":\"ddim\"}", 2},
        {"{\"init_image\":\"@GREY\",\"mask_image\":\"@GREY\",\"resample\":5,\"steps\":20,\"sampler\":\"ddim\",\"n\":2}", 200},
        {"{\"model\":\"birds\",\"class_label\":0,\"guidance_scale\":2,\"guidance_method\":\"classifier\",\"steps\":10,\"sampler\":"
         "\"ddim\"}",
         30},
        {"{\"class_label\":7,\"guidance_sigma_max\":2,\"steps\":20,\"sampler\":\"ddim\"}", 40},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        api_request *r = NULL;
        api_problem problem;
        size_t count;
        CHECK_MSG(parse(&r, &count, rows[i].body, &problem), "%s: %s", rows[i].body, problem.detail);
        uint64_t cost = api_request_cost(r);
        free(r);
        CHECK_MSG(cost == rows[i].cost, "%s: %llu", rows[i].body, (unsigned long long)cost);
    }
}

static void base64_is_strict(void)
{
    static const struct {
        const char *text, *bytes; /* bytes NULL: refused */
    } rows[] = {{"TQ==", "M"},      {"TWE=", "Ma"}, {"TWFu", "Man"},  {"TWFuTQ==", "ManM"}, {"+/+/", "\xFB\xFF\xBF"}, {"", NULL},
                {"T", NULL},        {"TQ", NULL},   {"TQ=", NULL},    {"TR==", NULL},       {"TWF=", NULL},           {"=TQ=", NULL},
                {"TQ==TWFu", NULL}, {"TW-_", NULL}, {"TWFu\n", NULL}, {"TWE==", NULL},      {"====", NULL},           {"TW Fu", NULL}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        unsigned char out[16];
        size_t bytes = 0;
        bool ok = api_base64_decode(out, &bytes, rows[i].text, strlen(rows[i].text));
        CHECK_MSG(ok == (rows[i].bytes != NULL), "row %zu %s", i, rows[i].text);
        CHECK_MSG(!ok || (bytes == strlen(rows[i].bytes) && memcmp(out, rows[i].bytes, bytes) == 0), "row %zu", i);
    }
}

int main(void)
{
    RUN(every_row_is_answered_as_written);
    RUN(cfg_pp_is_for_samplers_that_renoise);
    RUN(values_arrive);
    RUN(pictures_arrive_whole);
    RUN(a_picture_makes_room);
    RUN(the_stored_form_round_trips);
    RUN(the_stored_form_is_the_wires);
    RUN(a_damaged_stored_form_is_refused);
    RUN(cost_is_an_upper_bound_of_rows);
    RUN(base64_is_strict);
    return test_end();
}

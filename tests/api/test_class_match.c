/* Which class a prompt names: prompts with their exact answers. */
#include "api/class_match.h"
#include "api/limits.h"
#include "tests/api/models.h"
#include "tests/test.h"

#define NONE "prompt names no class of this model"
#define SEVERAL "prompt names several classes: send one of "

static const struct {
    const char *model, *prompt;
    int index; /* -1: refused, with detail */
    const char *detail; /* a part of it */
} ROWS[] = {
    /* The class and nothing else. */
    {"fashion-mnist", "Sneaker", 7, ""},
    {"fashion-mnist", "sNEAKER", 7, ""},
    {"fashion-mnist", "  sneaker.\n", 7, ""},
    {"fashion-mnist", "Ankle boot", 9, ""},
    {"fashion-mnist", "ankle   BOOT", 9, ""},
    {"fashion-mnist", "ankle-boot", 9, ""},
    {"fashion-mnist", "ankle_boot", 9, ""},
    {"fashion-mnist", "(sneaker:1.2), [masterpiece]", 7, ""},
    /* Prompts as people write them. */
    {"fashion-mnist", "a sneaker", 7, ""},
    {"fashion-mnist", "A photo of an ankle boot", 9, ""},
    {"fashion-mnist", "a high quality photograph of the bag, on a white background", 8, ""},
    {"fashion-mnist", "a bright red bag for my cousin", 8, ""},
    {"fashion-mnist", "an ankle boot beside another ankle boot", 9, ""},
    /* A plural is its class, whichever side has it. */
    {"fashion-mnist", "three sneakers", 7, ""},
    {"fashion-mnist", "trousers", 1, ""},
    {"fashion-mnist", "dresses", 3, ""},
    {"fashion-mnist", "ankle boots", 9, ""},
    {"fashion-mnist", "dres", -1, NONE "; the nearest are \"Dress\" (class:3), "},
    {"plural", "sunglass", 0, ""},
    {"plural", "sunglasses", 1, ""},
    {"plural", "some dark glasses", 1, ""},
    {"plural", "boxes", 2, ""},
    {"plural", "brushes", 3, ""},
    {"plural", "a bus", 4, ""},
    /* Whole words only, and the longest. */
    {"fashion-mnist", "shirt", 6, ""},
    {"fashion-mnist", "a t-shirt", 0, ""},
    {"fashion-mnist", "T shirt", 0, ""},
    {"fashion-mnist", "T-shirt/top", 0, ""},
    {"fashion-mnist", "a top", 0, ""},
    {"fashion-mnist", "a tshirt", -1, NONE "; the nearest are \"T-shirt/top\" (class:0), "},
    {"fashion-mnist", "coatrack", -1, NONE "; the nearest are \"Coat\" (class:4)"},
    {"fashion-mnist", "a sweat-shirt", -1, NONE},
    {"fashion-mnist", "a bag-like thing", -1, NONE},
    {"plural", "white wolf", 5, ""},
    {"plural", "a wolf", 6, ""},
    {"plural", "a white wolf, one wolf", -1, SEVERAL "\"white wolf\" (class:5) or \"wolf\" (class:6)"},
    /* What every prompt has names no class, but alone. */
    {"plural", "a picture of a bus", 4, ""},
    {"plural", "picture", 7, ""},
    {"plural", "a picture", -1, NONE},
    /* By number, and a number alone is none. */
    {"fashion-mnist", "class:7", 7, ""},
    {"fashion-mnist", " Class: 7 ", 7, ""},
    {"fashion-mnist", "class:0", 0, ""},
    {"fashion-mnist", "class:0009", 9, ""},
    {"fashion-mnist", "class:Ankle boot", 9, ""},
    {"fashion-mnist", "class: sneaker", 7, ""},
    {"fashion-mnist", "class:10", -1, "prompt must name a class from class:0 to class:9"},
    {"fashion-mnist", "class:99999999999999999999999", -1, "prompt must name a class from class:0 to class:9"},
    {"fashion-mnist", "class:18446744073709551623", -1, "prompt must name a class from class:0 to class:9"},
    {"fashion-mnist", "class:4294967303", -1, "prompt must name a class from class:0 to class:9"},
    {"fashion-mnist", "class:", -1, NONE "; GET /models/fashion-mnist has all, by name or as class:N"},
    {"fashion-mnist", "class:-1", -1, NONE},
    {"fashion-mnist", "class:7.5", -1, NONE},
    {"fashion-mnist", "7", -1, NONE},
    {"birds", "7", 4, ""},
    /* Nobody's, and several's. */
    {"fashion-mnist", "", -1, NONE "; GET /models/fashion-mnist has all, by name or as class:N"},
    {"fashion-mnist", "a photo of the", -1, NONE "; GET /models"},
    {"fashion-mnist", "a sneeker", -1, NONE "; the nearest are \"Sneaker\" (class:7), "},
    {"fashion-mnist", "a photo of a boot", -1, NONE "; the nearest are \"Ankle boot\" (class:9), "},
    {"fashion-mnist", "red boots", -1, NONE "; the nearest are \"Ankle boot\" (class:9), "},
    {"fashion-mnist", "a pulover and jeans", -1, NONE "; the nearest are \"Pullover\" (class:2), "},
    {"fashion-mnist", "a sneaker and a bag", -1, SEVERAL "\"Sneaker\" (class:7) or \"Bag\" (class:8)"},
    {"fashion-mnist", "coat dress bag shirt sandal sneaker", -1,
     SEVERAL "\"Dress\" (class:3), \"Coat\" (class:4), \"Sandal\" (class:5), "
             "\"Shirt\" (class:6), \"Sneaker\" (class:7), ..."},
    {"birds", "a crane", -1, SEVERAL "\"crane\" (class:1) or \"crane\" (class:3)"},
    {"birds", "lifting gear", 3, ""},
    {"birds", "the crane is lifting gear", -1, SEVERAL},
    {"birds", "Tinca tinca", 0, ""},
    {"birds", "une \xC3\xA9toile", 5, ""},
    {"birds", "\xC3\xA9toil", -1, NONE "; the nearest are \"\xC3\xA9toile\" (class:5)"},
    {"plain", "a cat", -1, NONE "; GET /models/plain has all"},
    {"plain", "class:0", -1, "prompt names a class, and this model has none"},
};

static char *plural_names[] = {"sunglass", "sunglasses, dark glasses, shades", "box", "brush", "bus", "white wolf", "wolf", "picture"};
static const api_model plural = {.name = "plural", .class_count = 8, .class_names = plural_names};

static void prompts_name_classes(void)
{
    for (size_t i = 0; i < sizeof ROWS / sizeof ROWS[0]; i++) {
        api_problem problem = {0};
        uint32_t index = 12345;
        const api_model *model = strcmp(ROWS[i].model, "plural") == 0 ? &plural : find_model(NULL, ROWS[i].model);
        const bool found = api_match_class(&index, model, ROWS[i].prompt, "/prompt", &problem);
        CHECK_MSG(found == (ROWS[i].index >= 0), "\"%s\": %s", ROWS[i].prompt, found ? "found" : problem.detail);
        CHECK_MSG(!found || index == (uint32_t)ROWS[i].index, "\"%s\": class %u", ROWS[i].prompt, index);
        CHECK_MSG(found || strncmp(problem.detail, ROWS[i].detail, strlen(ROWS[i].detail)) == 0, "\"%s\": %s", ROWS[i].prompt,
                  problem.detail);
        CHECK_MSG(found || strcmp(problem.field, "/prompt") == 0, "\"%s\": at %s", ROWS[i].prompt, problem.field);
    }
}

static void a_prompt_is_never_repeated(void)
{
    api_problem problem = {0};
    uint32_t index;
    CHECK(!api_match_class(&index, &fashion, "zzsecretzz and qqsecretqq", "negative_prompt", &problem));
    CHECK(strstr(problem.detail, "secret") == NULL && strcmp(problem.field, "negative_prompt") == 0);
    CHECK(strncmp(problem.detail, "negative_prompt names no class", 30) == 0);
}

static void long_prompts_have_a_limit_and_an_end(void)
{
    static char prompt[API_PROMPT_BYTES_MAX + 2];
    api_problem problem = {0};
    uint32_t index = 0;
    memset(prompt, 'x', sizeof prompt - 1);
    CHECK(!api_match_class(&index, &fashion, prompt, "/prompt", &problem));
    CHECK(strcmp(problem.detail, "prompt must have at most 4000 bytes") == 0);
    prompt[API_PROMPT_BYTES_MAX] = '\0';
    CHECK(!api_match_class(&index, &fashion, prompt, "/prompt", &problem) && strncmp(problem.detail, NONE, strlen(NONE)) == 0);
    memcpy(prompt + API_PROMPT_BYTES_MAX - 8, " sneaker", 8);
    CHECK(api_match_class(&index, &fashion, prompt, "/prompt", &problem) && index == 7);
    for (size_t i = 0; i + 4 <= API_PROMPT_BYTES_MAX; i += 4) {
        memcpy(prompt + i, "bag ", 4); /* a thousand times the same */
    }
    CHECK(api_match_class(&index, &fashion, prompt, "/prompt", &problem) && index == 8);
}

static void blank_prompts(void)
{
    CHECK(api_prompt_is_blank("") && api_prompt_is_blank(" \t\r\n") && !api_prompt_is_blank(" . "));
}

int main(void)
{
    RUN(prompts_name_classes);
    RUN(a_prompt_is_never_repeated);
    RUN(long_prompts_have_a_limit_and_an_end);
    RUN(blank_prompts);
    return test_end();
}

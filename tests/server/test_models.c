/* The registry of models: names are checked, the first is the default, old descriptions stay readable. */
#include "server/models.h"

#include "tests/test.h"

static api_model *describe(const char *name, uint32_t classes)
{
    api_model *model = calloc(1, sizeof *model);
    snprintf(model->name, sizeof model->name, "%s", name);
    model->class_count = classes;
    model->class_names = calloc(classes, sizeof(char *));
    for (uint32_t i = 0; i < classes; i++)
        model->class_names[i] = strdup("Sneaker");
    return model;
}

static void names_are_checked(void)
{
    models *m = NULL;
    dn_error error;
    CHECK_OK(models_create(&m, &error), error);
    CHECK_OK(models_add(m, "a-b_c.9", "/nowhere", &error), error);
    CHECK(models_add(m, "a-b_c.9", "/nowhere", &error) == DN_INVALID);
    CHECK(models_add(m, "", "/nowhere", &error) == DN_INVALID);
    CHECK(models_add(m, "a/b", "/nowhere", &error) == DN_INVALID);
    CHECK(models_count(m) == 1 && strcmp(models_name(m, 0), "a-b_c.9") == 0 && strcmp(models_folder(m, 0), "/nowhere") == 0);
    CHECK(!models_name(m, 1) && !models_folder(m, 1));
    CHECK(models_known(m, "a-b_c.9") && !models_known(m, "x"));
    models_free(m);
}

static void descriptions_stay(void)
{
    models *m = NULL;
    dn_error error;
    CHECK_OK(models_create(&m, &error), error);
    CHECK(!models_lookup(m, NULL));
    CHECK_OK(models_add(m, "one", "/1", &error), error);
    CHECK_OK(models_add(m, "two", "/2", &error), error);
    CHECK(!models_lookup(m, "one"));
    models_describe(m, describe("two", 2));
    models_describe(m, describe("one", 1));
    models_describe(m, describe("three", 1));
    const api_model *first = models_lookup(m, NULL);
    CHECK(first && first->class_count == 1 && models_lookup(m, "two")->class_count == 2 && !models_lookup(m, "three"));
    models_describe(m, describe("one", 5));
    CHECK(models_lookup(m, "one")->class_count == 5 && first->class_count == 1);
    models_free(m);
}

/* A model that is put out of memory and loaded again every few seconds must not leave a description behind each time. */
static void the_same_description_is_kept_once(void)
{
    models *m = NULL;
    dn_error error;
    CHECK_OK(models_create(&m, &error), error);
    CHECK_OK(models_add(m, "one", "/1", &error), error);
    CHECK(models_describe(m, describe("one", 3)));
    const api_model *first = models_lookup(m, "one");
    CHECK(!models_describe(m, describe("one", 3)) && models_lookup(m, "one") == first);
    CHECK(models_describe(m, describe("one", 4)) && models_lookup(m, "one") != first);
    CHECK(!models_describe(m, describe("other", 3)));
    models_free(m);
}

static void states_carry_their_cause(void)
{
    models *m = NULL;
    dn_error error;
    CHECK_OK(models_create(&m, &error), error);
    CHECK_OK(models_add(m, "one", "/1", &error), error);
    char cause[64];
    CHECK(models_state(m, "one", cause, sizeof cause) == MODEL_UNLOADED && cause[0] == 0);
    models_set_state(m, "one", MODEL_FAILED, "config.json is missing");
    CHECK(models_state(m, "one", cause, sizeof cause) == MODEL_FAILED && strcmp(cause, "config.json is missing") == 0);
    models_set_state(m, "one", MODEL_READY, NULL);
    CHECK(models_state(m, "one", cause, sizeof cause) == MODEL_READY && cause[0] == 0);
    CHECK(strcmp(models_state_name(MODEL_LOADING), "loading") == 0);
    models_free(m);
}

int main(void)
{
    RUN(names_are_checked);
    RUN(descriptions_stay);
    RUN(the_same_description_is_kept_once);
    RUN(states_carry_their_cause);
    return test_end();
}

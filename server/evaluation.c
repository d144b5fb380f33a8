/* The evaluation's table and its JSON file. Owns nothing beyond a call. One thread. */
#include "server/evaluation.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"

static const char *class_name(const dn_engine *engine, uint32_t index)
{
    return index < engine->folder->class_count ? engine->folder->class_names[index] : "?";
}

static void print_reference(const char *what, const evaluation_distance *distance, bool neighbours)
{
    printf("%-34s %8.3f", what, distance->frechet);
    if (neighbours)
        printf("  %9.3f %6.3f", distance->precision_recall.precision, distance->precision_recall.recall);
    printf("\n");
}

static void print_classes(const evaluation *e)
{
    printf("\nagreement by class\n%-14s", "");
    for (uint32_t s = 0; s < e->setting_count; s++)
        printf("  s=%-3g %3u", e->settings[s].guidance_scale, e->settings[s].steps);
    printf("  real test\n");
    for (uint32_t c = 0; c < e->classifier.class_count; c++) {
        printf("%-14.14s", class_name(e->engine, c));
        for (uint32_t s = 0; s < e->setting_count; s++)
            printf("  %8.1f%%", 100.0 * e->settings[s].agreement.per_class[c]);
        printf("  %8.1f%%\n", 100.0 * e->classifier.per_class[c]);
    }
}

void evaluation_print(const evaluation *e)
{
    char subset[64];
    snprintf(subset, sizeof subset, "%u real training pictures", e->train_subset.count);
    printf("classifier: %.2f %% right on the real test split\n\n", 100.0 * e->classifier.overall);
    printf("%-34s %8s  %9s %6s\n", "against the real test split", "Frechet", "precision", "recall");
    print_reference("all real training pictures", &e->train, false);
    print_reference(subset, &e->train_subset, true);
    for (uint32_t s = 0; s < e->setting_count; s++) {
        char name[64];
        snprintf(name, sizeof name, "%s s=%g, %u steps", e->sampler, e->settings[s].guidance_scale, e->settings[s].steps);
        print_reference(name, &e->settings[s].distance, true);
    }
    printf("\n%-34s %9s  %s\n", "what was asked for, as judged", "agreement", "worst class");
    for (uint32_t s = 0; s < e->setting_count; s++) {
        const evaluation_setting *setting = &e->settings[s];
        char name[64];
        snprintf(name, sizeof name, "%s s=%g, %u steps", e->sampler, setting->guidance_scale, setting->steps);
        printf("%-34s %8.1f%%  %s %.1f%%\n", name, 100.0 * setting->agreement.overall, class_name(e->engine, setting->agreement.worst),
               100.0 * setting->agreement.per_class[setting->agreement.worst]);
    }
    print_classes(e);
}

static cJSON *distance_json(const evaluation_distance *distance, bool neighbours)
{
    cJSON *json = cJSON_CreateObject();
    cJSON_AddNumberToObject(json, "pictures", distance->count);
    cJSON_AddNumberToObject(json, "frechet", distance->frechet);
    if (neighbours) {
        cJSON_AddNumberToObject(json, "precision", distance->precision_recall.precision);
        cJSON_AddNumberToObject(json, "recall", distance->precision_recall.recall);
    }
    return json;
}

static cJSON *agreement_json(const evaluation *e, const dn_agreement *agreement)
{
    cJSON *json = cJSON_CreateObject();
    cJSON_AddNumberToObject(json, "overall", agreement->overall);
    cJSON_AddStringToObject(json, "worst_class", class_name(e->engine, agreement->worst));
    cJSON_AddNumberToObject(json, "worst", agreement->per_class[agreement->worst]);
    cJSON *classes = cJSON_AddArrayToObject(json, "per_class");
    for (uint32_t c = 0; c < agreement->class_count; c++)
        cJSON_AddItemToArray(classes, isnan(agreement->per_class[c]) ? cJSON_CreateNull() : cJSON_CreateNumber(agreement->per_class[c]));
    return json;
}

/* Whatever runs out of memory is missing from the file; the text itself is checked. */
static cJSON *evaluation_json(const evaluation *e)
{
    cJSON *json = cJSON_CreateObject(), *model = cJSON_AddObjectToObject(json, "model");
    cJSON_AddStringToObject(model, "sha256", e->engine->model->weights_sha256);
    cJSON_AddStringToObject(model, "build", e->engine->build);
    cJSON_AddStringToObject(json, "sampler", e->sampler);
    cJSON_AddNumberToObject(json, "per_class", e->per_class);
    cJSON_AddNumberToObject(json, "seed", (double)e->seed);
    cJSON *classifier = cJSON_AddObjectToObject(json, "classifier");
    if (e->classifier_sha256[0])
        cJSON_AddStringToObject(classifier, "sha256", e->classifier_sha256);
    cJSON_AddItemToObject(classifier, "real_test", agreement_json(e, &e->classifier));
    cJSON_AddItemToObject(json, "real_train", distance_json(&e->train, false));
    cJSON_AddItemToObject(json, "real_train_subset", distance_json(&e->train_subset, true));
    cJSON *settings = cJSON_AddArrayToObject(json, "settings");
    for (uint32_t s = 0; s < e->setting_count; s++) {
        const evaluation_setting *setting = &e->settings[s];
        cJSON *item = cJSON_CreateObject();
        cJSON_AddNumberToObject(item, "guidance_scale", setting->guidance_scale);
        cJSON_AddNumberToObject(item, "steps", setting->steps);
        cJSON_AddNumberToObject(item, "seconds", setting->seconds);
        cJSON_AddItemToObject(item, "agreement", agreement_json(e, &setting->agreement));
        cJSON_AddItemToObject(item, "against_real_test", distance_json(&setting->distance, true));
        cJSON_AddItemToArray(settings, item);
    }
    return json;
}

dn_status evaluation_save(const evaluation *e, const char *path, dn_error *error)
{
    cJSON *json = evaluation_json(e);
    char *text = cJSON_Print(json);
    cJSON_Delete(json);
    if (text == NULL)
        return dn_fail(error, DN_NO_MEMORY, "%s: out of memory", path);
    dn_status status = dn_file_write(path, text, strlen(text), false, error);
    cJSON_free(text);
    return status;
}

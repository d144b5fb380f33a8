/* Facts about the processor, read from the kernel and measured, as text and as JSON. Owns nothing past its call. One thread. */
#include "server/inspect_cpu.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "api/text.h"
#include "backend/backend.h"
#include "backend/cpu/isa.h"
#include "backend/cpu/speed.h"
#include "base/thread_pool.h"

#define CACHES_MAX 8
#define WORD_BYTES 64
#define MODEL_BYTES 128
#define FEATURES_BYTES 512

typedef struct cache {
    char level[WORD_BYTES], type[WORD_BYTES], size[WORD_BYTES];
} cache;

typedef struct cpu_facts {
    char model[MODEL_BYTES], machine[WORD_BYTES];
    char features[FEATURES_BYTES]; /* those that kernels exist for, or may one day */
    cache caches[CACHES_MAX];
    unsigned cache_count;
    unsigned online, affinity, threads; /* CPUs, those this process may use, the pool's size */
    const dn_cpu_kernels *kernels;
    const char *why;
    bool precisions[DN_PRECISIONS];
    dn_cpu_speed speed;
} cpu_facts;

/* ---- What the kernel says */

/* The value of a line "name : value". False: it is not of that name. */
static bool value_of(const char **out, const char *line, const char *name)
{
    size_t length = strlen(name);
    if (strncmp(line, name, length) != 0 || strspn(line + length, "\t :") == 0)
        return false;
    *out = line + length + strspn(line + length, "\t :");
    return true;
}

/* The features that matter, in the kernel's order. */
static void keep_features(char *out, size_t capacity, char *flags)
{
    static const char *const known[] = {"sse2",     "avx2",     "fma",         "f16c",        "avx512f",     "avx512dq",
                                        "avx512bw", "avx512vl", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile",
                                        "asimd",    "asimdhp",  "bf16",        "sve"};
    char *rest = NULL;
    size_t used = 0;
    for (char *flag = strtok_r(flags, " \n", &rest); flag; flag = strtok_r(NULL, " \n", &rest))
        for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
            if (strcmp(flag, known[i]) == 0 && used + strlen(flag) + 2 < capacity)
                used += (size_t)snprintf(out + used, capacity - used, "%s%s", used ? " " : "", flag);
}

static void read_cpuinfo(cpu_facts *f)
{
    FILE *file = fopen("/proc/cpuinfo", "re");
    char *line = NULL;
    size_t capacity = 0;
    while (file && getline(&line, &capacity, file) > 0) {
        const char *value;
        if (f->model[0] == '\0' && value_of(&value, line, "model name"))
            snprintf(f->model, sizeof f->model, "%.*s", (int)strcspn(value, "\n"), value);
        if (f->features[0] == '\0' && (value_of(&value, line, "flags") || value_of(&value, line, "Features")))
            keep_features(f->features, sizeof f->features, line + (value - line));
    }
    free(line);
    if (file)
        fclose(file);
}

static bool read_word(char *out, unsigned index, const char *name)
{
    char path[128];
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu0/cache/index%u/%s", index, name);
    FILE *file = fopen(path, "re");
    bool got = file && fgets(out, WORD_BYTES, file);
    if (file)
        fclose(file);
    if (got)
        out[strcspn(out, "\n")] = '\0';
    return got;
}

static void read_caches(cpu_facts *f)
{
    for (unsigned i = 0; i < CACHES_MAX; i++) {
        cache *c = &f->caches[f->cache_count];
        if (read_word(c->level, i, "level") && read_word(c->type, i, "type") && read_word(c->size, i, "size"))
            f->cache_count++;
    }
}

/* ---- What the program makes of it */

static dn_status choose(cpu_facts *f, unsigned threads, dn_error *error)
{
    const char *forced = getenv("DENOISED_ISA");
    dn_status status = dn_cpu_choose(&f->kernels, NULL, error);
    if (status != DN_OK)
        return status;
    f->why = forced && forced[0] ? "DENOISED_ISA says so" : "the best that this CPU runs";
    f->threads = threads ? threads : dn_available_cpus();
    dn_device *device = NULL;
    const dn_backend *backend = dn_backend_cpu();
    status = backend->device_open(&device, &(dn_device_options){.threads = 1}, error);
    for (int p = 0; status == DN_OK && p < DN_PRECISIONS; p++)
        f->precisions[p] = backend->precision_check(device, (dn_precision)p, NULL) == DN_OK;
    backend->device_close(device);
    return status == DN_OK ? dn_cpu_measure(&f->speed, f->kernels, f->threads, error) : status;
}

static dn_status gather(cpu_facts *f, unsigned threads, dn_error *error)
{
    struct utsname names;
    cpu_set_t mask;
    read_cpuinfo(f);
    read_caches(f);
    snprintf(f->machine, sizeof f->machine, "%.60s", uname(&names) == 0 ? names.machine : "unknown");
    if (f->model[0] == '\0')
        snprintf(f->model, sizeof f->model, "a processor that does not say its name");
    f->online = (unsigned)sysconf(_SC_NPROCESSORS_ONLN);
    f->affinity = sched_getaffinity(0, sizeof mask, &mask) == 0 ? (unsigned)CPU_COUNT(&mask) : f->online;
    return choose(f, threads, error);
}

/* ---- Print */

static void print_text(const cpu_facts *f)
{
    size_t count = 0;
    const dn_cpu_isa *isas = dn_cpu_isas(&count);
    printf("cpu           %s (%s)\n", f->model, f->machine);
    printf("features      %s\n", f->features[0] ? f->features : "none that kernels exist for");
    printf("caches       ");
    for (unsigned i = 0; i < f->cache_count; i++)
        printf(" L%s %s %s%s", f->caches[i].level, f->caches[i].type, f->caches[i].size, i + 1 < f->cache_count ? "," : "");
    printf("%s\n", f->cache_count ? "" : " not told");
    printf("kernels       %s: %s\n", f->kernels->isa, f->why);
    for (size_t i = 0; i < count; i++)
        printf("              %-8s %s (needs %s)\n", isas[i].kernels->isa, isas[i].runs() ? "runs here" : "does not run here",
               isas[i].needs[0] ? isas[i].needs : "nothing");
    printf("table         %zu floats a vector, products in tiles of %zu x %zu\n", f->kernels->lanes, f->kernels->tile_rows,
           f->kernels->panel);
    printf("precisions   ");
    for (int p = 0; p < DN_PRECISIONS; p++)
        if (f->precisions[p])
            printf(" %s", dn_precision_name((dn_precision)p));
    printf("\nthreads       %u; %u CPUs online, %u of them for this process, %u after its quota\n", f->threads, f->online, f->affinity,
           dn_available_cpus());
    printf("peak          %.1f GFLOP/s of one core, %.1f of %u threads (multiply-adds, F32)\n", f->speed.core_flops * 1e-9,
           f->speed.all_flops * 1e-9, f->threads);
    printf("memory        read at %.1f GB/s by one core, %.1f by %u threads\n", f->speed.core_bytes * 1e-9, f->speed.all_bytes * 1e-9,
           f->threads);
}

static void add_named(api_text *text, const char *name, const char *value)
{
    api_text_format(text, "\"%s\":", name);
    api_text_string(text, value);
}

static void add_sets(api_text *text, const cpu_facts *f)
{
    size_t count = 0;
    const dn_cpu_isa *isas = dn_cpu_isas(&count);
    api_text_add(text, ",\"instruction_sets\":[");
    for (size_t i = 0; i < count; i++) {
        api_text_add(text, i ? ",{" : "{");
        add_named(text, "name", isas[i].kernels->isa);
        api_text_add(text, ",");
        add_named(text, "needs", isas[i].needs);
        api_text_add(text, isas[i].runs() ? ",\"runs\":true}" : ",\"runs\":false}");
    }
    api_text_add(text, "],\"precisions\":[");
    const char *between = "";
    for (int p = 0; p < DN_PRECISIONS; p++)
        if (f->precisions[p]) {
            api_text_add(text, between);
            api_text_string(text, dn_precision_name((dn_precision)p));
            between = ",";
        }
}

static char *write_json(const cpu_facts *f)
{
    api_text text = API_TEXT_INIT;
    api_text_add(&text, "{");
    add_named(&text, "cpu", f->model);
    api_text_add(&text, ",");
    add_named(&text, "machine", f->machine);
    api_text_add(&text, ",");
    add_named(&text, "features", f->features);
    api_text_add(&text, ",\"caches\":[");
    for (unsigned i = 0; i < f->cache_count; i++) {
        api_text_add(&text, i ? ",{" : "{");
        add_named(&text, "level", f->caches[i].level);
        api_text_add(&text, ",");
        add_named(&text, "type", f->caches[i].type);
        api_text_add(&text, ",");
        add_named(&text, "size", f->caches[i].size);
        api_text_add(&text, "}");
    }
    api_text_add(&text, "],");
    add_named(&text, "instruction_set", f->kernels->isa);
    api_text_add(&text, ",");
    add_named(&text, "why", f->why);
    add_sets(&text, f);
    api_text_format(&text, "],\"table\":{\"lanes\":%zu,\"tile_rows\":%zu,\"tile_columns\":%zu}", f->kernels->lanes, f->kernels->tile_rows,
                    f->kernels->panel);
    api_text_format(&text, ",\"threads\":%u,\"cpus\":{\"online\":%u,\"affinity\":%u,\"available\":%u}", f->threads, f->online, f->affinity,
                    dn_available_cpus());
    api_text_format(&text, ",\"peak_gflops\":{\"core\":%.1f,\"all\":%.1f},\"memory_gbytes\":{\"core\":%.1f,\"all\":%.1f}}",
                    f->speed.core_flops * 1e-9, f->speed.all_flops * 1e-9, f->speed.core_bytes * 1e-9, f->speed.all_bytes * 1e-9);
    return api_text_take(&text);
}

dn_status inspect_cpu(unsigned threads, bool json, dn_error *error)
{
    cpu_facts facts = {.model = ""};
    dn_status status = gather(&facts, threads, error);
    if (status != DN_OK)
        return status;
    if (!json) {
        print_text(&facts);
        return DN_OK;
    }
    char *text = write_json(&facts);
    if (!text)
        return dn_fail(error, DN_NO_MEMORY, "out of memory");
    puts(text);
    free(text);
    return DN_OK;
}

/* What the card is and what it can do at most: its properties as cuDNN takes them, versions, copies, and products as the back end has them
 * made (libraries.h), a large one first and then those of DiT-XL/2 and a U-Net by batch. Linked with the back end's parts, for a GPU and over
 * the emulated one.
 *
 *     gpu_card [--side 8192] [--megabytes 4096] [--runs 30] [--rows 2,64] [--cache FOLDER]
 *
 * Clocks and settings of the card are left as they are. Sums of products lie in cuBLASLt and cuDNN: nothing here checks them. */
#include <cuda_runtime_api.h>

#include "backend/cuda/libraries.h"
#include "tests/gpu/gpu.h"

#define RUNS_MAX 200
#define ROWS_MAX 8

static void die(const char *what, cudaError_t code)
{
    gpu_check("card", false, "%s: %s", what, cudaGetErrorString(code));
    exit(1);
}

static void need(cudaError_t code, const char *what)
{
    if (code != cudaSuccess)
        die(what, code);
}

static int attribute(enum cudaDeviceAttr which)
{
    int value = 0;
    return cudaDeviceGetAttribute(&value, which, 0) == cudaSuccess ? value : 0;
}

/* The 23 members that cuDNN's device properties have. */
static void properties(void)
{
    struct cudaDeviceProp p;
    int driver = 0, runtime = 0;
    need(cudaGetDeviceProperties(&p, 0), "the card's properties");
    need(cudaDriverGetVersion(&driver), "the driver's version");
    need(cudaRuntimeGetVersion(&runtime), "the runtime's version");
    cJSON *line = gpu_figure("card", p.multiProcessorCount, "multiprocessors");
    cJSON_AddNumberToObject(line, "driver", driver);
    cJSON_AddNumberToObject(line, "runtime", runtime);
    cJSON *cudnn = cJSON_AddObjectToObject(line, "device_properties");
    cJSON_AddNumberToObject(cudnn, "cudaDeviceId", 0);
    cJSON_AddNumberToObject(cudnn, "deviceVer", 100 * p.major + 10 * p.minor);
    cJSON_AddNumberToObject(cudnn, "driverVer", driver);
    cJSON_AddNumberToObject(cudnn, "totalGlobalMem", (double)p.totalGlobalMem);
    cJSON_AddItemToObject(cudnn, "maxGridSize", cJSON_CreateIntArray(p.maxGridSize, 3));
    cJSON_AddItemToObject(cudnn, "maxBlockSize", cJSON_CreateIntArray(p.maxThreadsDim, 3));
    cJSON_AddNumberToObject(cudnn, "regsPerBlock", p.regsPerBlock);
    cJSON_AddNumberToObject(cudnn, "multiProcessorCount", p.multiProcessorCount);
    cJSON_AddNumberToObject(cudnn, "warpSize", p.warpSize);
    cJSON_AddNumberToObject(cudnn, "maxSharedMemoryPerBlock", (double)p.sharedMemPerBlock);
    cJSON_AddNumberToObject(cudnn, "maxSharedMemoryPerBlockOptin", (double)p.sharedMemPerBlockOptin);
    cJSON_AddNumberToObject(cudnn, "reservedSharedMemoryPerBlock", (double)p.reservedSharedMemPerBlock);
    cJSON_AddNumberToObject(cudnn, "maxRegistersPerSM", p.regsPerMultiprocessor);
    cJSON_AddNumberToObject(cudnn, "maxCtasPerSM", p.maxBlocksPerMultiProcessor);
    cJSON_AddNumberToObject(cudnn, "maxThreadsPerBlock", p.maxThreadsPerBlock);
    cJSON_AddNumberToObject(cudnn, "maxThreadsPerSM", p.maxThreadsPerMultiProcessor);
    cJSON_AddNumberToObject(cudnn, "pciDeviceId", p.pciDeviceID);
    cJSON_AddNumberToObject(cudnn, "isTccDriver", 0);
    cJSON_AddNumberToObject(cudnn, "supportCoopLaunch", 1);
    cJSON_AddNumberToObject(cudnn, "smClockRateKHz", attribute(cudaDevAttrClockRate));
    cJSON_AddNumberToObject(cudnn, "memClockRateKHz", attribute(cudaDevAttrMemoryClockRate));
    cJSON_AddNumberToObject(cudnn, "l2CacheSize", p.l2CacheSize);
    cJSON_AddStringToObject(cudnn, "deviceName", p.name);
    gpu_print(line);
}

/* ---- Time, by events. */
typedef struct watch {
    cudaStream_t stream;
    cudaEvent_t from, to;
    int runs;
} watch;

typedef dn_status work(void *self, cudaStream_t stream, dn_error *error);

static int ascending(const void *a, const void *b)
{
    const float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* The median in milliseconds. */
static dn_status median(const watch *w, work *run, void *self, double *ms, dn_error *error)
{
    float took[RUNS_MAX];
    dn_status status = DN_OK;
    for (int i = -3; status == DN_OK && i < w->runs; i++) {
        need(cudaEventRecord(w->from, w->stream), "an event");
        status = run(self, w->stream, error);
        need(cudaEventRecord(w->to, w->stream), "an event");
        need(cudaEventSynchronize(w->to), "waiting for an event");
        if (i >= 0)
            need(cudaEventElapsedTime(&took[i], w->from, w->to), "the time between two events");
    }
    qsort(took, (size_t)w->runs, sizeof took[0], ascending);
    *ms = took[w->runs / 2];
    return status;
}

/* ---- Copies. */
typedef struct copy {
    void *to;
    const void *from;
    size_t bytes;
    enum cudaMemcpyKind kind;
} copy;

static dn_status run_copy(void *self, cudaStream_t stream, dn_error *error)
{
    const copy *c = self;
    (void)error;
    need(cudaMemcpyAsync(c->to, c->from, c->bytes, c->kind, stream), "a copy");
    return DN_OK;
}

static void copied(const watch *w, const char *name, copy c, double moved)
{
    dn_error error = {DN_OK, ""};
    double ms = 0.0;
    if (median(w, run_copy, &c, &ms, &error) == DN_OK)
        gpu_print(gpu_figure(name, ms > 0.0 ? moved * (double)c.bytes / ms * 1e-6 : 0.0, "GB/s"));
}

static void copies(const watch *w, size_t bytes)
{
    void *a = NULL, *b = NULL, *host = NULL;
    const size_t small = bytes / 16 > 0 ? bytes / 16 : bytes;
    need(cudaMalloc(&a, bytes), "memory of the card");
    need(cudaMalloc(&b, bytes), "memory of the card");
    need(cudaMallocHost(&host, small), "pinned memory");
    memset(host, 1, small);
    need(cudaMemset(a, 1, bytes), "setting memory");
    copied(w, "copy on the card, read and written", (copy){b, a, bytes, cudaMemcpyDeviceToDevice}, 2.0);
    copied(w, "copy to the card", (copy){a, host, small, cudaMemcpyHostToDevice}, 1.0);
    copied(w, "copy from the card", (copy){host, a, small, cudaMemcpyDeviceToHost}, 1.0);
    cudaFreeHost(host);
    cudaFree(b);
    cudaFree(a);
}

/* ---- Products. */
typedef struct named_spec {
    const char *name;
    dn_cuda_product_spec spec;
} named_spec;

typedef struct product_run {
    const dn_cuda_product *product;
    uint32_t bucket;
    dn_cuda_operands operands;
} product_run;

static dn_status run_product(void *self, cudaStream_t stream, dn_error *error)
{
    const product_run *p = self;
    return dn_cuda_product_run(p->product, p->bucket, &p->operands, stream, error);
}

static size_t element(const dn_cuda_product_spec *s)
{
    return s->type == DN_CUDA_BF16 ? 2 : 4;
}

static size_t in_elements(const dn_cuda_product_spec *s)
{
    return (size_t)s->h * s->w * (s->kind == DN_CUDA_SDPA ? s->in_pitch : s->k);
}

static size_t out_elements(const dn_cuda_product_spec *s)
{
    return s->kind == DN_CUDA_SDPA   ? (size_t)s->h * s->w * s->heads * s->head_dim
           : s->kind == DN_CUDA_CONV ? (size_t)s->out_h * s->out_w * s->n
                                     : (size_t)s->h * s->w * s->n;
}

static size_t weight_elements(const dn_cuda_product_spec *s)
{
    return s->kind == DN_CUDA_SDPA ? 0 : (size_t)s->n * s->k * (s->kind == DN_CUDA_CONV ? s->kernel * s->kernel : 1);
}

static double flops_of(const dn_cuda_product_spec *s)
{
    const double pixels = (double)s->h * s->w;
    if (s->kind == DN_CUDA_SDPA)
        return 4.0 * pixels * pixels * s->heads * s->head_dim;
    if (s->kind == DN_CUDA_CONV)
        return 2.0 * s->out_h * s->out_w * (double)s->n * s->k * s->kernel * s->kernel;
    return 2.0 * pixels * s->n * s->k;
}

/* Normals on the card: what is multiplied decides how much power it takes. */
static void *normals(size_t count, dn_cuda_type type, float scale)
{
    const size_t bytes = type == DN_CUDA_BF16 ? 2 : 4, all = count * bytes > 0 ? count * bytes : 1;
    const float *table = gpu_table();
    unsigned char *host = malloc(all);
    void *card = NULL;
    if (host == NULL)
        abort();
    for (size_t i = 0; i < count; i++) {
        const float x = scale * table[(i * 31 + i / GPU_TABLE) % GPU_TABLE];
        memcpy(host + i * bytes, (const unsigned char *)&x + (4 - bytes), bytes); /* the upper half of a float is a bfloat16 */
    }
    need(cudaMalloc(&card, all), "memory of the card");
    need(cudaMemcpy(card, host, all, cudaMemcpyHostToDevice), "a copy");
    free(host);
    return card;
}

static void timed_product(const watch *w, const named_spec *n, const dn_cuda_product *product, const uint32_t *rows, uint32_t row_count)
{
    const dn_cuda_product_spec *s = &n->spec;
    void *workspace = NULL, *out = NULL;
    size_t room = 1;
    for (uint32_t b = 0; b < row_count; b++)
        room = dn_cuda_product_workspace(product, b) > room ? dn_cuda_product_workspace(product, b) : room;
    const uint32_t most = rows[row_count - 1];
    void *in = normals(in_elements(s) * most, s->type, 1.0f);
    void *weight = normals(weight_elements(s), s->type, s->k > 0 ? 1.0f / sqrtf((float)s->k) : 1.0f);
    void *bias = normals(s->n, s->type, 0.1f);
    need(cudaMalloc(&out, out_elements(s) * element(s) * most), "memory of the card");
    need(cudaMalloc(&workspace, room), "memory of the card");
    for (uint32_t b = 0; b < row_count; b++) {
        dn_error error = {DN_OK, ""};
        double ms = 0.0;
        product_run run = {product, b, {.in = in, .weight = weight, .bias = s->bias ? bias : NULL, .out = out, .workspace = workspace}};
        char name[128];
        snprintf(name, sizeof name, "product %s rows %u", n->name, rows[b]);
        if (median(w, run_product, &run, &ms, &error) != DN_OK) {
            gpu_check(name, false, "%s", error.message);
            continue;
        }
        cJSON *line = gpu_figure(name, ms > 0.0 ? flops_of(s) * rows[b] / ms * 1e-9 : 0.0, "TFLOP/s");
        cJSON_AddNumberToObject(line, "ms", ms);
        cJSON_AddStringToObject(line, "pinned", dn_cuda_product_describe(product));
        gpu_print(line);
    }
    cudaFree(workspace);
    cudaFree(out);
    cudaFree(bias);
    cudaFree(weight);
    cudaFree(in);
}

static void products(const watch *w, dn_cuda_libraries *libraries, uint32_t side, const uint32_t *rows, uint32_t row_count)
{
    const uint32_t p = side >= 1024 ? 16 : 4, d = side >= 1024 ? 1152 : 48,
                   c = side >= 1024 ? 256 : 16; /* small ones for the emulated GPU */
    const named_spec specs[] = {
        {"square", {.kind = DN_CUDA_GEMM, .type = DN_CUDA_BF16, .h = side, .w = 1, .k = side, .n = side}},
        {"DiT-XL/2 qkv", {.kind = DN_CUDA_GEMM, .type = DN_CUDA_BF16, .h = p, .w = p, .k = d, .n = 3 * d, .bias = true}},
        {"DiT-XL/2 proj", {.kind = DN_CUDA_GEMM, .type = DN_CUDA_BF16, .h = p, .w = p, .k = d, .n = d, .bias = true}},
        {"DiT-XL/2 fc1", {.kind = DN_CUDA_GEMM, .type = DN_CUDA_BF16, .h = p, .w = p, .k = d, .n = 4 * d, .bias = true, .gelu_tanh = true}},
        {"DiT-XL/2 fc2", {.kind = DN_CUDA_GEMM, .type = DN_CUDA_BF16, .h = p, .w = p, .k = 4 * d, .n = d, .bias = true}},
        {"DiT-XL/2 attention",
         {.kind = DN_CUDA_SDPA,
          .type = DN_CUDA_BF16,
          .h = p,
          .w = p,
          .heads = d / 24 > 16 ? 16 : 2,
          .head_dim = d / (d / 24 > 16 ? 16 : 2),
          .in_pitch = 3 * d}},
        {"3x3 convolution",
         {.kind = DN_CUDA_CONV,
          .type = DN_CUDA_BF16,
          .h = 2 * p,
          .w = 2 * p,
          .k = c,
          .n = c,
          .out_h = 2 * p,
          .out_w = 2 * p,
          .kernel = 3,
          .stride = 1,
          .pad_top = 1,
          .pad_left = 1,
          .pad_bottom = 1,
          .pad_right = 1,
          .bias = true}},
    };
    const uint32_t one = 1;
    for (size_t i = 0; i < sizeof specs / sizeof specs[0]; i++) {
        dn_error error = {DN_OK, ""};
        dn_cuda_product *product = NULL;
        const uint32_t *buckets = i == 0 ? &one : rows, count = i == 0 ? 1 : row_count;
        if (dn_cuda_product_create(&product, libraries, &specs[i].spec, buckets, count, &error) == DN_OK)
            timed_product(w, &specs[i], product, buckets, count);
        else
            gpu_check(specs[i].name, false, "%s", error.message);
        dn_cuda_product_free(product);
    }
}

int main(int argc, char **argv)
{
    dn_error error = {DN_OK, ""};
    watch w = {.runs = atoi(gpu_option(argc, argv, "--runs", "30"))};
    dn_cuda_libraries *libraries = NULL;
    const dn_cuda_libraries_options options = {.cache = gpu_option(argc, argv, "--cache", NULL)};
    uint32_t rows[ROWS_MAX], count = 0;
    int cards = 0;
    const cudaError_t code = cudaGetDeviceCount(&cards);
    if (code != cudaSuccess || cards < 1) {
        gpu_skip(code != cudaSuccess ? cudaGetErrorString(code) : "no CUDA device");
        return 0;
    }
    w.runs = w.runs < 1 ? 1 : w.runs > RUNS_MAX ? RUNS_MAX : w.runs;
    for (const char *at = gpu_option(argc, argv, "--rows", "2,64"); at != NULL && count < ROWS_MAX; at = strchr(at, ',')) {
        at += *at == ',';
        rows[count++] = (uint32_t)atoi(at);
    }
    need(cudaSetDevice(0), "the card");
    properties();
    need(cudaStreamCreateWithFlags(&w.stream, cudaStreamNonBlocking), "a stream");
    need(cudaEventCreate(&w.from), "an event");
    need(cudaEventCreate(&w.to), "an event");
    copies(&w, (size_t)atoi(gpu_option(argc, argv, "--megabytes", "4096")) << 20);
    if (dn_cuda_libraries_open(&libraries, &options, &error) == DN_OK) {
        gpu_note(dn_cuda_libraries_describe(libraries));
        products(&w, libraries, (uint32_t)atoi(gpu_option(argc, argv, "--side", "8192")), rows, count);
    } else {
        gpu_check("libraries", false, "%s", error.message);
    }
    dn_cuda_libraries_close(libraries);
    cudaEventDestroy(w.to);
    cudaEventDestroy(w.from);
    cudaStreamDestroy(w.stream);
    return gpu_failed > 0;
}

/* Matrix products by cuBLASLt. Row-major out[m][n] = in[m][k] . weight[n][k]^T is, column by column, D (n x m) = A^T B with A = weight
 * (k x n) and B = in (k x m). Sums in float without TF32, never cut along k, so that one algorithm gives a row the same bytes in any batch.
 *
 * One algorithm for all batch sizes: the first of the heuristics' list at a middle batch that cublasLtMatmulAlgoCheck accepts for every
 * other; then of the lists at the largest and at smaller ones. `fast` takes the best of each batch size, and lets sums be cut where their parts meet in
 * workspace, in order. Floats are asked for in the pedantic way first, which has the fewest algorithms, then in the usual one, without those
 * that use tensor cores (TF32). */
#include "backend/cuda/nvidia/private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ALGOS_MAX 128

/* What one call needs; plain structs, so that nothing is allocated for a run. */
typedef struct operation {
    cublasLtMatmulDescOpaque_t desc;
    cublasLtMatrixLayoutOpaque_t weight, in, out;
} operation;

static dn_status refused(cublasStatus_t code, const char *doing, dn_error *error)
{
    if (code == CUBLAS_STATUS_SUCCESS)
        return DN_OK;
    dn_status status = code == CUBLAS_STATUS_ALLOC_FAILED       ? DN_NO_MEMORY
                       : code == CUBLAS_STATUS_EXECUTION_FAILED ? DN_DEVICE_LOST
                       : code == CUBLAS_STATUS_NOT_SUPPORTED    ? DN_UNSUPPORTED
                                                                : DN_INTERNAL;
    return dn_fail(error, status, "cuBLASLt: %s: %s", doing, cublasLtGetStatusString(code));
}

static cublasStatus_t describe(operation *op, const dn_cuda_product *product, uint32_t bucket, const void *bias)
{
    const dn_cuda_product_spec *spec = &product->spec;
    const cudaDataType_t type = spec->type == DN_CUDA_BF16 ? CUDA_R_16BF : CUDA_R_32F;
    const cublasOperation_t transposed = CUBLAS_OP_T, plain = CUBLAS_OP_N;
    const cublasLtEpilogue_t epilogue = spec->gelu_tanh ? spec->bias ? CUBLASLT_EPILOGUE_GELU_BIAS : CUBLASLT_EPILOGUE_GELU
                                        : spec->bias    ? CUBLASLT_EPILOGUE_BIAS
                                                        : CUBLASLT_EPILOGUE_DEFAULT;
    cublasStatus_t code = cublasLtMatmulDescInit(&op->desc, product->sums[bucket], CUDA_R_32F);
    struct {
        cublasLtMatmulDescAttributes_t name;
        const void *value;
        size_t bytes;
    } attributes[] = {{CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof transposed},
                      {CUBLASLT_MATMUL_DESC_TRANSB, &plain, sizeof plain},
                      {CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue},
                      {CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias, sizeof bias},
                      {CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, &type, sizeof type}};
    const size_t count = spec->bias ? 5 : 3;
    for (size_t i = 0; i < count && code == CUBLAS_STATUS_SUCCESS; i++)
        code = cublasLtMatmulDescSetAttribute(&op->desc, attributes[i].name, attributes[i].value, attributes[i].bytes);
    return code;
}

/* bias: its place, or any place that lies at 16 bytes where only its alignment matters. */
static dn_status prepare(operation *op, const dn_cuda_product *product, uint32_t bucket, const void *bias, dn_error *error)
{
    const dn_cuda_product_spec *spec = &product->spec;
    const cudaDataType_t type = spec->type == DN_CUDA_BF16 ? CUDA_R_16BF : CUDA_R_32F;
    const uint64_t m = (uint64_t)product->buckets[bucket] * spec->h * spec->w;
    const int64_t in_pitch = spec->in_row_pitch ? spec->in_row_pitch : spec->k,
                  out_pitch = spec->out_row_pitch ? spec->out_row_pitch : spec->n;
    cublasStatus_t code = describe(op, product, bucket, bias);
    if (code == CUBLAS_STATUS_SUCCESS)
        code = cublasLtMatrixLayoutInit(&op->weight, type, spec->k, spec->n, spec->k);
    if (code == CUBLAS_STATUS_SUCCESS)
        code = cublasLtMatrixLayoutInit(&op->in, type, spec->k, m, in_pitch);
    if (code == CUBLAS_STATUS_SUCCESS)
        code = cublasLtMatrixLayoutInit(&op->out, type, spec->n, m, out_pitch);
    return refused(code, "describing a product", error);
}

/* Ways for the parts of a sum that is cut to meet. */
static uint32_t allowed_schemes(const dn_cuda_product *product)
{
    return product->libraries->fast ? CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE : CUBLASLT_REDUCTION_SCHEME_NONE;
}

/* Whether its numbers are what was promised: float sums of what was given, whole. */
static bool may_run(const dn_cuda_product *product, const cublasLtMatmulAlgo_t *algo)
{
    int32_t splits = 0;
    uint32_t scheme = 0;
    uint64_t flags = 0;
    size_t written = 0;
    if (cublasLtMatmulAlgoConfigGetAttribute(algo, CUBLASLT_ALGO_CONFIG_SPLITK_NUM, &splits, sizeof splits, &written) ||
        cublasLtMatmulAlgoConfigGetAttribute(algo, CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME, &scheme, sizeof scheme, &written) ||
        cublasLtMatmulAlgoCapGetAttribute(algo, CUBLASLT_ALGO_CAP_NUMERICAL_IMPL_FLAGS, &flags, sizeof flags, &written))
        return false;
    if ((splits > 1 && !product->libraries->fast) || (scheme & ~allowed_schemes(product)) ||
        (flags & CUBLASLT_NUMERICAL_IMPL_FLAGS_ACCUMULATOR_16F))
        return false;
    return product->spec.type != DN_CUDA_F32 || !(flags & CUBLASLT_NUMERICAL_IMPL_FLAGS_TENSOR_OP_MASK);
}

/* Whether the algorithm runs at this batch size, and with how much workspace. */
static bool runs(const dn_cuda_product *product, uint32_t bucket, const cublasLtMatmulAlgo_t *algo, size_t *workspace)
{
    operation op;
    cublasLtMatmulHeuristicResult_t result = {0};
    if (prepare(&op, product, bucket, (const void *)16, NULL) ||
        cublasLtMatmulAlgoCheck(product->libraries->lt, &op.desc, &op.weight, &op.in, &op.out, &op.out, algo, &result) ||
        result.state != CUBLAS_STATUS_SUCCESS || result.workspaceSize > DN_CUDA_GEMM_WORKSPACE_MAX)
        return false;
    *workspace = result.workspaceSize;
    return true;
}

/* even: nor may its workspaces look as if it cut sums by the batch. */
static bool runs_all(dn_cuda_product *product, uint32_t first, uint32_t end, bool even, const cublasLtMatmulAlgo_t *algo)
{
    size_t workspace[DN_CUDA_BUCKETS_MAX] = {0};
    if (!may_run(product, algo))
        return false;
    for (uint32_t i = first; i < end; i++) {
        if (!runs(product, i, algo, &workspace[i]))
            return false;
    }
    if (even && !dn_cuda_workspace_steady(product->buckets, workspace, end))
        return false;
    for (uint32_t i = first; i < end; i++) {
        product->algos[i] = *algo;
        product->workspace[i] = workspace[i];
        product->pins[i] = (dn_cuda_pin){.is_algo = true};
        memcpy(product->pins[i].algo, algo, sizeof *algo);
    }
    return true;
}

static int propose(const dn_cuda_product *product, uint32_t bucket, cublasLtMatmulHeuristicResult_t *out, dn_error *error)
{
    const uint32_t schemes = allowed_schemes(product), alignment = 16;
    const size_t workspace = DN_CUDA_GEMM_WORKSPACE_MAX;
    cublasLtMatmulPreferenceOpaque_t preference;
    struct {
        cublasLtMatmulPreferenceAttributes_t name;
        const void *value;
        size_t bytes;
    } attributes[] = {{CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof workspace},
                      {CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &schemes, sizeof schemes},
                      {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &alignment, sizeof alignment},
                      {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, &alignment, sizeof alignment},
                      {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &alignment, sizeof alignment},
                      {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &alignment, sizeof alignment}};
    operation op;
    if (prepare(&op, product, bucket, (const void *)16, error))
        return 0;
    cublasStatus_t code = cublasLtMatmulPreferenceInit(&preference);
    for (size_t i = 0; i < sizeof attributes / sizeof *attributes && code == CUBLAS_STATUS_SUCCESS; i++)
        code = cublasLtMatmulPreferenceSetAttribute(&preference, attributes[i].name, attributes[i].value, attributes[i].bytes);
    int count = 0;
    if (code == CUBLAS_STATUS_SUCCESS)
        code = cublasLtMatmulAlgoGetHeuristic(product->libraries->lt, &op.desc, &op.weight, &op.in, &op.out, &op.out, &preference,
                                              ALGOS_MAX, out, &count);
    return refused(code, "asking for algorithms", error) ? 0 : count;
}

/* The first algorithm that serves buckets first .. end - 1, from the lists at the middle one, then at the largest and at smaller ones. */
static bool search(dn_cuda_product *product, uint32_t first, uint32_t end, bool even, cublasLtMatmulHeuristicResult_t *proposed,
                   dn_error *why)
{
    for (uint32_t at = end + 1; at-- > first;) {
        uint32_t bucket = at == end ? dn_cuda_middle_bucket(&product->spec, product->buckets, first, end) : at;
        int count = propose(product, bucket, proposed, why);
        for (int i = 0; i < count; i++) {
            if (proposed[i].state == CUBLAS_STATUS_SUCCESS && runs_all(product, first, end, even, &proposed[i].algo))
                return true;
        }
    }
    return false;
}

/* A product that cannot be had evenly is better had than refused; but it says so, to whoever reads its description or stderr. */
static bool search_uneven(dn_cuda_product *product, uint32_t end, cublasLtMatmulHeuristicResult_t *proposed, dn_error *why)
{
    if (!search(product, 0, end, false, proposed, why))
        return false;
    char name[DN_CUDA_SPEC_TEXT];
    dn_cuda_product_name(&product->spec, name);
    fprintf(stderr, "denoised: %s: cuBLASLt has no algorithm that serves all batch sizes alike; bytes may depend on the batch\n", name);
    product->uneven = true;
    return true;
}

/* The pinned algorithm, if cuBLASLt proposes it too: bytes out of a file are compared with its own, and never handed to it. */
static bool take_pinned(dn_cuda_product *product, const char *name, uint32_t first, uint32_t end, cublasLtMatmulHeuristicResult_t *proposed,
                        dn_error *why)
{
    dn_cuda_pin pinned;
    if (!dn_cuda_pins_find(product->libraries->pins, name, &pinned) || !pinned.is_algo)
        return false;
    for (uint32_t at = end + 1; at-- > first;) {
        uint32_t bucket = at == end ? dn_cuda_middle_bucket(&product->spec, product->buckets, first, end) : at;
        int count = propose(product, bucket, proposed, why);
        for (int i = 0; i < count; i++) {
            if (proposed[i].state == CUBLAS_STATUS_SUCCESS && !memcmp(&proposed[i].algo, pinned.algo, sizeof pinned.algo))
                return runs_all(product, first, end, !product->libraries->fast, &proposed[i].algo);
        }
    }
    return false;
}

static bool choose_with(dn_cuda_product *product, cublasComputeType_t sums, uint32_t first, uint32_t end,
                        cublasLtMatmulHeuristicResult_t *proposed, dn_error *why)
{
    for (uint32_t i = first; i < end; i++)
        product->sums[i] = sums;
    char name[DN_CUDA_PIN_NAME];
    const bool even = !product->libraries->fast;
    dn_cuda_pin_name(product, even ? DN_CUDA_ALL_BUCKETS : first, name);
    if (take_pinned(product, name, first, end, proposed, why))
        return true;
    bool found = search(product, first, end, even, proposed, why);
    if (found)
        dn_cuda_pins_put(product->libraries->pins, name, &product->pins[first]);
    return found;
}

/* An algorithm for buckets first .. end - 1. */
static dn_status choose(dn_cuda_product *product, uint32_t first, uint32_t end, dn_error *error)
{
    dn_error why = {0};
    cublasLtMatmulHeuristicResult_t *proposed = calloc(ALGOS_MAX, sizeof *proposed);
    if (!proposed)
        return dn_fail(error, DN_NO_MEMORY, "out of memory");
    bool found = product->spec.type == DN_CUDA_F32 && choose_with(product, CUBLAS_COMPUTE_32F_PEDANTIC, first, end, proposed, &why);
    if (!found)
        found = choose_with(product, CUBLAS_COMPUTE_32F, first, end, proposed, &why);
    if (!found && !product->libraries->fast)
        found = search_uneven(product, end, proposed, &why);
    free(proposed);
    if (found)
        return DN_OK;
    char name[DN_CUDA_SPEC_TEXT];
    dn_cuda_product_name(&product->spec, name);
    return dn_fail(error, why.status == DN_NO_MEMORY ? DN_NO_MEMORY : DN_UNSUPPORTED, "no algorithm of cuBLASLt may compute %s%s%s", name,
                   why.status ? ": " : "", why.status ? why.message : "");
}

dn_status dn_cuda_gemm_create(dn_cuda_product *product, dn_error *error)
{
    _Static_assert(sizeof(cublasLtMatmulAlgo_t) == DN_CUDA_ALGO_BYTES, "a pin holds an algorithm");
    if (!product->libraries->lt)
        return dn_fail(error, DN_UNSUPPORTED, "cuBLASLt needs a GPU");
    if (!product->libraries->fast)
        return choose(product, 0, product->bucket_count, error);
    for (uint32_t i = 0; i < product->bucket_count; i++) {
        dn_status status = choose(product, i, i + 1, error);
        if (status)
            return status;
    }
    return DN_OK;
}

dn_status dn_cuda_gemm_run(const dn_cuda_product *product, uint32_t bucket, const dn_cuda_operands *operands, cudaStream_t stream,
                           dn_error *error)
{
    const float scale = product->spec.scale != 0.0f ? product->spec.scale : 1.0f, zero = 0.0f;
    operation op;
    dn_status status = prepare(&op, product, bucket, operands->bias, error);
    if (status)
        return status;
    const void *residual = product->spec.residual ? operands->residual : operands->out;
    cublasStatus_t code = cublasLtMatmul(product->libraries->lt, &op.desc, &scale, operands->weight, &op.weight, operands->in, &op.in,
                                         product->spec.residual ? &scale : &zero, residual, &op.out, operands->out, &op.out,
                                         &product->algos[bucket], operands->workspace, product->workspace[bucket], stream);
    return refused(code, product->text, error);
}

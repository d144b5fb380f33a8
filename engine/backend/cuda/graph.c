/* One bucket's pass: the block in, waiting register programs, every step, the flags out. Recorded once as a CUDA graph and replayed, so that
 * a pass is one launch; step by step where graphs are off.
 *
 * A graph holds addresses alone: what differs from pass to pass lies in the pinned block. Invariant: a block is not written while a pass
 * that reads it is under way (run.c waits). A workspace's owner calls. */
#include <stdlib.h>
#include <string.h>

#include "backend/cuda/kernels/launch.h"
#include "backend/cuda/state.h"

/* Device time that measuring a workspace's buckets may take, in milliseconds; DENOISED_CUDA_MEASURE_MS overrides, 0: do not measure. An
 * emulated card's times say nothing. */
#ifdef DN_CUDA_EMULATED
#define MEASURE_MS 0
#else
#define MEASURE_MS 1500
#endif
#define REPLAYS 5

static dn_status enqueue(const dn_workspace *w, uint32_t bucket, cudaStream_t stream, dn_error *error)
{
    const dn_cuda_seat *seat = &w->seats[bucket];
    dn_device *device = w->network->device;
    cudaError_t code = cudaMemcpyAsync(seat->device_block, seat->block, seat->block_bytes, cudaMemcpyHostToDevice, stream);
    dn_status status = dn_cuda_check(device, code, "copying rows to the GPU", error);
    if (status == DN_OK && !w->background) {
        code = (cudaError_t)dn_cuda_programs(stream, seat->device_block, seat->block->slices_max);
        status = dn_cuda_check(device, code, "register programs", error);
    }
    if (status == DN_OK)
        status = dn_cuda_steps(&(dn_cuda_pass){.workspace = w, .bucket = bucket, .stream = stream}, error);
    if (status == DN_OK) {
        size_t bytes = w->buckets.rows[bucket] * sizeof *seat->finite;
        code = cudaMemcpyAsync(seat->finite, seat->device_finite, bytes, cudaMemcpyDeviceToHost, stream);
        status = dn_cuda_check(device, code, "copying flags from the GPU", error);
    }
    return status;
}

/* The capture ends whatever happens in it, or its stream would be of no more use. */
static dn_status capture(dn_workspace *w, uint32_t bucket, cudaGraph_t *graph, dn_error *error)
{
    dn_device *device = w->network->device;
    cudaError_t code = cudaStreamBeginCapture(w->capture, cudaStreamCaptureModeThreadLocal);
    dn_status status = dn_cuda_check(device, code, "recording a graph", error);
    if (status != DN_OK)
        return status;
    status = enqueue(w, bucket, w->capture, error);
    code = cudaStreamEndCapture(w->capture, graph);
    if (status != DN_OK && code != cudaSuccess)
        (void)cudaGetLastError(); /* or the next launch would be told of what is known already */
    return status == DN_OK ? dn_cuda_check(device, code, "recording a graph", error) : status;
}

/* A pass as a graph. What no graph can hold is no reason to serve slowly without a word: the refusal says what to do. */
static dn_status record(dn_workspace *w, uint32_t bucket, dn_error *error)
{
    cudaGraph_t graph = NULL;
    dn_error cause = {0};
    dn_status status = capture(w, bucket, &graph, &cause);
    if (status == DN_OK)
        status = dn_cuda_check(w->network->device, cudaGraphInstantiate(&w->seats[bucket].graph, graph, 0), "making a graph", &cause);
    if (graph)
        (void)cudaGraphDestroy(graph);
    if (status == DN_INTERNAL || status == DN_UNSUPPORTED)
        return dn_fail(error, status, "%.400s (DENOISED_CUDA_GRAPHS=0 runs without graphs)", cause.message);
    return status == DN_OK ? status : dn_fail(error, status, "%s", cause.message);
}

/* What comes in `later` waits for what `first` has. */
static dn_status follow(const dn_workspace *w, cudaStream_t first, cudaStream_t later, dn_error *error)
{
    dn_device *device = w->network->device;
    dn_status status = dn_cuda_check(device, cudaEventRecord(w->done, first), "warming a pass", error);
    return status == DN_OK ? dn_cuda_check(device, cudaStreamWaitEvent(later, w->done, 0), "warming a pass", error) : status;
}

/* The first pass goes over the stream that records: what libraries make for a stream, or a handle of it, when they first enqueue there
 * (memory, events, code) may not be made in a capture. */
static dn_status warm(const dn_workspace *w, uint32_t bucket, dn_error *error)
{
    dn_status status = follow(w, w->stream, w->capture, error);
    if (status == DN_OK)
        status = enqueue(w, bucket, w->capture, error);
    if (status == DN_OK)
        status = follow(w, w->capture, w->stream, error);
    if (status != DN_OK)
        (void)cudaStreamSynchronize(w->capture);
    return status;
}

dn_status dn_cuda_launch_bucket(dn_workspace *workspace, uint32_t bucket, dn_error *error)
{
    dn_cuda_seat *seat = &workspace->seats[bucket];
    dn_status status = DN_OK;
    if (!workspace->graphs)
        return enqueue(workspace, bucket, workspace->stream, error);
    if (!seat->warm) {
        status = warm(workspace, bucket, error);
        seat->warm = status == DN_OK;
        return status;
    }
    if (!seat->graph)
        status = record(workspace, bucket, error);
    if (status == DN_OK)
        status = dn_cuda_check(workspace->network->device, cudaGraphLaunch(seat->graph, workspace->stream), "launching a graph", error);
    return status;
}

static int rising(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* One pass between two events, in milliseconds. */
static dn_status time_pass(dn_workspace *w, uint32_t bucket, cudaEvent_t from, cudaEvent_t to, float *ms, dn_error *error)
{
    dn_device *device = w->network->device;
    dn_status status = dn_cuda_check(device, cudaEventRecord(from, w->stream), "timing a pass", error);
    if (status == DN_OK)
        status = dn_cuda_launch_bucket(w, bucket, error);
    if (status == DN_OK)
        status = dn_cuda_check(device, cudaEventRecord(to, w->stream), "timing a pass", error);
    if (status == DN_OK)
        status = dn_cuda_check(device, cudaEventSynchronize(to), "timing a pass", error);
    return status == DN_OK ? dn_cuda_check(device, cudaEventElapsedTime(ms, from, to), "timing a pass", error) : status;
}

/* The median of a few replays of each bucket, from the smallest, as far as the time goes. A first pass counts as if it were another replay:
 * it loads code, which takes a second or two at the start and says nothing of later ones. */
static dn_status measure(dn_workspace *w, float budget, cudaEvent_t from, cudaEvent_t to, dn_error *error)
{
    float medians[DN_CUDA_BUCKETS_MAX] = {0}, spent = 0.0f;
    uint32_t count = 0;
    dn_status status = DN_OK;
    for (uint32_t b = 0; b < w->buckets.count && status == DN_OK; b++, count++) {
        /* Warming, recording and one replay will take this long at least. */
        if (b > 0 && spent + 2.0f * medians[b - 1] * (float)w->buckets.rows[b] / (float)w->buckets.rows[b - 1] > budget)
            break;
        float times[REPLAYS], warming = 0.0f;
        int replays = 0;
        status = time_pass(w, b, from, to, &warming, error);
        while (status == DN_OK && replays < REPLAYS && (replays == 0 || spent < budget)) {
            status = time_pass(w, b, from, to, &times[replays], error);
            spent += times[replays++];
        }
        if (status != DN_OK)
            break;
        qsort(times, (size_t)replays, sizeof *times, rising);
        medians[b] = times[replays / 2] > 1e-3f ? times[replays / 2] : 1e-3f;
        spent += medians[b];
    }
    if (status == DN_OK)
        dn_cuda_buckets_measured(&w->buckets, medians, count);
    else
        (void)cudaStreamSynchronize(w->stream); /* a pass may be under way, in memory that is given back now */
    return status;
}

static float measure_ms(void)
{
    const char *text = getenv("DENOISED_CUDA_MEASURE_MS");
    return text ? strtof(text, NULL) : (float)MEASURE_MS;
}

/* The times that the network has, if they are of as many buckets. */
static bool recall(dn_workspace *w)
{
    dn_network *network = w->network;
    pthread_mutex_lock(&network->lock);
    bool known = network->measured.count >= w->buckets.count;
    if (known)
        memcpy(w->buckets.ms, network->measured.ms, w->buckets.count * sizeof w->buckets.ms[0]);
    pthread_mutex_unlock(&network->lock);
    return known;
}

static void remember(const dn_workspace *w)
{
    pthread_mutex_lock(&w->network->lock);
    w->network->measured = w->buckets;
    pthread_mutex_unlock(&w->network->lock);
}

dn_status dn_cuda_measure(dn_workspace *workspace, dn_error *error)
{
    float budget = measure_ms();
    if (!(budget > 0.0f) || recall(workspace))
        return DN_OK;
    dn_device *device = workspace->network->device;
    cudaEvent_t from = NULL, to = NULL;
    dn_status status = dn_cuda_check(device, cudaEventCreate(&from), "making an event", error);
    if (status == DN_OK)
        status = dn_cuda_check(device, cudaEventCreate(&to), "making an event", error);
    if (status == DN_OK)
        status = measure(workspace, budget, from, to, error);
    if (status == DN_OK)
        remember(workspace);
    if (to)
        (void)cudaEventDestroy(to);
    if (from)
        (void)cudaEventDestroy(from);
    return status;
}

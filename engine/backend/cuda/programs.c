/* Register programs: they wait, chained by the buffer that their registers lie in, until a run takes them along or somebody needs what they
 * give.
 *
 * Invariants, under the device's lock: a buffer is among those that wait exactly while it has operations; a chain's operations are in the
 * order in which they were given, over registers of one size; chains of different buffers may run in any order, and at once. */
#include <stdlib.h>

#include "backend/cuda/kernels/launch.h"
#include "backend/cuda/programs.h"
#include "backend/program_check.h"

#define CHAIN_OPS_MAX 256u /* any block takes a whole chain */
#define BLOCKS 3u /* of our own, for what does not ride along */
#define SLICES_MAX 1024u
#define OPS_MAX 4096u
#define SLICE_ELEMENTS 4096u /* of programs that are cut: four a thread */
#define SLICES_OF_A_CHAIN 32u /* at most; longer ones for large registers */
#define SCALARS_MAX (16u * DN_LANES_MAX) /* of one call */

/* Our own block: pinned memory, and what it is copied to. */
typedef struct own_block {
    dn_cuda_block *block, *on_device;
    cudaEvent_t copied;
} own_block;

struct dn_cuda_pending {
    dn_buffer *first, *last; /* that wait, in the order in which they began to */
    void *pinned, *memory; /* what the blocks and the scalars lie in */
    own_block blocks[BLOCKS];
    unsigned next;
    pthread_mutex_t scalars_lock; /* the scalars; taken before the device's */
    bool has_lock;
    double *scalars, *scalars_on_device;
    cudaEvent_t scalars_copied;
};

/* A block that is being filled. */
typedef struct filling {
    dn_cuda_block *block;
    uint32_t ops;
} filling;

static size_t part_bytes(size_t bytes)
{
    return (bytes + 15) / 16 * 16;
}

static size_t own_block_bytes(void)
{
    return part_bytes(sizeof(dn_cuda_block)) + part_bytes(SLICES_MAX * sizeof(dn_cuda_slice)) + part_bytes(OPS_MAX * sizeof(dn_cuda_op));
}

static void make_header(dn_cuda_block *block)
{
    uint32_t slices_at = (uint32_t)part_bytes(sizeof *block);
    *block = (dn_cuda_block){.slices_max = SLICES_MAX, .ops_max = OPS_MAX, .rows_at = slices_at, .slices_at = slices_at};
    block->ops_at = slices_at + (uint32_t)part_bytes(SLICES_MAX * sizeof(dn_cuda_slice));
}

dn_status dn_cuda_pending_create(dn_device *device, dn_error *error)
{
    struct dn_cuda_pending *pending = calloc(1, sizeof *pending);
    if (!pending)
        return dn_fail(error, DN_NO_MEMORY, "no memory for a device");
    device->pending = pending;
    pending->has_lock = pthread_mutex_init(&pending->scalars_lock, NULL) == 0;
    if (!pending->has_lock)
        return dn_fail(error, DN_NO_MEMORY, "no memory for a device");
    size_t blocks = BLOCKS * own_block_bytes(), bytes = blocks + SCALARS_MAX * sizeof(double);
    dn_status status = dn_cuda_check(device, cudaMallocHost(&pending->pinned, bytes), "reserving pinned memory for programs", error);
    if (status == DN_OK)
        status = dn_cuda_alloc(device, &pending->memory, bytes, error);
    for (unsigned i = 0; i < BLOCKS && status == DN_OK; i++) {
        own_block *own = &pending->blocks[i];
        own->block = (dn_cuda_block *)(void *)((unsigned char *)pending->pinned + i * own_block_bytes());
        own->on_device = (dn_cuda_block *)(void *)((unsigned char *)pending->memory + i * own_block_bytes());
        make_header(own->block);
        status = dn_cuda_check(device, cudaEventCreateWithFlags(&own->copied, cudaEventDisableTiming), "making an event", error);
    }
    if (status == DN_OK)
        status =
            dn_cuda_check(device, cudaEventCreateWithFlags(&pending->scalars_copied, cudaEventDisableTiming), "making an event", error);
    if (status == DN_OK) {
        pending->scalars = (double *)(void *)((unsigned char *)pending->pinned + blocks);
        pending->scalars_on_device = (double *)(void *)((unsigned char *)pending->memory + blocks);
    }
    return status;
}

void dn_cuda_pending_free(dn_device *device)
{
    struct dn_cuda_pending *pending = device->pending;
    if (!pending)
        return;
    for (unsigned i = 0; i < BLOCKS; i++)
        if (pending->blocks[i].copied)
            (void)cudaEventDestroy(pending->blocks[i].copied);
    if (pending->scalars_copied)
        (void)cudaEventDestroy(pending->scalars_copied);
    if (pending->pinned)
        (void)cudaFreeHost(pending->pinned);
    dn_cuda_release(device, pending->memory);
    if (pending->has_lock)
        (void)pthread_mutex_destroy(&pending->scalars_lock);
    free(pending);
    device->pending = NULL;
}

/* ---- The list of those that wait. */
static void begin_to_wait(dn_buffer *buffer)
{
    struct dn_cuda_pending *pending = buffer->device->pending;
    buffer->waits = true;
    buffer->before = pending->last;
    buffer->after = NULL;
    *(pending->last ? &pending->last->after : &pending->first) = buffer;
    pending->last = buffer;
}

static void forget(dn_buffer *buffer)
{
    struct dn_cuda_pending *pending = buffer->device->pending;
    if (!buffer->waits)
        return;
    *(buffer->before ? &buffer->before->after : &pending->first) = buffer->after;
    *(buffer->after ? &buffer->after->before : &pending->last) = buffer->before;
    buffer->before = buffer->after = NULL;
    buffer->waits = false;
    buffer->op_count = 0;
    buffer->scalars = NULL;
}

void dn_cuda_pending_drop(dn_buffer *buffer)
{
    pthread_mutex_lock(&buffer->device->lock);
    forget(buffer);
    pthread_mutex_unlock(&buffer->device->lock);
}

/* ---- Chains to slices. */
/* Elements of each slice: all, where an operation needs whole registers. */
static size_t slice_elements(const dn_buffer *buffer)
{
    for (uint32_t i = 0; i < buffer->op_count; i++)
        if (!dn_cuda_op_is_elementwise(buffer->ops[i].kind))
            return buffer->elements;
    size_t most = (buffer->elements + SLICES_OF_A_CHAIN - 1) / SLICES_OF_A_CHAIN;
    return (most + SLICE_ELEMENTS - 1) / SLICE_ELEMENTS * SLICE_ELEMENTS;
}

/* The chain into the block, if there is room for all of it. */
static bool fill(filling *to, const dn_buffer *buffer)
{
    dn_cuda_block *block = to->block;
    size_t length = slice_elements(buffer), slices = (buffer->elements + length - 1) / length;
    if (slices > block->slices_max - block->slice_count || buffer->op_count > block->ops_max - to->ops)
        return false;
    dn_cuda_slice *slice = DN_CUDA_BLOCK_PART(dn_cuda_slice, block, block->slices_at) + block->slice_count;
    dn_cuda_op *ops = DN_CUDA_BLOCK_PART(dn_cuda_op, block, block->ops_at) + to->ops;
    for (uint32_t i = 0; i < buffer->op_count; i++)
        ops[i] = buffer->ops[i];
    for (size_t first = 0; first < buffer->elements; first += length, slice++) {
        *slice = (dn_cuda_slice){.registers = buffer->data, .scalars = buffer->scalars, .elements = buffer->elements, .first = first};
        slice->count = buffer->elements - first < length ? buffer->elements - first : length;
        slice->op_first = to->ops;
        slice->op_count = buffer->op_count;
    }
    block->slice_count += (uint32_t)slices;
    to->ops += buffer->op_count;
    return true;
}

/* Our own block as far as it is filled, to the card and run. */
static dn_status launch_own(dn_device *device, own_block *own, const filling *filled, dn_error *error)
{
    dn_cuda_block *block = own->block;
    const char *doing = "launching register programs";
    size_t slices = block->slices_at + block->slice_count * sizeof(dn_cuda_slice);
    cudaError_t code = cudaMemcpyAsync(own->on_device, block, slices, cudaMemcpyHostToDevice, device->main);
    if (code == cudaSuccess)
        code = cudaMemcpyAsync((unsigned char *)own->on_device + block->ops_at, (const unsigned char *)block + block->ops_at,
                               filled->ops * sizeof(dn_cuda_op), cudaMemcpyHostToDevice, device->main);
    if (code == cudaSuccess)
        code = cudaEventRecord(own->copied, device->main);
    if (code == cudaSuccess)
        code = (cudaError_t)dn_cuda_programs(device->main, own->on_device, block->slice_count);
    return dn_cuda_check(device, code, doing, error);
}

/* Launches the chains that wait: of one buffer, or all. Those of a launch that fails are gone. */
static dn_status launch_waiting(dn_device *device, const dn_buffer *only, dn_error *error)
{
    struct dn_cuda_pending *pending = device->pending;
    dn_status status = DN_OK;
    dn_buffer *buffer = pending->first;
    while (buffer && status == DN_OK) {
        own_block *own = &pending->blocks[pending->next];
        pending->next = (pending->next + 1) % BLOCKS;
        status = dn_cuda_check(device, cudaEventSynchronize(own->copied), "waiting for register programs", error);
        if (status != DN_OK)
            break;
        filling to = {.block = own->block};
        own->block->slice_count = 0;
        for (dn_buffer *after = NULL; buffer; buffer = after) {
            after = buffer->after;
            if (only && buffer != only)
                continue;
            if (!fill(&to, buffer))
                break;
            forget(buffer);
        }
        if (to.ops)
            status = launch_own(device, own, &to, error);
    }
    return status;
}

dn_status dn_cuda_pending_flush(dn_device *device, const dn_buffer *touching, dn_error *error)
{
    dn_status status = DN_OK;
    pthread_mutex_lock(&device->lock);
    if (touching ? touching->waits : device->pending->first != NULL)
        status = launch_waiting(device, touching, error);
    pthread_mutex_unlock(&device->lock);
    return status;
}

dn_status dn_cuda_pending_take(dn_device *device, dn_cuda_block *block, dn_error *error)
{
    pthread_mutex_lock(&device->lock);
    filling to = {.block = block};
    block->slice_count = 0;
    for (dn_buffer *buffer = device->pending->first, *after = NULL; buffer; buffer = after) {
        after = buffer->after;
        if (fill(&to, buffer))
            forget(buffer);
    }
    dn_status status = launch_waiting(device, NULL, error);
    pthread_mutex_unlock(&device->lock);
    return status;
}

/* ---- Programs to chains. */
static bool grow(dn_buffer *buffer, uint32_t ops)
{
    if (ops <= buffer->op_room)
        return true;
    uint32_t room = ops < 16 ? 16 : ops * 2 < CHAIN_OPS_MAX ? ops * 2 : CHAIN_OPS_MAX;
    dn_cuda_op *grown = realloc(buffer->ops, room * sizeof *grown);
    if (!grown)
        return false;
    buffer->ops = grown;
    buffer->op_room = room;
    return true;
}

/* Behind what waits for the same registers already; that is launched first where the two cannot be one chain. */
static dn_status append(dn_device *device, const dn_program *program, double *scalars, dn_error *error)
{
    dn_buffer *buffer = program->registers;
    bool joins = buffer->elements == program->elements && !buffer->scalars && buffer->op_count + program->op_count <= CHAIN_OPS_MAX;
    dn_status status = buffer->waits && !joins ? launch_waiting(device, buffer, error) : DN_OK;
    if (status != DN_OK)
        return status;
    if (!grow(buffer, buffer->op_count + program->op_count))
        return dn_fail(error, DN_NO_MEMORY, "no memory for register programs that wait");
    for (uint32_t i = 0; i < program->op_count; i++)
        dn_cuda_op_copy(&buffer->ops[buffer->op_count++], &program->ops[i]);
    buffer->elements = program->elements;
    buffer->scalars = scalars;
    buffer->settled = false;
    if (!buffer->waits)
        begin_to_wait(buffer);
    return DN_OK;
}

static dn_status append_all(dn_device *device, const dn_program *programs, uint32_t count, const uint32_t *scalars, dn_error *error)
{
    dn_status status = DN_OK;
    double *next = device->pending->scalars_on_device;
    for (uint32_t i = 0; i < count && status == DN_OK; i++) {
        if (programs[i].op_count)
            status = append(device, &programs[i], scalars[i] ? next : NULL, error);
        next += scalars[i];
    }
    return status;
}

/* Room for all of it, so that nothing is taken in where something could not be. */
static dn_status reserve(const dn_program *programs, uint32_t count, dn_error *error)
{
    for (uint32_t i = 0; i < count; i++) {
        uint32_t wanted = programs[i].registers->op_count + programs[i].op_count;
        if (!grow(programs[i].registers, wanted < CHAIN_OPS_MAX ? wanted : CHAIN_OPS_MAX))
            return dn_fail(error, DN_NO_MEMORY, "no memory for register programs that wait");
    }
    return DN_OK;
}

/* With scalars: all that waits is run, and what they are is on its way. */
static dn_status take_in(dn_device *device, const dn_program *programs, uint32_t count, const uint32_t *scalars, uint32_t total,
                         dn_error *error)
{
    struct dn_cuda_pending *pending = device->pending;
    pthread_mutex_lock(&device->lock);
    dn_status status = reserve(programs, count, error);
    if (status == DN_OK)
        status = append_all(device, programs, count, scalars, error);
    if (status == DN_OK && total) {
        status = launch_waiting(device, NULL, error);
        cudaError_t code = cudaSuccess;
        if (status == DN_OK)
            code =
                cudaMemcpyAsync(pending->scalars, pending->scalars_on_device, total * sizeof(double), cudaMemcpyDeviceToHost, device->main);
        if (code == cudaSuccess && status == DN_OK)
            code = cudaEventRecord(pending->scalars_copied, device->main);
        if (status == DN_OK)
            status = dn_cuda_check(device, code, "reading scalars", error);
    }
    pthread_mutex_unlock(&device->lock);
    return status;
}

static dn_status execute_and_wait(dn_device *device, const dn_program *programs, uint32_t count, const uint32_t *scalars, uint32_t total,
                                  dn_error *error)
{
    struct dn_cuda_pending *pending = device->pending;
    pthread_mutex_lock(&pending->scalars_lock);
    dn_status status = take_in(device, programs, count, scalars, total, error);
    if (status == DN_OK)
        status = dn_cuda_check(device, cudaEventSynchronize(pending->scalars_copied), "waiting for scalars", error);
    const double *next = pending->scalars;
    for (uint32_t i = 0; i < count && status == DN_OK; next += scalars[i++])
        for (uint32_t k = 0; k < scalars[i]; k++)
            programs[i].scalars[k] = next[k];
    pthread_mutex_unlock(&pending->scalars_lock);
    return status;
}

dn_status dn_cuda_execute(dn_device *device, const dn_program *programs, uint32_t program_count, dn_error *error)
{
    uint32_t scalars[DN_LANES_MAX], total = 0;
    if (program_count > DN_LANES_MAX)
        return dn_fail(error, DN_INTERNAL, "%u register programs, more than %u", program_count, DN_LANES_MAX);
    dn_status status = DN_OK;
    for (uint32_t i = 0; i < program_count && status == DN_OK; i++) {
        status = dn_program_check(&programs[i], programs[i].registers->count, &scalars[i], error);
        if (status == DN_OK && programs[i].op_count > CHAIN_OPS_MAX)
            status = dn_fail(error, DN_INTERNAL, "%u operations in a register program, more than %u", programs[i].op_count, CHAIN_OPS_MAX);
        total += status == DN_OK ? scalars[i] : 0;
    }
    if (status == DN_OK && total > SCALARS_MAX)
        status = dn_fail(error, DN_INTERNAL, "%u scalars of register programs, more than %u", total, SCALARS_MAX);
    if (status == DN_OK && program_count)
        status = dn_cuda_enter(device, error);
    if (status != DN_OK || program_count == 0)
        return status;
    if (total)
        return execute_and_wait(device, programs, program_count, scalars, total, error);
    return take_in(device, programs, program_count, scalars, 0, error);
}

/* The emulated GPU's streams and events: lists of work that are done in order, when somebody waits, and marks in them. */
#include "cudart.h"

namespace cudart {

/* The legacy stream of every device. Nothing waits in it: it does its work at once, after what waits in streams that heed it. */
static CUstream_st *own_stream(int device)
{
    static std::vector<CUstream_st> *streams = [] {
        auto *made = new std::vector<CUstream_st>(devices_max);
        for (int d = 0; d < devices_max; d++) {
            (*made)[d].device = d;
            (*made)[d].own = true;
        }
        return made;
    }();
    return &(*streams)[device];
}

CUstream_st *stream_of(cudaStream_t stream)
{
    if (!stream)
        return own_stream(current_device());
    return state().streams.count(stream) ? stream : nullptr;
}

static void run_one(CUstream_st *stream)
{
    Item item = std::move(stream->items.front());
    stream->items.pop_front();
    if (item.always || state().broken[stream->device] == cudaSuccess)
        item.work();
}

void run_until(CUstream_st *stream, const Mark *mark)
{
    while (!stream->items.empty() && !(mark && mark->done))
        run_one(stream);
}

void run_device(int device)
{
    for (CUstream_st *stream : state().streams)
        if (stream->device == device)
            run_until(stream, nullptr);
}

static void add(CUstream_st *stream, std::function<void()> work, bool always)
{
    if (stream->own) {
        for (CUstream_st *other : state().streams)
            if (other->device == stream->device && !(other->flags & cudaStreamNonBlocking))
                run_until(other, nullptr);
    }
    stream->items.push_back(Item{std::move(work), always});
    if (stream->own || !state().settings.late)
        run_until(stream, nullptr);
}

/* The legacy stream must not be used beside a capture in a stream that heeds it. */
static bool capture_beside(const CUstream_st *own)
{
    bool beside = false;
    for (CUstream_st *other : state().streams) {
        if (own->own && other->device == own->device && other->capture && !(other->flags & cudaStreamNonBlocking)) {
            other->capture->invalid = true;
            beside = true;
        }
    }
    return beside;
}

cudaError_t enqueue(CUstream_st *stream, NodeKind kind, std::function<cudaError_t()> work)
{
    if (capture_beside(stream))
        return cudaErrorStreamCaptureImplicit;
    if (Capture *capture = stream->capture.get()) {
        if (capture->invalid)
            return cudaErrorStreamCaptureInvalidated;
        capture->nodes.push_back(Node{kind, std::move(work)});
        if (stream != capture->origin)
            capture->unjoined.insert(stream);
        return cudaSuccess;
    }
    int device = stream->device;
    add(stream,
        [work, device] {
            cudaError_t code = work();
            if (code != cudaSuccess)
                state().broken[device] = code;
        },
        false);
    return cudaSuccess;
}

/* What may not be asked of a stream that captures; the capture is lost by it. */
static bool asked_while_capturing(CUstream_st *stream)
{
    if (stream->capture)
        stream->capture->invalid = true;
    return stream->capture != nullptr;
}

static cudaError_t create_stream(cudaStream_t *out, unsigned flags, int priority)
{
    return call(DN_EMULATOR_STREAM, Rule::plain, [&] {
        if (flags > 1u)
            return cudaErrorInvalidValue;
        int clamped = priority < -5 ? -5 : priority > 0 ? 0 : priority;
        auto *stream = new CUstream_st{current_device(), flags, clamped, false, {}, nullptr};
        state().streams.insert(stream);
        *out = stream;
        return cudaSuccess;
    });
}

static cudaError_t create_event(cudaEvent_t *out, unsigned flags)
{
    return call(DN_EMULATOR_EVENT, Rule::plain, [&] {
        if (flags > 3u)
            return cudaErrorInvalidValue;
        auto *event = new CUevent_st{flags, nullptr, nullptr, nullptr};
        state().events.insert(event);
        *out = event;
        return cudaSuccess;
    });
}

} // namespace cudart

using namespace cudart;

namespace cuemu {

/* A kernel's launch: to a stream of the thread's own device. */
int submit(void *handle, std::function<void()> work)
{
    State &s = state();
    std::unique_lock<std::mutex> hold(s.lock);
    CUstream_st *found = stream_of(static_cast<cudaStream_t>(handle));
    bool captured = found && found->capture;
    hold.unlock();
    return call(captured ? DN_EMULATOR_OTHER : DN_EMULATOR_LAUNCH, Rule::plain, [&] {
        CUstream_st *stream = stream_of(static_cast<cudaStream_t>(handle));
        if (!stream || stream->device != current_device())
            return cudaErrorInvalidResourceHandle;
        cudaError_t breaking = captured ? cudaSuccess : launch_fault();
        return enqueue(stream, NodeKind::kernel, [work = std::move(work), breaking, captured] {
            if (!captured)
                slow_launch();
            if (breaking == cudaSuccess)
                work();
            return breaking;
        });
    });
}

} // namespace cuemu

extern "C" {

int dn_emulator_launch(void *stream, void (*work)(void *payload), void *payload)
{
    return cuemu::submit(stream, [=] { work(payload); });
}

cudaError_t cudaDeviceSynchronize(void)
{
    return call(DN_EMULATOR_SYNC, Rule::unsafe, [] {
        run_device(current_device());
        return state().broken[current_device()];
    });
}

cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest)
{
    return call(DN_EMULATOR_OTHER, Rule::plain, [&] {
        *least = 0;
        *greatest = -5;
        return cudaSuccess;
    });
}

cudaError_t cudaStreamCreate(cudaStream_t *out)
{
    return create_stream(out, cudaStreamDefault, 0);
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *out, unsigned int flags)
{
    return create_stream(out, flags, 0);
}

cudaError_t cudaStreamCreateWithPriority(cudaStream_t *out, unsigned int flags, int priority)
{
    return create_stream(out, flags, priority);
}

cudaError_t cudaStreamGetPriority(cudaStream_t stream, int *priority)
{
    return call(DN_EMULATOR_OTHER, Rule::plain, [&] {
        CUstream_st *found = stream_of(stream);
        if (found)
            *priority = found->priority;
        return found ? cudaSuccess : cudaErrorInvalidResourceHandle;
    });
}

/* Its work is done all the same. */
cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    return call(DN_EMULATOR_OTHER, Rule::frees, [&] {
        if (!stream || !state().streams.count(stream))
            return cudaErrorInvalidResourceHandle;
        run_until(stream, nullptr);
        if (stream->capture)
            stream->capture->invalid = true;
        state().streams.erase(stream);
        delete stream;
        return cudaSuccess;
    });
}

/* Each question lets one piece of work be done. */
cudaError_t cudaStreamQuery(cudaStream_t handle)
{
    return call(DN_EMULATOR_OTHER, Rule::plain, [&] {
        CUstream_st *stream = stream_of(handle);
        if (!stream)
            return cudaErrorInvalidResourceHandle;
        if (asked_while_capturing(stream))
            return cudaErrorStreamCaptureUnsupported;
        if (!stream->items.empty())
            run_one(stream);
        if (state().broken[stream->device] != cudaSuccess)
            return state().broken[stream->device];
        return stream->items.empty() ? cudaSuccess : cudaErrorNotReady;
    });
}

cudaError_t cudaStreamSynchronize(cudaStream_t handle)
{
    return call(DN_EMULATOR_SYNC, Rule::plain, [&] {
        CUstream_st *stream = stream_of(handle);
        if (!stream)
            return cudaErrorInvalidResourceHandle;
        if (asked_while_capturing(stream))
            return cudaErrorStreamCaptureUnsupported;
        run_until(stream, nullptr);
        return state().broken[stream->device];
    });
}

/* In a capture the stream becomes part of it; the capture's own stream joins what the event's did. */
cudaError_t cudaStreamWaitEvent(cudaStream_t handle, cudaEvent_t event, unsigned int flags)
{
    return call(DN_EMULATOR_OTHER, Rule::plain, [&] {
        CUstream_st *stream = stream_of(handle);
        if (!stream || !state().events.count(event) || flags != 0)
            return cudaErrorInvalidResourceHandle;
        if (event->capture) {
            if (stream->capture && stream->capture != event->capture)
                return cudaErrorStreamCaptureMerge;
            if (!stream->capture)
                stream->capture = event->capture;
            event->capture->unjoined.erase(event->captured);
            if (stream != event->capture->origin)
                event->capture->unjoined.insert(stream);
            return cudaSuccess;
        }
        if (stream->capture) {
            stream->capture->invalid = true;
            return cudaErrorStreamCaptureIsolation;
        }
        std::shared_ptr<Mark> mark = event->mark;
        if (mark && !mark->done) {
            add(
                stream,
                [mark] {
                    if (state().streams.count(mark->stream))
                        run_until(mark->stream, mark.get());
                },
                true);
        }
        return cudaSuccess;
    });
}

cudaError_t cudaEventCreate(cudaEvent_t *out)
{
    return create_event(out, cudaEventDefault);
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *out, unsigned int flags)
{
    return create_event(out, flags);
}

cudaError_t cudaEventDestroy(cudaEvent_t event)
{
    return call(DN_EMULATOR_OTHER, Rule::frees, [&] {
        if (!state().events.erase(event))
            return cudaErrorInvalidResourceHandle;
        delete event;
        return cudaSuccess;
    });
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t handle)
{
    return call(DN_EMULATOR_EVENT, Rule::plain, [&] {
        CUstream_st *stream = stream_of(handle);
        if (!stream || !state().events.count(event))
            return cudaErrorInvalidResourceHandle;
        event->capture = stream->capture;
        event->captured = stream;
        if (stream->capture)
            return cudaSuccess;
        auto mark = std::make_shared<Mark>();
        mark->stream = stream;
        event->mark = mark;
        add(
            stream,
            [mark] {
                mark->done = true;
                mark->when = seconds();
            },
            true);
        return cudaSuccess;
    });
}

static cudaError_t ask_event(cudaEvent_t event, bool wait)
{
    if (!state().events.count(event))
        return cudaErrorInvalidResourceHandle;
    if (event->capture) {
        event->capture->invalid = true;
        return cudaErrorCapturedEvent;
    }
    const Mark *mark = event->mark.get();
    if (!mark)
        return cudaSuccess;
    if (!mark->done && wait)
        run_until(mark->stream, mark);
    else if (!mark->done)
        run_one(mark->stream);
    if (state().broken[mark->stream->device] != cudaSuccess)
        return state().broken[mark->stream->device];
    return mark->done ? cudaSuccess : cudaErrorNotReady;
}

cudaError_t cudaEventQuery(cudaEvent_t event)
{
    return call(DN_EMULATOR_OTHER, Rule::unsafe, [&] { return ask_event(event, false); });
}

cudaError_t cudaEventSynchronize(cudaEvent_t event)
{
    return call(DN_EMULATOR_SYNC, Rule::unsafe, [&] { return ask_event(event, true); });
}

cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t from, cudaEvent_t to)
{
    return call(DN_EMULATOR_OTHER, Rule::plain, [&] {
        for (cudaEvent_t event : {from, to})
            if (!state().events.count(event) || !event->mark || (event->flags & cudaEventDisableTiming))
                return cudaErrorInvalidResourceHandle;
        if (!from->mark->done || !to->mark->done)
            return cudaErrorNotReady;
        *milliseconds = float((to->mark->when - from->mark->when) * 1e3);
        return cudaSuccess;
    });
}

} /* extern "C" */

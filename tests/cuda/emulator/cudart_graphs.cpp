/* The emulated GPU's graphs: what a captured stream was given, in that order, to be done again. */
#include "cudart.h"

using namespace cudart;

extern "C" {

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, enum cudaStreamCaptureMode mode)
{
    return call(DN_EMULATOR_CAPTURE, Rule::plain, [&] {
        if (!stream || !stream_of(stream))
            return stream ? cudaErrorInvalidResourceHandle : cudaErrorStreamCaptureUnsupported; /* the legacy stream cannot */
        if (stream->capture)
            return cudaErrorInvalidValue;
        auto capture = std::make_shared<Capture>();
        capture->origin = stream;
        capture->mode = mode;
        capture->thread = std::this_thread::get_id();
        stream->capture = capture;
        state().captures.insert(capture.get());
        return cudaSuccess;
    });
}

/* Whatever it answers, nothing captures afterwards; but where the stream or the thread is the wrong one. */
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *out)
{
    *out = nullptr;
    std::shared_ptr<Capture> capture;
    cudaError_t ended = cudaSuccess;
    cudaError_t code = call(DN_EMULATOR_CAPTURE, Rule::plain, [&] {
        ended = !stream || !stream_of(stream)                ? cudaErrorInvalidResourceHandle
                : !stream->capture                           ? cudaErrorInvalidValue
                : stream->capture->origin != stream          ? cudaErrorStreamCaptureUnmatched
                : stream->capture->mode != cudaStreamCaptureModeRelaxed && stream->capture->thread != std::this_thread::get_id()
                    ? cudaErrorStreamCaptureWrongThread
                    : cudaSuccess;
        return ended;
    });
    if (ended != cudaSuccess)
        return code;
    std::lock_guard<std::mutex> hold(state().lock);
    if (!stream_of(stream) || !(capture = stream->capture))
        return code; /* a broken card or no driver: it was not asked */
    state().captures.erase(capture.get());
    for (CUstream_st *other : state().streams)
        if (other->capture == capture)
            other->capture = nullptr;
    for (CUevent_st *event : state().events)
        if (event->capture == capture)
            event->capture = nullptr;
    if (code == cudaSuccess && capture->invalid)
        code = cudaErrorStreamCaptureInvalidated;
    if (code == cudaSuccess && !capture->unjoined.empty())
        code = cudaErrorStreamCaptureUnjoined;
    if (code != cudaSuccess)
        return code;
    auto *graph = new CUgraph_st{std::move(capture->nodes)};
    state().graphs.insert(graph);
    *out = graph;
    return cudaSuccess;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t handle, enum cudaStreamCaptureStatus *out)
{
    return call(DN_EMULATOR_OTHER, Rule::plain, [&] {
        CUstream_st *stream = stream_of(handle);
        if (!stream)
            return cudaErrorInvalidResourceHandle;
        *out = !stream->capture           ? cudaStreamCaptureStatusNone
               : stream->capture->invalid ? cudaStreamCaptureStatusInvalidated
                                          : cudaStreamCaptureStatusActive;
        return cudaSuccess;
    });
}

cudaError_t cudaThreadExchangeStreamCaptureMode(enum cudaStreamCaptureMode *mode)
{
    std::swap(*mode, capture_mode());
    return cudaSuccess;
}

cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t *nodes, size_t *count)
{
    return call(DN_EMULATOR_OTHER, Rule::plain, [&] {
        if (!state().graphs.count(graph) || nodes)
            return cudaErrorInvalidValue;
        *count = graph->nodes.size();
        return cudaSuccess;
    });
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *out, cudaGraph_t graph, unsigned long long flags)
{
    return call(DN_EMULATOR_GRAPH, Rule::plain, [&] {
        if (!state().graphs.count(graph) || flags > 15)
            return cudaErrorInvalidValue;
        auto *exec = new CUgraphExec_st{std::make_shared<std::vector<Node>>(graph->nodes), current_device()};
        state().executables.insert(exec);
        *out = exec;
        return cudaSuccess;
    });
}

cudaError_t cudaGraphUpload(cudaGraphExec_t exec, cudaStream_t stream)
{
    return call(DN_EMULATOR_OTHER, Rule::plain,
                [&] { return state().executables.count(exec) && stream_of(stream) ? cudaSuccess : cudaErrorInvalidResourceHandle; });
}

/* The nodes as they are now: an update later does not change what was launched. */
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t handle)
{
    return call(DN_EMULATOR_LAUNCH, Rule::plain, [&] {
        CUstream_st *stream = stream_of(handle);
        if (!stream || !state().executables.count(exec) || stream->device != exec->device)
            return cudaErrorInvalidResourceHandle;
        if (stream->capture) {
            stream->capture->invalid = true;
            return cudaErrorStreamCaptureUnsupported;
        }
        cudaError_t breaking = launch_fault();
        std::shared_ptr<std::vector<Node>> nodes = exec->nodes;
        return enqueue(stream, NodeKind::kernel, [nodes, breaking] {
            slow_launch();
            cudaError_t code = breaking;
            for (size_t i = 0; i < nodes->size() && code == cudaSuccess; i++)
                code = (*nodes)[i].work();
            return code;
        });
    });
}

cudaError_t cudaGraphExecUpdate(cudaGraphExec_t exec, cudaGraph_t graph, cudaGraphExecUpdateResultInfo *info)
{
    return call(DN_EMULATOR_GRAPH, Rule::plain, [&] {
        if (!state().executables.count(exec) || !state().graphs.count(graph))
            return cudaErrorInvalidValue;
        *info = cudaGraphExecUpdateResultInfo{};
        const std::vector<Node> &old = *exec->nodes;
        if (old.size() != graph->nodes.size())
            info->result = cudaGraphExecUpdateErrorTopologyChanged;
        for (size_t i = 0; info->result == cudaGraphExecUpdateSuccess && i < old.size(); i++)
            if (old[i].kind != graph->nodes[i].kind)
                info->result = cudaGraphExecUpdateErrorNodeTypeChanged;
        if (info->result != cudaGraphExecUpdateSuccess)
            return cudaErrorGraphExecUpdateFailure;
        exec->nodes = std::make_shared<std::vector<Node>>(graph->nodes);
        return cudaSuccess;
    });
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec)
{
    return call(DN_EMULATOR_OTHER, Rule::frees, [&] {
        if (!state().executables.erase(exec))
            return cudaErrorInvalidResourceHandle;
        delete exec;
        return cudaSuccess;
    });
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph)
{
    return call(DN_EMULATOR_OTHER, Rule::frees, [&] {
        if (!state().graphs.erase(graph))
            return cudaErrorInvalidResourceHandle;
        delete graph;
        return cudaSuccess;
    });
}

} /* extern "C" */

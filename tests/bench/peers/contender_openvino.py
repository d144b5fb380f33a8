"""OpenVINO as a contender: contender_openvino.py FOLDER WORK THREADS FORM   (FORM: f32, or bf16 as its hint of precision)"""
import os
import sys

folder, work, threads, form = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
os.environ["HF_HUB_OFFLINE"] = "1"

import contender  # noqa: E402
import numpy  # noqa: E402
import openvino  # noqa: E402
import peer_net  # noqa: E402
import torch  # noqa: E402
import works  # noqa: E402

model, batch, shape = works.WORKS[work]


class Forward(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.net = peer_net.open_model(os.path.join(folder, "models", model))

    def forward(self, x, time, classes):
        if model == "sd_vae":
            return self.net.decode(x, return_dict=False)[0]
        return self.net(x, timestep=time, class_labels=classes, return_dict=False)[0]


class Attention(torch.nn.Module):
    def forward(self, q, k, v):
        return torch.nn.functional.scaled_dot_product_attention(q, k, v)


def inputs():
    x = numpy.fromfile(os.path.join(folder, "inputs", work + ".f32"), dtype=numpy.float32).reshape(batch, *shape)
    if work == "attention":
        return list(numpy.ascontiguousarray(x.reshape(1, works.TOKENS, 3, works.HEADS, works.HEAD_DIM).transpose(2, 0, 3, 1, 4)))
    return [x, numpy.full(batch, works.TIME), numpy.arange(batch) % works.CLASSES][:1 if model == "sd_vae" else 3]


def compile_model():
    values = inputs()
    module = Attention() if work == "attention" else Forward()
    example = tuple(torch.from_numpy(value) for value in values)
    if len(example) == 1:
        example += (torch.zeros(1), torch.zeros(1))
    with torch.no_grad():
        converted = openvino.convert_model(module.eval(), example_input=example)
    for port, value in zip(converted.inputs, values):
        port.get_node().set_partial_shape(openvino.PartialShape(list(value.shape)))
    converted.validate_nodes_and_infer_types()
    hints = {"INFERENCE_PRECISION_HINT": form, "INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1}
    request = openvino.Core().compile_model(converted, "CPU", hints).create_infer_request()
    for index, value in enumerate(values):
        request.set_input_tensor(index, openvino.Tensor(value))
    return request


request = compile_model()


def save(path):
    request.infer()
    answer = request.get_output_tensor(0).data
    (answer.swapaxes(1, 2) if work == "attention" else answer).astype(numpy.float32).tofile(path)


contender.serve(request.infer, save, version=openvino.__version__, threads=threads)

#!/usr/bin/env python3
"""Writes onnx.st: what ONNX Runtime makes of the options of its RNN, LSTM and GRU, for
spec/lua/cells_spec.lua.

    python3 spec/golden/make_onnx.py      (onnx and onnxruntime, of the Python package index)

Each case is a line `name<tab>layer`, the layer as a script writes it. Weights and inputs are in
neap's blocks and names: ONNX has i o f c, peepholes i o f, and z r h. Rows have lengths of their own
and first states; float32 throughout.
"""
import numpy as np
import onnxruntime
from onnx import TensorProto, helper

from archive import save

LENGTHS = [3, 6, 1, 4]
INPUTS, HIDDEN = 3, 5
# neap's blocks among ONNX's
BLOCKS = {"RNN": [0], "LSTM": [0, 2, 3, 1], "GRU": [1, 0, 2]}
MAKERS = {"RNN": "elman", "LSTM": "lstm", "GRU": "gru"}


def activation(name, alpha=None, beta=None):
    """One of RNN's, and the same as neap's option."""
    attributes = {"activations": [name]}
    numbers = ""
    if alpha is not None:
        attributes["activation_alpha"] = [alpha]
        numbers += ", alpha = %g" % alpha
    if beta is not None:
        attributes["activation_beta"] = [beta]
        numbers += ", beta = %g" % beta
    ours = "".join("_" + c.lower() if c.isupper() and i else c.lower() for i, c in enumerate(name))
    return "RNN", attributes, 'activation = { "%s"%s }' % (ours, numbers)


CASES = {
    "relu": activation("Relu"),
    "tanh": activation("Tanh"),
    "sigmoid": activation("Sigmoid"),
    "affine": activation("Affine", 0.7, 0.2),
    "leaky_relu": activation("LeakyRelu", 0.2),
    "thresholded_relu": activation("ThresholdedRelu", 0.3),
    "scaled_tanh": activation("ScaledTanh", 1.3, 0.6),
    "hard_sigmoid": activation("HardSigmoid", 0.3, 0.4),
    "elu": activation("Elu", 0.7),
    "softsign": activation("Softsign"),
    "softplus": activation("Softplus"),
    "clip, elman": ("RNN", {"clip": 0.4}, "clip = 0.4"),
    "peepholes": ("LSTM", {}, "peepholes = true"),
    "coupled": ("LSTM", {"input_forget": 1}, "coupled = true"),
    "clip, lstm": ("LSTM", {"clip": 0.4}, "clip = 0.4"),
    "peepholes, coupled, clip": ("LSTM", {"input_forget": 1, "clip": 0.6},
                                 "peepholes = true, coupled = true, clip = 0.6"),
    "activations, lstm": ("LSTM", {"activations": ["HardSigmoid", "LeakyRelu", "ScaledTanh"],
                                   "activation_alpha": [0.3, 0.1, 1.3],
                                   "activation_beta": [0.4, 0.6]},
                          'gate = { "hard_sigmoid", alpha = 0.3, beta = 0.4 }, '
                          'candidate = { "leaky_relu", alpha = 0.1 }, '
                          'output = { "scaled_tanh", alpha = 1.3, beta = 0.6 }'),
    "reset before": ("GRU", {}, 'reset = "before"'),
    "reset after": ("GRU", {"linear_before_reset": 1}, 'reset = "after"'),
    "reset before, clip": ("GRU", {"clip": 0.4}, 'reset = "before", clip = 0.4'),
    "reset after, clip": ("GRU", {"linear_before_reset": 1, "clip": 0.4}, "clip = 0.4"),
    "activations, gru": ("GRU", {"activations": ["HardSigmoid", "Softsign"],
                                 "activation_alpha": [0.3], "activation_beta": [0.4],
                                 "linear_before_reset": 1},
                         'gate = { "hard_sigmoid", alpha = 0.3, beta = 0.4 }, '
                         'candidate = "softsign"'),
}


def case(rng, op, attributes, options):
    """All tensors of one case, by name."""
    def draw(*shape):
        return rng.normal(size=shape).astype(np.float32)

    gates, rows, steps = len(BLOCKS[op]), len(LENGTHS), max(LENGTHS)
    given = {
        "X": draw(steps, rows, INPUTS), "W": draw(1, gates * HIDDEN, INPUTS) / 2,
        "R": draw(1, gates * HIDDEN, HIDDEN) / 2, "B": draw(1, 2 * gates * HIDDEN) / 2,
        "sequence_lens": np.array(LENGTHS, np.int32), "initial_h": draw(1, rows, HIDDEN),
    }
    names, outputs = list(given), ["Y", "Y_h"]
    if op == "LSTM":
        given["initial_c"] = draw(1, rows, HIDDEN)
        names.append("initial_c")
        outputs.append("Y_c")
        if "peepholes" in options:
            given["P"] = draw(1, 3 * HIDDEN)
            names.append("P")
    kind = {"float32": TensorProto.FLOAT, "int32": TensorProto.INT32}
    node = helper.make_node(op, names, outputs, hidden_size=HIDDEN, **attributes)
    graph = helper.make_graph(
        [node], "case",
        [helper.make_tensor_value_info(n, kind[str(v.dtype)], v.shape) for n, v in given.items()],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in outputs])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(),
                                           providers=["CPUExecutionProvider"])
    made = dict(zip(outputs, session.run(None, given)))

    blocks = [b for k, b in enumerate(BLOCKS[op]) if not ("coupled" in options and k == 1)]

    def ordered(matrix):
        parts = np.split(matrix, gates)
        return np.concatenate([parts[b] for b in blocks])

    halves = np.split(given["B"][0], 2)
    tensors = {"x": given["X"], "h0": given["initial_h"][0], "weight_ih": ordered(given["W"][0]),
               "weight_hh": ordered(given["R"][0]), "bias_ih": ordered(halves[0]),
               "bias_hh": ordered(halves[1]), "y": made["Y"][:, 0], "h_n": made["Y_h"][0]}
    if op == "LSTM":
        tensors.update(c0=given["initial_c"][0], c_n=made["Y_c"][0])
    if "P" in given:
        parts = np.split(given["P"][0], 3)
        tensors.update(peephole_i=parts[0], peephole_o=parts[1])
        if "coupled" not in options:
            tensors.update(peephole_f=parts[2])
    return tensors


def main():
    rng = np.random.default_rng(4)
    tensors, lines = {"lengths": np.array(LENGTHS, np.int32)}, []
    for name, (op, attributes, options) in CASES.items():
        lines.append("%s\tneap.%s { size = %d, %s }" % (name, MAKERS[op], HIDDEN, options))
        for key, value in case(rng, op, attributes, options).items():
            tensors["%s.%s" % (name, key)] = value
    save("onnx.st", tensors, {"cases": "\n".join(lines), "onnxruntime": onnxruntime.__version__})


main()

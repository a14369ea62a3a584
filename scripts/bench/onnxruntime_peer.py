"""Times ONNX Runtime for `neap bench --peers`. Reads a case a line (workload cell T B D H L threads
seconds) and answers with the microseconds of one run and the megabytes that the process had in
memory at most, or "-". W2 a whole sequence, W3 one step by one call, W3-seq1000 a sequence of 1000
steps divided by 1000. The GRU has linear_before_reset=1."""
import ctypes
import gc
import sys
import time

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

KIND = {"rnn": ("RNN", 1), "lstm": ("LSTM", 4), "gru": ("GRU", 3)}


def model(cell, t, b, d, h, l, stateful):
    chance, nodes, given = np.random.default_rng(1), [], []
    kind, gates = KIND[cell]
    states = ["h", "c"] if cell == "lstm" else ["h"]

    def tensor(name, *shape):
        values = chance.uniform(-1, 1, shape) / np.sqrt(h)
        given.append(numpy_helper.from_array(values.astype(np.float32), name))
        return name

    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [t, b, d])]
    outputs, x = [], "x"
    given.append(numpy_helper.from_array(np.array([1], np.int64), "directions"))
    for k in range(l):
        names = [x, tensor(f"w{k}", 1, gates * h, d if k == 0 else h), tensor(f"r{k}", 1, gates * h, h),
                 tensor(f"b{k}", 1, 2 * gates * h)]
        if stateful:
            names += [""] + [f"{s}{k}" for s in states]
            for s in states:
                inputs.append(helper.make_tensor_value_info(f"{s}{k}", TensorProto.FLOAT, [1, b, h]))
                outputs.append(helper.make_tensor_value_info(f"{s}out{k}", TensorProto.FLOAT, [1, b, h]))
        options = {"linear_before_reset": 1} if cell == "gru" else {}
        nodes.append(helper.make_node(kind, names, [f"y{k}"] + [f"{s}out{k}" for s in states],
                                      hidden_size=h, **options))
        if not stateful:
            nodes.append(helper.make_node("Squeeze", [f"y{k}", "directions"], [f"z{k}"]))
            x = f"z{k}"
    if not stateful:
        outputs.append(helper.make_tensor_value_info(x, TensorProto.FLOAT, [t, b, h]))
    graph = helper.make_graph(nodes, "net", inputs, outputs, given)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)])
    made.ir_version = 8
    onnx.checker.check_model(made)
    return made.SerializeToString(), states


def make_case(workload, cell, t, b, d, h, l, threads):
    if workload not in ("W2", "W3", "W3-seq1000"):
        return None
    steps = 1000 if workload == "W3-seq1000" else t
    stateful = workload == "W3"
    data, states = model(cell, steps, b, d, h, l, stateful)
    how = onnxruntime.SessionOptions()
    how.intra_op_num_threads, how.inter_op_num_threads = threads, 1
    session = onnxruntime.InferenceSession(data, how, providers=["CPUExecutionProvider"])
    feeds = {"x": np.random.default_rng(2).uniform(-1, 1, (steps, b, d)).astype(np.float32)}
    if not stateful:
        return lambda: session.run(None, feeds), steps if workload == "W3-seq1000" else 1
    for s in states:
        feeds[s + "0"] = np.zeros((1, b, h), np.float32)

    def step():
        for s, value in zip(states, session.run([s + "out0" for s in states], feeds)):
            feeds[s + "0"] = value

    return step, 1


def memory_anew():
    """From now on `memory_peak` tells of what comes, with what was freed given back."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except (AttributeError, OSError):
        pass


def memory_peak():
    """Megabytes that the process had in memory at most; "" where the system does not tell."""
    try:
        for text in open("/proc/self/status"):
            if text.startswith("VmHWM:"):
                return int(text.split()[1]) * 1024 / 1e6
    except OSError:
        pass
    return ""


cases = {}
print("ready", flush=True)
for line in sys.stdin:
    workload, cell, *rest = line.split()
    key = (workload, cell, *map(int, rest[:6]))
    seconds = float(rest[6])
    if key not in cases:
        cases.clear()
        memory_anew()
        cases[key] = make_case(*key)
    if cases[key] is None:
        print("-", flush=True)
        continue
    run, parts = cases[key]
    n = 1
    while True:
        began = time.perf_counter()
        for _ in range(n):
            run()
        spent = time.perf_counter() - began
        if spent > 0.02:
            break
        n *= 2
    n = int(n * seconds / spent) + 1
    began = time.perf_counter()
    for _ in range(n):
        run()
    print((time.perf_counter() - began) / n / parts * 1e6, memory_peak(), flush=True)

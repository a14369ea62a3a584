"""Times PyTorch for `neap bench --peers`. Reads a case a line (workload cell T B D H L threads
seconds) and answers with the microseconds of one run and the megabytes that the process had in
memory at most, or "-". W1 a training step, W2 a whole sequence, W3 one step through the cell module
under torch.jit, W4 a training loop of a character model. OpenBLAS's AVX-512 kernels are chosen where
the processor has the instructions; where Debian's OpenMP OpenBLAS is installed it is loaded first,
because the usual one's threads spin against PyTorch's."""
import ctypes
import gc
import glob
import os
import sys
import time

try:
    if "avx512f" in open("/proc/cpuinfo").read():
        os.environ.setdefault("OPENBLAS_CORETYPE", "SkylakeX")
except OSError:
    pass
for library in glob.glob("/usr/lib/*/openblas-openmp/libblas.so.3"):
    ctypes.CDLL(library, mode=ctypes.RTLD_GLOBAL)

import torch
from torch import nn

WHOLE = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}
CELL = {"rnn": nn.RNNCell, "lstm": nn.LSTMCell, "gru": nn.GRUCell}
VOCABULARY = 65


def make_case(workload, cell, t, b, d, h, l):
    torch.manual_seed(1)
    if workload == "W1":
        net, x = WHOLE[cell](d, h, l), torch.randn(t, b, d)
        weights = list(net.parameters())

        def learn():
            for w in weights:
                w.grad = None
            net(x)[0][-1].square().sum().backward()

        return learn
    if workload == "W2":
        net, x = WHOLE[cell](d, h, l).eval(), torch.randn(t, b, d)

        def run():
            with torch.inference_mode():
                net(x)

        return run
    if workload == "W3":
        net, x = torch.jit.freeze(torch.jit.script(CELL[cell](d, h).eval())), torch.randn(1, d)
        zero = torch.zeros(1, h)
        state = [(zero, zero) if cell == "lstm" else zero]

        def step():
            with torch.no_grad():
                state[0] = net(x, state[0])

        return step
    if workload == "W4" and cell == "lstm":
        embed, net, out = nn.Embedding(VOCABULARY, d), nn.LSTM(d, h, l), nn.Linear(h, VOCABULARY)
        weights = [w for m in (embed, net, out) for w in m.parameters()]
        optim = torch.optim.Adam(weights, 1e-3)
        ids = torch.randint(0, VOCABULARY, (t + 1, b))
        carried = [None]

        def learn_text():
            y, state = net(embed(ids[:-1]), carried[0])
            carried[0] = tuple(s.detach() for s in state)
            loss = nn.functional.cross_entropy(out(y).flatten(0, 1), ids[1:].flatten())
            optim.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(weights, 1.0)
            optim.step()

        return learn_text
    return None


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
    t, b, d, h, l, threads = map(int, rest[:6])
    seconds = float(rest[6])
    torch.set_num_threads(threads)
    key = (workload, cell, t, b, d, h, l)
    if key not in cases:
        cases.clear()
        memory_anew()
        cases[key] = make_case(*key)
    run = cases[key]
    if run is None:
        print("-", flush=True)
        continue
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
    print((time.perf_counter() - began) / n * 1e6, memory_peak(), flush=True)

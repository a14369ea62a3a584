#!/usr/bin/python3
"""Writes recurrent.st: what PyTorch makes of RNN, LSTM, GRU and LSTM with a projection, for
spec/lua/torch_spec.lua.

    /usr/bin/python3 spec/golden/make_torch.py      (Debian: python3-torch)

One and two layers, one and two directions, packed rows of unsorted lengths, first states. Inputs
and weights are float32; everything else is computed from them in float64 and rounded once. The loss
is sum(a * output) + sum(b * h_n) + sum(d * c_n) with the fixed a, b, d of the file.
"""
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from archive import save

LENGTHS = [3, 6, 1, 4, 6]
KINDS = {
    "rnn_tanh": lambda *size, **more: nn.RNN(*size, nonlinearity="tanh", **more),
    "rnn_relu": lambda *size, **more: nn.RNN(*size, nonlinearity="relu", **more),
    "lstm": nn.LSTM,
    "gru": nn.GRU,
    "lstm_projected": lambda *size, **more: nn.LSTM(*size, proj_size=4, **more),
}
# layers, directions, input width, hidden width: below, at and above the widths of vector registers
SHAPES = [(1, 1, 5, 18), (1, 2, 3, 8), (2, 1, 4, 9), (2, 2, 3, 5)]


def case(kind, layers, directions, inputs, hidden):
    """All tensors of one case, by name."""
    def draw(*shape):
        return torch.randn(*shape).double().requires_grad_()

    net = KINDS[kind](inputs, hidden, num_layers=layers, bidirectional=directions == 2)
    net = net.double()  # the weights were drawn as float32
    rows, steps = len(LENGTHS), max(LENGTHS)
    out = 4 if kind == "lstm_projected" else hidden
    given = {"x": draw(steps, rows, inputs), "h0": draw(layers * directions, rows, out)}
    if kind.startswith("lstm"):
        given["c0"] = draw(layers * directions, rows, hidden)
    packed = pack_padded_sequence(given["x"], LENGTHS, enforce_sorted=False)
    first = (given["h0"], given["c0"]) if kind.startswith("lstm") else given["h0"]
    packed, last = net(packed, first)
    made = {"output": pad_packed_sequence(packed)[0]}
    made.update(zip(("h_n", "c_n"), last if kind.startswith("lstm") else (last,)))
    factors = {}
    loss = 0
    for name, value in made.items():
        factors["factor." + name] = torch.randn(value.shape).double()
        loss = loss + (factors["factor." + name] * value).sum()
    loss.backward()
    weights = dict(net.named_parameters())
    gradients = {"grad." + name: value.grad for name, value in {**given, **weights}.items()}
    return {**given, **weights, **made, **factors, **gradients, "loss": loss}


def main():
    torch.manual_seed(20)
    tensors = {"lengths": torch.tensor(LENGTHS, dtype=torch.int32)}
    names = []
    for kind in KINDS:
        for shape in SHAPES:
            names.append("%s %d %d %d %d" % (kind, *shape))
            for name, value in case(kind, *shape).items():
                tensors["%s.%s" % (names[-1].replace(" ", "_"), name)] = value.detach().float()
    save("recurrent.st", tensors, {"cases": "\n".join(names), "torch": torch.__version__})


main()

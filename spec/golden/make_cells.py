#!/usr/bin/python3
"""Writes cells.st: what PyTorch's functions and its differentiation make of options that its own
layers lack, for spec/lua/cells_spec.lua.

    /usr/bin/python3 spec/golden/make_cells.py      (Debian: python3-torch)

Each case is a line `name<tab>layer`, the layer as a script writes it; here the cell stands as the
papers write it, a row after the other. Inputs and weights are float32; everything else is computed
from them in float64 and rounded once. The loss is the sum of factor.y * y, factor.h_n * h_n and
factor.c_n * c_n.
"""
import torch
from torch.nn.functional import layer_norm

from archive import save

LENGTHS = [3, 6, 1, 4]
INPUTS, HIDDEN = 3, 5
sigmoid, tanh = torch.sigmoid, torch.tanh


def norm(v, gain, bias=None):
    """Ba et al. 2016."""
    return layer_norm(v, v.shape, gain, bias, 1e-5)


def elman_norm(x, h, _, p):
    a = norm(p.weight_ih @ x, p.gain_ih, p.bias_ih) + norm(p.weight_hh @ h, p.gain_hh, p.bias_hh)
    return tanh(a), None


def lstm_norm(x, h, c, p):
    """Ba et al. 2016, equations 20 to 22."""
    a = norm(p.weight_ih @ x, p.gain_ih, p.bias_ih) + norm(p.weight_hh @ h, p.gain_hh, p.bias_hh)
    i, f, g, o = a.chunk(4)
    c = sigmoid(f) * c + sigmoid(i) * tanh(g)
    return sigmoid(o) * tanh(norm(c, p.gain_c, p.bias_c)), c


def lstm_norm_unbiased(x, h, c, p):
    a = norm(p.weight_ih @ x, p.gain_ih) + norm(p.weight_hh @ h, p.gain_hh)
    i, f, g, o = a.chunk(4)
    c = sigmoid(f) * c + sigmoid(i) * tanh(g)
    return sigmoid(o) * tanh(norm(c, p.gain_c)), c


def lstm_zoneout(x, h, c, p):
    """Krueger et al. 2017, not learning: each state is the mean."""
    a = p.weight_ih @ x + p.bias_ih + p.weight_hh @ h + p.bias_hh
    i, f, g, o = a.chunk(4)
    new = sigmoid(f) * c + sigmoid(i) * tanh(g)
    return 0.2 * h + 0.8 * sigmoid(o) * tanh(new), 0.5 * c + 0.5 * new


def lstm_projected(x, h, c, p):
    """Sak et al. 2014, with peepholes: equations 1 to 6 without the second projection."""
    a = p.weight_ih @ x + p.bias_ih + p.weight_hh @ h + p.bias_hh
    i, f, g, o = a.chunk(4)
    i, f = sigmoid(i + p.peephole_i * c), sigmoid(f + p.peephole_f * c)
    c = f * c + i * tanh(g)
    return p.weight_hr @ (sigmoid(o + p.peephole_o * c) * tanh(c)), c


def lstm_gates(x, h, c, p):
    """The forget gate held in 0.2 .. 0.6, the output gate open, the candidate's sign turned."""
    a = p.weight_ih @ x + p.bias_ih + p.weight_hh @ h + p.bias_hh
    i, f, g, _ = a.chunk(4)
    c = sigmoid(f).clamp(0.2, 0.6) * c - sigmoid(i) * tanh(g)
    return tanh(c), c


def gru(x, h, p, take, before=False, gain=False):
    """Cho et al. 2014; reset after the product as in torch.nn.GRU, or before."""
    def product(side, v, rows):
        w = getattr(p, "weight_" + side)[rows] @ v
        b = getattr(p, "bias_" + side)[rows]
        return norm(w, getattr(p, "gain_" + side)[rows], b) if gain else w + b

    two, one = slice(0, 2 * HIDDEN), slice(2 * HIDDEN, 3 * HIDDEN)
    r, z = sigmoid(product("ih", x, two) + product("hh", h, two)).chunk(2)
    n = tanh(product("ih", x, one)
             + (product("hh", r * h, one) if before else r * product("hh", h, one)))
    return (z * n + (1 - z) * h if take else (1 - z) * n + z * h), None


def weights(gates, out=HIDDEN):
    return {"weight_ih": (gates * HIDDEN, INPUTS), "weight_hh": (gates * HIDDEN, out),
            "bias_ih": (gates * HIDDEN,), "bias_hh": (gates * HIDDEN,)}


def gains(gates):
    return {"gain_ih": (gates * HIDDEN,), "gain_hh": (gates * HIDDEN,)}


# layer, step, parameters; the width of h
CASES = {
    "layer norm, elman": ("elman { size = 5, layer_norm = true }", elman_norm,
                          {**weights(1), **gains(1)}),
    "layer norm, lstm": ("lstm { size = 5, layer_norm = true }", lstm_norm,
                         {**weights(4), **gains(4), "gain_c": (5,), "bias_c": (5,)}),
    "layer norm without bias": ("lstm { size = 5, layer_norm = true, bias = false }",
                                lstm_norm_unbiased,
                                {"weight_ih": (20, 3), "weight_hh": (20, 5), **gains(4),
                                 "gain_c": (5,)}),
    "layer norm, gru, reset after": (
        "gru { size = 5, layer_norm = true }",
        lambda x, h, c, p: gru(x, h, p, False, gain=True), {**weights(3), **gains(3)}),
    "layer norm, gru, reset before": (
        'gru { size = 5, layer_norm = true, reset = "before" }',
        lambda x, h, c, p: gru(x, h, p, False, before=True, gain=True),
        {**weights(3), **gains(3)}),
    "update, reset after": ('gru { size = 5, update = "take" }',
                            lambda x, h, c, p: gru(x, h, p, True), weights(3)),
    "update, reset before": ('gru { size = 5, update = "take", reset = "before" }',
                             lambda x, h, c, p: gru(x, h, p, True, before=True), weights(3)),
    "zoneout": ("lstm { size = 5, zoneout = { h = 0.2, c = 0.5 } }", lstm_zoneout, weights(4)),
    "projection and peepholes": (
        "lstm { size = 5, projection = 2, peepholes = true }", lstm_projected,
        {**weights(4, 2), "weight_hr": (2, 5), "peephole_i": (5,), "peephole_f": (5,),
         "peephole_o": (5,)}),
    "gates": ("lstm { size = 5, gates = { f = function(f) return neap.op.clamp(f, 0.2, 0.6) end, "
              "o = 1, g = function(g) return -g end } }", lstm_gates, weights(4)),
}


class Parameters:
    pass


def case(layer, step, shapes):
    """All tensors of one case, by name."""
    def draw(*shape):
        return torch.randn(*shape).double().requires_grad_()

    rows, steps = len(LENGTHS), max(LENGTHS)
    given = {"x": draw(steps, rows, INPUTS), "h0": draw(rows, shapes["weight_hh"][1])}
    if layer.startswith("lstm"):
        given["c0"] = draw(rows, HIDDEN)
    p = Parameters()
    for name, shape in shapes.items():
        given[name] = draw(*shape)
        setattr(p, name, given[name])
    width = given["h0"].shape[1]
    made = {"y": torch.zeros(steps, rows, width).double(), "h_n": torch.zeros(rows, width).double()}
    if "c0" in given:
        made["c_n"] = torch.zeros(rows, HIDDEN).double()
    loss = 0
    factors = {name: torch.randn(value.shape).double() for name, value in made.items()}
    for row, length in enumerate(LENGTHS):
        h, c = given["h0"][row], given["c0"][row] if "c0" in given else None
        for t in range(length):
            h, c = step(given["x"][t, row], h, c, p)
            made["y"][t, row] = h.detach()
            loss = loss + (factors["y"][t, row] * h).sum()
        for name, value in (("h_n", h), ("c_n", c)):
            if value is not None:
                made[name][row] = value.detach()
                loss = loss + (factors[name][row] * value).sum()
    loss.backward()
    return {**given, **made, **{"factor." + n: v for n, v in factors.items()},
            **{"grad." + n: v.grad for n, v in given.items()}}


def main():
    torch.manual_seed(21)
    tensors, lines = {"lengths": torch.tensor(LENGTHS, dtype=torch.int32)}, []
    for name, (layer, step, shapes) in CASES.items():
        lines.append("%s\tneap.%s" % (name, layer))
        for key, value in case(layer, step, shapes).items():
            tensors["%s.%s" % (name, key)] = value.detach().float()
    save("cells.st", tensors, {"cases": "\n".join(lines), "torch": torch.__version__})


main()

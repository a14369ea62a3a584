#!/usr/bin/python3
"""Writes losses.st: what PyTorch makes of losses, for spec/lua/losses_spec.lua.

    /usr/bin/python3 spec/golden/make_losses.py      (Debian: python3-torch)

Scores, targets and factors are float32 or int32; everything else is computed from them in float64
and rounded once. ctc: a loss for each row and the gradient of the sum of factor * loss, by
torch.nn.functional.ctc_loss with zero_infinity both ways. The others: one number and its gradient.
"""
import torch
from torch.nn import functional as F

from archive import save

# name: classes, blank, lengths, labels of each row. The first two of "hopeless" have no room.
CTC = {
    "plain": (6, 0, [7, 4, 9], [[1, 2, 3], [5], [4, 1, 4, 2, 3]]),
    "repeats": (4, 3, [8, 5, 3, 6], [[0, 0, 1, 1], [2, 2], [1, 1], [0, 1, 0, 0]]),
    "empty": (5, 4, [6, 1, 3], [[], [], [2, 0]]),
    "hopeless": (5, 2, [2, 4, 5], [[0, 1, 3], [1, 1, 1], [1, 0, 1]]),
    "wide": (1000, 999, [8, 5], [[998, 0, 500], [7, 7]]),
    "long": (4, 1, [300, 120], [[0, 2, 3] * 25, [2] * 30]),
}
CLASSES = 7
IDS = [0, 3, -1, 6, 2, 2, 5, -1, 1]


def ctc(classes, blank, lengths, labels):
    rows, steps = len(lengths), max(lengths)
    x = torch.randn(steps, rows, classes)
    scores = (2 * x).double().requires_grad_()
    factor = torch.rand(rows).add(0.5)
    out = {"x": 2 * x, "factor": factor}
    for zero in (False, True):
        loss = F.ctc_loss(scores.log_softmax(2), torch.tensor(sum(labels, []), dtype=torch.long),
                          torch.tensor(lengths), torch.tensor([len(l) for l in labels]), blank,
                          reduction="none", zero_infinity=zero)
        out["loss_zero" if zero else "loss"] = loss
    (loss * factor.double()).sum().backward()
    gradient = scores.grad.clone()
    for row, length in enumerate(lengths):
        gradient[length:, row] = 0
    out["grad"] = gradient
    out["lengths"] = torch.tensor(lengths, dtype=torch.int32)
    out["counts"] = torch.tensor([len(l) for l in labels], dtype=torch.int32)
    out["labels"] = torch.tensor(sum(labels, []), dtype=torch.int32)
    out["blank"] = torch.tensor([blank], dtype=torch.int32)
    return out


def focal(x, ids, gamma):
    """Lin et al. 2017, equation 4."""
    known = ids >= 0
    p = x.softmax(1)[known, ids[known]]
    return (-(1 - p) ** gamma * p.log()).mean()


def classes(tensors):
    """Losses of classes: each a number and its gradient."""
    ids = torch.tensor(IDS)
    logits, weights = 2 * torch.randn(len(IDS), CLASSES), torch.rand(CLASSES) + 0.25
    tensors.update({"logits": logits, "ids": ids.int(), "weights": weights})
    makers = {
        "smoothing": lambda x: F.cross_entropy(x, ids, ignore_index=-1, label_smoothing=0.15),
        "weights": lambda x: F.cross_entropy(x, ids, weights.double(), ignore_index=-1),
        "focal": lambda x: focal(x, ids, 2),
        "focal_half": lambda x: focal(x, ids, 0.5),
    }
    for name, loss in makers.items():
        x = logits.double().requires_grad_()
        value = loss(x)
        value.backward()
        tensors["class.%s.loss" % name], tensors["class.%s.grad" % name] = value, x.grad


def numbers(tensors):
    """Losses of numbers."""
    given, target = 2 * torch.randn(6, 4), torch.randn(6, 4)
    tensors.update({"given": given, "target": target})
    makers = {
        "mse": F.mse_loss, "mae": F.l1_loss, "huber": F.huber_loss,
        "huber_third": lambda x, y: F.huber_loss(x, y, delta=0.3),
    }
    for name, loss in makers.items():
        x = given.double().requires_grad_()
        value = loss(x, target.double())
        value.backward()
        tensors["number.%s.loss" % name], tensors["number.%s.grad" % name] = value, x.grad


def main():
    torch.manual_seed(8)
    tensors = {}
    for name, case in CTC.items():
        for key, value in ctc(*case).items():
            tensors["ctc.%s.%s" % (name, key)] = value.detach()
    classes(tensors)
    numbers(tensors)
    tensors = {key: value.detach() for key, value in tensors.items()}
    save("losses.st", tensors, {"ctc": "\n".join(CTC), "torch": torch.__version__})


main()

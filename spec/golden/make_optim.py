#!/usr/bin/python3
"""Writes optim.st: what PyTorch's optimizers and schedules do, for spec/lua/optim_spec.lua.

    /usr/bin/python3 spec/golden/make_optim.py      (Debian: python3-torch)

Each optimizer is a line `name<tab>kind<tab>options`, the options as a script of ours writes them;
its 12 steps start from `w` and take the rows of `gradient`; the values after each step are a row of
NAME. Each schedule is a line `name<tab>expression`; its rates are schedule.NAME. Gradients and first
values are float32, everything else is computed in float64 and rounded once.
"""
import torch
from torch import optim
from torch.optim import lr_scheduler as S

from archive import save

STEPS, SIZE, RATE = 12, 7, 0.5

OPTIMIZERS = {
    "sgd": ("sgd", "rate = 0.1, momentum = 0.9, weight_decay = 0.01",
            lambda p: optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.01)),
    "nesterov": ("nesterov", "", lambda p: optim.SGD(p, 0.01, momentum=0.9, nesterov=True)),
    "nesterov_decay": ("nesterov", "rate = 0.1, momentum = 0.6, weight_decay = 0.05",
                       lambda p: optim.SGD(p, 0.1, momentum=0.6, nesterov=True, weight_decay=0.05)),
    "rmsprop": ("rmsprop", "rate = 0.02, decay = 0.9, momentum = 0.5",
                lambda p: optim.RMSprop(p, 0.02, alpha=0.9, momentum=0.5)),
    "adam": ("adam", "rate = 0.01, weight_decay = 0.02",
             lambda p: optim.Adam(p, 0.01, weight_decay=0.02)),
    "adamw": ("adamw", "rate = 0.01", lambda p: optim.AdamW(p, 0.01)),
    "adagrad": ("adagrad", "", optim.Adagrad),
    "adagrad_decay": ("adagrad", "rate = 0.2, eps = 1e-3, weight_decay = 0.1",
                      lambda p: optim.Adagrad(p, 0.2, eps=1e-3, weight_decay=0.1)),
    "adadelta": ("adadelta", "", optim.Adadelta),
    "adadelta_decay": ("adadelta", "rate = 0.5, decay = 0.8, eps = 1e-4, weight_decay = 0.1",
                       lambda p: optim.Adadelta(p, 0.5, rho=0.8, eps=1e-4, weight_decay=0.1)),
}

SCHEDULES = {
    "step": ("step { every = 4 }", lambda o: S.StepLR(o, 4)),
    "step_half": ("step { every = 3, factor = 0.5 }", lambda o: S.StepLR(o, 3, 0.5)),
    "exponential": ("exponential { factor = 0.9 }", lambda o: S.ExponentialLR(o, 0.9)),
    "cosine": ("cosine { steps = 30, low = 0.05 }",
               lambda o: S.CosineAnnealingLR(o, 30, eta_min=0.05)),
    "one_cycle": ("one_cycle { steps = 31 }", lambda o: S.OneCycleLR(o, RATE, total_steps=31)),
    "one_cycle_more": ("one_cycle { steps = 31, rise = 0.5, start = 5, finish = 50 }",
                       lambda o: S.OneCycleLR(o, RATE, total_steps=31, pct_start=0.5, div_factor=5,
                                              final_div_factor=50)),
    "warmup": ("warmup { steps = 10, from = 0.2 }",
               lambda o: S.LinearLR(o, start_factor=0.2, total_iters=10)),
}
SCORES = [0.1, 0.2, 0.2, 0.20001, 0.19, 0.25, 0.25, 0.25, 0.2, 0.1, 0.1, 0.1, 0.1, 0.1, 0.3, 0.1]
PLATEAUS = {
    "plateau": ("plateau { patience = 2, factor = 0.5, low = 0.1 }",
                lambda o: S.ReduceLROnPlateau(o, "max", 0.5, 2, min_lr=0.1)),
    "plateau_lower": ("plateau { patience = 3, lower = true }",
                      lambda o: S.ReduceLROnPlateau(o, "min", patience=3)),
}


def trace(maker, start, gradients):
    w = start.double().requires_grad_()
    steps, rows = maker([w]), []
    for gradient in gradients:
        w.grad = gradient.double()
        steps.step()
        rows.append(w.detach().clone())
    return torch.stack(rows)


def rates(maker, scores=None):
    steps = optim.SGD([torch.zeros(1, requires_grad=True)], RATE)
    schedule, out = maker(steps), []
    for score in scores or [None] * 31:
        out.append(steps.param_groups[0]["lr"])
        steps.step()
        if len(out) < 31:
            schedule.step() if score is None else schedule.step(score)
    return torch.tensor(out, dtype=torch.float64)


def main():
    torch.manual_seed(12)
    start, gradients = torch.randn(SIZE), torch.randn(STEPS, SIZE)
    gradients[:, 3] = 0
    gradients[:6, 4] = 0
    tensors = {"w": start, "gradient": gradients, "scores": torch.tensor(SCORES),
               "rate": torch.tensor([RATE])}
    for name, (_, _, maker) in OPTIMIZERS.items():
        tensors[name] = trace(maker, start, gradients)
    for name, (_, maker) in SCHEDULES.items():
        tensors["schedule." + name] = rates(maker)
    for name, (_, maker) in PLATEAUS.items():
        tensors["schedule." + name] = rates(maker, SCORES)
    lines = lambda table: "\n".join("%s\t%s" % (name, "\t".join(row[:-1])) for name, row in table)
    save("optim.st", tensors, {
        "optimizers": lines(OPTIMIZERS.items()), "schedules": lines(SCHEDULES.items()),
        "plateaus": lines(PLATEAUS.items()), "torch": torch.__version__})


main()

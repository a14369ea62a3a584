#!/usr/bin/python3
"""Writes data.json: what other software makes of scores, subwords and sounds, for
spec/lua/metrics_spec.lua.

    python3 -m venv V && V/bin/pip install numpy scipy librosa sacrebleu subword-nmt
    V/bin/python spec/golden/make_data.py
"""
import json
import os
import random

import sacrebleu

OUT = {}

# ---- BLEU: sacrebleu, symbols as given ----

random.seed(7)
WORDS = "a b c d e the cat sat on mat".split()


def sentence(n):
    return [random.choice(WORDS) for _ in range(n)]


def noisy(words, keep):
    out = []
    for w in words:
        x = random.random()
        if x < keep:
            out.append(w)
        elif x < (1 + keep) / 2:
            out.append(random.choice(WORDS))
    return out


def bleu_cases():
    cases = []
    for count, refs, low, high, keep in [(30, 1, 5, 15, 0.8), (20, 3, 4, 12, 0.8),
                                         (4, 2, 1, 6, 0.5), (1, 1, 8, 8, 0.6)]:
        base = [sentence(random.randint(low, high)) for _ in range(count)]
        hyps = [noisy(b, keep) for b in base]
        references = [[noisy(b, keep) if k else b for k in range(refs)] for b in base]
        by_stream = [[" ".join(r[k]) for r in references] for k in range(refs)]
        case = {"hypotheses": [" ".join(h) for h in hyps],
                "references": [[" ".join(x) for x in r] for r in references]}
        for name, more in [("none", {}), ("add1", {"smooth_value": 1}),
                           ("add05", {"smooth_value": 0.5})]:
            metric = sacrebleu.BLEU(tokenize="none", smooth_method="add-k" if more else "none",
                                    **more)
            score = metric.corpus_score(case["hypotheses"], by_stream)
            case[name] = {"bleu": score.score, "brevity_penalty": score.bp,
                          "reference_length": score.ref_len}
        cases.append(case)
    return cases


OUT["bleu"] = bleu_cases()

path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "data.json")
with open(path, "w") as file:
    json.dump(OUT, file, ensure_ascii=False)
    file.write("\n")

#!/usr/bin/python3
"""Writes ngram.json: Kneser-Ney probabilities for spec/lua/ngram_spec.lua.

    python3 -m venv V && V/bin/pip install nltk
    V/bin/python spec/golden/make_ngram.py

With one discount for all counts (cases with "discount") the n-grams longer than one symbol are those
of nltk.lm; it neither discounts single symbols nor mixes them with 1/V, which is added here. With
three estimated discounts (Chen and Goodman 1999, eq. 26) everything is computed here, in fractions,
from sets of places in the text.
"""
import json
import math
import os
import random
from fractions import Fraction

from nltk.lm.models import InterpolatedLanguageModel
from nltk.lm.smoothing import KneserNey
from nltk.util import everygrams

random.seed(5)
V = 100


def draw(n):
    """Symbols of a chain: each has a few that often follow it."""
    ids = [0]
    while len(ids) < n:
        if random.random() < 0.5:
            ids.append((7 * ids[-1] + random.choice([1, 1, 1, 2, 5])) % V)
        else:
            ids.append(min(int(random.paretovariate(0.7)) - 1, V - 1))
    return ids


TEXT, HELD = draw(2000), draw(100)


class WithUniform(KneserNey):
    def unigram_score(self, word):
        a, total = self._continuation_counts(word)
        kinds = sum(self._continuation_counts(str(w))[0] > 0 for w in range(V))
        return max(a - self.discount, 0) / total + self.discount * kinds / total / V


def by_nltk(order, discount):
    model = InterpolatedLanguageModel(WithUniform, order,
                                      params={"discount": discount, "order": order})
    words = ["^"] + [str(w) for w in TEXT]  # ^: where the text begins
    model.fit([everygrams(words, max_len=order)], words)
    return lambda word, context: model.unmasked_score(str(word), tuple(map(str, context)))


class Modified:
    """By the definitions: places[g] is the set of places where g begins, before a place its symbol."""

    def __init__(self, order):
        self.order, self.counts, self.discounts = order, [], []
        for k in range(1, order + 1):
            places = {}
            for i in range(len(TEXT) - k + 1):
                places.setdefault(tuple(TEXT[i:i + k]), []).append(i)
            if k < order:
                places = {g: {TEXT[i - 1] if i > 0 else None for i in p} for g, p in places.items()}
            counts = {g: len(p) for g, p in places.items()}
            n = [None] + [sum(a == i for a in counts.values()) for i in (1, 2, 3, 4)]
            y = Fraction(n[1], n[1] + 2 * n[2])
            self.discounts.append([i - (i + 1) * y * n[i + 1] / n[i] for i in (1, 2, 3)])
            self.counts.append(counts)

    def __call__(self, word, context):
        context = tuple(context)
        k = len(context) + 1
        lower = self(word, context[1:]) if context else Fraction(1, V)
        after = {g[-1]: a for g, a in self.counts[k - 1].items() if g[:-1] == context}
        if not after:
            return lower
        total, d = sum(after.values()), self.discounts[k - 1]
        taken = {w: d[min(a, 3) - 1] for w, a in after.items()}
        own = after[word] - taken[word] if word in after else 0
        return (own + sum(taken.values()) * lower) / total


CASES = []
for order in (1, 2, 3, 4):
    for discount in (None, 0.75)[:order]:  # nltk's single symbols are never counted as they come
        p = by_nltk(order, discount) if discount else Modified(order)
        logs = [math.log(p(w, HELD[max(0, i - order + 1):i])) for i, w in enumerate(HELD) if i > 0]
        case = {"order": order, "logs": logs}
        if discount:
            case["discount"] = discount
        else:
            case["discounts"] = [[float(d) for d in level] for level in p.discounts]
            assert all(0 < d <= i + 1 for level in p.discounts for i, d in enumerate(level))
        CASES.append(case)

with open(os.path.join(os.path.dirname(__file__), "ngram.json"), "w") as file:
    json.dump({"symbols": V, "text": TEXT, "held": HELD, "cases": CASES}, file)
    file.write("\n")

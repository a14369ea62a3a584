#!/usr/bin/python3
"""Writes data.json: what other software makes of scores, subwords and sounds, for
spec/lua/metrics_spec.lua.

    python3 -m venv V && V/bin/pip install numpy scipy librosa sacrebleu subword-nmt
    V/bin/python spec/golden/make_data.py
"""
import io
import json
import os
import random

import librosa
import numpy
import sacrebleu
import scipy.fft
from subword_nmt.apply_bpe import BPE

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

# ---- subwords: merges by counting all anew each time; cut by subword-nmt, whose subwords do not
# show the end of the word ----

def merge(word, pair):
    out, i = [], 0
    while i < len(word):
        if tuple(word[i:i + 2]) == pair:
            out.append(word[i] + word[i + 1])
            i += 2
        else:
            out.append(word[i])
            i += 1
    return out


def learn(counts, merges, least):
    words, found = {w: list(w) + [" "] for w in counts}, []
    while len(found) < merges:
        pairs = {}
        for w, symbols in words.items():
            for pair in zip(symbols, symbols[1:]):
                pairs[pair] = pairs.get(pair, 0) + counts[w]
        if not pairs:
            break
        most = max(pairs.values())
        if most < least:
            break
        best = min((p for p in pairs if pairs[p] == most),
                   key=lambda p: (p[0].encode(), p[1].encode()))
        found.append(best)
        words = {w: merge(symbols, best) for w, symbols in words.items()}
    return found


def bpe_case():
    syllables = "ba ke lo mi nu ra ß é 中文 aa th er".split()
    counts = {}
    for _ in range(400):
        w = "".join(random.choice(syllables[:random.randint(2, 12)])
                    for _ in range(random.randint(1, 4)))
        counts[w] = counts.get(w, 0) + 1
    merges = learn(counts, 120, 2)
    codes = "#version: 0.1\n" + "\n".join(
        "%s %s" % tuple(x.replace(" ", "</w>") for x in p) for p in merges)
    cutter = BPE(io.StringIO(codes), separator="")
    texts = [" ".join(random.choice(list(counts)) for _ in range(6)) for _ in range(10)]
    texts += ["thermal keloba aaaaaaa aaaa", "中中文文 ßé bakelomi"]
    return {"counts": counts, "merges": [x for p in merges for x in p], "texts": texts,
            "cut": [cutter.segment_tokens(text.split()) for text in texts]}


OUT["bpe"] = bpe_case()

# ---- sound: librosa; and what the HTK Book says, by numpy's FFT ----

RATE, HOP, WINDOW, FFT = 8000, 80, 200, 256


def rounded(x):
    return numpy.round(numpy.asarray(x, dtype=float), 6).tolist()


def mel(f):
    return 2595 * numpy.log10(1 + f / 700)


def htk_spectrum(x, filters, low, high, a):
    """Magnitudes, preemphasis within each window, triangles straight in mel; [steps, filters]."""
    x = numpy.concatenate([numpy.zeros(WINDOW - HOP), x])
    edges = numpy.linspace(mel(low), mel(high), filters + 2)
    at = mel(numpy.arange(FFT // 2 + 1) * RATE / FFT)
    bank = numpy.array([numpy.interp(at, edges[m:m + 3], [0, 1, 0], 0, 0)
                        for m in range(filters)])
    rows = []
    for begin in range(0, len(x) - WINDOW + 1, HOP):
        frame = x[begin:begin + WINDOW].copy()
        frame[1:] -= a * frame[:-1]
        frame[0] *= 1 - a
        rows.append(bank @ numpy.abs(numpy.fft.rfft(frame * numpy.hamming(WINDOW), FFT)))
    return numpy.array(rows)


def sound_case():
    time = numpy.arange(12 * HOP)
    noise = numpy.random.RandomState(5)
    x = (0.4 * numpy.sin(time * time * 1e-3) + 0.2 * numpy.sin(time * 0.3)
         + 0.01 * noise.randn(len(time)))
    x = numpy.round(numpy.where(time < 100, 0.1 * x, x), 5)
    side = (FFT - WINDOW) // 2
    padded = numpy.concatenate([numpy.zeros(WINDOW - HOP + side), x, numpy.zeros(side)])
    power = librosa.feature.melspectrogram(
        y=padded, sr=RATE, n_fft=FFT, hop_length=HOP, win_length=WINDOW, center=False, power=2,
        n_mels=20, fmin=0, fmax=RATE / 2, window="hann", htk=False, norm="slaney",
        dtype=numpy.float64)
    log_mel = numpy.log(numpy.maximum(power, 1e-10))
    mfcc = librosa.feature.mfcc(S=log_mel, n_mfcc=13, dct_type=2, norm="ortho")
    delta = librosa.feature.delta(mfcc, width=5, mode="nearest")
    delta2 = librosa.feature.delta(delta, width=5, mode="nearest")
    htk = numpy.log(numpy.maximum(htk_spectrum(x, 12, 100, 3800, 0.97), 1e-10))
    cepstra = scipy.fft.dct(htk, norm="ortho")[:, :10]
    cepstra *= 1 + 11 * numpy.sin(numpy.pi * numpy.arange(10) / 22)
    return {"samples": x.tolist(), "log_mel": rounded(log_mel.T), "mfcc": rounded(mfcc.T),
            "deltas": rounded(numpy.concatenate([mfcc, delta, delta2]).T),
            "htk_log_mel": rounded(htk), "htk_mfcc": rounded(cepstra)}


OUT["sound"] = sound_case()

path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "data.json")
with open(path, "w") as file:
    json.dump(OUT, file, ensure_ascii=False)
    file.write("\n")

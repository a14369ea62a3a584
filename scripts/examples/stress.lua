--- Synchronous sequence to sequence: for each phoneme of a word whether a syllable begins there,
-- and how it is stressed ("0", "1", "2"; "-" inside a syllable).
local neap = require "neap"
local common = dofile((arg[0]:match "^.*/" or "") .. "common.lua")

local options = common.options {
  "Learns syllables and stress from phonemes. Without --train: Debian's festlex-cmu.",
  data = 'a lexicon of Festival: lines ("word" pos (((ph ...) stress) ...))', epochs = 6, quick = 4,
  train = "/usr/share/festival/dicts/cmu/cmudict-0.4.out",
}
local rng = neap.rng(options.seed)
local size, batch, rate = 128, 64, 2e-3
if options.quick then size, batch, rate = 16, 16, 1e-2 end

-- --quick: syllables of a consonant and a vowel; stress on the last one with "iy", else the first.
local function invented(n)
  local vowels, word, phonemes, marks = { "aa", "iy", "ow", "uw" }, {}, {}, {}
  for i = 1, n do
    local p, m, stressed = {}, {}, 1
    for s = 1, 1 + rng:int(3) do
      local consonant, vowel = rng:int(5), rng:int(4)
      p[2 * s - 1], p[2 * s] = ("bdkmt"):sub(consonant, consonant), vowels[vowel]
      m[2 * s - 1], m[2 * s] = "0", "-"
      if vowel == 2 then stressed = s end
    end
    m[2 * stressed - 1] = "1"
    word[i], phonemes[i], marks[i] = table.concat(p), p, m
  end
  return neap.corpus.from { word = word, phonemes = phonemes, marks = marks }
end

-- Data: the words of a lexicon, all entries of a word in the same part.
local train, dev, test
if options.quick then
  train, dev = invented(600), invented(200)
else
  train, dev, test = common.corpora(options, {
    read = neap.corpus.festival,
    missing = "install festlex-cmu or give --train FILE (a lexicon of Festival)",
    share = 0.1, rng = rng, by = "word",
  })
end

-- The network, or the one that was saved.
local model
if options.load then
  model = common.load(options, "synced_seq2seq", { "input" })
else
  model = neap.synced_seq2seq {
    input = neap.vocab(train, "phonemes", { unk = true }), output = neap.vocab(train, "marks"),
    rng = rng, threads = options.threads,
    net = neap.chain {
      neap.embed { size = 32 },                       -- [T,B] ids -> [T,B,32]
      neap.bidir { neap.lstm { size = size } },       -- -> [T,B,256]
      neap.dropout { rate = 0.2 },
      neap.bidir { neap.lstm { size = size } },
      neap.dropout { rate = 0.2 },
      neap.linear {},                                 -- -> [T,B,marks]
    },
  }
end

local function fields(corpus)
  return { input = corpus:encode("phonemes", model.inputs[1].vocab),
    output = corpus:encode("marks", model.output, { unknown = "ignore" }) }
end

-- Learning.
if not options.load then
  local data, held = fields(train), fields(dev)
  neap.fit(model, {
    optim = neap.adam { rate = rate, clip = 5 },
    rate = function(epoch) return rate * 0.7 ^ (epoch - 1) end,
    epochs = options.epochs, minutes = options.minutes,
    train = function() return neap.batches(data, { size = batch, rng = rng }) end,
    dev = function() return model:score(held) end,
  })
end
common.save(options, model)

-- What came of it, beside the marks that words of the same shape (consonants and vowels) have most
-- often. For a shape never seen, each of its phonemes has the mark that such a one has most often.
local function shape(phonemes)
  local kinds = {}
  for t, p in ipairs(phonemes) do kinds[t] = p:find "^[aeiou]" and "V" or "C" end
  return table.concat(kinds)
end

local function most(counts)
  local best
  for value, n in pairs(counts) do
    if not best or n > counts[best] or n == counts[best] and value < best then best = value end
  end
  return best
end

local function baseline()
  local whole, single = {}, { V = {}, C = {} }
  local function count(where, value) where[value] = (where[value] or 0) + 1 end
  for i = 1, #train do
    local s, marks = shape(train:get("phonemes", i)), train:get("marks", i)
    whole[s] = whole[s] or {}
    count(whole[s], table.concat(marks))
    for t, mark in ipairs(marks) do count(single[s:sub(t, t)], mark) end
  end
  local pattern = {}
  for s, counts in pairs(whole) do pattern[s] = most(counts) end
  local kind = { V = most(single.V), C = most(single.C) }
  local right, n, words = 0, 0, 0
  for i = 1, #dev do
    local s, marks = shape(dev:get("phonemes", i)), table.concat(dev:get("marks", i))
    local guess = pattern[s] or s:gsub(".", kind)
    for t = 1, #marks do
      if guess:byte(t) == marks:byte(t) then right = right + 1 end
    end
    n, words = n + #marks, words + (guess == marks and 1 or 0)
  end
  return right / n, 1 - words / #dev
end

-- A word as phonemes with a dot between syllables and ' after the stressed one's first phoneme.
local function spell(phonemes, marks)
  local text = {}
  for t, p in ipairs(phonemes) do
    local mark = marks[t]
    text[t] = (mark == "-" and " " or t > 1 and " . " or "") .. p
      .. (mark == "1" and "'" or mark == "2" and "," or "")
  end
  return table.concat(text)
end

if options.load then common.known(options, dev, "marks", model.output) end
local guesses = model:predict(neap.batches(fields(dev), { size = 200, bucket = false })())
common.show(#guesses, function(i)
  local phonemes = dev:get("phonemes", i)
  local guess, truth = spell(phonemes, guesses[i]), spell(phonemes, dev:get("marks", i))
  return guess == truth, ("%-16s %s%s"):format(dev:string("word", i), guess,
    guess == truth and "" or "   is " .. truth)
end)
local scores = model:score(fields(dev))
local values = { dev_accuracy = scores.accuracy, dev_wer = 1 - scores.sequence_accuracy,
  test_accuracy = test and model:score(fields(test)).accuracy, parameters = model:parameters() }
if train then values.baseline_accuracy, values.baseline_wer = baseline() end
common.result(values)

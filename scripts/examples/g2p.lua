--- Sequence to sequence of another length: how a word is spoken, from how it is spelled. Which
-- phonemes each letter stands for is found first; then the decoder looks at one letter after the
-- other and writes what it stands for. With `--attention general` it learns by itself where to look.
-- With `--languages` one network each for six languages of few words.
local neap = require "neap"
local common = dofile((arg[0]:match "^.*/" or "") .. "common.lua")

local options = common.options {
  "Learns to write down the phonemes of a word from its letters (alignment, encoder, decoder).",
  data = "lines of word, tab, phonemes between blanks; or a lexicon of Festival (NAME.out)",
  train = common.shared "cmudict-g2p/train.tsv", dev = common.shared "cmudict-g2p/dev.tsv",
  epochs = 24, quick = 3, others = { languages = 20 },
  texts = { "say", "Words to speak at the end; with --load nothing else." },
  extend = function(parser)
    local function option(name, value, range, description)
      common.number(parser, name, value, range, description)
    end
    option("--size", "N", { low = 1, whole = true, preset = 256, quick = 32,
      others = { languages = 128 } }, "Units of each layer.")
    option("--layers", "N", { low = 1, whole = true, preset = 2, others = { languages = 1 } },
      "Layers of the encoder.")
    option("--decoder", "N", { low = 1, whole = true, preset = 1 }, "Layers of the decoder.")
    parser:option "--attention":choices { "aligned", "general", "additive" }:default "aligned"
      :description("Where the decoder looks: at the letter whose turn it is, or at all, as it learns "
        .. "itself.")
    option("--dropout", "P", { low = 0, below = 1, preset = 0.25, quick = 0,
      others = { languages = 0.3 } },
      "Share of the numbers between the layers that dropout sets to 0.")
    option("--batch", "N", { low = 1, whole = true, preset = 64, quick = 32,
      others = { languages = 16 } }, "Words in a batch.")
    option("--rate", "R", { low = 0, preset = 0.002, quick = 0.01, others = { languages = 0.004 } },
      "Learning rate, before it falls.")
    option("--hold", "P", { low = 0, below = 1, preset = 0.5, quick = 0,
      others = { languages = 0 } },
      "Share of the training before the rate falls.")
    option("--average", "D", { low = 0, below = 1, preset = 0.999, quick = 0.9,
      others = { languages = 0.99 } },
      "Decay of the moving average of the parameters, which is scored and kept.")
    option("--beam", "K", { low = 1, whole = true, preset = 4 },
      "Hypotheses that are kept while writing; 1: greedy.")
    option("--mix", "P", { low = 0, high = 1, preset = 0 },
      "Share of the decoder's own symbols that it learns with; 0: teacher forcing.")
    option("--words", "N", { low = 1, whole = true }, "Learn from no more than so many words.")
    parser:option "--languages":argname "FOLDER"
      :description("Learn six languages of SIGMORPHON 2020, each by itself, from "
        .. "FOLDER/LANG_train.tsv and LANG_dev.tsv; LANG_test.tsv is scored too, if it is there.")
  end,
}
local rng = neap.rng(options.seed)

-- --quick: a made-up spelling in which some letters come in pairs.
local function invented(n)
  local spelling = { a = "aa", b = "b", sh = "sh", ee = "iy", t = "t", o = "ow" }
  local units, word, phones = { "a", "b", "sh", "ee", "t", "o" }, {}, {}
  for i = 1, n do
    local letters, sounds = {}, {}
    for k = 1, 1 + rng:int(4) do
      letters[k] = units[rng:int(#units)]
      sounds[k] = spelling[letters[k]]
    end
    word[i], phones[i] = table.concat(letters), table.concat(sounds, " ")
  end
  return neap.corpus.from({ word = word, phonemes = phones },
    { split = { word = "characters", phonemes = "words" } })
end

local function read(path)
  if path:match "%.out$" then return neap.corpus.festival(path) end
  return neap.corpus.tsv(path, { columns = { "word", "phonemes" },
    split = { word = "characters", phonemes = "words" } })
end

local train, dev, test
if options.quick then
  train, dev = invented(1500), invented(100)
elseif not (options.alone or options.languages) then
  train, dev, test = common.corpora(options, {
    read = read, share = 0.03, rng = rng, by = "word",
    missing = "give --train FILE, "
      .. "e.g. /usr/share/festival/dicts/cmu/cmudict-0.4.out of Debian's festlex-cmu",
  })
end
if options.words and train and #train > options.words then
  local order = {}
  for i = 1, #train do order[i] = i end
  rng:shuffle(order)
  train = train:select(table.move(order, 1, options.words, 1, {}))
end

-- The corpus, with what the decoder shall write: the pieces of a word that stand for its letters.
local aligned = options.attention == "aligned"
local target = aligned and "pieces" or "phonemes"
local function prepared(corpus)
  if not aligned then return corpus end
  local pieces, report = common.need(corpus:align("word", "phonemes", { as = "pieces", min = 2 }))
  common.warn("%d words: their letters stand for %d different pieces; %d other words left out",
    #pieces, report.pieces, report.left_out)
  return pieces
end

local function network(corpus)
  local size, rate = options.size, options.dropout
  local encoder, layers = { neap.embed { size = 64 } }, {} -- [S,B] letters -> [S,B,64]
  for k = 1, options.layers do
    encoder[2 * k] = neap.dropout { rate = rate }
    encoder[2 * k + 1] = neap.bidir { neap.lstm { size = size } } -- -> [S,B,2H]
  end
  for k = 1, options.decoder do layers[k] = neap.lstm { size = size } end
  return neap.async_seq2seq {
    input = neap.vocab(corpus, "word", { unk = true }),
    output = neap.vocab(corpus, target, { start = true, stop = true }),
    rng = neap.rng(options.seed), threads = options.threads, max_length = 30, smoothing = 0.1,
    encoder = neap.chain(encoder), decoder = neap.decoder { embed = 64, bridge = "zero",
      dropout = rate, attention = options.attention, layers = layers },
  }
end

-- The rate rises in the first fiftieth, stays, falls to nothing; the moving average is what counts.
local function learn(corpus, dev_corpus)
  corpus = prepared(corpus)
  local words, said = dev_corpus:references("word", "phonemes")
  local model, chance = network(corpus), neap.rng(options.seed)
  local data = model:fields(corpus, "word", target)
  model.mix = options.mix
  neap.fit(model, {
    optim = neap.adam { rate = options.rate, clip = 2 },
    rate = function(_, first, done)
      return first * math.min(done * 50 + 0.05, 1, (1 - done) / (1 - options.hold))
    end,
    average = neap.average { decay = options.average },
    epochs = options.epochs, minutes = options.minutes, key = "wer", lower = true,
    train = function() return neap.batches(data, { size = options.batch, rng = chance }) end,
    dev = function() return model:score(words, said) end,
  })
  return model
end
local how = { beam = options.beam }

local function score(model, corpus)
  local words, said = corpus:references("word", "phonemes")
  return model:score(words, said, how), words, said
end

-- SIGMORPHON 2020, task 1, and the WER in percent that its LSTM baseline had on the test words
-- (Gorman et al. 2020, "The SIGMORPHON 2020 Shared Task on Multilingual Grapheme-to-Phoneme
-- Conversion"; quoted from memory, not looked up).
local languages = { { "bul", "Bulgarian", 31.11 }, { "dut", "Dutch", 16.44 },
  { "fre", "French", 6.22 }, { "hun", "Hungarian", 5.33 }, { "ice", "Icelandic", 10.00 },
  { "jpn", "Japanese", 7.56 } }

-- A model of one of them, and its scores on dev and, if it is there, on test.
local function language(code)
  local function part(which)
    return read(("%s/%s_%s.tsv"):format(options.languages, code, which))
  end
  local corpus, dev, test = common.need(part "train"), common.need(part "dev"), part "test"
  local model = learn(corpus, dev)
  return model, score(model, dev), test and score(model, test)
end

if options.languages then
  for _, name in ipairs { "load", "model", "train", "dev", "test" } do
    if options[name] then common.fail(2, ("--languages: not with --%s"):format(name)) end
  end
  local rows, result = {}, { dev_wer = 0, dev_per = 0, parameters = 0 }
  for i, known in ipairs(languages) do
    local code, name, published = table.unpack(known)
    common.warn("%s", name)
    local model, on_dev, on_test = language(code)
    rows[i] = ("%-10s %7.2f %7.2f   %8s %15.2f"):format(name, 100 * on_dev.wer, 100 * on_dev.per,
      on_test and ("%.2f"):format(100 * on_test.wer) or "-", published)
    result["dev_wer_" .. code] = on_dev.wer
    result.dev_wer = result.dev_wer + on_dev.wer / #languages
    result.dev_per = result.dev_per + on_dev.per / #languages
    result.parameters = result.parameters + model:parameters()
  end
  print(("%-10s %7s %7s   %8s %15s"):format("percent", "dev WER", "dev PER", "test WER",
    "LSTM of 2020"))
  print(table.concat(rows, "\n"))
  return common.result(result)
end

local model
if options.load then
  model = common.load(options, "async_seq2seq", { "input" })
else
  model = learn(train, dev)
end
common.save(options, model)

-- What came of it.
local result = { parameters = model:parameters() }
if dev then
  local scores, words, said = score(model, dev)
  common.show(#words, function(i)
    local said_so = table.concat(scores.hypotheses[i], " ")
    local first, right = table.concat(said[i][1], " "), false
    for _, r in ipairs(said[i]) do right = right or table.concat(r, " ") == said_so end
    return right, ("%-16s %-32s%s"):format(table.concat(words[i]), said_so,
      right and "" or "  is " .. first)
  end)
  result.dev_wer, result.dev_per = scores.wer, scores.per
end
for k, phones in ipairs(model:predict(options.say, how)) do
  print(options.say[k], model.output:text(phones))
end
if test then
  local s = score(model, test)
  result.test_wer, result.test_per = s.wer, s.per
end
common.result(result)

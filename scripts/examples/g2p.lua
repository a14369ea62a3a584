--- Sequence to sequence of another length: how a word is spoken, from how it is spelled.
local neap = require "neap"
local common = dofile((arg[0]:match "^.*/" or "") .. "common.lua")

local options = common.options {
  "Learns to write down the phonemes of a word from its letters (encoder, decoder, attention).",
  data = "lines of word, tab, phonemes between blanks; or a lexicon of Festival (NAME.out)",
  train = common.shared "cmudict-g2p/train.tsv", dev = common.shared "cmudict-g2p/dev.tsv",
  epochs = 16, quick = 3,
  texts = { "say", "Words to speak at the end; with --load nothing else." },
  extend = function(parser)
    local function option(name, value, range, description)
      common.number(parser, name, value, range, description)
    end
    option("--size", "N", { low = 1, whole = true, preset = 256, quick = 32 },
      "Units of each layer.")
    option("--dropout", "P", { low = 0, below = 1, preset = 0.3, quick = 0 },
      "Share of the numbers between the layers that dropout sets to 0.")
    option("--batch", "N", { low = 1, whole = true, preset = 128, quick = 32 },
      "Words in a batch.")
    option("--rate", "R", { low = 0, preset = 0.001, quick = 0.01 }, "Learning rate at the start.")
    option("--beam", "K", { low = 1, whole = true, preset = 4 },
      "Hypotheses that are kept while writing; 1: greedy.")
    option("--mix", "P", { low = 0, high = 1, preset = 0 },
      "Share of the decoder's own symbols that it learns with; 0: teacher forcing.")
    option("--words", "N", { low = 1, whole = true }, "Learn from no more than so many words.")
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
elseif not options.alone then
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

-- Words, each once, and all the ways to say them.
local function references(corpus)
  local words, said, at = {}, {}, {}
  for i = 1, #corpus do
    local word = corpus:string("word", i)
    if not at[word] then
      words[#words + 1] = word
      at[word] = #words
      said[#words] = {}
    end
    table.insert(said[at[word]], corpus:get("phonemes", i))
  end
  return words, said
end

local model
if options.load then
  model = common.load(options, "async_seq2seq", { "input" })
else
  local size, rate = options.size, options.dropout
  model = neap.async_seq2seq {
    input = neap.vocab(train, "word", { unk = true }),
    output = neap.vocab(train, "phonemes", { start = true, stop = true }),
    rng = rng, threads = options.threads, max_length = 30,
    encoder = neap.chain {
      neap.embed { size = 64 },                  -- [S,B] letters -> [S,B,64]
      neap.dropout { rate = rate },
      neap.bidir { neap.lstm { size = size } },  -- -> [S,B,2H]
      neap.dropout { rate = rate },
      neap.bidir { neap.lstm { size = size } },  -- the memory that attention looks back on
    },
    decoder = neap.decoder { embed = 64, attention = "general", dropout = rate, bridge = "zero",
      layers = { neap.lstm { size = size }, neap.lstm { size = size } } },
  }
end

local words, said
if dev then words, said = references(dev) end
if not options.load then
  local data = model:fields(train, "word", "phonemes")
  model.mix = options.mix
  neap.fit(model, {
    optim = neap.adam { rate = options.rate, clip = 2 },
    -- constant for the first half, then halved again and again
    rate = function(epoch, first)
      return first * 0.5 ^ math.max(0, (epoch - 1 - options.epochs * 0.5) / (options.epochs * 0.12))
    end,
    epochs = options.epochs, minutes = options.minutes, key = "wer", lower = true,
    train = function() return neap.batches(data, { size = options.batch, rng = rng }) end,
    dev = function() return model:score(words, said) end,
  })
end
common.save(options, model)

-- What came of it.
local how, result = { beam = options.beam }, { parameters = model:parameters() }
if dev then
  local scores = model:score(words, said, how)
  common.show(#words, function(i)
    local said_so = table.concat(scores.hypotheses[i], " ")
    local first, right = table.concat(said[i][1], " "), false
    for _, r in ipairs(said[i]) do right = right or table.concat(r, " ") == said_so end
    return right, ("%-16s %-32s%s"):format(words[i], said_so, right and "" or "  is " .. first)
  end)
  result.dev_wer, result.dev_per = scores.wer, scores.per
end
for k, phones in ipairs(model:predict(options.say, how)) do
  print(options.say[k], table.concat(phones, " "))
end
if test then
  local others, right = references(test)
  local s = model:score(others, right, how)
  result.test_wer, result.test_per = s.wer, s.per
end
common.result(result)

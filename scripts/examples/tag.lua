--- Synchronous sequence to sequence: the part of speech of each word, from the words and, inside
-- them, their characters. The finer tags and features of a treebank are learned along.
local neap = require "neap"
local op = neap.op
local common = dofile((arg[0]:match "^.*/" or "") .. "common.lua")

local options = common.options {
  "Learns to tell the part of speech of each word.",
  data = "sentences in CoNLL-U", epochs = 40, quick = 4,
  train = common.shared "ud-english-ewt/train.conllu",
  dev = common.shared "ud-english-ewt/dev.conllu",
  texts = { "sentence", "A sentence to tag at the end, blanks between its words; "
    .. "with --load nothing else." },
  extend = function(parser)
    parser:flag "--crf":description "Score neighbouring tags too: a linear-chain CRF."
    parser:option "--baseline":argname "hmm":choices { "hmm" }
      :description "Score a hidden Markov model of the words beside it."
  end,
}
local rng = neap.rng(options.seed)
local size, rate = 160, 2e-3
if options.quick then size, rate = 16, 1e-2 end

-- --quick: stems that nobody knows, with the endings of their kind, in two orders.
local function invented(n)
  local ending = { NOUN = "on", VERB = "ar", ADJ = "ish", ADV = "ly" }
  local orders = { { "DET", "ADJ", "NOUN", "VERB", "ADV" },
    { "DET", "NOUN", "VERB", "DET", "NOUN" } }
  local form, upos = {}, {}
  for i = 1, n do
    form[i], upos[i] = {}, orders[rng:int(2)]
    for t, tag in ipairs(upos[i]) do
      local stem = {}
      for k = 1, 1 + rng:int(3) do stem[k] = string.char(96 + rng:int(26)) end
      form[i][t] = tag == "DET" and "The" or table.concat(stem) .. ending[tag]
    end
  end
  return neap.corpus.from { form = form, upos = upos, xpos = upos, feats = upos }
end

-- Data.
local train, dev, test
if options.quick then
  train, dev = invented(300), invented(100)
elseif not options.alone then
  train, dev, test = common.corpora(options, {
    read = function(path)
      return neap.corpus.conllu(path, { fields = { "form", "upos", "xpos", "feats" } })
    end,
    missing = "give --train FILE (CoNLL-U)", share = 0.1, rng = rng,
  })
end

-- The network, or the one that was saved.
local model
if options.load then
  model = common.load(options, "synced_seq2seq", { "words", "chars" })
else
  local words = neap.vocab(train, "form", { min = 2, lower = true })
  local chars = neap.vocab(train, "form", { characters = true, unk = true })
  -- small at first: a word seen twice says next to nothing, and its characters speak for it
  local word = neap.embed { size = 100, input = #words, init = { "normal", 0, 0.1 } }
  local char = neap.chain { neap.embed { size = 32, input = #chars }, neap.dropout { rate = 0.1 } }
  local spelling = neap.bidir { neap.lstm { size = 64 } }
  local sentence = neap.chain {
    neap.dropout { rate = 0.5 },
    neap.bidir { neap.lstm { size = size } },
    neap.dropout { rate = 0.5 },
    neap.bidir { neap.lstm { size = size } },
    neap.dropout { rate = 0.5 },
  }
  model = neap.synced_seq2seq {
    input = { words = words, chars = { vocab = chars, nested = true } },
    output = neap.vocab(train, "upos"),
    also = { xpos = neap.vocab(train, "xpos"), feats = neap.vocab(train, "feats") },
    rng = rng, threads = options.threads,
    loss = options.crf and "crf" or "cross_entropy",
    net = function(x)
      local _, last = spelling(char(x.chars))         -- last states: [T,B,128], a row for each word
      return sentence(op.concat { word(x.words), last.h }) -- [T,B,228] -> [T,B,320]
    end,
  }
end

local vocab = {}
for _, input in ipairs(model.inputs) do vocab[input.name] = input.vocab end

local function inputs(corpus)
  return { words = corpus:encode("form", vocab.words),
    chars = corpus:characters("form", vocab.chars, { max = 20 }) }
end

local function fields(corpus)
  local both = inputs(corpus)
  both.output = corpus:encode("upos", model.output, { unknown = "ignore" })
  return both
end

-- Some words are unknown, each time others, rare ones more often (Kiperwasser and Goldberg 2016):
-- their characters have to do.
local function hide(data, times)
  local ids, unk = data.words.data:clone(), vocab.words.unk - 1
  for i = 1, #ids do
    if rng:uniform() < 0.1 + 0.5 / (0.5 + times[ids[i] + 1]) then ids[i] = unk end
  end
  local hidden = {}
  for name, field in pairs(data) do hidden[name] = field end
  hidden.words = { data = ids, offsets = data.words.offsets }
  return hidden
end

-- Learning.
if not options.load then
  local data, held, times = fields(train), fields(dev), {}
  for _, also in ipairs(model.also) do data[also.name] = train:encode(also.name, also.vocab) end
  for id = 1, #vocab.words do times[id] = 0 end
  for i = 1, #data.words.data do
    local id = data.words.data[i] + 1
    times[id] = times[id] + 1
  end
  neap.fit(model, {
    optim = neap.adam { rate = rate, clip = 5, lazy = true },
    rate = function(_, first, done) return first * math.min(done * 50 + 0.05, 1 - done) end,
    average = neap.average { decay = 0.998 },
    epochs = options.epochs, minutes = options.minutes,
    train = function() return neap.batches(hide(data, times), { size = 32, rng = rng }) end,
    dev = function() return model:score(held) end,
  })
end
common.save(options, model)

-- What came of it.
local function guesses(data)
  return model:predict(neap.batches(data, { size = 200, bucket = false })())
end

local result = { parameters = model:parameters() }
if dev then
  if options.load then common.known(options, dev, "upos", model.output) end
  local guessed = guesses(fields(dev))
  common.show(#guessed, function(i)
    local form, upos, text, right = dev:get("form", i), dev:get("upos", i), {}, true
    for t, tag in ipairs(guessed[i]) do
      local same = tag == upos[t]
      right = right and same
      text[t] = same and form[t] .. "/" .. tag or ("[%s/%s is %s]"):format(form[t], tag, upos[t])
    end
    return right, table.concat(text, " ")
  end)
  local scores = model:score(fields(dev))
  result.dev_accuracy, result.dev_sequence_accuracy = scores.accuracy, scores.sequence_accuracy
end
if options.baseline and train and dev then -- counted: each tag, what follows it, what words it has
  local words, tags = neap.vocab(train, "form", { min = 2, lower = true }), model.output
  local function both(corpus)
    return { input = corpus:encode("form", words),
      output = corpus:encode("upos", tags, { unknown = "ignore" }) }
  end
  local hmm = neap.hmm { input = words, output = tags }
  hmm:fit(both(train), { smoothing = 0.01 })
  local scores = hmm:score(both(dev))
  result.baseline_accuracy = scores.accuracy
  result.baseline_sequence_accuracy = scores.sequence_accuracy
end
local sentence = {}
for word in table.concat(options.sentence, " "):gmatch "%S+" do sentence[#sentence + 1] = word end
if #sentence > 0 then
  local tags = guesses(inputs(neap.corpus.from { form = { sentence } }))[1]
  for t, tag in ipairs(tags) do sentence[t] = sentence[t] .. "/" .. tag end
  print(table.concat(sentence, " "))
end
if test then result.test_accuracy = model:score(fields(test)).accuracy end
common.result(result)

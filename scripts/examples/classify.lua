--- Sequence to class: the language of a surname from its characters, or any text to its class.
local neap = require "neap"
local common = dofile((arg[0]:match "^.*/" or "") .. "common.lua")

local options = common.options {
  "Learns to tell the class of a text from its characters: the language of a surname.",
  data = "lines of text, tab, class", epochs = 40, quick = 4,
  train = common.shared "names/train.tsv", dev = common.shared "names/dev.tsv",
  texts = { "text", "Texts to classify at the end; with --load nothing else." },
}
local rng = neap.rng(options.seed)
local size, batch, rate = 128, 32, 4e-3
if options.quick then size, batch, rate = 16, 32, 1e-2 end

-- --quick: words of three made-up languages, told apart by their letters.
local function invented(n)
  local letters, text, class = { ba = "abdou", ki = "eiklt", mu = "mnrsu" }, {}, {}
  local languages = { "ba", "ki", "mu" }
  for i = 1, n do
    class[i] = languages[rng:int(3)]
    local word, own = {}, letters[class[i]]
    for k = 1, 2 + rng:int(6) do
      local at = rng:int(5)
      word[k] = own:sub(at, at)
    end
    text[i] = table.concat(word)
  end
  return neap.corpus.from({ text = text, class = class }, { split = { text = "characters" } })
end

-- Data.
local train, dev, test
if options.quick then
  train, dev = invented(600), invented(200)
elseif not options.alone then
  train, dev, test = common.corpora(options, {
    read = function(path)
      return neap.corpus.tsv(path,
        { columns = { "text", "class" }, split = { text = "characters" } })
    end,
    missing = "give --train FILE (text, tab, class)", share = 0.1, rng = rng, by = "text",
  })
end

-- The network, or the one that was saved.
local model
if options.load then
  model = common.load(options, "seq2class", { "input" })
else
  model = neap.seq2class {
    input = neap.vocab(train, "text", { unk = true }), output = neap.vocab(train, "class"),
    rng = rng, threads = options.threads, smoothing = 0.1,
    net = neap.chain {
      neap.embed { size = 64, init = { "normal", 0, 1 / 8 } }, -- [T,B] ids -> [T,B,64]
      neap.dropout { rate = 0.3 },
      neap.bidir { neap.lstm { size = size } },       -- -> [T,B,256]
      neap.dropout { rate = 0.5 },
      neap.bidir { neap.lstm { size = size } },       -- each direction's last state: [B,256]
    },
    head = neap.chain { neap.dropout { rate = 0.5 }, neap.linear {} }, -- -> [B,classes]
  }
end

local function fields(corpus)
  return { input = corpus:encode("text", model.inputs[1].vocab),
    output = corpus:label("class", model.output, { unknown = "ignore" }) }
end

-- Learning, the rate going down along a cosine.
if not options.load then
  local data, held = fields(train), fields(dev)
  neap.fit(model, {
    optim = neap.adam { rate = rate, clip = 1 },
    rate = function(_, first, done) return first * (1 + math.cos(math.pi * done)) / 2 end,
    epochs = options.epochs, minutes = options.minutes,
    train = function() return neap.batches(data, { size = batch, rng = rng, bucket = false }) end,
    dev = function() return model:score(held) end,
  })
end
common.save(options, model)

-- What came of it.
local function told(text, guess)
  return common.column(text, 20) .. ("%-12s %.2f"):format(guess.class, guess.probability)
end

local result = { parameters = model:parameters() }
if dev then
  if options.load then common.known(options, dev, "class", model.output) end
  local texts = {}
  for i = 1, math.min(#dev, 200) do texts[i] = dev:string("text", i) end
  local guesses = model:predict(texts)
  common.show(#guesses, function(i)
    local guess, class = guesses[i], dev:string("class", i)
    return guess.class == class,
      told(texts[i], guess) .. (guess.class == class and "" or "  is " .. class)
  end)
  local scores = model:score(fields(dev))
  print(scores.confusion)
  result.dev_accuracy, result.dev_macro_f1 = scores.accuracy, scores.macro_f1
end
for i, guess in ipairs(model:predict(options.text)) do print(told(options.text[i], guess)) end
if test then result.test_accuracy = model:score(fields(test)).accuracy end
common.result(result)

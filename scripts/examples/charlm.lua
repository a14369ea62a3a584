--- Language model: from each character of a text the next one; it writes on. Row 63 of docs/notes.md.
local neap = require "neap"
local common = dofile((arg[0]:match "^.*/" or "") .. "common.lua")

local options = common.options {
  "Learns a text character by character, and writes in its manner.",
  data = "a text in UTF-8", whole = true, epochs = 36, quick = 8,
  train = common.shared "tinyshakespeare/train.txt", dev = common.shared "tinyshakespeare/dev.txt",
  extend = function(parser)
    common.number(parser, "--generate", "N", { low = 1, whole = true },
      "Write so many characters; with --load nothing else. (default: 300)")
    parser:option "--prompt":argname "TEXT":convert(common.text)
      :description "What stands before them; with --load nothing else."
    common.number(parser, "--temperature", "X", { low = 0, preset = 0.8 },
      "1: as in the text; less: likelier characters; 0: always the likeliest.")
  end,
}
local rng = neap.rng(options.seed)
local size, columns, rate, dropout = 384, 32, 1.5e-3, 0.4
if options.quick then size, columns, rate, dropout = 32, 16, 1e-2, 0.3 end

-- --quick: sentences of few words.
local function invented(n)
  local words, text = { "the ", "tide ", "comes ", "and ", "goes ", "again\n" }, {}
  for i = 1, n do text[i] = words[(i + rng:int(2)) % #words + 1] end
  return neap.corpus.from({ text = { table.concat(text) } }, { split = { text = "characters" } })
end

-- Data.
local train, dev, test
if options.quick then
  train, dev = invented(3000), invented(300)
elseif not options.load or options.dev or options.test
  or not (options.generate or options.prompt) then
  train, dev, test = common.corpora(options, { read = neap.corpus.text,
    missing = "give --train FILE --dev FILE (texts)" })
end

-- The network, or the one that was saved.
local model
if options.load then
  model = common.load(options, "language_model")
else
  model = neap.language_model {
    vocab = neap.vocab(train, "text", { unk = true }), rng = rng, threads = options.threads,
    net = neap.chain {
      neap.embed { size = 64 },                       -- [T,B] ids -> [T,B,64]
      neap.lstm { size = size },                      -- -> [T,B,384]
      neap.dropout { rate = dropout },
      neap.lstm { size = size },
      neap.dropout { rate = dropout },
      neap.linear {},                                 -- -> [T,B,characters]
    },
  }
end

local function ids(corpus) return corpus:encode("text", model.vocab) end
local function enough(option, corpus, least)
  if corpus then common.enough(option, #ids(corpus).data, least, "characters") end
end
enough("--train", not options.load and train, 2 * columns)
enough("--dev", dev, options.load and 2 or 32)
enough("--test", test, 2)

-- Learning: 32 columns of the text side by side, 100 characters at a time, the state carried on. The
-- rate stays for a while, then falls; the moving average is what counts, until the dev text is told no
-- better in four epochs: the parameters soon know the train text too well.
if not options.load then
  local data, held = ids(train), ids(dev)
  neap.fit(model, {
    optim = neap.adam { rate = rate, clip = 1 },
    rate = function(_, first, done)
      return first * math.min(done * 100 + 0.05, 1, (1 - done) / 0.6)
    end,
    average = neap.average { decay = options.quick and 0.9 or 0.999 },
    epochs = options.epochs, minutes = options.minutes, patience = 4,
    train = function() return neap.batches.stream(data, { batch = columns, steps = 100 }) end,
    dev = function() -- 16 columns, each begun anew: quick, and a little too high
      local scores = model:score(held, { columns = 16, steps = 100 })
      return { ["nats in 16 columns"] = scores.nats }
    end,
    key = "nats in 16 columns", lower = true,
  })
end
common.save(options, model)

-- What came of it: the whole text at once, the state carried from start to end.
print(model:generate(options.prompt or "\n", options.generate or 300,
  { temperature = options.temperature, rng = rng }))
local values = { parameters = model:parameters() }
if dev then values.dev_nats = model:score(ids(dev)).nats end
if test then values.test_nats = model:score(ids(test)).nats end
common.result(values)

--- Sequence to sequence of another length: sentences in another language, each word written while
-- looking at those that it comes from. Rows 43 and 63 of docs/notes.md.
local neap = require "neap"
local common = dofile((arg[0]:match "^.*/" or "") .. "common.lua")

local options = common.options {
  "Learns to translate sentences (subwords, encoder, decoder, attention).",
  data = "lines of sentence, tab, translation, with words and signs between blanks",
  train = common.shared "multi30k-en-de/train.tsv", dev = common.shared "multi30k-en-de/dev.tsv",
  epochs = 14, quick = 6,
  texts = { "say", "Sentences to translate at the end; with --load nothing else." },
  extend = function(parser)
    local function option(name, value, range, description)
      common.number(parser, name, value, range, description)
    end
    parser:flag "--reverse"
      :description "The other way: from the second column to the first, with --load too."
    option("--subwords", "N", { low = 0, whole = true, preset = 4000, quick = 20 },
      "Merges that make the subwords of each language; 0: whole words.")
    option("--size", "N", { low = 1, whole = true, preset = 256, quick = 48 },
      "Units of each layer.")
    option("--dropout", "P", { low = 0, below = 1, preset = 0.2, quick = 0 },
      "Share of the numbers between the layers that dropout sets to 0.")
    option("--smoothing", "P", { low = 0, below = 1, preset = 0.1 },
      "Share of the probability that all symbols get alike in what is learned.")
    option("--tokens", "N", { low = 1, whole = true, preset = 1000, quick = 300 },
      "Symbols in a batch, at most.")
    option("--rate", "R", { low = 0, preset = 0.001, quick = 0.01 },
      "Learning rate at the start; it falls evenly, to 0 at the end.")
    option("--beam", "K", { low = 1, whole = true, preset = 5 },
      "Hypotheses that are kept while writing; 1: greedy.")
    option("--pairs", "N", { low = 1, whole = true }, "Learn from no more than so many pairs.")
  end,
}
local rng = neap.rng(options.seed)
local from, to = "first", "second"
if options.reverse then from, to = to, from end

-- --quick: a made-up language, in which words are spelled backwards, the verb comes last, what
-- describes a thing comes after it, and there are no articles.
local function invented(n)
  local things, kinds = { "dog", "bird", "child", "horse", "fish" }, { "small", "red", "old" }
  local verbs = { "sees", "likes", "finds", "follows" }
  local function one(list) return list[rng:int(#list)] end
  local function phrase()
    local thing, article = one(things), one { "the", "every" }
    if rng:int(2) == 1 then return article .. " " .. thing, thing:reverse() end
    local kind = one(kinds)
    return ("%s %s %s"):format(article, kind, thing), thing:reverse() .. " " .. kind:reverse()
  end
  local first, second = {}, {}
  for i = 1, n do
    local who, ohw = phrase()
    local whom, mohw = phrase()
    local verb = one(verbs)
    first[i] = ("%s %s %s"):format(who, verb, whom)
    second[i] = ("%s %s %s"):format(ohw, mohw, verb:reverse())
  end
  return neap.corpus.from({ first = first, second = second },
    { split = { first = "words", second = "words" } })
end

-- Columns after the second, such as who wrote it, are passed over.
local function read(path)
  local columns = { "first", "second" }
  local file <close> = io.open(path)
  for _ in (file and file:read() or ""):gsub("\t", "", 1):gmatch "\t" do
    columns[#columns + 1] = "column " .. #columns + 1
  end
  return neap.corpus.tsv(path, { columns = columns, split = { first = "words", second = "words" } })
end

local train, dev, test
if options.quick then
  train, dev = invented(1500), invented(100)
elseif not options.alone then
  train, dev, test = common.corpora(options, { read = read, share = 0.1, rng = rng, by = from,
    missing = "give --train FILE (sentence, tab, translation)" })
end
if options.pairs and train and #train > options.pairs then
  local order = {}
  for i = 1, #train do order[i] = i end
  rng:shuffle(order)
  train = train:select(table.move(order, 1, options.pairs, 1, {}))
end

local function vocabulary(field, about)
  about.unk = true
  if options.subwords == 0 then return neap.vocab(train, field, about) end
  about.merges = options.subwords
  return neap.vocab.bpe(train, field, about)
end

local model
if options.load then
  model = common.load(options, "async_seq2seq", { "input" })
else
  local size, drop = options.size, neap.dropout { rate = options.dropout }
  model = neap.async_seq2seq {
    input = vocabulary(from, {}), output = vocabulary(to, { start = true, stop = true }),
    rng = rng, threads = options.threads, max_length = 80, smoothing = options.smoothing,
    encoder = neap.chain {
      neap.embed { size = size },               -- [S,B] subwords -> [S,B,H]
      drop,
      neap.bidir { neap.gru { size = size } },  -- the memory that attention looks back on, [S,B,2H]
      drop,
    },
    decoder = neap.decoder { embed = size, attention = "general", dropout = options.dropout,
      layers = { neap.gru { size = size } } },
  }
end

-- BLEU-4 of a corpus, of words as they stand in the file.
local function score(corpus, how)
  local sources, references = corpus:references(from, to)
  local s = model:score(sources, references, how)
  s.sources, s.references = sources, references
  s.bleu = neap.metrics.bleu(s.hypotheses, references).bleu
  return s
end

if not options.load then
  local data = model:fields(train, from, to)
  neap.fit(model, {
    optim = neap.adam { rate = options.rate, clip = 1 },
    average = neap.average { decay = 0.998 },
    rate = function(_, first, done) return first * (1 - done) end,
    epochs = options.epochs, minutes = options.minutes, key = "bleu",
    train = function() return neap.batches(data, { tokens = options.tokens, rng = rng }) end,
    dev = function() return score(dev) end,
  })
end
common.save(options, model)

-- The words that symbols make, and of each symbol the number of its word.
local function words_of(vocab, symbols)
  local words, of, open = {}, {}, false
  for i, symbol in ipairs(symbols) do
    if not open then words[#words + 1] = "" end
    of[i] = #words
    words[#words] = words[#words] .. symbol:gsub(" $", "")
    open = vocab.merges and not symbol:find " $"
  end
  return words, of
end

-- What was looked at, from nothing to all of it: a line for each word written, beneath each word
-- read its share.
local shades = { " ", "░", "▒", "▓", "█" }
local function picture(source, written, weights)
  local vocab = model.inputs[1].vocab
  local read, column = words_of(vocab, vocab:decode(vocab:encode(source)))
  local rows, row = words_of(model.output, written)
  local looked, parts, width = {}, {}, 0
  for i, r in ipairs(row) do
    looked[r], parts[r] = looked[r] or {}, (parts[r] or 0) + 1
    for k, c in ipairs(column) do looked[r][c] = (looked[r][c] or 0) + weights[i][k] end
    width = math.max(width, utf8.len(rows[r]))
  end
  local lines = { (" "):rep(width + 1) .. table.concat(read, " ") }
  for r, word in ipairs(rows) do
    local cells = {}
    for c, over in ipairs(read) do
      local shade = math.floor(looked[r][c] / parts[r] * (#shades - 1) + 0.5)
      cells[c] = shades[shade + 1]:rep(utf8.len(over))
    end
    lines[r + 1] = (common.column(word, width) .. table.concat(cells, " ")):gsub(" +$", "")
  end
  return table.concat(lines, "\n"), utf8.len(lines[1])
end

-- What came of it.
local how, result = { beam = options.beam }, { parameters = model:parameters() }
local shown = { table.unpack(options.say) }
if dev then
  local s = score(dev, how)
  local sure = neap.metrics.bootstrap(neap.metrics.bleu, { s.hypotheses, s.references },
    { rng = rng:fork "bootstrap" })
  common.show(#s.sources, function(i)
    local written, right = table.concat(s.hypotheses[i], " "), false
    for _, r in ipairs(s.references[i]) do right = right or table.concat(r, " ") == written end
    local text = table.concat(s.sources[i], " ")
    if #options.say == 0 and #shown < 2 and #text < 60 then shown[#shown + 1] = text end
    return right, ("%s\n    %s%s"):format(text, written,
      right and "" or "\n    is: " .. table.concat(s.references[i][1], " "))
  end)
  print(("dev: BLEU %.2f, in 95 of 100 samples %.2f to %.2f"):format(s.bleu, sure.low, sure.high))
  result.dev_bleu = s.bleu
end
how.attention = true
local written, weights = model:predict(shown, how)
for k, text in ipairs(shown) do
  print(text .. "\t" .. model.output:text(written[k]))
  print((picture(text, written[k], weights[k])))
end
if test then
  how.attention = nil
  result.test_bleu = score(test, how).bleu
end
common.result(result)

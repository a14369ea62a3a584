--- Sequence to class: the language of a surname from its characters, or any text to its class, from
-- its characters or words.
local neap = require "neap"
local op = neap.op
local common = dofile((arg[0]:match "^.*/" or "") .. "common.lua")

local options = common.options {
  "Learns to tell the class of a text from its characters: the language of a surname.",
  data = "lines of text, tab, class", epochs = 6, quick = 4,
  train = common.shared "names/train.tsv", dev = common.shared "names/dev.tsv",
  texts = { "text", "Texts to classify at the end; with --load nothing else." },
  extend = function(parser)
    parser:option "--columns":argname "NAMES":default "text,class"
      :description("What the columns of --train, --dev and --test hold: one is called class, the "
        .. "others are one text.")
    parser:flag "--words":description "Read words, not characters."
    parser:option "--lists":argname "LIST":args "2+"
      :description("Learn from files of words, a word a line, to tell which file a word is from: "
        .. "Debian's /usr/share/dict/french, ..")
    common.number(parser, "--each", "N", { low = 10, whole = true, preset = 3000 },
      "Take so many words of each of --lists.")
    common.number(parser, "--ngrams", "N", { low = 0, high = 16, whole = true },
      "Beside the network weigh n-grams of at most so many characters (4) or words (1); 0: none.")
    parser:option "--baseline":choices { "ngrams" }
      :description "ngrams: their weights alone, without a network."
    common.number(parser, "--members", "N", { low = 1, whole = true, preset = 1, quick = 2,
      others = { words = 3 } },
      "Learn so many networks, LSTM and GRU in turn, each with its own seed, and let them vote.")
  end,
}
local rng = neap.rng(options.seed)
local size, batch, rate = 128, 32, 4e-3
if options.quick then size, batch, rate = 16, 32, 1e-2 end
local most = options.ngrams or (options.words and 1 or 4)
if options.baseline and most == 0 then
  common.fail(2, "--baseline ngrams: expected --ngrams from 1, came 0")
end
local columns, classes = {}, 0
for name in options.columns:gmatch "[^,]+" do
  columns[#columns + 1] = name
  if name == "class" then classes = classes + 1 end
end
if classes ~= 1 or #columns < 2 then
  common.fail(2, "--columns: expected class and names of other columns, came " .. options.columns)
end
if options.lists and (options.train or options.quick) then
  common.fail(2, "--lists is data too: expected no " .. (options.quick and "--quick" or "--train"))
end
local split = { text = options.words and "words" or "characters" }

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
  return neap.corpus.from({ text = text, class = class }, { split = split })
end

-- A file of columns; those that are not the class are one text.
local function read(path)
  local names, parts = {}, {}
  for i, name in ipairs(columns) do
    names[i] = name == "class" and name or "text" .. i
    if name ~= "class" then parts[#parts + 1] = names[i] end
  end
  if #parts == 1 then
    for i, name in ipairs(names) do names[i] = name:gsub("%d", "") end
    return neap.corpus.tsv(path, { columns = names, split = split })
  end
  local corpus, message = neap.corpus.tsv(path, { columns = names })
  if not corpus then return nil, message end
  local text, class = {}, {}
  for i = 1, #corpus do
    local all = {}
    for k, part in ipairs(parts) do all[k] = corpus:string(part, i) end
    text[i], class[i] = table.concat(all, " "), corpus:string("class", i)
  end
  return neap.corpus.from({ text = text, class = class }, { split = split })
end

-- Words of lists in small letters, drawn by chance, without those that have signs in them. A word
-- that several lists have comes once for each.
local function listed(paths)
  local texts, drawn, text, class = {}, {}, {}, {}
  for i, path in ipairs(paths) do
    local file <close> = common.need(io.open(path))
    local all, why = file:read "a"
    if not all then common.fail(1, ("%s: %s"):format(path, why)) end
    if not utf8.len(all) then -- it is in Latin-1, as Debian's Swedish list is
      all = all:gsub("[\128-\255]", function(c) return utf8.char(c:byte()) end)
    end
    texts[i] = "\n" .. all:lower() .. "\n"
    local n = 0
    for _ = 1, 20 * options.each do
      local word = texts[i]:match("\n([^%p%d%s]+)\n", rng:int(#texts[i]))
      if word and not drawn[word] then drawn[word], n = {}, n + 1 end
      if n == options.each then break end
    end
    common.enough(path, n, 10, "words")
  end
  for i, path in ipairs(paths) do
    for word in texts[i]:gmatch "[^\n]+" do
      local lists = drawn[word]
      if lists and not lists[i] then
        lists[i], text[#text + 1], class[#class + 1] = true, word, path:match "[^/]*$"
      end
    end
  end
  return neap.corpus.from({ text = text, class = class }, { split = split })
end

-- Data.
local train, dev, test
if options.quick then
  train, dev = invented(600), invented(200)
elseif options.lists then
  dev, train = listed(options.lists):split { share = 0.1, rng = rng, by = "text" }
elseif not options.alone then
  train, dev, test = common.corpora(options, { read = read, share = 0.1, rng = rng, by = "text",
    missing = "give --train FILE (text, tab, class)" })
end

local kinds = train and neap.vocab(train, "class")

-- Weights of n-grams [T,B] ids -> [B,classes]: a linear model of which ones there are, and of those
-- at the end. What is too rare for a recurrent network it knows by heart.
local function ngrams(name)
  local function weights(part, buckets)
    return neap.features.ngrams { name = name .. part, size = #kinds, n = most, buckets = buckets,
      init = { "normal", 0, 0.01 } }
  end
  local all, at_end = weights("_ngrams", 65536), weights("_ends", 16384)
  return function(x) return op.sum_time(all(x)) + op.last(at_end(x)) end
end

-- The k-th network [T,B] ids -> [B,classes]. Characters are told by each direction's last state,
-- words by the largest of all steps.
local function network(name, k)
  local known = most > 0 and ngrams(name)
  if options.baseline then return known end
  local cell = k % 2 == 1 and neap.lstm or neap.gru
  local body = neap.chain { name = name,
    neap.embed { size = 64, init = { "normal", 0, 1 / 8 } }, -- -> [T,B,64]
    neap.dropout { rate = 0.3 },
    neap.bidir { cell { size = size } },              -- -> [T,B,256]
    neap.dropout { rate = 0.5 },
    neap.bidir { cell { size = size } },
  }
  local head = neap.chain { name = name .. "_head", neap.dropout { rate = 0.5 }, neap.linear {} }
  return function(x)
    local y, last = body(x)
    local z = head(options.words and op.max_time(y) or last.h)
    return known and z + known(x) or z
  end
end

local function task(net, seed)
  return neap.seq2class {
    input = options.words and neap.vocab(train, "text", { min = 2, lower = true })
      or neap.vocab(train, "text", { unk = true }),
    output = kinds, rng = neap.rng(seed), threads = options.threads,
    smoothing = 0.1, net = net, head = function(logits) return logits end,
  }
end

local function fields(corpus, model)
  return { input = corpus:encode("text", model.inputs[1].vocab),
    output = corpus:label("class", model.output, { unknown = "ignore" }) }
end

-- The k-th network, learned, the rate going down along a cosine.
local function learned(k)
  local seed = options.seed + k - 1
  local model, chance = task(network("member", k), seed), neap.rng(seed)
  local data, held = fields(train, model), fields(dev, model)
  neap.fit(model, {
    optim = neap.adam { rate = rate, clip = 1, lazy = true }, -- n-grams that are not there stay
    rate = function(_, first, done) return first * (1 + math.cos(math.pi * done)) / 2 end,
    epochs = options.epochs, minutes = options.minutes and options.minutes / options.members,
    train = function()
      return neap.batches(data, { size = batch, rng = chance, bucket = options.words })
    end,
    dev = function() return model:score(held) end,
  })
  return model
end

-- Several of them as one: the mean of ln P. Its parameters are theirs.
local function joined(members)
  local nets = {}
  for k in ipairs(members) do nets[k] = network("member" .. k, k) end
  local all = task(function(x)
    local sum
    for _, net in ipairs(nets) do
      local logs = op.log_softmax(net(x))
      sum = sum and sum + logs or logs
    end
    return sum / #nets
  end, options.seed)
  all:parameters() -- makes them
  for k, member in ipairs(members) do
    for _, name in ipairs(member.params:names()) do
      all.params:set(name:gsub("member", "member" .. k), member.params:get(name))
    end
  end
  return all
end

-- The model, or the one that was saved.
local model
if options.load then
  model = common.load(options, "seq2class", { "input" })
else
  local members = {}
  for k = 1, options.members do
    if options.members > 1 then common.warn("network %d of %d", k, options.members) end
    members[k] = learned(k)
  end
  model = #members > 1 and joined(members) or members[1]
end
common.save(options, model)

-- What came of it.
local function told(text, guess)
  if utf8.len(text) > 60 then text = text:sub(1, utf8.offset(text, 59) - 1) .. ".." end
  return common.column(text, 20) .. ("%-12s %.2f"):format(guess.class, guess.probability)
end

-- The share of texts that could be told at best: where a text has several classes, one of them.
local function possible(corpus)
  local most, counts = {}, {}
  for i = 1, #corpus do
    local text = corpus:string("text", i)
    local both = text .. "\t" .. corpus:string("class", i)
    counts[both] = (counts[both] or 0) + 1
    most[text] = math.max(most[text] or 0, counts[both])
  end
  local sum = 0
  for _, n in pairs(most) do sum = sum + n end
  return sum / #corpus
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
  local scores = model:score(fields(dev, model))
  print(scores.confusion)
  result.dev_accuracy, result.dev_macro_f1 = scores.accuracy, scores.macro_f1
  result.dev_possible = possible(dev)
end
for i, guess in ipairs(model:predict(options.text)) do print(told(options.text[i], guess)) end
if test then result.test_accuracy = model:score(fields(test, model)).accuracy end
common.result(result)

--- Language model of words, beside n-grams that are only counted: a trigram smoothed by modified
-- Kneser-Ney, on the same words; and both mixed.
local neap = require "neap"
local common = dofile((arg[0]:match "^.*/" or "") .. "common.lua")

local options = common.options {
  "Learns a text word by word, beside a Kneser-Ney trigram, and writes in its manner.",
  data = "a text in UTF-8, with empty lines between its parts, or a folder of fortunes",
  epochs = 6, quick = 20, train = "/usr/lib/bible.data",
  extend = function(parser)
    common.number(parser, "--generate", "N", { low = 1, whole = true },
      "Write so many words; with --load nothing else. (default: 100)")
    parser:option "--prompt":argname "TEXT":convert(common.text)
      :description "What stands before them; with --load nothing else."
    common.number(parser, "--temperature", "X", { low = 0, preset = 0.8 },
      "1: as in the text; less: likelier words; 0: always the likeliest.")
  end,
}
local rng = neap.rng(options.seed)
local size, width, columns, rate, decay = 384, 192, 32, 3e-3, 0.999
if options.quick then size, width, columns, rate, decay = 48, 32, 8, 2e-2, 0.95 end

-- Words and marks of a line: "said, Let .." is said | , | Let | ...
local function cut(line)
  local words = {}
  for chunk in line:gmatch "%S+" do
    local at = 1
    while at <= #chunk do
      local word = chunk:match("^[%w\128-\255][%w\128-\255'-]*", at)
      word = word and word:gsub("['-]+$", "") or chunk:match("^[-.]+", at)
        or chunk:match(utf8.charpattern, at)
      words[#words + 1] = word
      at = at + #word
    end
  end
  return words
end

-- A corpus of texts, each a list of lines. The end of a line is a symbol like a word.
local function corpus_of(texts)
  local all = {}
  for i, lines in ipairs(texts) do
    local words = {}
    for _, line in ipairs(lines) do
      for _, word in ipairs(cut(line)) do words[#words + 1] = word end
      words[#words + 1] = "\n"
    end
    all[i] = words
  end
  return neap.corpus.from { text = all }
end

-- Lines cut into texts: begins(line) says whether one begins, and gives the line as it is to be
-- kept, or nil. What comes twice is taken once.
local function texts_of(lines, begins)
  local texts, known, now = {}, {}, {}
  local function close()
    local text = table.concat(now, "\n")
    if #now > 0 and not known[text] then texts[#texts + 1] = now end
    known[text], now = true, {}
  end
  for line in lines do
    local first, kept = begins(line)
    if first then close() end
    now[#now + 1] = kept
  end
  close()
  return texts
end

-- The King James Bible: a text is a chapter, a line a verse.
local function bible()
  local pipe, chapter = assert(io.popen "bible -f gen1:1-rev22:21 2>&1"), nil
  local texts = texts_of(pipe:lines(), function(line)
    local place, verse = line:match "^(%w+):%d+ (.*)$"
    local first = place ~= chapter
    chapter = place
    return first, verse
  end)
  if pipe:close() and #texts > 0 then return corpus_of(texts) end
  return nil, "the command bible of Debian's bible-kjv does not work"
end

-- The text, or nil and in which line it is none.
local function checked(path, text)
  local valid, at = utf8.len(text)
  if valid then return text end
  local _, lines = text:sub(1, at - 1):gsub("\n", "")
  return nil, ("%s:%d: expected UTF-8, came other bytes"):format(path, lines + 1)
end

-- The fortunes of a folder: files without a dot in their names, lines of "%" between fortunes.
local function fortunes(path)
  local pipe <close> = assert(io.popen("ls -- '" .. path:gsub("'", "'\\''") .. "'"))
  local all = {}
  for name in pipe:lines() do
    local file <close> = not name:find(".", 1, true) and io.open(path .. "/" .. name) or nil
    local text, message = file and file:read "a", nil
    if text then text, message = checked(path .. "/" .. name, text) end
    if message then return nil, message end
    all[#all + 1] = text
  end
  return table.concat(all, "%\n")
end

local function read(path)
  if path == options.preset.train then return bible() end
  local file, message = io.open(path)
  if not file then return nil, message end
  local text, why, code = file:read "a"
  file:close()
  local folder = code == 21
  if folder then
    text, message = fortunes(path)
  elseif text then
    text, message = checked(path, text)
  end
  if not text then return nil, message or ("%s: %s"):format(path, why) end
  local texts = texts_of(text:gmatch "[^\r\n]*", function(line)
    local between = line == (folder and "%" or "")
    return between, not between and line ~= "" and line or nil
  end)
  if #texts == 0 then return nil, path .. ": nothing in it" end
  return corpus_of(texts)
end

-- --quick: sentences of few words, where the second word comes again.
local function invented(n)
  local texts, who, does = {}, { "tide", "wind", "moon", "boat" }, { "comes", "rises", "turns" }
  for i = 1, n do
    local name = who[rng:int(4)]
    texts[i] = { ("The %s %s, the %s goes."):format(name, does[rng:int(3)], name) }
  end
  return corpus_of(texts)
end

-- Data.
local train, dev, test
if options.quick then
  train, dev = invented(1500), invented(60)
elseif not options.load or options.dev or options.test
  or not (options.generate or options.prompt) then
  train, dev, test = common.corpora(options, { read = read, share = 0.05, rng = rng,
    missing = "install Debian's bible-kjv, or give --train FILE (any text), or --train "
      .. "/usr/share/games/fortunes (Debian's fortunes)" })
end

-- The network, or the one that was saved. Words that come less than three times are one symbol,
-- <unk>, for the n-grams too. The matrix that reads words writes them.
local model
if options.load then
  model = common.load(options, "language_model")
else
  local embed = neap.embed { size = width, init = { "uniform", -0.1, 0.1 } }
  model = neap.language_model {
    vocab = neap.vocab(train, "text", { min = 3 }), rng = rng, threads = options.threads,
    net = neap.chain {
      embed,                                          -- [T,B] ids -> [T,B,192]
      neap.dropout { rate = 0.3 },
      neap.lstm { size = size },                      -- -> [T,B,384]
      neap.dropout { rate = 0.3 },
      neap.linear { size = width, bias = false },
      neap.linear { tied = embed },                   -- -> [T,B,words]
    },
  }
end

local function ids(corpus) return corpus:encode("text", model.vocab) end
local function enough(option, corpus, least)
  if corpus then common.enough(option, #ids(corpus).data, least, "words") end
end
enough("--train", not options.load and train, 2 * columns)
enough("--dev", dev, options.load and 2 or 32)
enough("--test", test, 2)

-- Learning: columns of the text side by side, 40 words at a time, the state carried on. The rate
-- goes down along a cosine; a moving average of the parameters is what is kept.
if not options.load then
  local data, held = ids(train), ids(dev)
  neap.fit(model, {
    optim = neap.adam { rate = rate, clip = 1 },
    rate = function(_, first, done) return first * (1 + math.cos(math.pi * done)) / 2 end,
    average = neap.average { decay = decay },
    epochs = options.epochs, minutes = options.minutes,
    train = function() return neap.batches.stream(data, { batch = columns, steps = 40 }) end,
    dev = function() -- 16 columns, each begun anew: quick, and a little too high
      local scores = model:score(held, { columns = 16, steps = 100 })
      return { ["perplexity in 16 columns"] = scores.perplexity }
    end,
    key = "perplexity in 16 columns", lower = true,
  })
end
common.save(options, model)

-- What came of it. Both write; marks stand by their words again.
local function writes(title, writer)
  local prompt = options.prompt and cut(options.prompt) or { "\n" }
  local text = writer:generate(prompt, options.generate or 100,
    { temperature = options.temperature, rng = rng, banned = { "<unk>" } })
  text = text:gsub(" ([,.;:?!)])", "%1"):gsub("%( ", "("):gsub("^%s+", ""):gsub(" *\n *", "\n  ")
  print(title .. "\n  " .. text)
end
writes("The network writes:", model)

local result, trigram = { parameters = model:parameters() }, nil
if train then
  trigram = neap.ngram { vocab = model.vocab, order = 3 }
  trigram:fit(ids(train))
  writes("The trigram writes:", trigram)
end

-- exp of the mean -ln P; of a mix, if there are others.
local function perplexity(logs, others, share)
  local sum = 0
  for i, x in ipairs(logs) do
    sum = sum + (others and math.log(share * math.exp(x) + (1 - share) * math.exp(others[i])) or x)
  end
  return math.exp(-sum / #logs)
end

local share = 0.5 -- of the network in the mix: what is best on dev
local function tell(name, corpus)
  local held, unknown = ids(corpus), 0
  for _, id in ipairs(held.data) do
    if id == model.vocab.unk - 1 then unknown = unknown + 1 end
  end
  print(("Perplexity on %d words and marks of %s, %.1f %% of them unknown, all one symbol:")
    :format(#held.data, name, 100 * unknown / #held.data))
  local function line(what, key, value)
    result[name .. key] = value
    print(("  %-26s %.2f"):format(what, value))
  end
  local logs = model:log_probabilities(held)
  line("network", "_perplexity", perplexity(logs))
  if not trigram then return end
  local others = trigram:log_probabilities(held)
  line("trigram", "_trigram", perplexity(others))
  local best = perplexity(logs, others, share)
  for k = 1, name == "dev" and 9 or 0 do
    local now = perplexity(logs, others, k / 10)
    if now < best then share, best = k / 10, now end
  end
  line(("%d %% network, %d %% trigram"):format(100 * share, 100 - 100 * share), "_mixed", best)
end
if dev then tell("dev", dev) end
if test then tell("test", test) end
common.result(result)

--- How good predictions are.
--
-- A metric goes over a list of items: hypotheses and references, or what was predicted and what was
-- wanted. @{bootstrap} says how sure it is. Lists that a corpus gave (`corpus:lists`,
-- `corpus:references`) know their file and lines, which messages name.
-- @module neap.metrics
local check = require "neap.check"

local metrics = {}

local scores_meta = { __name = "neap.scores" }

-- Its numbers and texts by name, those of tables in it in brackets.
function scores_meta:__tostring()
  local names, parts = {}, {}
  for name in pairs(self) do
    if type(name) == "string" then names[#names + 1] = name end
  end
  table.sort(names)
  for _, name in ipairs(names) do
    local value, text = self[name], nil
    local meta = type(value) == "table" and getmetatable(value) or scores_meta
    if math.type(value) == "float" then
      text = metrics.number(value)
    elseif type(value) ~= "table" then
      text = tostring(value)
    elseif meta == scores_meta then
      text = scores_meta.__tostring(value)
      text = text ~= "" and "(" .. text .. ")"
    end
    if text then parts[#parts + 1] = name .. " " .. text end
  end
  return table.concat(parts, "  ")
end

--- A table of scores that prints as a line of its numbers.
-- @tab scores
-- @treturn tab the same
function metrics.scores(scores) return setmetatable(scores, scores_meta) end

--- A number as people read it: four significant digits.
-- @number x
-- @treturn string
function metrics.number(x) return x == x and ("%#.4g"):format(x) or "nan" end

--- The fewest insertions, deletions and substitutions that make one list into the other
-- (Levenshtein 1966).
-- @tab a
-- @tab b
-- @treturn int
function metrics.edit_distance(a, b)
  check.list("edit_distance: a", check.type("edit_distance", "a", a, "table"))
  check.list("edit_distance: b", check.type("edit_distance", "b", b, "table"))
  local row = {}
  for j = 0, #b do row[j] = j end
  for i = 1, #a do
    local diagonal = row[0]
    row[0] = i
    for j = 1, #b do
      local best = diagonal + (a[i] == b[j] and 0 or 1)
      diagonal = row[j]
      if row[j] + 1 < best then best = row[j] + 1 end
      if row[j - 1] + 1 < best then best = row[j - 1] + 1 end
      row[j] = best
    end
  end
  return row[#b]
end

--- The same, told apart, along one cheapest way; where several are, substitutions come before
-- deletions and these before insertions, from the end.
-- @tab hypothesis
-- @tab reference
-- @treturn tab `{ substitutions, deletions, insertions }`; a deletion is a symbol of the reference
--   that the hypothesis lacks
function metrics.edits(hypothesis, reference)
  check.list("edits: hypothesis", check.type("edits", "hypothesis", hypothesis, "table"))
  check.list("edits: reference", check.type("edits", "reference", reference, "table"))
  local rows, n, m = {}, #hypothesis, #reference
  for i = 0, n do
    rows[i] = { [0] = i }
    for j = 1, i == 0 and m or 0 do rows[0][j] = j end
  end
  for i = 1, n do
    local above, row = rows[i - 1], rows[i]
    for j = 1, m do
      row[j] = math.min(above[j - 1] + (hypothesis[i] == reference[j] and 0 or 1), above[j] + 1,
        row[j - 1] + 1)
    end
  end
  local out, i, j = { substitutions = 0, deletions = 0, insertions = 0 }, n, m
  while i > 0 or j > 0 do
    local here = rows[i][j]
    local same = i > 0 and j > 0 and hypothesis[i] == reference[j]
    if i > 0 and j > 0 and rows[i - 1][j - 1] + (same and 0 or 1) == here then
      if not same then out.substitutions = out.substitutions + 1 end
      i, j = i - 1, j - 1
    elseif j > 0 and rows[i][j - 1] + 1 == here then
      out.deletions, j = out.deletions + 1, j - 1
    else
      out.insertions, i = out.insertions + 1, i - 1
    end
  end
  return metrics.scores(out)
end

-- ---- items ----

-- Where entry i of a list is from, for messages: lists that a corpus gave know it.
local function place(list, i)
  local from = type(list) == "table" and list.from
  local rows = from and from.rows
  return from and (" (%s)"):format(from.corpus:place(rows and rows[i] or i)) or ""
end

-- Which file two lists are about, where one of them knows it.
local function source(a, b)
  local from = type(a) == "table" and a.from or type(b) == "table" and b.from
  return from and (" (%s)"):format(tostring(from.corpus.source)) or ""
end

local function same_count(who, hypotheses, references)
  check.list(who .. ": hypotheses", check.type(who, "hypotheses", hypotheses, "table"))
  check.list(who .. ": references", check.type(who, "references", references, "table"))
  if #hypotheses ~= #references then
    check.fail("%s: %d hypotheses for %d entries of references%s", who, #hypotheses, #references,
      source(references, hypotheses))
  end
end

-- The same, and each hypothesis is a list, each entry of references a list of lists.
local function lists(who, hypotheses, references)
  same_count(who, hypotheses, references)
  local function list(what, all, i)
    if type(all[i]) == "table" and not check.hole(all[i]) then return end
    local name = ("%s %d%s"):format(what, i, place(all, i))
    check.list(("%s: %s"):format(who, name), check.type(who, name, all[i], "table"))
  end
  for i in ipairs(hypotheses) do
    list("hypothesis", hypotheses, i)
    list("references: entry", references, i)
    for k, reference in ipairs(references[i]) do
      if type(reference) ~= "table" then
        check.fail("%s: references: entry %d%s is a list of references, each a list: "
          .. "number %d is %s", who, i, place(references, i), k, check.came(reference))
      end
      if check.hole(reference) then
        check.list(("%s: references: entry %d%s, number %d"):format(who, i,
          place(references, i), k), reference)
      end
    end
  end
end

-- The same, and none is without a reference.
local function with_references(who, hypotheses, references)
  lists(who, hypotheses, references)
  for i, entry in ipairs(references) do
    if #entry == 0 then
      check.fail("%s: references: entry %d%s has no reference: expected a list of lists, such as "
        .. "{ { \"a\", \"b\" } }", who, i, place(references, i))
    end
  end
end

-- What the metrics of items are made of: count(..) checks the arguments and gives for each item a
-- list of numbers; score(sums, ..) makes the metric of their sums over the items. So a sample of
-- the items costs sums alone. By the metric's function, for @{bootstrap}.
local made_of = {}

local function sum_up(counts, pick)
  local sums = {}
  for i = 1, #counts do
    local item = counts[pick and pick[i] or i]
    for k = 1, #item do sums[k] = (sums[k] or 0) + item[k] end
  end
  return sums
end

local function metric(count, score)
  local function f(...)
    return score(sum_up((count(...))), ...)
  end
  made_of[f] = { count = count, score = score }
  return f
end

-- 0 for no items.
local function share(sums) return sums[2] and sums[1] / sums[2] or 0 end

local function equal(a, b)
  if #a ~= #b then return false end
  for i = 1, #a do
    if a[i] ~= b[i] then return false end
  end
  return true
end

--- The share of sequences that equal none of their references: the word error rate of spelling to
-- phonemes.
-- @function sequence_error_rate
-- @tab hypotheses a list of lists
-- @tab references for each hypothesis the list of its references, each a list
-- @treturn number 0 to 1; 0 for no sequences
metrics.sequence_error_rate = metric(function(hypotheses, references)
  lists("sequence_error_rate", hypotheses, references)
  local counts = {}
  for i, hypothesis in ipairs(hypotheses) do
    local wrong = 1
    for _, reference in ipairs(references[i]) do
      if equal(hypothesis, reference) then wrong = 0 end
    end
    counts[i] = { wrong, 1 }
  end
  return counts
end, share)

-- Edits to the closest reference and its length, for each item.
local function count_edits(who, hypotheses, references)
  with_references(who, hypotheses, references)
  local counts = {}
  for i, hypothesis in ipairs(hypotheses) do
    local best, length
    for _, reference in ipairs(references[i]) do
      local distance = metrics.edit_distance(hypothesis, reference)
      if not best or distance < best then best, length = distance, #reference end
    end
    counts[i] = { best, length }
  end
  return counts
end

local function error_rate(sums)
  local edits, symbols = sums[1] or 0, sums[2] or 0
  return symbols == 0 and (edits > 0 and math.huge or 0) or edits / symbols
end

--- Edit distance to the closest reference over its length, both summed: the phoneme error rate
-- (PER) of spelling to phonemes, the digit error rate of spoken digits.
-- @function symbol_error_rate
-- @tab hypotheses a list of lists
-- @tab references for each hypothesis the list of its references, each a list
-- @treturn number 0 for no sequences; may pass 1
metrics.symbol_error_rate = metric(function(hypotheses, references)
  return count_edits("symbol_error_rate", hypotheses, references)
end, error_rate)

-- Strings as lists of the words between blanks.
local function words_of(x)
  if type(x) ~= "string" then return x end
  local list = {}
  for word in x:gmatch "%S+" do list[#list + 1] = word end
  return list
end

-- The lists with each string in them cut into words.
local function in_words(who, hypotheses, references)
  same_count(who, hypotheses, references)
  local h, r = { from = hypotheses.from }, { from = references.from }
  for i = 1, #hypotheses do
    h[i], r[i] = words_of(hypotheses[i]), references[i]
    if type(r[i]) == "string" then
      r[i] = { words_of(r[i]) }
    elseif type(r[i]) == "table" then
      local entry = {}
      check.list(("%s: references: entry %d%s"):format(who, i, place(references, i)), r[i])
      for k, reference in ipairs(r[i]) do entry[k] = words_of(reference) end
      r[i] = entry
    end
  end
  return h, r
end

--- The word error rate (WER) of speech: edits of words to the closest reference over its words,
-- both summed.
-- @function wer
-- @tab hypotheses a list of strings, which are cut at blanks, or of lists of words
-- @tab references for each hypothesis a string, or the list of its references: strings or lists of
--   words
-- @treturn number 0 for no sequences; may pass 1
metrics.wer = metric(function(hypotheses, references)
  return count_edits("wer", in_words("wer", hypotheses, references))
end, error_rate)

-- How many words two lists share, each as often as it is in both.
local function shared(a, b)
  local left, n = {}, 0
  for _, word in ipairs(a) do left[word] = (left[word] or 0) + 1 end
  for _, word in ipairs(b) do
    if (left[word] or 0) > 0 then left[word], n = left[word] - 1, n + 1 end
  end
  return n
end

--- F1 of words: the harmonic mean of precision and recall of an output's words, whatever their order,
-- against those of the closest reference; the mean over the outputs (Rajpurkar et al. 2016,
-- "SQuAD", 6.1, words as given). Two without any word are alike, 1.
-- @function word_f1
-- @tab hypotheses a list of strings, which are cut at blanks, or of lists of words
-- @tab references for each hypothesis a string, or the list of its references: strings or lists of
--   words
-- @treturn number 0 to 1; 0 for no outputs
metrics.word_f1 = metric(function(hypotheses, references)
  local h, r = in_words("word_f1", hypotheses, references)
  with_references("word_f1", h, r)
  local counts = {}
  for i, hypothesis in ipairs(h) do
    local best = 0
    for _, reference in ipairs(r[i]) do
      local all = #hypothesis + #reference
      best = math.max(best, all == 0 and 1 or 2 * shared(hypothesis, reference) / all)
    end
    counts[i] = { best, 1 }
  end
  return counts
end, share)

--- The one of several outputs for the same input that is most like them all, by a metric: what is
-- least wrong on average, if they are drawn from a model by chance (minimum Bayes risk; Kumar and
-- Byrne 2004; with outputs by chance Eikema and Aziz 2020).
-- @tab outputs a list, not empty: strings or lists of strings, each as often as it was drawn
-- @func gain what an output is worth where another is right: a function of metrics such as word_f1,
--   or function({ output }, { { right } }) -> number, more is better
-- @treturn int which, from 1; of equally good ones the first
-- @treturn number the mean of what it is worth
function metrics.consensus(outputs, gain)
  if type(outputs) ~= "table" or #outputs == 0 then
    check.fail("consensus: outputs: expected a list, not empty, came %s",
      type(outputs) == "table" and "none" or check.came(outputs))
  end
  check.type("consensus", "gain", gain, "function")
  local kinds, known = {}, {} -- those that differ: { first, count }
  for i, output in ipairs(outputs) do
    local key = output
    if type(output) == "table" then
      for k, x in ipairs(output) do
        if type(x) ~= "string" then
          check.fail("consensus: output %d: expected strings, came %s at %d", i, check.came(x), k)
        end
      end
      key = "\0" .. table.concat(output, "\0")
    elseif type(output) ~= "string" then
      check.fail("consensus: output %d: expected a string or a list of strings, came %s", i,
        check.came(output))
    end
    if not known[key] then
      known[key] = { i, 0 }
      kinds[#kinds + 1] = known[key]
    end
    known[key][2] = known[key][2] + 1
  end
  local best, most = nil, nil
  for _, one in ipairs(kinds) do
    local sum = 0
    for _, right in ipairs(kinds) do
      sum = sum + right[2] * gain({ outputs[one[1]] }, { { outputs[right[1]] } })
    end
    if not most or sum > most then best, most = one[1], sum end
  end
  return best, most / #outputs
end

-- What entry i says: two classes, which could be the same.
local function classes_of(who, predicted, wanted, i)
  local p, w = predicted[i], wanted[i]
  local kind = type(w)
  if type(p) ~= kind or kind ~= "string" and kind ~= "number" and kind ~= "boolean" then
    check.fail("%s: entry %d%s: expected two classes, both strings or both numbers, came %s and %s",
      who, i, place(wanted, i), check.came(p), check.came(w))
  end
  return p, w
end

--- The share of equal entries.
-- @function accuracy
-- @tab predicted a list
-- @tab wanted a list of the same length
-- @treturn number 0 to 1; 0 for no entries
metrics.accuracy = metric(function(predicted, wanted)
  same_count("accuracy", predicted, wanted)
  local counts = {}
  for i = 1, #predicted do
    local p, w = classes_of("accuracy", predicted, wanted, i)
    counts[i] = { p == w and 1 or 0, 1 }
  end
  return counts
end, share)

--- The plain mean of F1 over the classes that were wanted or predicted. (A confusion has it too.)
-- @tab predicted a list of classes: strings or numbers
-- @tab wanted a list of the same length
-- @treturn number 0 to 1; 0 for no entries
function metrics.macro_f1(predicted, wanted)
  same_count("macro_f1", predicted, wanted)
  local right, all, n, sum = {}, {}, 0, 0
  for i = 1, #predicted do
    local p, w = classes_of("macro_f1", predicted, wanted, i)
    all[p] = (all[p] or 0) + 1
    all[w] = (all[w] or 0) + 1
    if p == w then right[p] = (right[p] or 0) + 1 end
  end
  local order = {} -- a sum has one order
  for class in pairs(all) do order[#order + 1] = 2 * (right[class] or 0) / all[class] end
  table.sort(order)
  for _, f1 in ipairs(order) do sum, n = sum + f1, n + 1 end
  return n == 0 and 0 or sum / n
end

-- ---- numbers ----

-- The numbers of a list or tensor: a list of rows of numbers.
local function rows_of(who, name, x)
  local rows = x
  if check.is_tensor(x) then
    rows = x:totable()
  elseif type(x) ~= "table" or getmetatable(x) then
    check.fail("%s: %s: expected a list of numbers or a tensor, came %s", who, name, check.came(x))
  end
  check.list(("%s: %s"):format(who, name), rows)
  local out = {}
  for i, row in ipairs(rows) do
    out[i] = type(row) == "table" and check.list(("%s: %s: entry %d"):format(who, name, i), row)
      or { row }
    for k, value in ipairs(out[i]) do
      if type(value) ~= "number" or value - value ~= 0 then
        check.fail("%s: %s: entry %d%s: expected a finite number, came %s%s", who, name, i,
          place(x, i), check.came(value), #out[i] > 1 and (" as number %d"):format(k) or "")
      end
    end
    if #out[i] ~= #out[1] or #out[i] == 0 then
      check.fail("%s: %s: entry %d%s: expected %d numbers, came %d", who, name, i, place(x, i),
        math.max(#out[1], 1), #out[i])
    end
  end
  return out
end

-- Two such lists, each as long and as wide.
local function two(who, predicted, wanted)
  local a, b = rows_of(who, "predicted", predicted), rows_of(who, "wanted", wanted)
  if #a ~= #b then
    check.fail("%s: %d predicted for %d wanted%s", who, #a, #b, source(wanted, predicted))
  end
  if #a > 0 and #a[1] ~= #b[1] then
    check.fail("%s: rows of %d predicted for rows of %d wanted%s", who, #a[1], #b[1],
      source(wanted, predicted))
  end
  return a, b
end

-- Sums of distance(error) and how many, for each row.
local function count_errors(who, predicted, wanted, distance)
  local a, b = two(who, predicted, wanted)
  local counts = {}
  for i, row in ipairs(a) do
    local sum = 0
    for k, x in ipairs(row) do sum = sum + distance(x - b[i][k]) end
    counts[i] = { sum, #row }
  end
  return counts
end

local function squared(e) return e * e end

--- Root mean square error.
-- @function rmse
-- @param predicted a list of numbers or of rows of numbers, or a tensor
-- @param wanted the like
-- @treturn number 0 for none
metrics.rmse = metric(function(predicted, wanted)
  return count_errors("rmse", predicted, wanted, squared)
end, function(sums) return share(sums) ^ 0.5 end)

--- Mean absolute error.
-- @function mae
-- @param predicted a list of numbers or of rows of numbers, or a tensor
-- @param wanted the like
-- @treturn number 0 for none
metrics.mae = metric(function(predicted, wanted)
  return count_errors("mae", predicted, wanted, math.abs)
end, share)

-- The mean error of the seasonal naive forecast within the series that was learned from.
local function naive_error(options)
  options = check.options("mase", options, { "train", "season" })
  local season = check.integer("mase", "season", options.season or 1, 1)
  if options.train == nil then
    check.fail("mase: train: expected the series that was learned from, { train = series }, "
      .. "came nil")
  end
  local train = rows_of("mase", "train", options.train)
  if #train <= season then
    check.fail("mase: train: expected more than season = %d entries, came %d", season, #train)
  end
  local sum, n = 0, 0
  for t = season + 1, #train do
    for k, x in ipairs(train[t]) do sum, n = sum + math.abs(x - train[t - season][k]), n + 1 end
  end
  if sum == 0 then
    check.fail("mase: train: its seasonal naive forecast makes no error, so that nothing can be "
      .. "measured by it: expected a series that is not constant%s",
      season > 1 and " from season to season" or "")
  end
  return sum / n, train
end

--- Mean absolute scaled error (Hyndman and Koehler 2006, "Another look at measures of forecast
-- accuracy"): the mean absolute error over that of the seasonal naive forecast,
-- y(t) = y(t - season), within the series that was learned from. Below 1: better than that
-- forecast did there.
-- @function mase
-- @param predicted a list of numbers, or a tensor
-- @param wanted the like
-- @tab options `train`: the series that was learned from; `season`: its steps in a season (1: the
--   last value is the forecast)
-- @treturn number 0 for none
metrics.mase = metric(function(predicted, wanted, options)
  local _, train = naive_error(options)
  local counts = count_errors("mase", predicted, wanted, math.abs)
  if #train[1] ~= 1 or counts[1] and counts[1][2] ~= 1 then
    check.fail("mase: expected series of single numbers, came rows of %d",
      math.max(#train[1], counts[1] and counts[1][2] or 1))
  end
  return counts
end, function(sums, _, _, options) return share(sums) / naive_error(options) end)

--- e to the mean of -ln p over all symbols.
-- @function perplexity
-- @param nats a list or tensor: for each sequence its sum of -ln p; or for each symbol -ln p
-- @param[opt] symbols for each of them how many symbols it is (1)
-- @treturn number 1 for none
metrics.perplexity = metric(function(nats, symbols)
  local a, counts = rows_of("perplexity", "nats", nats), {}
  local b = symbols ~= nil and rows_of("perplexity", "symbols", symbols)
  if b and #a ~= #b then
    check.fail("perplexity: %d entries of nats for %d of symbols%s", #a, #b,
      source(nats, symbols))
  end
  for i, row in ipairs(a) do
    local n = b and b[i][1] or 1
    if #row ~= 1 or n < 0 then
      check.fail("perplexity: entry %d%s: expected one number and a count from 0, came %s", i,
        place(nats, i), n < 0 and ("a count of %g"):format(n) or ("%d numbers"):format(#row))
    end
    counts[i] = { row[1], n }
  end
  return counts
end, function(sums)
  local nats, n = sums[1] or 0, sums[2] or 0
  return n > 0 and math.exp(nats / n) or nats > 0 and math.huge or 1
end)

-- ---- BLEU ----

-- How often each n-gram comes.
local function grams(list, n)
  local counts = {}
  for i = 1, #list - n + 1 do
    local key = n == 1 and list[i] or table.concat(list, "\0", i, i + n - 1)
    counts[key] = (counts[key] or 0) + 1
  end
  return counts
end

local function bleu_options(options)
  options = check.options("bleu", options, { "order", "smoothing", "k" })
  local smoothing, k = options.smoothing == nil and "none" or options.smoothing, options.k
  if smoothing ~= "none" and smoothing ~= "add-k" then
    check.fail("bleu: smoothing: expected \"none\" or \"add-k\", came %s", check.came(smoothing))
  end
  if k ~= nil then
    check.number("bleu", "k", k, 0)
    if smoothing == "none" then check.fail("bleu: k: only smoothing = \"add-k\" has one") end
  end
  return check.integer("bleu", "order", options.order or 4, 1, 9), smoothing, k or 1
end

--- BLEU of a corpus (Papineni, Roukos, Ward and Zhu 2002), 0 to 100: the geometric mean of the
-- precisions of 1- to 4-grams, clipped to the most that a reference of the same sentence has and
-- summed over the corpus, times the brevity penalty e^(1 - r/h) where the hypotheses have h
-- symbols, fewer than r, the sum of the closest references' lengths (of two as close, the shorter).
-- Symbols are compared as they are given: for comparison with published figures they must be cut as
-- there.
-- @function bleu
-- @tab hypotheses a list of lists of symbols, or of strings, which are cut at blanks
-- @tab references for each hypothesis a string, or the list of its references: strings or lists of
--   symbols
-- @tab[opt] options `order`: the longest n-grams (4); `smoothing`: "none" (0 where an order has no
--   match), or "add-k": `k` (1) is added to matches and n-grams of the orders above 1 (Lin and Och
--   2004), for single sentences and short corpora
-- @treturn tab `{ bleu, precisions, brevity_penalty, hypothesis_length, reference_length, method }`
metrics.bleu = metric(function(hypotheses, references, options)
  local order = bleu_options(options)
  local h, r = in_words("bleu", hypotheses, references)
  with_references("bleu", h, r)
  local counts = {}
  for i, hypothesis in ipairs(h) do
    local closest
    for k, reference in ipairs(r[i]) do
      for _, list in ipairs { hypothesis, reference } do
        for at, symbol in ipairs(list) do
          if type(symbol) ~= "string" and type(symbol) ~= "number" then
            check.fail("bleu: entry %d%s: symbol %d of %s: expected a string or a number, "
              .. "came %s", i, place(references, i), at, list == hypothesis and "the hypothesis"
                or ("reference %d"):format(k), check.came(symbol))
          end
        end
      end
      local d, best = math.abs(#reference - #hypothesis),
        closest and math.abs(closest - #hypothesis) or math.huge
      if d < best or d == best and #reference < closest then closest = #reference end
    end
    local item = { #hypothesis, closest }
    for n = 1, order do
      local most = {}
      for _, reference in ipairs(r[i]) do
        for gram, times in pairs(grams(reference, n)) do
          most[gram] = math.max(most[gram] or 0, times)
        end
      end
      local matches = 0
      for gram, times in pairs(grams(hypothesis, n)) do
        matches = matches + math.min(times, most[gram] or 0)
      end
      item[2 * n + 1], item[2 * n + 2] = matches, math.max(#hypothesis - n + 1, 0)
    end
    counts[i] = item
  end
  return counts
end, function(sums, _, _, options)
  local order, smoothing, k = bleu_options(options)
  local h, r, log_sum, precisions = sums[1] or 0, sums[2] or 0, 0, {}
  for n = 1, order do
    local matches, all = sums[2 * n + 1] or 0, sums[2 * n + 2] or 0
    if smoothing == "add-k" and n > 1 then matches, all = matches + k, all + k end
    precisions[n] = all > 0 and matches / all or 0
    log_sum = log_sum + math.log(precisions[n])
  end
  local penalty = h == 0 and 0 or h < r and math.exp(1 - r / h) or 1
  return metrics.scores { bleu = 100 * penalty * math.exp(log_sum / order), precisions = precisions,
    brevity_penalty = penalty, hypothesis_length = h, reference_length = r,
    method = ("BLEU-%d of the corpus, symbols as given, smoothing %s"):format(order,
      smoothing == "none" and "none" or ("add-%g"):format(k)) }
end)

-- ---- how sure ----

--- What stands at a share of a sorted list, between two entries in proportion (type 7 of Hyndman
-- and Fan 1996): the median at 0.5.
-- @tab list numbers, the least first, at least one
-- @number share_of 0 to 1
-- @treturn number
function metrics.quantile(list, share_of)
  check.table("quantile", "list", list)
  check.number("quantile", "share", share_of, 0, 1)
  if #list == 0 then check.fail("quantile: expected at least one number, came none") end
  local at = 1 + (#list - 1) * share_of
  local low = math.floor(at)
  return list[low] + (at - low) * ((list[low + 1] or list[low]) - list[low])
end

--- A confidence interval by the bootstrap (Efron 1979), percentile method: the metric over as many
-- items drawn with replacement, many times; low and high cut off the same share at either end.
-- Items are drawn alike from all lists, so that a function of two systems' outputs and the
-- references compares the two on the same sentences (Koehn 2004).
-- @func f one of the metrics here that go over lists, or a function of the script that takes lists
--   and gives a number
-- @tab arguments the lists it takes, and what else: `{ hypotheses, references }`. For a function of
--   the script all are lists of items, each as long
-- @tab options `rng`; `samples` (1000); `level` (0.95)
-- @treturn tab `{ value, low, high, level, samples }`
function metrics.bootstrap(f, arguments, options)
  if type(f) ~= "function" then
    check.fail("bootstrap: expected a metric such as neap.metrics.accuracy, came %s", check.came(f))
  end
  check.table("bootstrap", "arguments", arguments)
  options = check.options("bootstrap", options, { "rng", "samples", "level" })
  local rng = check.rng("bootstrap", options.rng)
  if rng == nil then
    check.fail("bootstrap: rng: expected a source of chance such as neap.rng(17), came nil")
  end
  local samples = check.integer("bootstrap", "samples", options.samples or 1000, 2)
  local level = check.number("bootstrap", "level", options.level or 0.95, 0, 1)
  local parts, n, compute = made_of[f], nil, nil
  local function number(x, what)
    if type(x) == "table" then x = x.bleu end
    if type(x) ~= "number" or x ~= x then
      check.fail("bootstrap: the metric of %s: expected a number, came %s", what, check.came(x))
    end
    return x
  end
  if parts then
    local counts = parts.count(table.unpack(arguments))
    n = #counts
    function compute(pick) return parts.score(sum_up(counts, pick), table.unpack(arguments)) end
  else
    if #arguments == 0 then
      check.fail("bootstrap: arguments: expected lists of items, came none")
    end
    for k, list in ipairs(arguments) do
      check.table("bootstrap", ("argument %d"):format(k), list)
      n = n or #list
      if #list ~= n then
        check.fail("bootstrap: argument %d: expected %d items as in argument 1, came %d", k, n,
          #list)
      end
    end
    function compute(pick)
      local drawn = {}
      for k, list in ipairs(arguments) do
        drawn[k] = {}
        for i = 1, n do drawn[k][i] = list[pick and pick[i] or i] end
      end
      return f(table.unpack(drawn))
    end
  end
  if n == 0 then check.fail("bootstrap: expected at least one item, came none") end
  local value, values, pick = number(compute(), "all items"), {}, {}
  for s = 1, samples do
    for i = 1, n do pick[i] = rng:int(n) end
    values[s] = number(compute(pick), "a sample")
  end
  table.sort(values)
  return metrics.scores { value = value, low = metrics.quantile(values, (1 - level) / 2),
    high = metrics.quantile(values, (1 + level) / 2), level = level, samples = samples }
end

-- ---- classes ----

local confusion = {}
local meta = { __index = confusion, __name = "neap.confusion" }

--- A table of what was wanted against what was predicted.
-- @param classes a vocabulary, or a list of names, or a number of classes
-- @treturn confusion
function metrics.confusion(classes)
  local names = {}
  if type(classes) == "number" then
    for i = 1, check.integer("confusion", "classes", classes, 1) do names[i] = tostring(i) end
  else
    check.type("confusion", "classes", classes, "table")
    table.move(classes.symbols or classes, 1, #classes, 1, names)
  end
  local self = { names = names, total = 0 }
  for i = 1, #names do
    self[i] = {}
    for j = 1, #names do self[i][j] = 0 end
  end
  return setmetatable(self, meta)
end

--- Counts one prediction, or two lists of them.
-- @param wanted a class from 1, or a list
-- @param predicted a class from 1, or a list of the same length
-- @treturn confusion itself
function confusion:add(wanted, predicted)
  if type(wanted) == "table" then
    same_count("confusion:add", predicted, wanted)
    for i = 1, #wanted do -- all of them or none
      local at = (" of entry %d%s"):format(i, place(wanted, i))
      check.integer("confusion:add", "wanted" .. at, wanted[i], 1, #self.names)
      check.integer("confusion:add", "predicted" .. at, predicted[i], 1, #self.names)
    end
    for i = 1, #wanted do self:add(wanted[i], predicted[i]) end
    return self
  end
  check.integer("confusion:add", "wanted", wanted, 1, #self.names)
  check.integer("confusion:add", "predicted", predicted, 1, #self.names)
  self[wanted][predicted] = self[wanted][predicted] + 1
  self.total = self.total + 1
  return self
end

--- The share of right predictions.
-- @treturn number 0 to 1; 0 for none
function confusion:accuracy()
  local right = 0
  for i = 1, #self.names do right = right + self[i][i] end
  return self.total == 0 and 0 or right / self.total
end

--- The share of right ones among those that were predicted to be of a class.
-- @int class from 1
-- @treturn ?number nil if none was
function confusion:precision(class)
  local n = 0
  for i = 1, #self.names do n = n + self[i][class] end
  return n > 0 and self[class][class] / n or nil
end

--- The share of right ones among those that were of a class.
-- @int class from 1
-- @treturn ?number nil if none was
function confusion:recall(class)
  local n = 0
  for j = 1, #self.names do n = n + self[class][j] end
  return n > 0 and self[class][class] / n or nil
end

--- F1 of a class: 2 right / (wanted + predicted).
-- @int class from 1
-- @treturn ?number nil if it was neither wanted nor predicted
function confusion:f1(class)
  local wanted, predicted = 0, 0
  for i = 1, #self.names do
    wanted, predicted = wanted + self[class][i], predicted + self[i][class]
  end
  return wanted + predicted > 0 and 2 * self[class][class] / (wanted + predicted) or nil
end

--- The plain mean of F1 over the classes that were wanted or predicted.
-- @treturn number 0 to 1
function confusion:macro_f1()
  local sum, n = 0, 0
  for i = 1, #self.names do
    local f1 = self:f1(i)
    if f1 then sum, n = sum + f1, n + 1 end
  end
  return n == 0 and 0 or sum / n
end

local WIDTH = 100 -- columns of a line

local function long(text) return utf8.len(text) or #text end

-- Rows are what was wanted, columns what was predicted. Where the names are too long to stand over
-- the columns, both have numbers.
function meta:__tostring()
  local rows, heads, head, width, cell = {}, {}, 0, 0, #tostring(self.total)
  for j, name in ipairs(self.names) do
    rows[j], heads[j] = name, name
    head, width = math.max(head, long(name)), width + 1 + math.max(long(name), cell)
  end
  if head + width > WIDTH then
    local digits = #tostring(#heads)
    for j, name in ipairs(self.names) do
      rows[j], heads[j] = ("%s %" .. digits .. "d"):format(name, j), tostring(j)
    end
    head = head + 1 + digits
  end
  local lines = { "rows: wanted, columns: predicted" }
  local function add(title, value)
    local line = { (" "):rep(head - long(title)) .. title }
    for j, name in ipairs(heads) do
      local text = value(j)
      line[j + 1] = (" "):rep(math.max(long(name), cell) - long(text)) .. text
    end
    lines[#lines + 1] = table.concat(line, " ")
  end
  add("", function(j) return heads[j] end)
  for i, title in ipairs(rows) do
    add(title, function(j) return self[i][j] == 0 and "." or tostring(self[i][j]) end)
  end
  return table.concat(lines, "\n")
end

return metrics

--- Language models of counted n-grams, smoothed by interpolated modified Kneser-Ney (Kneser and Ney
-- 1995; Chen and Goodman 1999, "An empirical study of smoothing techniques for language modeling"):
-- what a @{neap.language_model} of the same text and vocabulary has to beat.
--
-- It is asked like that task (`score`, `log_probabilities`, `predict`, `generate`, `save`), but
-- fitted by counting. It is a table that Lua looks things up in, not a program: a file of it is read
-- by `neap.load`, not by a host without Lua.
--
-- The probability of a symbol w after the n - 1 symbols h before it, h' being h without its first:
--
--     P(w | h) = max(a(h w) - D(a(h w)), 0) / a(h .) + g(h) P(w | h')
--     a(h .)   = sum over w of a(h w)
--     g(h)     = (D1 N1(h) + D2 N2(h) + D3 N3(h)) / a(h .)
--
-- where a counts, N1(h) is how many symbols came once after h, N2(h) twice, N3(h) more often, and D
-- is 0 for 0, D1 for 1, D2 for 2, D3 for more. Below the single symbol stands the same probability
-- for all, 1 / V. After an h that never came, P(w | h) = P(w | h').
--
-- The n-grams themselves are counted as often as they come; shorter ones by how many symbols come
-- before them, where the beginning of the text is one more. The discounts of each length are
-- estimated from n1 .. n4, how many of its n-grams have the count 1 .. 4 (Chen and Goodman 1999,
-- eq. 26): Y = n1 / (n1 + 2 n2), Dk = k - (k + 1) Y n(k+1) / nk. Where that gives no D from 0 to k,
-- as in small texts, they are 0.5, 1, 1.5.
-- @module neap.ngram
local core = require "neap.core"
local check = require "neap.check"
local cjson = require "cjson"
local language_model = require "neap.language_model"
local metrics = require "neap.metrics"
local op = require "neap.op"
local search = require "neap.search"
local task = require "neap.task"
local vocab = require "neap.vocab"

local class = {}
class.__index = class
class.__name = "neap.ngram"

local USUAL = { 0.5, 1, 1.5 } -- discounts where the counts do not tell

-- An n-gram as one whole number: its ids are its digits, in the base V.
local function fits(v, order) return v ^ order <= 2 ^ 62 end

local function make(symbols, order, discount)
  return setmetatable({ kind = "ngram", vocab = symbols, order = order, discount = discount },
    class)
end

--- Makes a model that knows nothing yet, for `fit`.
-- @function ngram
-- @tab options
--
-- - `vocab`: the symbols
-- - `order`: the length of the longest n-grams (3)
-- - `discount`: a number above 0, at most 1, for all counts, as Kneser and Ney have it; or a list of
--   three, D1, D2, D3, each at most its number; nil: estimated
local function new(_, options)
  options = check.options("ngram", options, { "vocab", "order", "discount" })
  local symbols = task.vocab("ngram", "vocab", options.vocab)
  local order = check.integer("ngram", "order", options.order == nil and 3 or options.order, 1)
  if not fits(#symbols, order) then
    check.fail("ngram: order: %d symbols to the power of it: expected at most 2^62, came order %d",
      #symbols, order)
  end
  local given = options.discount
  if type(given) == "number" then given = { given, given, given } end
  if given ~= nil then
    if type(given) ~= "table" or #given ~= 3 then
      check.fail("ngram: discount: expected a number, or a list of three, came %s",
        check.came(given))
    end
    for k = 1, 3 do
      if type(given[k]) ~= "number" or not (given[k] > 0 and given[k] <= k) then
        check.fail("ngram: discount: for a count of %d: expected a number above 0, at most %d, "
          .. "came %s", k, type(options.discount) == "number" and 1 or k, check.came(given[k]))
      end
    end
  end
  return make(symbols, order, given and { given[1], given[2], given[3] })
end

-- ---- counting ----

-- The ids of a text, from 0, as a list.
local function ids_of(self, who, given, least)
  local ids = type(given) == "table" and not getmetatable(given) and given.data or given
  local kind = getmetatable(ids)
  if type(ids) ~= "userdata" or kind.__name ~= "neap.tensor" or ids:rank() ~= 1
    or ids:dtype() ~= "i32" then
    check.fail("%s: ids: expected an i32 tensor or an encoded field, came %s", who,
      check.came(given))
  end
  if #ids < least then
    check.fail("%s: ids: expected a text of at least %d symbols, came %d", who, least, #ids)
  end
  local list, v = ids:totable(), #self.vocab
  for i, id in ipairs(list) do
    if id < 0 or id >= v then
      check.fail("%s: ids: symbol %d: expected an id in 0..%d, came %d", who, i, v - 1, id)
    end
  end
  return list
end

local function discount_of(a) return a < 3 and a or 3 end

-- D1, D2, D3 of n-grams of one length.
local function estimate(counts)
  local n = { 0, 0, 0, 0 }
  for _, a in pairs(counts) do
    if a <= 4 then n[a] = n[a] + 1 end
  end
  local y, out = n[1] / (n[1] + 2 * n[2]), {}
  for k = 1, 3 do
    out[k] = k - (k + 1) * y * n[k + 1] / n[k]
    if not (out[k] > 0 and out[k] <= k) then return USUAL end -- not: nor if it is no number
  end
  return out
end

-- Makes everything of the longest n-grams' counts and the text's first symbols.
local function derive(self, longest, first)
  local v, levels = #self.vocab, { [self.order] = { counts = longest } }
  for k = self.order - 1, 1, -1 do
    local counts, tail, begin = {}, 1, 0
    for _ = 1, k do tail = tail * v end
    for key in pairs(levels[k + 1].counts) do
      local short = key % tail
      counts[short] = (counts[short] or 0) + 1
    end
    for i = 1, k do begin = begin * v + first[i] end
    counts[begin] = (counts[begin] or 0) + 1
    levels[k] = { counts = counts }
  end
  self.discounts = {}
  for k, level in ipairs(levels) do
    local d = self.discount or estimate(level.counts)
    local sums, seen = {}, { {}, {}, {} }
    for key, a in pairs(level.counts) do
      local context, n = key // v, seen[discount_of(a)]
      sums[context] = (sums[context] or 0) + a
      n[context] = (n[context] or 0) + 1
    end
    level.sums, level.left = sums, {}
    for context, sum in pairs(sums) do
      level.left[context] = (d[1] * (seen[1][context] or 0) + d[2] * (seen[2][context] or 0)
        + d[3] * (seen[3][context] or 0)) / sum
    end
    self.discounts[k] = { d[1], d[2], d[3] }
  end
  self.levels, self.first = levels, first
end

--- Counts a text. What was counted before is forgotten.
-- @param ids encoded field or i32 tensor, ids from 0; the sequences of a field are one text
-- @treturn tab `{ n = symbols, ngrams = how many different ones of the full length }`. The field
--   `discounts` of the model holds D1, D2, D3 of each length
function class:fit(ids)
  local list = ids_of(self, "ngram:fit", ids, self.order)
  local v, counts, different, key, tail = #self.vocab, {}, 0, 0, 1
  for _ = 2, self.order do tail = tail * v end
  for i, id in ipairs(list) do
    key = key % tail * v + id
    if i >= self.order then
      if not counts[key] then different = different + 1 end
      counts[key] = (counts[key] or 0) + 1
    end
  end
  derive(self, counts, table.move(list, 1, self.order - 1, 1, {}))
  return metrics.scores { n = #list, ngrams = different }
end

-- ---- what it is asked ----

local function fitted(self, who)
  if not self.levels then check.fail("%s: nothing was counted yet: model:fit(ids)", who) end
  return self.levels
end

-- Of each length k up to what is known: its level, and the k - 1 symbols that stand before place i
-- as a number.
local function contexts(self, list, i)
  local out, context, power = {}, 0, 1
  for k = 1, math.min(self.order, i) do
    if k > 1 then
      context = context + list[i - k + 1] * power
      power = power * #self.vocab
    end
    local level = self.levels[k]
    if not level.sums[context] then break end
    out[k] = { level = level, discount = self.discounts[k], context = context }
  end
  return out
end

local function probability(self, before, id)
  local p, v = 1 / #self.vocab, #self.vocab
  for _, c in ipairs(before) do
    local level = c.level
    local a = level.counts[c.context * v + id]
    p = (a and math.max(a - c.discount[discount_of(a)], 0) / level.sums[c.context] or 0)
      + level.left[c.context] * p
  end
  return p
end

--- ln P of each symbol but the first, after those before it.
-- @param ids encoded field or i32 tensor, ids from 0
-- @treturn tensor f32 [n-1]
function class:log_probabilities(ids)
  fitted(self, "log_probabilities")
  local list, out = ids_of(self, "log_probabilities", ids, 2), core.floats()
  for i = 2, #list do
    out:push(math.log(probability(self, contexts(self, list, i), list[i])))
  end
  return out:tensor()
end

--- Mean negative log-probability of a text. Its first symbol is not counted: nothing is before it.
-- @param ids encoded field or i32 tensor, ids from 0
-- @treturn tab `{ nats, perplexity, n }`
function class:score(ids)
  fitted(self, "score")
  local list, sum = ids_of(self, "score", ids, 2), 0
  for i = 2, #list do
    sum = sum - math.log(probability(self, contexts(self, list, i), list[i]))
  end
  local n = #list - 1
  return metrics.scores { nats = sum / n, perplexity = math.exp(sum / n), n = n }
end

-- ln P of every symbol after this list of ids, from 0.
local function all_after(self, list)
  local before, row = contexts(self, list, #list + 1), {}
  for id = 0, #self.vocab - 1 do row[id + 1] = math.log(probability(self, before, id)) end
  return row
end

--- The likeliest next symbols after each text, as @{neap.language_model} gives them.
-- @tab texts a list of strings or lists of symbols
-- @tab[opt] options `{ n = how many symbols }`
-- @treturn tab for each text `{ symbol, id = from 1, probability }`; with `n` a list of n of them,
--   the likeliest first
function class:predict(texts, options)
  fitted(self, "predict")
  options = check.options("predict", options, { "n" })
  local n = check.integer("predict", "n", options.n or 1, 1)
  local out = {}
  for b, text in ipairs(check.table("predict", "texts", texts)) do
    local ids = self.vocab:encode(text)
    for i, id in ipairs(ids) do ids[i] = id - 1 end
    local best = search.likeliest(self.vocab, all_after(self, ids), n)
    out[b] = options.n and best or best[1]
  end
  return out
end

-- How it writes, see @{neap.language_model}. Each row keeps the symbols that stand before the next.
function class:writer()
  local rows, scores, writer = { {} }, nil, {}
  function writer.step(ids)
    for r, id in ipairs(ids) do
      local before = rows[r]
      rows[r] = table.move(before, math.max(#before - self.order + 3, 1), #before, 1, {})
      table.insert(rows[r], id)
    end
    scores = nil
  end
  function writer.log_probabilities()
    if not scores then
      local flat, v = {}, #self.vocab
      for r, before in ipairs(rows) do
        table.move(all_after(self, before), 1, v, (r - 1) * v + 1, flat)
      end
      scores = core.tensor(flat):reshape { #rows, v }
    end
    return scores
  end
  function writer.best() return op.argmax(writer.log_probabilities()) end
  function writer.select(_, from)
    local old = rows
    rows = {}
    for r, i in ipairs(from) do rows[r] = old[i] end
  end
  return writer
end

--- Writes on, as @{neap.language_model} does.
-- @function ngram:generate
-- @param prompt a string, or a list of symbols
-- @int n symbols to write, at most
-- @tab[opt] options those of that task
-- @treturn string the prompt and what follows
function class:generate(prompt, n, options)
  fitted(self, "generate")
  return language_model.generate(self, prompt, n, options)
end

--- How many numbers it holds: a count for each n-gram of each length.
-- @treturn int
function class:parameters()
  local n = 0
  for _, level in ipairs(self.levels or {}) do
    for _ in pairs(level.counts) do n = n + 1 end
  end
  return n
end

--- It looks things up in one thread, whatever is said here.
-- @int n
-- @return itself
function class:threads(n)
  check.integer("threads", "n", n, 1)
  return self
end

-- ---- files ----

--- Saves it as a safetensors file: the n-grams of the full length (`ngrams`, i32 [n,order], ids from
-- 0), how often each came (`counts`), and the first symbols of the text (`first`). All else follows.
-- @string path
-- @return true; or nil, message, code
function class:save(path)
  fitted(self, "save")
  check.type("save", "path", path, "string")
  local keys, v = {}, #self.vocab
  local longest = self.levels[self.order].counts
  for key in pairs(longest) do keys[#keys + 1] = key end
  table.sort(keys)
  local ids, counts, first, digits = core.ints(), core.ints(), core.ints(), {}
  for _, key in ipairs(keys) do
    counts:push(longest[key])
    for k = self.order, 1, -1 do key, digits[k] = key // v, key % v end
    for k = 1, self.order do ids:push(digits[k]) end
  end
  for _, id in ipairs(self.first) do first:push(id) end
  local a = core.archive()
  a:add("ngrams", ids:tensor { #keys, self.order })
  a:add("counts", counts:tensor())
  a:add("first", first:tensor())
  a:set_text("task", cjson.encode { kind = "ngram", vocab = self.vocab:plain(), order = self.order,
    discount = self.discount })
  return a:save(path)
end

-- A model from a file; raises what is wrong with it.
function class.restore(config, archive)
  local function need(good, format, ...)
    if not good then error(format:format(...), 0) end
    return good
  end
  local symbols = need(vocab.from(config.vocab))
  local v, order = #symbols, math.tointeger(tonumber(config.order))
  need(v > 0, "vocab: it is empty")
  need(order and order > 0 and fits(v, order), "order: expected a length of n-grams, came %s",
    check.came(config.order))
  local d = config.discount
  if d ~= nil then
    need(type(d) == "table" and #d == 3, "discount: expected three numbers, came %s", check.came(d))
    for k = 1, 3 do
      need(type(d[k]) == "number" and d[k] > 0 and d[k] <= k, "discount: number %d is %s", k,
        check.came(d[k]))
    end
  end
  local there = {}
  for _, name in ipairs(archive:names()) do there[name] = archive:tensor(name) end
  local function tensor(name, ...)
    local shape, t = { ... }, there[name]
    local expected = ("i32 [%s]"):format(table.concat(shape, ","))
    need(t and check.came(t) == expected, "expected a tensor %s, %s, came %s", name, expected,
      check.came(t))
    return t:totable()
  end
  local n = there.counts and there.counts:size() or 0
  need(n > 0, "expected a tensor counts, came %s", check.came(there.counts))
  local counts, ngrams = tensor("counts", n), tensor("ngrams", n, order)
  local first, longest = tensor("first", order - 1), {}
  local function digit(id, where)
    return need(id >= 0 and id < v and id, "%s: expected an id in 0..%d, came %d", where, v - 1, id)
  end
  for i, ids in ipairs(ngrams) do
    local key = 0
    for k = 1, order do key = key * v + digit(ids[k], "n-gram " .. i) end
    need(not longest[key], "n-gram %d came twice", i)
    longest[key] = need(counts[i] > 0 and counts[i], "n-gram %d: expected a count above 0, came %d",
      i, counts[i])
  end
  for _, id in ipairs(first) do digit(id, "first") end
  local self = make(symbols, order, d)
  derive(self, longest, first)
  return self
end

check.methods("ngram", class, { restore = true })

function class:__tostring()
  return ("%d-grams of %d symbols%s"):format(self.order, #self.vocab,
    self.levels and "" or ", not fitted")
end

return setmetatable(class, { __call = new })

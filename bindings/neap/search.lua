--- Writing: from the scores of the next symbol, what follows. One search for all tasks that write:
-- greedy (a beam of 1), a beam, or symbols drawn by chance, with what may be written and what may
-- not.
--
-- The options that tasks take over from here:
--
-- - `beam`: how many beginnings are kept (1: the likeliest symbol at each step)
-- - `length_penalty` (1), `length_offset` (0), `coverage_penalty` (0): finished outputs of a beam
--   are compared by ln P / lp + cp, where lp = ((offset + length) / (offset + 1)) ^ length_penalty
--   and cp = coverage_penalty * sum over the input's steps of ln min(attention from all symbols
--   written, 1). With an offset of 5 these are the terms of Wu et al. 2016, "Google's neural machine
--   translation system"; length counts the stop symbol
-- - `temperature`: above 0 symbols are drawn from softmax(scores / temperature); 0: the likeliest
-- - `top_k`: drawn from the k likeliest alone (Fan et al. 2018); `top_p`: from the fewest that have
--   that share of the probability (Holtzman et al. 2020); after `top_k`, if both are given
-- - `rng`: where chance comes from (neap.rng(1))
-- - `banned`: a list of symbols that are not written
-- - `prefix`: symbols that every output begins with, a string or list; or a list of lists, one for
--   each sequence
-- - `filter`: function(symbols, scores, sequence), called before each symbol with a list of those
--   written so far, the scores of what may follow (ln P by id, from 1) and the sequence's number,
--   from 1. It may change scores; -math.huge: is not written
-- - `ensemble`: a list of other models that score too; the mean of the probabilities counts
-- @module neap.search
local core = require "neap.core"
local check = require "neap.check"
local op = require "neap.op"
local rng = require "neap.rng"

local search = {}

--- The names of all options.
search.names = { "beam", "length_penalty", "length_offset", "coverage_penalty", "temperature",
  "top_k", "top_p", "rng", "banned", "prefix", "filter", "ensemble" }

-- A list of symbols (or a string) as ids from 0, each known.
local function known(who, name, v, symbols)
  local ids = {}
  for i, symbol in ipairs(symbols) do
    if type(symbol) ~= "string" or not v:has(symbol) then
      check.fail("%s: %s: expected symbols of the output, came %s at %d", who, name,
        check.came(symbol), i)
    end
    ids[i] = v:id(symbol) - 1
  end
  return ids
end

-- What `prefix` asks of a sequence: ids from 0.
local function prefixes(who, v, prefix)
  if prefix == nil then return function() return {} end end
  if type(prefix) == "string" then
    local ids = v:encode(prefix)
    for i, id in ipairs(ids) do
      if id == v.unk then
        check.fail("%s: prefix: %s: symbol %d is not one of the output", who, check.came(prefix), i)
      end
      ids[i] = id - 1
    end
    return function() return ids end, 1
  end
  if type(prefix) ~= "table" or getmetatable(prefix) then
    check.fail("%s: prefix: expected a string, a list of symbols or a list of lists, came %s", who,
      check.came(prefix))
  end
  if type(prefix[1]) ~= "table" then
    local ids = known(who, "prefix", v, prefix)
    return function() return ids end, 1
  end
  local all = {}
  for i, one in ipairs(prefix) do
    local name = ("prefix: sequence %d"):format(i)
    if type(one) ~= "table" then
      check.fail("%s: %s: expected a list of symbols, came %s", who, name, check.came(one))
    end
    all[i] = known(who, name, v, one)
  end
  return function(b) return all[b] end, #all
end

--- Checks options and brings them into one form.
-- @string who the function, for messages
-- @tab options of that function
-- @param v the vocabulary that is written in
-- @number preset of the temperature
-- @treturn tab what @{run} takes
function search.options(who, options, v, preset)
  local how = { vocab = v, who = who, name = function(_, id) return v.symbols[id] end }
  how.beam = check.integer(who, "beam", options.beam == nil and 1 or options.beam, 1)
  for name, usual in pairs { length_penalty = 1, length_offset = 0, coverage_penalty = 0 } do
    local x = options[name] == nil and usual or options[name]
    if type(x) ~= "number" or x - x ~= 0 or name ~= "length_penalty" and x < 0 then
      check.fail("%s: %s: expected a finite number%s, came %s", who, name,
        name == "length_penalty" and "" or " from 0", check.came(x))
    end
    how[name] = x
  end
  local draws = options.temperature
  if draws == nil then
    draws = (options.top_k or options.top_p) and 1 or options.beam == nil and preset or 0
  end
  if type(draws) ~= "number" or not (draws >= 0 and draws < math.huge) then
    check.fail("%s: temperature: expected a number from 0, came %s", who, check.came(draws))
  end
  how.temperature = draws
  for _, name in ipairs { "top_k", "top_p" } do
    if options[name] ~= nil and draws == 0 then
      check.fail("%s: %s: symbols are drawn with a temperature above 0, came 0", who, name)
    end
  end
  if options.top_k ~= nil then how.top_k = check.integer(who, "top_k", options.top_k, 1) end
  if options.top_p ~= nil then
    how.top_p = check.number(who, "top_p", options.top_p, 0, 1)
    if how.top_p == 0 then check.fail("%s: top_p: expected a number above 0, came 0", who) end
  end
  if draws > 0 and how.beam > 1 then
    check.fail("%s: beam: expected 1 where symbols are drawn (temperature %g), came %d", who, draws,
      how.beam)
  end
  how.rng = check.rng(who, options.rng) or rng.new(1)
  if options.banned ~= nil then check.table(who, "banned", options.banned) end
  how.banned = {}
  for _, id in ipairs(known(who, "banned", v, options.banned or {})) do how.banned[id] = true end
  how.bans = 0
  for _ in pairs(how.banned) do how.bans = how.bans + 1 end
  how.prefix, how.prefixes = prefixes(who, v, options.prefix)
  if options.filter ~= nil then how.filter = check.type(who, "filter", options.filter, "function") end
  return how
end

--- The models that score together: a task and those of its option `ensemble`.
-- @string who
-- @param self
-- @param others
-- @func vocabs gives the vocabularies of a task, by name: all have to have the same
-- @treturn tab a list of tasks
function search.ensemble(who, self, others, vocabs)
  local list = { self }
  if others ~= nil then check.table(who, "ensemble", others) end
  for i, other in ipairs(others or {}) do
    if type(other) ~= "table" or other.kind ~= self.kind then
      check.fail("%s: ensemble: %d: expected a model of the kind %s, came %s", who, i, self.kind,
        type(other) == "table" and other.kind or check.came(other))
    end
    for _, before in ipairs(list) do
      if before == other then
        check.fail("%s: ensemble: %d: this model scores already", who, i)
      end
    end
    local theirs = vocabs(other)
    for name, v in pairs(vocabs(self)) do
      if not theirs[name] or table.concat(v.symbols, "\0") ~= table.concat(theirs[name].symbols, "\0")
      then
        check.fail("%s: ensemble: %d: its %s has other symbols", who, i, name)
      end
    end
    list[#list + 1] = other
  end
  return list
end

--- The likeliest symbols of a row of scores.
-- @param v the vocabulary
-- @tab z a list of logits or of ln P by id, from 1
-- @int n how many
-- @treturn tab a list of `{ symbol, id = from 1, probability }`, the likeliest first
function search.likeliest(v, z, n)
  local best, total = {}, 0
  for id, x in ipairs(z) do
    if #best < n or x > z[best[#best]] then
      local at = #best + 1
      while at > 1 and z[best[at - 1]] < x do at = at - 1 end
      table.insert(best, at, id)
      best[n + 1] = nil
    end
  end
  local most = z[best[1]]
  for _, x in ipairs(z) do total = total + math.exp(x - most) end
  for k, id in ipairs(best) do
    best[k] = { symbol = v:symbol(id), id = id, probability = math.exp(z[id] - most) / total }
  end
  return best
end

--- ln of the mean of probabilities.
-- @tab scores a list of tensors of ln P, all of one shape
-- @treturn tensor
function search.mean(scores)
  if #scores == 1 then return scores[1] end
  local sum = op.exp(scores[1])
  for k = 2, #scores do sum = op.add(sum, op.exp(scores[k])) end
  return op.log(op.div(sum, #scores))
end

-- A hypothesis is its last symbol and the hypothesis before it: { b, parent, id (from 0), length,
-- score (ln P), look (bytes of the attention's weights) }.
local function symbols_of(how, h)
  local out = {}
  while h.parent do
    out[h.length] = how.name(h.b, h.id + 1)
    h = h.parent
  end
  return out
end

-- The scores of a row after the script's own function.
local function filtered(how, h, scores)
  for id in pairs(how.banned) do scores[id + 1] = -math.huge end
  local n = #scores
  how.filter(symbols_of(how, h), scores, h.b)
  for id = 1, n do
    if type(scores[id]) ~= "number" or scores[id] ~= scores[id] then
      check.fail("%s: filter: scores: expected a number for each symbol, came %s for %s", how.who,
        check.came(scores[id]), check.came(how.name(h.b, id)))
    end
  end
  return core.tensor { table.move(scores, 1, n, 1, {}) }
end

-- The scores without what is banned.
local function allowed(how, scores)
  if how.bans == 0 then return scores end
  scores = scores:clone()
  for r = 1, scores:shape()[1] do
    for id in pairs(how.banned) do scores:set(r, id + 1, -math.huge) end
  end
  return scores
end

-- The symbols by chance, one for each row of the scores [R,V]: a list of { id (from 0), weight } of
-- at most one. Where the script's function has changed scores, its own count.
local function drawn(how, scores, rows)
  local chance, out, ids = {}, {}, nil
  local function draw(from, list)
    return core.draw(from, how.temperature, how.top_k, how.top_p, list):totable()
  end
  for r, h in ipairs(rows) do
    local forced = how.prefix(h.b)[h.length + 1]
    chance[r] = forced and 0 or how.rng:uniform()
    if forced then
      out[r] = { { id = forced, weight = scores[r][forced + 1] } }
    elseif how.filter then
      local own = filtered(how, h, scores[r]:totable())
      local id = draw(own, { chance[r] })[1]
      out[r] = id >= 0 and { { id = id, weight = own:get(1, id + 1) } } or {}
    end
  end
  if not how.filter then ids = draw(allowed(how, scores), chance) end
  for r in ipairs(rows) do
    if not out[r] then
      out[r] = ids[r] >= 0 and { { id = ids[r], weight = scores[r][ids[r] + 1] } } or {}
    end
  end
  return out
end

-- For each row of the scores [R,V] the symbols that may follow, as many as the beam is wide, best
-- first: { id (from 0), weight }. Where the script's function has changed scores, its own count.
-- likeliest: of each row the model's own choice, which is that of its scores but for what rounding
-- makes equal.
local function best(how, scores, likeliest, rows)
  local width = scores:shape()[2]
  local function list(ids, values)
    local out = {}
    for i, id in ipairs(ids) do
      if id < 0 or #out == how.beam then break end
      if not how.banned[id] then out[#out + 1] = { id = id, weight = values[i] } end
    end
    return out
  end
  local out, ids, values = {}, nil, nil
  for r, h in ipairs(rows) do
    local forced = how.prefix(h.b)[h.length + 1]
    local own = how.beam == 1 and likeliest and not how.filter and likeliest[r]
    if own and how.banned[own] then own = nil end
    if forced or own then
      local id = forced or own
      out[r] = { { id = id, weight = scores[r][id + 1] } }
    elseif how.filter then
      local i, x = core.top(filtered(how, h, scores[r]:totable()), math.min(how.beam, width))
      out[r] = list(i:totable()[1], x:totable()[1])
    else
      if not ids then
        ids, values = core.top(scores, math.min(how.beam + how.bans, width))
        ids, values = ids:totable(), values:totable()
      end
      out[r] = list(ids[r], values[r])
    end
  end
  return out
end

-- The attention that each step of the input got, as a term of the score (Wu et al. 2016, eq. 14).
local function coverage(how, h, steps)
  local got = {}
  for s = 1, steps do got[s] = 0 end
  while h.parent do
    for s = 1, steps do got[s] = got[s] + string.unpack("f", h.look, 4 * s - 3) end
    h = h.parent
  end
  local sum = 0
  for s = 1, steps do sum = sum + math.log(math.max(math.min(got[s], 1), 1e-30)) end
  return how.coverage_penalty * sum
end

-- What a caller gets of a hypothesis.
local function finish(how, source, h, stopped)
  local ids, looks, last = {}, source.look and {}, stopped and h.parent or h
  while last.parent do
    ids[last.length] = last.id + 1
    if looks then looks[last.length] = last.look end
    last = last.parent
  end
  local length = math.max(#ids + 1, 1)
  local penalty = ((how.length_offset + length) / (how.length_offset + 1)) ^ how.length_penalty
  local score = h.score / penalty
  if how.coverage_penalty > 0 then
    score = score + coverage(how, stopped and h.parent or h, source.lengths[h.b])
  end
  return { ids = ids, looks = looks, score = score, log_probability = h.score, stopped = stopped }
end

--- Searches.
-- @tab source what is written on:
--
-- - `n`: sequences; `first`: the id, from 0, that all begin after; `limit`: most symbols;
--   `stop`: the id, from 0, that ends one, or nil
-- - `step(ids)`: ids from 0, one for each row -> ln P [R,V] and, where one model scores, its choice
--   i32 [R]; at first a row is a sequence
-- - `select(sequences, rows)`: what the rows are from now on: of which sequence, and which row now
-- - `look()`: the attention's weights of that step, [R,S], and `lengths`, those of the inputs; or nil
-- - `each`: function(symbol) to be called as the first sequence goes on; or nil
-- @tab how of @{options}
-- @treturn tab for each sequence a list of hypotheses, best first: `{ ids (from 1), score,
--   log_probability, stopped, looks }`
function search.run(source, how)
  if how.prefixes and how.prefixes ~= 1 and how.prefixes ~= source.n then
    check.fail("%s: prefix: expected one for each of %d sequences, came %d", how.who, source.n,
      how.prefixes)
  end
  local rows, input, finished = {}, {}, {}
  for b = 1, source.n do
    rows[b], input[b], finished[b] = { b = b, score = 0, length = 0 }, source.first, {}
    if #how.prefix(b) > source.limit then
      check.fail("%s: prefix: expected at most %d symbols, so many are written, came %d", how.who,
        source.limit, #how.prefix(b))
    end
  end
  for _ = 1, source.limit do
    local scores, likeliest = source.step(input)
    local weights = source.look and source.look()
    local candidates = {}
    local lists = how.temperature > 0 and drawn(how, scores, rows)
      or best(how, scores, likeliest, rows)
    for r, list in ipairs(lists) do
      local h = rows[r]
      candidates[h.b] = candidates[h.b] or {}
      for _, c in ipairs(list) do
        table.insert(candidates[h.b], { b = h.b, parent = h, from = r, id = c.id,
          score = h.score + c.weight, length = h.length + 1 })
      end
    end
    local next_rows, sequences, from, same = {}, {}, {}, true
    input = {}
    for b = 1, source.n do
      local list = candidates[b]
      if list and #list == 0 and #finished[b] == 0 then
        local r = 1
        while rows[r].b ~= b do r = r + 1 end
        check.fail("%s: sequence %d: nothing can follow %s: every symbol is banned, refused by the "
          .. "filter or of probability 0", how.who, b,
          check.came(how.vocab:text(symbols_of(how, rows[r]))))
      end
      if list and how.beam > 1 then
        table.sort(list, function(x, y)
          if x.score ~= y.score then return x.score > y.score end
          if x.from ~= y.from then return x.from < y.from end
          return x.id < y.id
        end)
      end
      local kept = 0
      for _, h in ipairs(list or {}) do
        if kept + #finished[b] >= how.beam then break end
        if weights then h.look = weights[h.from]:tobytes():sub(1, 4 * source.lengths[b]) end
        if h.id == source.stop then
          table.insert(finished[b], finish(how, source, h, true))
        else
          kept = kept + 1
          local r = #next_rows + 1
          next_rows[r], sequences[r], from[r], input[r] = h, b, h.from, h.id
          same = same and h.from == r
          if source.each and b == 1 then source.each(how.name(b, h.id + 1)) end
        end
      end
    end
    same = same and #next_rows == #rows
    rows = next_rows
    if #rows == 0 then break end
    if not same then source.select(sequences, from) end
  end
  for _, h in ipairs(rows) do table.insert(finished[h.b], finish(how, source, h, false)) end
  for b = 1, source.n do
    table.sort(finished[b], function(x, y)
      if x.stopped ~= y.stopped then return x.stopped end
      return x.score > y.score
    end)
  end
  return finished
end

return search

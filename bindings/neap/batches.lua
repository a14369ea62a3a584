--- Batches: some sequences at a time, each exactly once, grouped by length.
--
-- Fields come from `corpus:encode`, `corpus:label`, `corpus:characters`, or are tables of tensors
-- of one's own: `{ data, offsets }` a sequence of rows, `{ data }` one row for each sequence,
-- `{ data, inner, outer }` a sequence of sequences. Offsets are i32 [n+1] and count from 0.
-- @module neap.batches
local check = require "neap.check"
local core = require "neap.core"

local batches = {}

local tensor_meta = getmetatable(core.zeros {})
local function is_tensor(t) return type(t) == "userdata" and getmetatable(t) == tensor_meta end

-- Number of sequences of a field.
local function count(name, field)
  if type(field) ~= "table" or not field.data or (field.inner ~= nil) ~= (field.outer ~= nil) or
    (field.inner and field.offsets) then
    check.fail("batches: field %s: expected { data, offsets }, { data } or { data, inner, outer }, "
      .. "came %s", name, check.came(field))
  end
  for _, part in ipairs{ "data", "offsets", "inner", "outer" } do
    local t = field[part]
    if t ~= nil and (not is_tensor(t) or part ~= "data" and t:dtype() ~= "i32") then
      check.fail("batches: field %s: %s: expected %s tensor, came %s", name, part,
        part == "data" and "a" or "an i32", check.came(t))
    elseif t ~= nil and (part == "data" and t:rank() < 1 or part ~= "data" and #t < 1) then
      check.fail("batches: field %s: %s: expected %s, came %s", name, part,
        part == "data" and "rows" or "one number more than sequences", check.came(t))
    end
  end
  local offsets = field.offsets or field.outer
  return offsets and #offsets - 1 or #field.data
end

local function sorted(map)
  local names = {}
  for name in pairs(map) do
    check.type("batches", "a field's name", name, "string")
    if name == "rows" or name == "order" then
      check.fail("batches: a field cannot be called %s: a batch has that already", name)
    end
    names[#names + 1] = name
  end
  table.sort(names)
  return names
end

-- Stable counting sort of order by length.
local function sort_by(order, lengths)
  local begin, longest = {}, 0
  for _, i in ipairs(order) do
    local length = lengths[i]
    begin[length] = (begin[length] or 0) + 1
    if length > longest then longest = length end
  end
  local at = 1
  for length = 0, longest do
    local n = begin[length]
    if n then begin[length], at = at, at + n end
  end
  local out = {}
  for _, i in ipairs(order) do
    local length = lengths[i]
    out[begin[length]] = i
    begin[length] = begin[length] + 1
  end
  return out
end

local batch_meta = { __name = "neap.batch" }

function batch_meta:__tostring()
  local parts = {}
  for name, field in pairs(self) do
    local data = type(field) == "table" and field.data or field
    if name ~= "lengths" and is_tensor(data) then
      parts[#parts + 1] = name .. " " .. check.came(data)
    end
  end
  table.sort(parts)
  return ("neap.batch: %d rows; %s"):format(self.rows, table.concat(parts, ", "))
end

--- A table of fields as a batch that prints.
-- @tab batch with `rows`
-- @treturn tab the same
function batches.batch(batch) return setmetatable(batch, batch_meta) end

local many = { ["neap.batches"] = true, ["neap.stream"] = true, ["neap.batches.parts"] = true }

--- Refuses what a batch is made of, or what gives batches, where one batch is expected.
-- @string who
-- @param given
-- @string[opt="a batch"] expected
function batches.check(who, given, expected)
  if type(given) ~= "table" then return end
  local kind = getmetatable(given)
  if kind == batch_meta then return end
  expected = expected or "a batch"
  if type(kind) == "table" and many[kind.__name] then
    check.fail("%s: expected %s, came %s: it gives batches one after the other, for batch in .. do",
      who, expected, check.came(given))
  elseif kind == nil then
    local names = {}
    for name, field in pairs(given) do
      if type(name) == "string" and type(field) == "table" and field.offsets and field.data
        and not field.lengths then
        names[#names + 1] = name
      end
    end
    if #names == 0 then return end
    table.sort(names)
    check.fail("%s: expected %s, came fields (%s): neap.batches makes batches of them", who,
      expected, table.concat(names, ", "))
  end
end

local meta = { __name = "neap.batches" }

function meta:__len() return #self.cuts end

function meta:__tostring()
  local names = sorted(self.fields)
  return ("neap.batches: %d of up to %d %s; %s"):format(#self.cuts, self.tokens or self.size,
    self.tokens and "tokens" or "sequences", table.concat(names, ", "))
end

-- Does this call begin a pass? `made` (of parts) or `at` says whether one is under way. The first
-- one of a `for` does, which comes with two nil, and one after the end.
local function begins(self, ...)
  local over = self.over
  self.over = false
  return over or (self.made or self.at - 1) > 0 and select("#", ...) == 2
    and select(2, ...) == nil
end

-- Gives the next batch; nil past the last.
function meta:__call(...)
  if begins(self, ...) then self.cuts, self.at = self.cut(), 1 end
  local order = self.cuts[self.at]
  if not order then
    self.over = true
    return nil
  end
  self.at = self.at + 1
  local batch, most = { rows = #order, order = order }, self.most
  for name, field in pairs(self.fields) do
    if field.outer then
      local data, inner, outer =
        core.gather_nested(field.data, field.inner, field.outer, order, most)
      batch[name] = { data = data, inner = inner, outer = outer, from = field.from }
    elseif field.offsets then
      local data, lengths = core.gather_rows(field.data, field.offsets, order, most)
      batch[name] = { data = data, lengths = lengths, from = field.from }
    else
      batch[name] = { data = (core.gather_rows(field.data, nil, order)), from = field.from }
    end
  end
  return batches.batch(batch)
end

--- All sequences once: `for batch in batches(fields, options) do`. Another `for` over the same
-- object goes through all of them again, in another order if they are shuffled; so does a call
-- after the one that gave nil. `#` is the number of batches. A batch has `rows`, `order` (its
-- sequences' numbers, from 1) and for each field a table of tensors: `data`, the sequences one
-- after the other (no padding), with `lengths` i32 [rows]; or with `inner`, the lengths of all
-- inner sequences, and `outer` i32 [rows]; or alone, one row a sequence.
-- @tab fields name -> field, all of as many sequences
-- @tab[opt] options `size`: sequences in a batch (32; as many as there are if `tokens` is given);
--   `tokens`: steps in a batch at most, those of each sequence's longest field together, so that
--   batches of short sequences have more of them and all cost about as much; `bucket`: put
--   sequences of like length together (true: by all fields with offsets in the order of their
--   names; or a name, or a list of names, the first counting most; false: not); `rng`: the source
--   of chance; `shuffle`: another order each time (true if there is an rng); `drop_last`: leave out
--   a last batch that is not full; `max_length`: longest sequence allowed; `long`: what to do with
--   longer ones: "error" (the preset), "drop" or "cut"
-- @treturn batches
function batches.new(fields, options)
  options = check.options("batches", options, { "size", "tokens", "bucket", "shuffle", "rng",
    "drop_last", "max_length", "long" })
  if type(fields) ~= "table" or getmetatable(fields) then
    check.fail("batches: expected a table of fields such as { input = corpus:encode(..) }, came %s",
      check.came(fields))
  end
  local tokens = options.tokens and check.integer("batches", "tokens", options.tokens, 1)
  local size = check.integer("batches", "size", options.size or tokens and math.maxinteger or 32, 1)
  if tokens and options.drop_last then
    check.fail("batches: drop_last: batches of so many tokens are never quite full")
  end
  check.rng("batches", options.rng)
  local max = options.max_length and
    check.integer("batches", "max_length", options.max_length, 0)
  local long, rng = options.long or "error", options.rng
  if long ~= "error" and long ~= "drop" and long ~= "cut" then
    check.fail("batches: long: expected \"error\", \"drop\" or \"cut\", came %s",
      check.came(long))
  end
  local shuffle = options.shuffle
  if shuffle == nil then shuffle = rng ~= nil end
  if shuffle and rng == nil then check.fail("batches: shuffle needs an rng, came none") end

  local names = sorted(fields)
  local n
  for _, name in ipairs(names) do
    local here = count(name, fields[name])
    if n and here ~= n then
      check.fail("batches: %d sequences in field %s, %d in %s", here, name, n, names[1])
    end
    n = here
  end
  if not n then check.fail("batches: expected at least one field, came none") end

  local all = {} -- lengths by field
  local function lengths_of(name)
    local field = fields[name]
    local offsets = field and (field.offsets or field.outer)
    if not offsets then
      check.fail("batches: bucket: no field \"%s\" with lengths", tostring(name))
    end
    if not all[name] then
      local lengths, from = {}, offsets[1]
      for i = 1, n do
        local to = offsets[i + 1]
        if to < from then
          check.fail("batches: field %s: offset %d is %d after %d", name, i + 1, to, from)
        end
        lengths[i], from = to - from, to
      end
      all[name] = lengths
    end
    return all[name]
  end

  local function place(name, i)
    local from = fields[name].from
    return from and (" (%s)"):format(from.corpus:place(i)) or ""
  end

  local sequences = {}
  for _, name in ipairs(names) do
    if fields[name].offsets or fields[name].outer then sequences[#sequences + 1] = name end
  end
  local order = {}
  for i = 1, n do
    local keep = true
    if max and long ~= "cut" then
      for _, name in ipairs(sequences) do
        local length = lengths_of(name)[i]
        if length > max and long == "error" then
          check.fail("batches: sequence %d of field %s%s has %d steps, max_length is %d "
            .. "(long = \"drop\" or \"cut\" lets it pass)", i, name, place(name, i), length, max)
        end
        keep = keep and length <= max
      end
    end
    if keep then order[#order + 1] = i end
  end

  local steps = tokens and {} -- of each sequence, in its longest field
  if tokens and #sequences == 0 then
    check.fail("batches: tokens: expected a field with lengths, came none")
  end
  for _, name in ipairs(tokens and sequences or {}) do
    for i, length in ipairs(lengths_of(name)) do
      if max and length > max then length = max end
      steps[i] = math.max(steps[i] or 0, length)
    end
  end
  for _, i in ipairs(tokens and order or {}) do
    if steps[i] > tokens then
      check.fail("batches: sequence %d%s has %d steps, tokens is %d (max_length, with long = "
        .. "\"drop\" or \"cut\", lets it pass)", i, place(sequences[1], i), steps[i], tokens)
    end
  end

  local bucket = options.bucket
  if bucket == nil or bucket == true then
    bucket = sequences
  elseif type(bucket) == "string" then
    bucket = { bucket }
  elseif bucket and type(bucket) ~= "table" then
    check.fail("batches: bucket: expected true, false, a field's name or a list of names, came %s",
      check.came(bucket))
  end
  for k = 1, bucket and #bucket or 0 do lengths_of(bucket[k]) end

  -- The batches of one pass, each a list of sequences.
  local function cut()
    local list, cuts = table.move(order, 1, #order, 1, {}), {}
    if shuffle then rng:shuffle(list) end
    for k = bucket and #bucket or 0, 1, -1 do list = sort_by(list, lengths_of(bucket[k])) end
    local from = 1
    while from <= #list do
      local to = from + math.min(size, #list - from + 1) - 1
      if tokens then
        local most, sum = to, steps[list[from]]
        to = from
        while to < most and sum + steps[list[to + 1]] <= tokens do
          to = to + 1
          sum = sum + steps[list[to]]
        end
      end
      if to - from + 1 == size or not options.drop_last then
        cuts[#cuts + 1] = table.move(list, from, to, 1, {})
      end
      from = to + 1
    end
    return shuffle and rng:shuffle(cuts) or cuts
  end
  return setmetatable({ fields = fields, size = size, tokens = tokens, cut = cut, cuts = cut(),
    at = 1, over = false, most = long == "cut" and max or nil }, meta)
end

local stream_meta = { __name = "neap.stream" }

function stream_meta:__len() return (self.length - 2) // self.steps + 1 end

function stream_meta:__tostring()
  return ("neap.batches.stream: %d of up to %d steps of %d rows"):format(#self, self.steps,
    self.batch)
end

function stream_meta:__call(...)
  if begins(self, ...) then self.at = 1 end
  local at, steps = self.at, math.min(self.steps, self.length - self.at)
  if steps < 1 then
    self.over = true
    return nil
  end
  self.at = at + steps
  local lengths = core.zeros({ self.batch }, "i32"):fill(steps)
  return batches.batch { rows = self.batch, steps = steps, first = at == 1, lengths = lengths,
    from = self.from,
    input = core.columns(self.ids, self.batch, at, steps),
    target = core.columns(self.ids, self.batch, at + 1, steps) }
end

--- One long text as a language model reads it: cut into as many contiguous columns as `batch` says,
-- a few steps at a time, so that the state of each row is carried from one batch to the next.
-- A batch has `rows`, `steps`, `first` (true where states begin anew), `input` and `target` (i32
-- [steps,rows], the target one step further on) and `lengths` i32 [rows], all equal to `steps`.
-- What is left when the text does not divide by `batch` is not used.
-- @param ids i32 tensor [n], or a field of `corpus:encode`
-- @tab[opt] options `batch`: columns (64); `steps`: in a batch, the last has fewer (100)
-- @treturn batches to be called in a `for`, as often as wanted; `#` is the number of batches
function batches.stream(ids, options)
  options = check.options("batches.stream", options, { "batch", "steps" })
  local batch = check.integer("batches.stream", "batch", options.batch or 64, 1)
  local steps = check.integer("batches.stream", "steps", options.steps or 100, 1)
  local given = ids
  if type(ids) == "table" then ids = ids.data end
  if not is_tensor(ids) or ids:rank() ~= 1 then
    check.fail("batches.stream: ids: expected an i32 tensor or an encoded field, came %s",
      check.came(given))
  end
  local length = #ids // batch
  if length < 2 then
    check.fail("batches.stream: %d ids do not make %d columns of at least 2", #ids, batch)
  end
  return setmetatable({ ids = ids, batch = batch, steps = steps, length = length, at = 1,
    over = false, from = given ~= ids and given.from or nil }, stream_meta)
end

local parts_meta = { __name = "neap.batches.parts" }

-- Exact once a pass is over; before that as many as the parts that were read make likely.
function parts_meta:__len()
  if self.whole then return self.whole end
  if self.read == 0 and not self.inner then self:open() end
  local bytes = self.bytes_read > 0 and self.bytes_read or self.parts:bytes(self.order[self.at])
  local n = self.bytes_read > 0 and self.made or #self.inner
  return math.max(math.floor(n * self.parts:bytes() / bytes + 0.5), 1)
end

function parts_meta:__tostring()
  return ("neap.batches.parts: %s"):format(tostring(self.parts))
end

local parts_methods = {}
parts_meta.__index = parts_methods

-- Reads the part that is next.
function parts_methods:open()
  local corpus, message = self.parts:read(self.order[self.at])
  if not corpus then check.fail("batches.parts: %s", message) end
  local inner = self.make(corpus)
  local meta = getmetatable(inner)
  if type(inner) ~= "table" or not (meta and meta.__call and meta.__len) then
    check.fail("batches.parts: expected a function that makes neap.batches of a corpus, came one "
      .. "that gives %s", check.came(inner))
  end
  self.inner, self.here = inner, 0
end

function parts_meta:__call(...)
  if begins(self, ...) then self:begin() end
  while self.at <= #self.order do
    if not self.inner then self:open() end
    local batch = self.inner()
    if batch then
      self.made = self.made + 1
      return batch
    end
    self.bytes_read = self.bytes_read + self.parts:bytes(self.order[self.at])
    self.read, self.inner, self.at = self.read + 1, nil, self.at + 1
  end
  self.over, self.whole = true, self.made
  return nil
end

function parts_methods:begin()
  self.over, self.at, self.inner, self.read, self.made, self.bytes_read = false, 1, nil, 0, 0, 0
  self.order = {}
  for i = 1, #self.parts do self.order[i] = i end
  if self.rng then self.rng:shuffle(self.order) end
end

--- Batches of data that does not fit into memory: reads one part of a file at a time, and makes
-- batches of it. Each sequence comes once in a pass.
-- @param parts of a file, from `neap.corpus.parts`
-- @func make called with the corpus of a part; gives its batches: @{new} or @{stream}
-- @tab[opt] options `rng`: the parts come in another order each time (the sequences of a part do if
--   make says so)
-- @treturn batches to be called in a `for`, as often as wanted. `#` is the number of batches: exact
--   once a pass is over, before that estimated. What is wrong with the file raises when it is read
function batches.parts(parts, make, options)
  local kind = getmetatable(parts)
  if type(parts) ~= "table" or not kind or kind.__name ~= "neap.parts" then
    check.fail("batches.parts: parts: expected what neap.corpus.parts gives, came %s",
      check.came(parts))
  end
  check.type("batches.parts", "make", make, "function")
  options = check.options("batches.parts", options, { "rng" })
  check.rng("batches.parts", options.rng)
  local self = setmetatable({ parts = parts, make = make, rng = options.rng }, parts_meta)
  self:begin()
  return self
end

return setmetatable(batches, { __call = function(_, ...) return batches.new(...) end })

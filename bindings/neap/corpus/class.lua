-- What a corpus is: fields, and where each sequence comes from; fields while they grow.
local check = require "neap.check"
local core = require "neap.core"
local vocab = require "neap.vocab"

local class = { methods = {} }
class.meta = { __index = class.methods, __name = "neap.corpus" }

-- A field of symbols while it grows. split: how its strings are cut; one that is never given says
-- nothing of how its lists of symbols are written as a string.
function class.symbols(split)
  local ids, offsets = core.ints(), core.ints():push(0)
  local symbols, index = {}, {}
  local cut = vocab.splitter("corpus", "split", split or "symbol")
  local field = {}
  local function take(symbol)
    local id = index[symbol]
    if not id then
      id = #symbols
      symbols[id + 1], index[symbol] = symbol, id
    end
    ids:push(id)
  end
  field.take = take
  function field.close() offsets:push(#ids) end
  function field.add(text)
    split = split or "symbol"
    cut(text, take)
    offsets:push(#ids)
  end
  function field.done()
    return { ids = ids:tensor(), offsets = offsets:tensor(), symbols = symbols, split = split }
  end
  return field
end

-- A field of numbers of a script's lists.
function class.numbers(name, list)
  local flat, offsets, width, rows = {}, core.ints():push(0), nil, 0
  local function expected(i, t, what, came)
    check.fail("corpus.from: sequence %d of %s, step %d: expected %s, came %s", i, name, t, what,
      came)
  end
  local function take(i, t, x)
    if type(x) ~= "number" then expected(i, t, "a number", check.came(x)) end
    if x - x ~= 0 then expected(i, t, "a finite number", check.came(x)) end
    flat[#flat + 1] = x
  end
  for i, sequence in ipairs(list) do
    if check.is_tensor(sequence) then
      if sequence:dtype() ~= "f32" or sequence:rank() < 1 or sequence:rank() > 2 then
        check.fail("corpus.from: sequence %d of %s: expected a tensor [T] or [T,width] of numbers, "
          .. "came %s", i, name, check.came(sequence))
      end
      sequence = sequence:totable()
    end
    check.type("corpus.from", ("sequence %d of %s"):format(i, name), sequence, "table")
    check.list(("corpus.from: sequence %d of %s"):format(i, name), sequence)
    for t, row in ipairs(sequence) do
      local n = type(row) == "table" and #row or 0 -- 0: a number that is no row
      width = width or n
      if n ~= width then
        expected(i, t, width == 0 and "a number" or ("%d numbers"):format(width),
          width > 0 and type(row) == "table" and n or check.came(row))
      end
      if n == 0 then take(i, t, row) end
      for k = 1, n do take(i, t, row[k]) end
    end
    rows = rows + #sequence
    offsets:push(rows)
  end
  return { data = core.tensor(flat):reshape{ rows, math.max(width, 1) },
    offsets = offsets:tensor() }
end

-- source: a path, a part of a file, or what else it is from; lines: i32 [n], where each sequence
-- begins in it; nil if it comes from no file; places: function(i), where it is more than that.
function class.new(source, fields, lines, places)
  local self = { source = source, fields = fields, lines = lines, places = places }
  local _, any = next(fields)
  self.n = #any.offsets - 1
  return setmetatable(self, class.meta)
end

-- The option `split`: field name -> how its strings are cut; names: the fields that there are.
function class.check_splits(who, splits, names)
  if splits == nil then return {} end
  if type(splits) ~= "table" then
    check.fail("%s: split: expected a table such as { %s = \"words\" }, came %s", who,
      names[1] or "text", check.came(splits))
  end
  local known = {}
  for _, name in ipairs(names) do known[name] = true end
  for name, split in pairs(splits) do
    if not known[name] then
      local near = core.nearest(tostring(name), names)
      check.fail("%s: split: \"%s\" is not among the %s%s", who, tostring(name),
        who == "corpus.tsv" and "columns" or "fields",
        near and ("; did you mean \"%s\"?"):format(near) or "")
    end
    vocab.splitter(who, "split of " .. name, split)
  end
  return splits
end

return class

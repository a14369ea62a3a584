--- Corpora: sequences of symbols or of numbers, read from files and kept out of Lua tables.
--
-- A corpus has `#corpus` sequences, and fields by name. In a field of symbols each sequence is a
-- row of ids into the field's own list of strings, where each string stands once; in a field of
-- numbers each is a run of rows of one tensor.
--
-- Readers return `nil, message, code` for what is wrong with a file: "EIO" where it cannot be read,
-- "EFORMAT" where it is damaged, with `file:line` or the byte. Where they take a path they also
-- take a part of a file (@{parts}).
-- @module neap.corpus
local audio = require "neap.audio"
local check = require "neap.check"
local core = require "neap.core"
local vocab = require "neap.vocab"
local class = require "neap.corpus.class"
local files = require "neap.corpus.file"
local meta, methods, new = class.meta, class.methods, class.new

local corpus = {}
for _, name in ipairs { "text", "idx", "series", "parts" } do
  for reader, fn in pairs(require("neap.corpus." .. name)) do corpus[reader] = fn end
end

-- ---- making -----------------------------------------------------------------------------------

local function sorted(map)
  local names = {}
  for name in pairs(map) do names[#names + 1] = name end
  table.sort(names)
  return names
end

--- A corpus of what a script has made.
-- @tab fields name -> list of sequences, as many in each field. A sequence is a string (cut as
--   `split` says), a list of strings, a list of numbers (or of lists of numbers, all as long), or
--   such a tensor, f32 [T] or [T,width]
-- @tab[opt] options `split`: table of field name -> "symbol" (the string is one symbol; the
--   preset), "characters" (of UTF-8) or "words" (between blanks). Vocabularies remember it
-- @treturn corpus
function corpus.from(fields, options)
  options = check.options("corpus.from", options, { "split" })
  check.type("corpus.from", "fields", fields, "table")
  local made, count, first = {}, nil, nil
  for name in pairs(fields) do check.type("corpus.from", "a field's name", name, "string") end
  local splits = class.check_splits("corpus.from", options.split, sorted(fields))
  for _, name in ipairs(sorted(fields)) do
    local list = check.type("corpus.from", "field " .. name, fields[name], "table")
    check.list("corpus.from: field " .. name, list)
    count, first = count or #list, first or name
    if #list ~= count then
      check.fail("corpus.from: %d sequences in %s, %d in %s", #list, name, count, first)
    end
    local sample
    for _, sequence in ipairs(list) do
      if type(sequence) == "table" then
        sample = sequence[1]
      else
        sample = check.is_tensor(sequence)
      end
      if sample ~= nil then break end
    end
    if sample and type(sample) ~= "string" then
      made[name] = class.numbers(name, list)
    else
      local field = class.symbols(splits[name])
      for i, sequence in ipairs(list) do
        if type(sequence) == "table" then
          if check.hole(sequence) then
            check.list(("corpus.from: sequence %d of %s"):format(i, name), sequence)
          end
          for _, symbol in ipairs(sequence) do
            field.take(check.type("corpus.from", ("sequence %d of %s"):format(i, name), symbol,
              "string"))
          end
          field.close()
        else
          check.type("corpus.from", ("sequence %d of %s"):format(i, name), sequence, "string")
          if not utf8.len(sequence) then
            check.fail("corpus.from: sequence %d of %s is not UTF-8", i, name)
          end
          field.add(sequence)
        end
      end
      made[name] = field.done()
    end
  end
  if not count then check.fail("corpus.from: expected at least one field, came none") end
  return new("a script", made)
end

--- Several corpora as one, their sequences one after the other: data from several files.
-- @tab list corpora with the same fields
-- @treturn corpus
function corpus.concat(list)
  check.table("corpus.concat", "list", list)
  local first, fields, sources, starts = list[1], {}, {}, {}
  for k, c in ipairs(list) do
    if getmetatable(c) ~= meta then
      check.fail("corpus.concat: entry %d: expected a corpus, came %s", k, check.came(c))
    end
    sources[k], starts[k] = tostring(c.source), k == 1 and 0 or starts[k - 1] + list[k - 1].n
  end
  if not first then check.fail("corpus.concat: expected at least one corpus, came none") end
  for name, like in pairs(first.fields) do
    local data, offsets, symbols, index = like.ids and core.ints() or core.floats(),
      core.ints():push(0), {}, {}
    local rows, width = 0, like.data and like.data:shape()[2]
    for k, c in ipairs(list) do
      local field = c.fields[name]
      if not field or (field.ids == nil) ~= (like.ids == nil)
        or width and field.data:shape()[2] ~= width then
        check.fail("corpus.concat: entry %d: field %s: expected %s as in entry 1, came %s", k, name,
          like.ids and "symbols" or ("steps of %d numbers"):format(width), not field and "none"
            or field.ids and "symbols" or ("steps of %d numbers"):format(field.data:shape()[2]))
      end
      local map = core.ints()
      for _, symbol in ipairs(field.symbols or {}) do
        if not index[symbol] then
          symbols[#symbols + 1] = symbol
          index[symbol] = #symbols
        end
        map:push(index[symbol] - 1)
      end
      data:append(field.ids and core.remap(field.ids, map) or field.data)
      for i = 2, #field.offsets do offsets:push(rows + field.offsets[i]) end
      rows = rows + field.offsets[#field.offsets]
    end
    fields[name] = { ids = like.ids and data:tensor(), data = width and data:tensor { rows, width },
      offsets = offsets:tensor(), symbols = like.ids and symbols, split = like.split }
  end
  return new(table.concat(sources, " and "), fields, nil, function(i)
    local k = #list
    while i <= starts[k] do k = k - 1 end
    return list[k]:place(i - starts[k])
  end)
end

-- ---- using ------------------------------------------------------------------------------------

-- The same corpus with one more field, or with another one of that name.
local function with(self, name, field)
  local fields = { [name] = field }
  for key, value in pairs(self.fields) do fields[key] = fields[key] or value end
  return new(self.source, fields, self.lines, self.places)
end

-- The field of that name; kind "symbols", "numbers" or nil for either.
local function find(self, who, name, kind)
  local field = self.fields[name]
  if not field then
    local names = sorted(self.fields)
    local near = core.nearest(tostring(name), names)
    check.fail("%s: no field \"%s\"; %s", who, tostring(name),
      near and ("did you mean \"%s\"?"):format(near) or "there are: " .. table.concat(names, ", "))
  end
  if kind and (field.ids and "symbols" or "numbers") ~= kind then
    check.fail("%s: field %s: expected a field of %s, came one of %s", who, name, kind,
      field.ids and "symbols" or "numbers")
  end
  return field
end

--- The names of the fields, in the order of the alphabet.
-- @treturn {string,...}
function methods:names() return sorted(self.fields) end

--- Where a sequence is from, for messages: "FILE, sequence 10 (line 12)".
-- @int i sequence, from 1
-- @treturn string
function methods:place(i)
  check.integer("corpus:place", "i", i, 1, self.n)
  if self.places then return self.places(i) end
  local part = files.is_part(self.source)
  return ("%s, sequence %d%s%s"):format(part and self.source.path or self.source, i,
    part and (" of bytes %d to %d"):format(self.source.from + 1, self.source.to) or "",
    self.lines and (" (line %d)"):format(files.lines_before(self.source) + self.lines[i]) or "")
end

--- How the strings of a field were cut.
-- @string name field
-- @treturn ?string "symbol", "characters", "words" or "pieces"; nil where none were: they came as
--   symbols
function methods:split_of(name) return find(self, "corpus:split_of", name, "symbols").split end

--- Length of a sequence.
-- @string name field
-- @int i sequence, from 1
-- @treturn int
function methods:length(name, i)
  local field = find(self, "corpus:length", name)
  check.integer("corpus:length", "i", i, 1, self.n)
  return field.offsets[i + 1] - field.offsets[i]
end

--- A sequence.
-- @string name field
-- @int i sequence, from 1
-- @return a list of symbols, or a tensor [T,...] of numbers
function methods:get(name, i)
  local field = find(self, "corpus:get", name)
  check.integer("corpus:get", "i", i, 1, self.n)
  if field.data then return (core.gather_rows(field.data, field.offsets, { i })) end
  local list = {}
  for k = field.offsets[i] + 1, field.offsets[i + 1] do
    list[#list + 1] = field.symbols[field.ids[k] + 1]
  end
  return list
end

--- All sequences, for metrics: a list of what @{get} gives, which knows its file and lines.
-- @string name field
-- @treturn tab
function methods:lists(name)
  find(self, "corpus:lists", name)
  local list = { from = { corpus = self, name = name } }
  for i = 1, self.n do list[i] = self:get(name, i) end
  return list
end

--- Each different sequence of one field with all that stands beside it in another: the words and
-- their pronunciations, the sentences and their translations.
-- @string source field of symbols
-- @string target field of symbols
-- @treturn {tab,...} the sources, each once, in the order of their first place
-- @treturn {tab,...} for each the list of its targets, as metrics take them
function methods:references(source, target)
  find(self, "corpus:references", source, "symbols")
  find(self, "corpus:references", target, "symbols")
  local sources, rows, index = {}, {}, {}
  local references = { from = { corpus = self, name = target, rows = rows } }
  for i = 1, self.n do
    local one = self:get(source, i)
    local key = table.concat(one, "\0")
    local at = index[key]
    if not at then
      at = #sources + 1
      index[key], sources[at], rows[at], references[at] = at, one, i, {}
    end
    table.insert(references[at], self:get(target, i))
  end
  return sources, references
end

--- A sequence of symbols as text: characters side by side, all else with blanks between; of pieces
-- what they are made of.
-- @string name field
-- @int i sequence, from 1
-- @treturn string
function methods:string(name, i)
  local field = find(self, "corpus:string", name, "symbols")
  return vocab.text(field.split, self:get(name, i))
end

--- How often each symbol comes.
-- @string name field
-- @treturn {[string]=int,...}
function methods:counts(name)
  local field = find(self, "corpus:counts", name, "symbols")
  local counts = {}
  for i, times in ipairs(core.count(field.ids, #field.symbols)) do
    if times > 0 then counts[field.symbols[i]] = times end
  end
  return counts
end

--- Some of the sequences, in that order.
-- @tab order a list, or an i32 tensor, of sequence numbers from 1
-- @treturn corpus
function methods:select(order)
  if not check.is_tensor(order) then
    check.list("corpus:select: order", check.type("corpus:select", "order", order, "table"))
    for k, i in ipairs(order) do
      local whole = type(i) == "number" and math.tointeger(i)
      if not whole or whole < 1 or whole > self.n then
        check.integer("corpus:select", ("order[%d]"):format(k), i, 1, self.n)
      end
    end
  end
  local fields = {}
  for name, field in pairs(self.fields) do
    local data, lengths = core.gather_rows(field.ids or field.data, field.offsets, order)
    fields[name] = { ids = field.ids and data, data = field.data and data,
      offsets = core.offsets(lengths), symbols = field.symbols, split = field.split,
      known = field.known }
  end
  if #order == 0 then check.fail("corpus:select: expected at least one sequence, came none") end
  return new(self.source, fields, self.lines and (core.gather_rows(self.lines, nil, order)),
    self.places and function(i) return self.places(order[i]) end)
end

--- The same corpus with some of its fields alone.
-- @tab names
-- @treturn corpus
function methods:only(names)
  local fields = {}
  for _, name in ipairs(check.table("corpus:only", "names", names)) do
    fields[name] = find(self, "corpus:only", name)
  end
  if not next(fields) then check.fail("corpus:only: expected at least one field, came none") end
  return new(self.source, fields, self.lines, self.places)
end

--- Sequences made of several, one after the other: spoken digits as one number, sentences as a
-- paragraph.
-- @tab groups for each new sequence the list of those it is made of, from 1; each may come again
-- @treturn corpus the same fields
function methods:join(groups)
  check.table("corpus:join", "groups", groups)
  if #groups == 0 then check.fail("corpus:join: expected at least one group, came none") end
  local order, ends = {}, core.ints():push(0)
  for g, group in ipairs(groups) do
    check.table("corpus:join", ("group %d"):format(g), group)
    for k, i in ipairs(group) do
      order[#order + 1] = check.integer("corpus:join", ("group %d: entry %d"):format(g, k), i, 1,
        self.n)
    end
    ends:push(#order)
  end
  ends = ends:tensor()
  local fields = {}
  for name, field in pairs(self.fields) do
    local data, lengths = core.gather_rows(field.ids or field.data, field.offsets, order)
    fields[name] = { ids = field.ids and data, data = field.data and data, symbols = field.symbols,
      offsets = core.remap(ends, core.offsets(lengths)), split = field.split, known = field.known }
  end
  return new(self.source, fields, nil, function(g)
    return ("%s, sequence %d, joined from %s"):format(tostring(self.source), g,
      table.concat(groups[g], ", "))
  end)
end

--- Several steps of a field of numbers side by side as one, for samples of sound: zeros fill the
-- last.
-- @string name the field
-- @int steps how many
-- @treturn corpus whose field has as many times the numbers in a step
function methods:fold(name, steps)
  check.integer("corpus:fold", "steps", steps, 1)
  local field = find(self, "corpus:fold", name, "numbers")
  local width = field.data:shape()[2]
  local folded, floats, offsets = steps * width, core.floats(), core.ints():push(0)
  local zeros = core.floats():push_bytes(("\0"):rep(folded))
  for i = 1, self.n do
    floats:append(field.data, field.offsets[i] * width + 1, field.offsets[i + 1] * width)
    floats:append(zeros, 1, -#floats % folded)
    offsets:push(#floats // folded)
  end
  return with(self, name, { data = floats:tensor { #floats // folded, folded },
    offsets = offsets:tensor() })
end

--- Reads the sound files that a field names: a corpus with one more field, of samples from -1 to 1
-- in steps of `hop`; zeros fill the last step. (`neap.features` makes features of them; recordings
-- that are to be joined are read in steps of 1, see @{join} and @{fold}.)
-- @string name the field of files' names, one in each sequence
-- @tab options `hop`: samples in a step; `as`: the new field ("sound"); `folder`: where the files
--   are whose names do not begin with "/"; `rate`: samples a second, which all must have (those of the
--   first file); `resample`: true: others are brought to it; `channel`: which one, from 1; without it the mean of all
-- @treturn[1] corpus
-- @treturn[1] int samples a second
-- @return[2] nil
-- @treturn[2] string message that names the file, and the line that named it
-- @treturn[2] string "EIO" or "EFORMAT"
function methods:sounds(name, options)
  options = check.options("corpus:sounds", options, { "hop", "as", "folder", "rate", "channel",
    "resample" })
  local hop = check.integer("corpus:sounds", "hop", options.hop, 1)
  local as = check.type("corpus:sounds", "as", options.as or "sound", "string")
  local folder = options.folder and
    check.type("corpus:sounds", "folder", options.folder, "string") .. "/" or ""
  audio.check("corpus:sounds", options)
  find(self, "corpus:sounds", name, "symbols")
  local floats, offsets, wanted = core.floats(), core.ints():push(0),
    { rate = options.rate, channel = options.channel, resample = options.resample }
  local zeros = core.floats():push_bytes(("\0"):rep(hop))
  for i = 1, self.n do
    local path = self:get(name, i)
    if #path ~= 1 then
      return files.bad("EFORMAT", "%s: expected one file in field %s, came %d", self:place(i), name,
        #path)
    end
    path = path[1]:find "^/" and path[1] or folder .. path[1]
    local rate, message, code = audio.append(path, wanted, floats)
    if not rate then
      return nil, ("%s (%s)"):format(message, self:place(i)), code
    end
    wanted.rate = wanted.rate or rate
    floats:append(zeros, 1, -#floats % hop)
    offsets:push(#floats // hop)
  end
  return with(self, as, { data = floats:tensor { #floats // hop, hop },
    offsets = offsets:tensor() }), wanted.rate
end

--- Pictures read in another way: a corpus whose field has patches of them for steps, in the order
-- of reading, each row by row. All pictures have as many rows; patches fill them.
-- @string name the field of pictures, whose sequences are their rows
-- @param how "rows", "columns", "pixels", or { height, width } of a patch
-- @tab[opt] options `order`: the steps in another order, the same for all pictures: each of their
--   numbers, from 1, once (`rng:shuffle` of 1..784 for the permuted pixels of Le et al. 2015)
-- @treturn corpus
function methods:patches(name, how, options)
  options = check.options("corpus:patches", options, { "order" })
  local field = find(self, "corpus:patches", name, "numbers")
  local rows, columns = field.offsets[2], field.data:shape()[2]
  for i = 1, self.n do
    local here = field.offsets[i + 1] - field.offsets[i]
    if here ~= rows or here == 0 then
      check.fail("corpus:patches: field %s: %s: expected %d rows as in the first picture, came %d",
        name, self:place(i), rows, here)
    end
  end
  local known = { rows = { 1, columns }, columns = { rows, 1 }, pixels = { 1, 1 } }
  local size = known[how] or how
  if type(size) ~= "table" or #size ~= 2 then
    check.fail("corpus:patches: expected \"rows\", \"columns\", \"pixels\" or { height, width }, "
      .. "came %s", check.came(how))
  end
  local height = check.integer("corpus:patches", "height", size[1], 1)
  local width = check.integer("corpus:patches", "width", size[2], 1)
  if rows % height ~= 0 or columns % width ~= 0 then
    check.fail("corpus:patches: patches of %d x %d do not fill pictures of %d x %d", height, width,
      rows, columns)
  end
  local steps, offsets = rows // height * (columns // width), core.ints()
  for i = 0, self.n do offsets:push(i * steps) end
  return with(self, name, { data = core.patches(field.data, rows, height, width, options.order),
    offsets = offsets:tensor() })
end

--- Pictures moved a little, each its own way by chance: a corpus in which every picture stands up
-- to so many rows and columns away from where it stood. Zeros come in where nothing was. Anew in
-- each epoch it is more to learn from than there is (Simard et al. 2003).
-- @string name the field of pictures, whose sequences are their rows
-- @tab options `most`: rows and columns at most (1); `rng`: the source of chance
-- @treturn corpus
function methods:shift(name, options)
  options = check.options("corpus:shift", options, { "most", "rng" })
  local most = check.integer("corpus:shift", "most", options.most or 1, 0)
  local rng = check.rng("corpus:shift", options.rng, true)
  local field = find(self, "corpus:shift", name, "numbers")
  local bytes, out = field.data:tobytes(), {}
  local width = 4 * field.data:shape()[2]
  local blank, side = ("\0"):rep(width), ("\0"):rep(4 * most)
  for i = 1, self.n do
    local first, last = field.offsets[i], field.offsets[i + 1]
    local down, right = rng:int(2 * most + 1) - most - 1, 4 * (rng:int(2 * most + 1) - most - 1)
    for y = first - down, last - down - 1 do
      local row = y >= first and y < last and bytes:sub(y * width + 1, (y + 1) * width) or blank
      out[#out + 1] = (side .. row .. side):sub(#side - right + 1, #side - right + width)
    end
  end
  return with(self, name, { data = core.tensor_from_string(table.concat(out), field.data:shape()),
    offsets = field.offsets })
end

--- What a layer or network makes of a field of numbers, computed once and kept: a corpus with one
-- more field.
-- @string name the field of numbers
-- @param layer a layer, or a function of a recorded value [T,B,I]
-- @tab options `as`: the new field; `size`: how many sequences at a time (64)
-- @treturn corpus
function methods:compute(name, layer, options)
  options = check.options("corpus:compute", options, { "as", "size" })
  local as = check.type("corpus:compute", "as", options.as, "string")
  local size = check.integer("corpus:compute", "size", options.size or 64, 1)
  local field = find(self, "corpus:compute", name, "numbers")
  require "neap.layer".check("corpus:compute", layer)
  local program = require "neap.program".new(function(rec)
    local y = layer(rec:input("x", { space = "T", dims = { field.data:shape()[2] } }))
    if y.space < 1 or #y.dims ~= 1 or y.dtype ~= "f32" then
      check.fail("corpus:compute: expected a layer that makes rows [T,B,width], came %s", y:shape())
    end
    return { y = y }
  end)
  local run, out, width = program:run(), core.floats(), nil
  for from = 1, self.n, size do
    local order = {}
    for i = from, math.min(from + size - 1, self.n) do order[#order + 1] = i end
    local data, lengths = core.gather_rows(field.data, field.offsets, order)
    run:feed { rows = #order, x = { data = data, lengths = lengths } }:forward()
    local y = run:value("y", "concat")
    width = y:shape()[2]
    out:append(y)
  end
  return with(self, as, { data = out:tensor { #out // width, width }, offsets = field.offsets })
end

--- Cuts each sequence of one field into pieces, one for each symbol of another from which it is
-- written: the phonemes that each letter stands for. How is learned from the corpus itself (see
-- @{neap.align}). A decoder with `attention = "aligned"` writes piece by piece. A piece is one symbol
-- of the new field: several symbols of the target with blanks between ("K S"), or none (""); a
-- vocabulary of pieces gives the target's own symbols by its `words`, and with blanks between by its
-- `text`.
--
-- Sequences that cannot be cut so, need a piece that is rare, or are longer than about a thousand
-- symbols are left out.
-- @string source field of symbols
-- @string target field of symbols without blanks
-- @tab options
--
-- - `as`: the new field
-- - `most`: symbols of the target in a piece at most (2)
-- - `min`: pieces that come less often in what can be cut are rare (1)
-- - `iterations` (8) through so many `sequences` at most (20000), spread evenly, learn how
-- @treturn[1] corpus
-- @treturn[1] tab `{ left_out = sequences, pieces = different ones, nats = mean -ln P of a target }`
-- @return[2] nil: there is no sequence that can be cut so
-- @treturn[2] string message
-- @treturn[2] string "EFORMAT"
function methods:align(source, target, options)
  options = check.options("corpus:align", options, { "as", "most", "min", "iterations", "sequences" })
  local as = check.type("corpus:align", "as", options.as, "string")
  local most = check.integer("corpus:align", "most", options.most or 2, 1)
  local min = check.integer("corpus:align", "min", options.min or 1, 1)
  local iterations = check.integer("corpus:align", "iterations", options.iterations or 8, 1)
  local sequences = check.integer("corpus:align", "sequences", options.sequences or 20000, 1)
  local from, to = find(self, "corpus:align", source, "symbols"),
    find(self, "corpus:align", target, "symbols")
  if (#to.symbols + 1.0) ^ most >= 2.0 ^ 62 then
    check.fail("corpus:align: most: pieces of %d out of %d symbols are too many to be counted", most,
      #to.symbols)
  end
  for _, symbol in ipairs(to.symbols) do
    if not symbol:find "^%S+$" then
      check.fail("corpus:align: field %s: expected symbols without blanks, came \"%s\"", target,
        symbol)
    end
  end
  local function row(field, i)
    local ids = {}
    for k = field.offsets[i] + 1, field.offsets[i + 1] do ids[#ids + 1] = field.ids[k] + 1 end
    return ids
  end
  local list = {}
  for i = 1, self.n do list[i] = { row(from, i), row(to, i) } end
  local bar
  local lengths, nats = require "neap.align".fit(list, { sources = #from.symbols,
    targets = #to.symbols, most = most, iterations = iterations, sequences = sequences,
    each = function(done, all)
      bar = bar or require "neap.progress".new { label = "align", total = all }
      bar:update(done)
    end })
  if bar then bar:finish() end

  -- The pieces as symbols, and how often each comes.
  local cuts, times = {}, {}
  for i, pair in ipairs(list) do
    local cut, j = lengths[i] and {}, 0
    for s, k in ipairs(lengths[i] or {}) do
      local part = {}
      for t = 1, k do part[t] = to.symbols[pair[2][j + t]] end
      j = j + k
      cut[s] = table.concat(part, " ")
      times[cut[s]] = (times[cut[s]] or 0) + 1
    end
    cuts[i] = cut
  end
  local growing, order, fits = class.symbols "pieces", {}, false
  for i, cut in ipairs(cuts) do
    local kept = cut and true
    fits = fits or kept
    for _, piece in ipairs(cut or {}) do kept = kept and times[piece] >= min end
    if kept then
      order[#order + 1] = i
      for _, piece in ipairs(cut) do growing.take(piece) end
      growing.close()
    end
  end
  if #order == 0 then
    local message = fits and ("min: expected some sequence without a piece that comes less than %d "
      .. "times, came none"):format(min) or ("most: expected some %s of at most %d symbols for each "
      .. "of its %s, came none of %d"):format(target, most, source, self.n)
    return nil, ("%s: corpus:align: %s"):format(tostring(self.source), message), "EFORMAT"
  end
  local field = growing.done()
  return with(self:select(order), as, field),
    { left_out = self.n - #order, pieces = #field.symbols, nats = nats }
end

-- The same of the numbers that are known (`gaps = "mask"`), column by column.
local function moments_of_known(name, data, known)
  local mean, deviation = {}, {}
  for c = 1, data:shape()[2] do
    local column = core.floats()
    for r = 1, data:shape()[1] do
      if known:get(r, c) ~= 0 then column:push(data:get(r, c)) end
    end
    if #column == 0 then
      check.fail("corpus:moments: field %s: nothing is known of column %d", name, c)
    end
    local m, d = core.moments(column:tensor():reshape { #column, 1 })
    mean[c], deviation[c] = m[1], d[1]
  end
  return mean, deviation
end

--- Mean and deviation of each column of a field of numbers, over all its rows: what
-- `neap.features.standardize` takes. Of a field of a series with `gaps = "mask"` over those that are
-- known.
-- @string name field
-- @treturn tab `{ mean = {..}, deviation = {..} }`
function methods:moments(name)
  local field = find(self, "corpus:moments", name, "numbers")
  local mean, deviation
  if field.known and self.fields[field.known] then
    mean, deviation = moments_of_known(name, field.data, self.fields[field.known].data)
  else
    mean, deviation = core.moments(field.data)
  end
  return { mean = mean, deviation = deviation }
end

--- Cuts the corpus in two by chance. Each part keeps the order.
-- @tab options `share`: of the first part, between 0 and 1; `rng`; `by`: a field whose equal
--   sequences stay together (all pronunciations of a word)
-- @treturn corpus
-- @treturn corpus the rest
function methods:split(options)
  options = check.options("corpus:split", options, { "share", "rng", "by" })
  local share = check.type("corpus:split", "share", options.share, "number")
  local rng = check.rng("corpus:split", options.rng, true)
  local groups, group_of, seen = 0, {}, {}
  for i = 1, self.n do
    local key = i
    if options.by then
      find(self, "corpus:split", options.by, "symbols")
      key = table.concat(self:get(options.by, i), "\0")
    end
    if not seen[key] then
      groups = groups + 1
      seen[key] = groups
    end
    group_of[i] = seen[key]
  end
  local taken, list = {}, {}
  for g = 1, groups do list[g] = g end
  rng:shuffle(list)
  local first = math.floor(share * groups + 0.5)
  if not (first >= 1 and first < groups) then
    check.fail("corpus:split: a share of %g leaves one part of %d without a sequence", share,
      groups)
  end
  for k = 1, first do taken[list[k]] = true end
  local a, b = {}, {}
  for i = 1, self.n do
    local part = taken[group_of[i]] and a or b
    part[#part + 1] = i
  end
  return self:select(a), self:select(b)
end

-- For each of the field's symbols its stored id in the vocabulary, as ints.
local function id_map(self, who, name, field, vocab, unknown)
  if type(vocab) ~= "table" or type(vocab.id) ~= "function" then
    check.fail("%s: vocab: expected a vocabulary, came %s", who, check.came(vocab))
  elseif unknown ~= nil and unknown ~= "ignore" then
    check.fail("%s: unknown: expected \"ignore\", came %s", who, check.came(unknown))
  end
  local map, counts = core.ints(), nil
  for i, symbol in ipairs(field.symbols) do
    local id = vocab:id(symbol)
    if not id and unknown ~= "ignore" then
      counts = counts or core.count(field.ids, #field.symbols)
      if counts[i] > 0 then
        local row, at = 1, 1
        while field.ids[at] ~= i - 1 do at = at + 1 end
        while field.offsets[row + 1] < at do row = row + 1 end
        check.fail("%s: field %s of %s: symbol \"%s\" is not in the vocabulary, which has no unk",
          who, name, self:place(row), symbol)
      end
    end
    map:push(id and id - 1 or -1)
  end
  return map
end

-- The subwords of each symbol of a field, once, and put where it comes: ids, and where each
-- sequence begins.
local function subwords(field, vocab)
  local ids, ends, place = core.ints(), core.ints():push(0), core.ints()
  local counts = core.count(field.ids, #field.symbols)
  for i, symbol in ipairs(field.symbols) do
    for _, id in ipairs(counts[i] > 0 and vocab:encode(symbol) or {}) do ids:push(id - 1) end
    ends:push(#ids)
    place:push(i)
  end
  local data, lengths = core.gather_rows(ids:tensor(), ends:tensor(),
    core.remap(field.ids, place))
  return data, core.remap(field.offsets, core.offsets(lengths))
end

--- A field ready for batches. A vocabulary of subwords cuts each symbol of the field, as a word or
-- a text, so that sequences become longer.
-- @string name field
-- @tab[opt] vocab a vocabulary; none for a field of numbers
-- @tab[opt] options `start`, `stop`: put the vocabulary's start or stop symbol before or after each
--   sequence; `unknown`: "ignore" makes symbols without an id -1 (a loss leaves them out) where
--   the vocabulary has no `unk`; else they raise
-- @treturn tab `data`: i32 [rows] ids from 0, or f32 [rows,...]; `offsets`: i32 [n+1]; `from`: the
--   corpus, the field's name and the vocabulary, for messages
function methods:encode(name, vocab, options)
  options = check.options("corpus:encode", options, { "start", "stop", "unknown" })
  local from = { corpus = self, name = name, vocab = vocab }
  if vocab == nil then
    local field = find(self, "corpus:encode", name)
    if field.ids then check.fail("corpus:encode: field %s of symbols needs a vocabulary", name) end
    return { data = field.data, offsets = field.offsets, from = from }
  end
  local field = find(self, "corpus:encode", name, "symbols")
  local data, offsets
  if type(vocab) == "table" and vocab.merges then
    data, offsets = subwords(field, vocab)
  else
    data, offsets = core.remap(field.ids,
      id_map(self, "corpus:encode", name, field, vocab, options.unknown)), field.offsets
  end
  if not options.start and not options.stop then
    return { data = data, offsets = offsets, from = from }
  end
  for _, special in ipairs{ "start", "stop" } do
    if options[special] and not vocab[special] then
      check.fail("corpus:encode: the vocabulary has no %s symbol", special)
    end
  end
  local ids, ends = core.ints(), core.ints():push(0)
  for i = 1, self.n do
    if options.start then ids:push(vocab.start - 1) end
    ids:append(data, offsets[i] + 1, offsets[i + 1])
    if options.stop then ids:push(vocab.stop - 1) end
    ends:push(#ids)
  end
  return { data = ids:tensor(), offsets = ends:tensor(), from = from }
end

--- A field of one symbol, or one row of numbers, for each sequence: its class or its target.
-- @string name field
-- @tab[opt] vocab a vocabulary; none for a field of numbers
-- @tab[opt] options `unknown` as in @{encode}
-- @treturn tab `data`: i32 [n] ids from 0, or f32 [n,...]
function methods:label(name, vocab, options)
  options = check.options("corpus:label", options, { "unknown" })
  if type(vocab) == "table" and vocab.merges then
    check.fail("corpus:label: field %s: expected a vocabulary of classes, came one of subwords",
      name)
  end
  local field = find(self, "corpus:label", name)
  for i = 1, self.n do
    if field.offsets[i] ~= i - 1 or field.offsets[i + 1] ~= i then
      check.fail("corpus:label: field %s: %s: expected one symbol, came %d", name, self:place(i),
        field.offsets[i + 1] - field.offsets[i])
    end
  end
  local encoded = self:encode(name, vocab, { unknown = options.unknown })
  return { data = encoded.data, from = encoded.from }
end

--- The characters of each symbol, ready for batches: sequences of sequences.
-- @string name field
-- @tab vocab of characters (`vocab.count(corpus, name, { characters = true })`)
-- @tab[opt] options `max`: keep at most so many characters of a symbol; `unknown` as in @{encode}
-- @treturn tab `data`: i32 [characters] ids from 0; `inner`: i32 [words+1] where the characters of
--   each word begin; `outer`: i32 [n+1] where the words of each sequence begin; `from` as above
function methods:characters(name, vocab, options)
  options = check.options("corpus:characters", options, { "max", "unknown" })
  local max = options.max and check.integer("corpus:characters", "max", options.max, 1) or math.huge
  local field = find(self, "corpus:characters", name, "symbols")
  local spelled, place = class.symbols("characters"), core.ints()
  local counts = core.count(field.ids, #field.symbols)
  for i, symbol in ipairs(field.symbols) do
    local cut = utf8.len(symbol) > max and symbol:sub(1, utf8.offset(symbol, max + 1) - 1) or symbol
    spelled.add(counts[i] > 0 and cut or "")
    place:push(i)
  end
  local letters = spelled.done()
  letters.ids = core.remap(letters.ids,
    id_map(self, "corpus:characters", name, letters, vocab, options.unknown))
  local data, lengths = core.gather_rows(letters.ids, letters.offsets, core.remap(field.ids, place))
  return { data = data, inner = core.offsets(lengths), outer = field.offsets,
    from = { corpus = self, name = name, vocab = vocab } }
end

check.methods("corpus", methods)

function meta:__len() return self.n end

function meta:__tostring()
  return ("corpus %s: %d sequence%s; %s"):format(tostring(self.source), self.n,
    self.n == 1 and "" or "s", table.concat(self:names(), ", "))
end

return corpus

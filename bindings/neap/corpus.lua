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

local corpus = {}
local methods = {}
local meta = { __index = methods, __name = "neap.corpus" }

-- ---- making -----------------------------------------------------------------------------------

-- A field of symbols while it grows. split: how its strings are cut; one that is never given says
-- nothing of how its lists of symbols are written as a string.
local function symbol_field(split)
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

-- source: a path, a part of a file, or what else it is from; lines: i32 [n], where each sequence
-- begins in it; nil if it comes from no file; places: function(i), where it is more than that.
local function new(source, fields, lines, places)
  local self = { source = source, fields = fields, lines = lines, places = places }
  local _, any = next(fields)
  self.n = #any.offsets - 1
  return setmetatable(self, meta)
end

local function sorted(map)
  local names = {}
  for name in pairs(map) do names[#names + 1] = name end
  table.sort(names)
  return names
end

-- The option `split`: field name -> how its strings are cut; names: the fields that there are.
local function check_splits(who, splits, names)
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

-- A field of numbers of a script's lists.
local function number_field(name, list)
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
    check.type("corpus.from", ("sequence %d of %s"):format(i, name), sequence, "table")
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

--- A corpus of what a script has made.
-- @tab fields name -> list of sequences, as many in each field. A sequence is a string (cut as
--   `split` says), a list of strings, or a list of numbers (or of lists of numbers, all as long)
-- @tab[opt] options `split`: table of field name -> "symbol" (the string is one symbol; the
--   preset), "characters" (of UTF-8) or "words" (between blanks). Vocabularies remember it
-- @treturn corpus
function corpus.from(fields, options)
  options = check.options("corpus.from", options, { "split" })
  check.type("corpus.from", "fields", fields, "table")
  local made, count, first = {}, nil, nil
  for name in pairs(fields) do check.type("corpus.from", "a field's name", name, "string") end
  local splits = check_splits("corpus.from", options.split, sorted(fields))
  for _, name in ipairs(sorted(fields)) do
    local list = check.type("corpus.from", "field " .. name, fields[name], "table")
    count, first = count or #list, first or name
    if #list ~= count then
      check.fail("corpus.from: %d sequences in %s, %d in %s", #list, name, count, first)
    end
    local sample
    for _, sequence in ipairs(list) do
      sample = type(sequence) == "table" and sequence[1]
      if sample ~= nil then break end
    end
    if sample and type(sample) ~= "string" then
      made[name] = number_field(name, list)
    else
      local field = symbol_field(splits[name])
      for i, sequence in ipairs(list) do
        if type(sequence) == "table" then
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

-- ---- reading ----------------------------------------------------------------------------------

local function bad(code, format, ...)
  return nil, "corpus: " .. format:format(...), code
end

local part_meta = { __name = "neap.part" }

function part_meta:__tostring()
  return ("%s, bytes %d to %d"):format(self.path, self.from + 1, self.to)
end

local function is_part(x) return getmetatable(x) == part_meta end

-- Opens a file; a part of one where it begins. Gives the file, its path, and the byte where reading
-- ends, from 0.
local function open(path, mode)
  local part = is_part(path) and path
  if part then path = part.path end
  check.type("corpus", "path", path, "string")
  local file, message = io.open(path, mode)
  if not file then return bad("EIO", "cannot open %s", message) end
  if part then file:seek("set", part.from) end
  return file, path, part and part.to or math.huge
end

-- How many lines of the file are before a part: found when it is asked for.
local function lines_before(part)
  if not is_part(part) then return 0 end
  if not part.lines then
    local file, n, left = io.open(part.path, "rb"), 0, part.from
    while file and left > 0 do
      local text = file:read(math.min(left, 1 << 20))
      if not text then break end
      local _, ends = text:gsub("\n", "")
      n, left = n + ends, left - #text
    end
    if file then file:close() end
    part.lines = n
  end
  return part.lines
end

-- Calls each(line, number) for the lines of a UTF-8 file, without their ends; of a part numbers
-- count from its beginning. each returns a message to refuse the line. header: a part begins with
-- the file's first line. Gives the number of lines and whether the last one had an end; or nil,
-- message, code.
local function each_line(source, each, header)
  local file, path, left = open(source, "r")
  if not file then return nil, path, left end
  local number, ended, at = 0, true, is_part(source) and source.from or 0
  if header and at > 0 then
    file:seek "set"
    local line
    repeat line = file:read "l" until not line or line:match "^\xEF?\xBB?\xBF?\r?$" == nil
    line = (line or ""):gsub("^\xEF\xBB\xBF", ""):gsub("\r$", "")
    local problem = each(line, 0)
    if problem then
      file:close()
      return bad("EFORMAT", "%s:1: %s", path, problem)
    end
    file:seek("set", at)
  end
  while true do
    local line, why
    if at < left then line, why = file:read("L") end
    if not line then
      file:close()
      if why then return bad("EIO", "cannot read %s: %s", path, why) end
      return number, ended
    end
    number, at = number + 1, at + #line
    if at == #line and line:sub(1, 3) == "\xEF\xBB\xBF" then line = line:sub(4) end
    ended = line:sub(-1) == "\n"
    if ended then line = line:sub(1, line:sub(-2, -2) == "\r" and -3 or -2) end
    local valid, at = utf8.len(line)
    local problem
    if valid then
      problem = each(line, number)
    else
      problem = ("not UTF-8: byte %d of the line is 0x%02X"):format(at, line:byte(at))
    end
    if problem then
      file:close()
      return bad("EFORMAT", "%s:%d: %s", path, lines_before(source) + number, problem)
    end
  end
end

local parts_methods = {}
local parts_meta = { __index = parts_methods, __name = "neap.parts" }

function parts_meta:__len() return #self.list end

function parts_meta:__tostring()
  return ("%s in %d part%s"):format(self.path, #self.list, #self.list == 1 and "" or "s")
end

--- A file that is larger than memory, to be read in parts: `neap.corpus.parts("big.tsv",
-- function(part) return neap.corpus.tsv(part, options) end)`. A part begins and ends between lines;
-- nothing is read yet but a line for each. `neap.batches.parts` learns from it, `neap.vocab` and
-- `neap.vocab.bpe` count it.
-- @string path
-- @func read called with a part, which a reader takes in place of a path; gives what the reader
--   gives
-- @tab[opt] options `bytes`: about so many in a part (64 MiB); `between`: "lines" (the preset) or
--   "paragraphs": parts begin after an empty line, as sentences of @{conllu} do
-- @treturn[1] parts `#parts`, `parts:read(i)`
-- @return[2] nil
-- @treturn[2] string message
-- @treturn[2] string "EIO" or "EFORMAT"
function corpus.parts(path, read, options)
  check.type("corpus.parts", "path", path, "string")
  check.type("corpus.parts", "read", read, "function")
  options = check.options("corpus.parts", options, { "bytes", "between" })
  local bytes = check.integer("corpus.parts", "bytes", options.bytes or 64 << 20, 1)
  local between = options.between or "lines"
  if between ~= "lines" and between ~= "paragraphs" then
    check.fail("corpus.parts: between: expected \"lines\" or \"paragraphs\", came %s",
      check.came(between))
  end
  local file, message = io.open(path, "rb")
  if not file then return bad("EIO", "cannot open %s", message) end
  local list, from, size = {}, 0, file:seek "end"
  while size and from < size do
    file:seek("set", math.min(from + bytes - 1, size)) -- a line that ends there ends the part
    local line, why = file:read "l"
    if between == "paragraphs" then -- that was the end of a line, not an empty one
      repeat
        if line then line, why = file:read "l" end
      until not line or line == "" or line == "\r"
    end
    if why then
      file:close()
      return bad("EIO", "cannot read %s: %s", path, why)
    end
    local to = line and file:seek() or size
    list[#list + 1] = setmetatable({ path = path, from = from, to = to }, part_meta)
    from = to
  end
  file:close()
  if #list == 0 then return bad("EFORMAT", "%s: nothing in it", path) end
  return setmetatable({ path = path, read_part = read, list = list }, parts_meta)
end

--- Reads a part.
-- @int i from 1
-- @return what the reader gives: a corpus; or nil, message, code
function parts_methods:read(i)
  return self.read_part(self.list[check.integer("parts:read", "i", i, 1, #self.list)])
end

-- Bytes of a part, or of all.
function parts_methods:bytes(i)
  local list = self.list
  return i and list[i].to - list[i].from or list[#list].to
end

-- A corpus of part i; raises what is wrong with it.
local function must(self, who, i)
  local c, message = self:read(i)
  if not c then check.fail("%s: %s", who, message) end
  if getmetatable(c) ~= meta then
    check.fail("%s: expected a reader that gives a corpus, came %s", who, check.came(c))
  end
  return c
end

--- How often each symbol comes, in all parts together. What is wrong with the file raises.
-- @string name field
-- @treturn {[string]=int,...}
function parts_methods:counts(name)
  local counts = {}
  for i = 1, #self.list do
    for symbol, times in pairs(must(self, "parts:counts", i):counts(name)) do
      counts[symbol] = (counts[symbol] or 0) + times
    end
  end
  return counts
end

--- How the strings of a field were cut.
-- @string name field
-- @treturn ?string
function parts_methods:split_of(name) return must(self, "parts:split_of", 1):split_of(name) end

-- What is wrong with the names of a header.
local function wrong_names(names)
  local seen = {}
  for i, name in ipairs(names) do
    if name == "" or seen[name] then
      return ("header: column %d has %s"):format(i, name == "" and "no name" or
        "the name of another")
    end
    seen[name] = true
  end
end

-- The options `header` and `columns`: gives the first.
local function check_header(who, options)
  local columns, seen = options.columns, {}
  if options.header ~= nil then check.type(who, "header", options.header, "boolean") end
  if columns == nil then return options.header end
  check.type(who, "columns", columns, "table")
  for i, name in ipairs(columns) do
    check.type(who, ("columns: name %d"):format(i), name, "string")
    if seen[name] then check.fail("%s: columns: \"%s\" came twice", who, name) end
    seen[name] = true
  end
  if #columns == 0 then check.fail("%s: columns: expected at least one name, came none", who) end
  return options.header
end

--- Lines of cells between tabs. Empty lines are passed over.
-- @string path
-- @tab options `columns`: the fields' names, as many as cells in a line; `header`: true if the
--   first line has names, which are taken where `columns` gives none; `split`: table of name ->
--   "symbol" (the cell is one symbol; the preset), "characters" (of UTF-8) or "words" (between
--   blanks). Vocabularies remember it; `more`: true: a line may have more cells than there are
--   columns, which are not read
-- @treturn[1] corpus one sequence a line
-- @return[2] nil
-- @treturn[2] string message with file:line
-- @treturn[2] string "EIO" or "EFORMAT"
function corpus.tsv(path, options)
  options = check.options("corpus.tsv", options, { "columns", "header", "split", "more" })
  local more = check.boolean("corpus.tsv", "more", options.more)
  local header, names = check_header("corpus.tsv", options), options.columns
  local splits, fields
  local function begin()
    splits, fields = check_splits("corpus.tsv", options.split, names), {}
    for i, name in ipairs(names) do fields[i] = symbol_field(splits[name]) end
  end
  if names then
    begin()
  elseif not header then
    check.fail("corpus.tsv: columns: expected a table, came nil (the fields' names; or "
      .. "header = true, where the first line has them)")
  end
  local n, lines_of = 0, core.ints()
  local cells = {}
  local lines, message, code = each_line(path, function(line, number)
    if line == "" then return end
    local count = 0
    for cell in (line .. "\t"):gmatch("([^\t]*)\t") do
      count = count + 1
      cells[count] = cell
    end
    if not names then
      names = table.move(cells, 1, count, 1, {})
      local problem = wrong_names(names)
      if problem then return problem end
      begin()
    elseif count < #names or count > #names and not more then
      return ("expected %d columns%s (%s), came %d%s"):format(#names, more and " or more" or "",
        table.concat(names, ", "), count, count == 1 and ": no tab is in the line" or "")
    end
    if header then
      header = false
      return
    end
    for i, field in ipairs(fields) do field.add(cells[i]) end
    lines_of:push(number)
    n = n + 1
  end, header)
  if not lines then return nil, message, code end
  if n == 0 then return bad("EFORMAT", "%s: no lines in it", tostring(path)) end
  local made = {}
  for i, name in ipairs(names) do made[name] = fields[i].done() end
  return new(path, made, lines_of:tensor())
end

--- A whole text as one sequence, field "text".
-- @string path
-- @tab[opt] options `split`: "characters" (of UTF-8, line ends among them; the preset) or "words"
-- @treturn[1] corpus of one sequence
-- @return[2] nil
-- @treturn[2] string message with the line and byte of what is not UTF-8
-- @treturn[2] string "EIO" or "EFORMAT"
function corpus.text(path, options)
  options = check.options("corpus.text", options, { "split" })
  local split = options.split or "characters"
  vocab.splitter("corpus.text", "split", split)
  local source = path
  local file, message, code = open(source, "rb")
  if not file then return nil, message, code end
  path = message
  local text, why
  if is_part(source) then
    text, why = file:read(source.to - source.from)
  else
    text, why = file:read("a")
  end
  file:close()
  if not text then return bad("EIO", "cannot read %s: %s", path, why or "it has become shorter") end
  local valid, at = utf8.len(text)
  if not valid then
    local before = text:sub(1, at - 1)
    local _, ends = before:gsub("\n", "")
    return bad("EFORMAT", "%s:%d: not UTF-8: byte %d of the line is 0x%02X", path,
      lines_before(source) + ends + 1, at - (before:match(".*\n()") or 1) + 1, text:byte(at))
  end
  if text == "" then return bad("EFORMAT", "%s: nothing in it", path) end
  local field = symbol_field(split)
  field.add(text)
  return new(source, { text = field.done() })
end

local conllu_columns = { "id", "form", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps",
  "misc" }

--- Annotated sentences in CoNLL-U (Universal Dependencies). Multi-word tokens and empty nodes are
-- passed over.
-- @string path
-- @tab[opt] options `fields`: a list of columns to keep: form lemma upos xpos feats head deprel
--   deps misc; form, lemma, upos and xpos if left out
-- @treturn[1] corpus one sequence a sentence
-- @return[2] nil
-- @treturn[2] string message with file:line
-- @treturn[2] string "EIO" or "EFORMAT"
function corpus.conllu(path, options)
  options = check.options("corpus.conllu", options, { "fields" })
  local keep = {}
  for i, name in ipairs(options.fields or { "form", "lemma", "upos", "xpos" }) do
    local column
    for c, known in ipairs(conllu_columns) do
      if known == name then column = c end
    end
    if not column then
      local near = core.nearest(tostring(name), conllu_columns)
      check.fail("corpus.conllu: fields: no column \"%s\"%s", tostring(name),
        near and ("; did you mean \"%s\"?"):format(near) or "")
    end
    keep[i] = { name = name, column = column, field = symbol_field() }
  end
  if #keep == 0 then check.fail("corpus.conllu: fields: expected at least one name, came none") end
  local words, sentences, cells, lines_of = 0, 0, {}, core.ints()
  local function close()
    if words == 0 then return end
    for _, k in ipairs(keep) do k.field.close() end
    words, sentences = 0, sentences + 1
  end
  local lines, ended, code = each_line(path, function(line, number)
    if line == "" then return close() end
    if line:sub(1, 1) == "#" then return end
    local count = 0
    for cell in (line .. "\t"):gmatch("([^\t]*)\t") do
      count = count + 1
      cells[count] = cell
    end
    if count ~= 10 then return ("expected 10 columns, came %d"):format(count) end
    local id = cells[1]
    if not id:find("^%d+$") then
      if id:find("^%d+[-.]%d+$") then return end
      return ("expected a word number, came \"%s\""):format(id)
    elseif tonumber(id) ~= words + 1 then
      return ("expected word number %d, came %s"):format(words + 1, id)
    end
    if words == 0 then lines_of:push(number) end
    words = words + 1
    for _, k in ipairs(keep) do
      if cells[k.column] == "" then
        return ("column %s is empty"):format(k.name)
      end
      k.field.take(cells[k.column])
    end
  end)
  if not lines then return nil, ended, code end
  if words > 0 and not ended then
    return bad("EFORMAT", "%s:%d: ends within a sentence: the file was cut short",
      is_part(path) and path.path or path, lines_before(path) + lines)
  end
  close()
  if sentences == 0 then return bad("EFORMAT", "%s: no sentences in it", tostring(path)) end
  local fields = {}
  for _, k in ipairs(keep) do fields[k.name] = k.field.done() end
  return new(path, fields, lines_of:tensor())
end

-- Reads an IDX file of bytes, chunk by chunk into take(string): gives the dimensions.
local function read_idx(path, rank, take)
  local plain, message, code = open(path, "rb")
  if not plain then return nil, message, code end
  local file = plain
  local packed = path:sub(-3) == ".gz"
  if packed then
    plain:close()
    file = io.popen("gzip -dc '" .. path:gsub("'", "'\\''") .. "' 2>/dev/null", "r")
  end
  local function fail(kind, format, ...)
    file:close()
    return bad(kind, "%s: " .. format, path, ...)
  end
  local function short(format, ...) -- gzip's own failure also shows as an early end
    if not file:close() then return bad("EFORMAT", "%s: gzip cannot unpack it", path) end
    return bad("EFORMAT", "%s: " .. format, path, ...)
  end
  local head, why = file:read(4 + 4 * rank)
  if why then return fail("EIO", "%s", why) end
  if not head then return short("nothing in it") end
  if #head < 4 then return short("ends after %d bytes, within the header", #head) end
  local zero, kind, axes = string.unpack(">I2BB", head)
  if zero ~= 0 then
    return fail("EFORMAT", "not an IDX file: begins with 0x%04X, not with 0", zero)
  elseif kind ~= 8 then
    return fail("EFORMAT", "expected unsigned bytes (type 0x08), came type 0x%02X", kind)
  elseif axes ~= rank then
    return fail("EFORMAT", "expected %d dimensions, came %d", rank, axes)
  elseif #head < 4 + 4 * rank then
    return short("ends after %d bytes, within the header", #head)
  end
  local dims, size = {}, 1
  for i = 1, rank do
    dims[i] = string.unpack(">I4", head, 1 + 4 * i)
    if dims[i] == 0 then return fail("EFORMAT", "dimension %d is 0", i) end
    if size > (1 << 31) // dims[i] then
      return fail("EFORMAT", "its header says more than 2^31 bytes")
    end
    size = size * dims[i]
  end
  local got = 0
  while got < size do
    local chunk, trouble = file:read(math.min(size - got, 1 << 20))
    if trouble then return fail("EIO", "%s", trouble) end
    if not chunk then
      return short("ends after %d bytes, its header says %d", #head + got, #head + size)
    end
    take(chunk)
    got = got + #chunk
  end
  if file:read(1) then
    return fail("EFORMAT", "goes on after the %d bytes its header says", #head + size)
  end
  if not file:close() then return bad("EFORMAT", "%s: gzip cannot unpack it", path) end
  return dims
end

--- Pictures and their labels in IDX files, as of MNIST; also packed, where the name ends in .gz.
-- @string images path of bytes [N,rows,columns]
-- @string labels path of bytes [N]
-- @treturn[1] corpus field "image": each sequence the rows [rows,columns] of a picture, f32 from 0
--   to 1 (other ways to read it: @{patches}); field "label": one symbol each, the number
-- @return[2] nil
-- @treturn[2] string message
-- @treturn[2] string "EIO" or "EFORMAT"
function corpus.idx(images, labels)
  local pixels, offsets = core.floats(), core.ints():push(0)
  local dims, message, code = read_idx(images, 3, function(s) pixels:push_bytes(s, 1 / 255) end)
  if not dims then return nil, message, code end
  local n, rows, columns = table.unpack(dims)
  local field = symbol_field()
  local label_dims
  label_dims, message, code = read_idx(labels, 1, function(s)
    for i = 1, #s do field.add(tostring(s:byte(i))) end
  end)
  if not label_dims then return nil, message, code end
  if label_dims[1] ~= n then
    return bad("EFORMAT", "%s: %d labels for the %d pictures of %s", labels, label_dims[1], n,
      images)
  end
  for i = 1, n do offsets:push(i * rows) end
  return new(images, { label = field.done(),
    image = { data = pixels:tensor{ n * rows, columns }, offsets = offsets:tensor() } })
end

--- A lexicon of Festival, such as cmudict-0.4.out: lines
-- `("adversity" nil (((ae d) 0) ((v er) 1) ((s ih) 0) ((t iy) 0)))`.
-- @string path
-- @treturn[1] corpus one sequence an entry: "word" (characters), "pos" (one symbol), "phonemes",
--   "stress" (one mark a syllable), "marks" (one a phoneme: the syllable's stress where a syllable
--   begins, "-" inside)
-- @return[2] nil
-- @treturn[2] string message with file:line
-- @treturn[2] string "EIO" or "EFORMAT"
function corpus.festival(path)
  local names = { "word", "pos", "phonemes", "stress", "marks" }
  local fields = {}
  for _, name in ipairs(names) do fields[name] = symbol_field() end
  fields.word = symbol_field("characters")
  local n, lines_of = 0, core.ints()
  local lines, message, code = each_line(path, function(line, number)
    if line == "" or (number == 1 and line == "MNCL") then return end
    local word, pos, syllables = line:match('^%("([^"]+)" (%S+) %((.+)%)%)%s*$')
    local rest = syllables
    while rest and rest ~= "" do
      local phonemes, stress, more = rest:match("^%(%(([^()]+)%) (%d)%)%s*(.*)$")
      if not phonemes then
        word = nil
        break
      end
      local mark = stress
      for phoneme in phonemes:gmatch("%S+") do
        fields.phonemes.take(phoneme)
        fields.marks.take(mark)
        mark = "-"
      end
      fields.stress.take(stress)
      rest = more
    end
    if not word then
      return 'expected ("word" pos (((ph ...) stress) ...)), came ' .. line:sub(1, 60)
    end
    fields.word.add(word)
    fields.pos.add(pos)
    fields.phonemes.close()
    fields.stress.close()
    fields.marks.close()
    lines_of:push(number)
    n = n + 1
  end)
  if not lines then return nil, message, code end
  if n == 0 then return bad("EFORMAT", "%s: no entries in it", tostring(path)) end
  for _, name in ipairs(names) do fields[name] = fields[name].done() end
  return new(path, fields, lines_of:tensor())
end

-- The cells of a line of separated values; or nil and what is wrong. A cell in quotes may hold the
-- separator, and a quote as two; blanks around cells do not count.
local function cells_of(line, separator)
  local cells, at = {}, 1
  while true do
    local cell, stop = line:match('^[ ]*"([^"]*)"()', at)
    if cell then
      while line:sub(stop, stop) == '"' do -- a quote within
        local more, next_stop = line:match('^"([^"]*)"()', stop)
        if not more then return nil, ("a quote in column %d is not closed"):format(#cells + 1) end
        cell, stop = cell .. '"' .. more, next_stop
      end
      stop = line:match("^[ ]*()", stop)
      if stop <= #line and line:sub(stop, stop) ~= separator then
        return nil, ("column %d goes on after its quotes"):format(#cells + 1)
      end
    elseif line:find('^[ ]*"', at) then
      return nil, ("a quote in column %d is not closed"):format(#cells + 1)
    else
      stop = line:find(separator, at, true) or #line + 1
      cell = line:sub(at, stop - 1):match "^%s*(.-)%s*$"
    end
    cells[#cells + 1] = cell
    if stop > #line then return cells end
    at = stop + 1
  end
end

-- What gaps become. Each takes a column that grows (`data`, floats; `last`, the value before;
-- `waiting`, gaps since) and a value or, for a gap, nil; it may say what is wrong.
local gaps = {}

function gaps.hold(column, x)
  if not x and not column.last then return "a gap before the first value" end
  column.last = x or column.last
  column.data:push(column.last)
end

function gaps.mask(column, x)
  column.last = x or column.last
  column.data:push(x or 0)
  column.known:push(x and 1 or 0)
end

function gaps.linear(column, x)
  if not x then
    column.waiting = column.waiting + 1
    return
  end
  local n, before = column.waiting, column.last or x
  for k = 1, n do column.data:push(before + (x - before) * k / (n + 1)) end
  column.data:push(x)
  column.last, column.waiting = x, 0
end

-- The gaps at the end, which no value follows.
local function end_gaps(column)
  for _ = 1, column.last and column.waiting or 0 do column.data:push(column.last) end
end

-- Checks the options of series; gives them filled in.
local function series_options(options)
  options = check.options("corpus.series", options, { "gaps", "header", "columns", "fields", "join",
    "by", "time", "separator", "missing" })
  local o = { header = check_header("corpus.series", options), columns = options.columns,
    gaps = options.gaps, time = options.time, by = options.by, missing = { [""] = true } }
  if o.gaps ~= nil and o.gaps ~= "skip" and not gaps[o.gaps] then
    check.fail("corpus.series: gaps: expected \"skip\", \"hold\", \"linear\" or \"mask\", came %s",
      check.came(o.gaps))
  end
  o.separator = options.separator or ","
  if type(o.separator) ~= "string" or #o.separator ~= 1 or o.separator:find "[%w\"]" then
    check.fail("corpus.series: separator: expected a character such as \";\", came %s",
      check.came(o.separator))
  end
  for i, text in ipairs(options.missing and check.table("corpus.series", "missing", options.missing)
    or {}) do
    o.missing[check.type("corpus.series", ("missing: entry %d"):format(i), text, "string")] = true
  end
  if o.time then check.type("corpus.series", "time", o.time, "string") end
  if o.by ~= nil then check.type("corpus.series", "by", o.by, "string") end
  o.fields = options.fields and check.table("corpus.series", "fields", options.fields)
  o.join = options.join and check.table("corpus.series", "join", options.join) or {}
  for name, list in pairs(o.join) do
    check.type("corpus.series", "join: a field's name", name, "string")
    check.table("corpus.series", "join: " .. name, list)
  end
  return o
end

-- The columns' numbers by what they are: time, by, and those of values; or nil and what is wrong.
-- A name that a script gives and that is none raises.
local function series_columns(o, names)
  local index, places = {}, { values = {} }
  for i, name in ipairs(names) do index[name] = i end
  local function known(what, name)
    if not index[name] then
      local near = core.nearest(tostring(name), names)
      check.fail("corpus.series: %s: \"%s\" is not among the columns%s", what, tostring(name),
        near and ("; did you mean \"%s\"?"):format(near) or " " .. table.concat(names, ", "))
    end
    return index[name]
  end
  if o.time ~= false then
    places.time = o.time and known("time", o.time) or o.by == names[1] and 2 or 1
  end
  places.by = o.by and known("by", o.by)
  local wanted = o.fields or names
  for _, name in ipairs(wanted) do
    local i = known("fields", name)
    if i ~= places.time and i ~= places.by then
      places.values[#places.values + 1] = { name = name, at = i }
    end
  end
  if #places.values == 0 then
    return nil, ("expected a column of numbers beside %s, came %s"):format(
      places.time and "the time" or "others", table.concat(names, ", "))
  end
  local taken = {}
  for _, column in ipairs(places.values) do taken[column.name] = column end
  for name, list in pairs(o.join) do
    if #list == 0 then check.fail("corpus.series: join: %s: expected columns, came none", name) end
    if names[places.time] == name or names[places.by] == name then
      check.fail("corpus.series: join: a field cannot be called %s: a column is", name)
    end
    for _, one in ipairs(list) do
      known("join", one)
      if not taken[one] then
        check.fail("corpus.series: join: column %s is not among the fields of numbers", one)
      end
    end
  end
  return places
end

-- Columns [n] of floats side by side: f32 [n,columns].
local function side_by_side(list)
  if #list == 1 then return list[1]:tensor { #list[1], 1 } end
  local out = core.floats()
  for t = 1, #list[1] do
    for k = 1, #list do out:push(list[k][t]) end
  end
  return out:tensor { #list[1], #list }
end

--- Time series: separated values, a line for each time. The first line is a header, with the
-- columns' names, unless all in it are numbers (or the first a date, the others numbers). One
-- column is the time; each other one is a field of numbers [T,1], or several together one of
-- [T,columns].
-- @string path
-- @tab[opt] options
--
-- - `header`: true or false: there is one or not, whatever the first line looks like
-- - `columns`: a list of names, which count more than the header's; with neither they are "1", "2"
--   and so on
-- - `fields`: the columns to read, besides time and `by`; the others may hold anything
-- - `join`: name -> list of columns: one field instead of them, such as
--   `{ index = { "DAX", "SMI" } }`
-- - `time`: the column of times (the first), kept as symbols; false: there is none
-- - `by`: a column that says which series a line belongs to: one sequence for each, in the order of
--   their first lines; the field of that name has one symbol in each
-- - `gaps`: cells without a value are errors, but with "skip" the line is left out; with "hold" the
--   value before stands there; with "linear" what lies between the values around, at either end the
--   nearest; with "mask" 0, and a field "NAME known" says 1 or 0
-- - `missing`: a list of texts that are gaps too, such as `{ "NA", "?" }`
-- - `separator`: "," is the preset
-- @treturn[1] corpus
-- @return[2] nil
-- @treturn[2] string message with file:line
-- @treturn[2] string "EIO" or "EFORMAT"
function corpus.series(path, options)
  local o = series_options(options)
  local header, names, places = o.header, o.columns, nil
  if is_part(path) and header == nil then
    check.fail("corpus.series: header: expected true or false for a part of a file, came nil")
  end
  local series, order, first = {}, {}, nil
  local fill = o.gaps and gaps[o.gaps] or gaps.linear -- without gaps any will do

  local function has_numbers(cells)
    if not (tonumber(cells[1]) or cells[1]:find "^%d") then return false end
    for i = 2, #cells do
      if not (tonumber(cells[i]) or o.missing[cells[i]] and o.gaps) then return false end
    end
    return true
  end
  -- The first line: takes names from it, or makes them. Gives what is wrong with it.
  local function begin(cells)
    if #cells < 2 and o.time ~= false then
      return ("expected 2 columns or more, came 1: no %s is in the line"):format(
        o.separator == "," and "comma" or check.came(o.separator))
    end
    if header == nil then header = not has_numbers(cells) end
    if header and not names then
      names = cells
      local problem = wrong_names(names)
      if problem then return problem end
    end
    if not names then
      names = {}
      for i = 1, #cells do names[i] = tostring(i) end
    end
    local problem
    places, problem = series_columns(o, names)
    return problem
  end
  -- The series that a line belongs to.
  local function series_of(cells, number)
    local key = places.by and cells[places.by] or ""
    local one = series[key]
    if not one then
      one = { n = 0, line = number, key = key, times = {} }
      for k in ipairs(places.values) do
        one[k] = { data = core.floats(), known = core.floats(), waiting = 0 }
      end
      series[key] = one
      order[#order + 1] = one
    end
    return one
  end
  local numbers = {}
  local lines, message, code = each_line(path, function(line, number)
    if line == "" then return end
    local cells, wrong = cells_of(line, o.separator)
    if not cells then return wrong end
    if not first then
      first = cells
      local problem = begin(cells)
      if problem then return problem end
    end
    if #cells ~= #names then
      return ("expected %d columns, came %d%s"):format(#names, #cells, #cells == 1 and
        (": no %s is in the line"):format(o.separator == "," and "comma" or
          check.came(o.separator)) or "")
    end
    if header and first == cells then return end
    for k, column in ipairs(places.values) do
      local cell = cells[column.at]
      local x = tonumber(cell)
      if o.gaps and o.missing[cell] then
        if o.gaps == "skip" then return end
        x = nil
      elseif not x or x - x ~= 0 then
        return ("column %s: expected a number, came \"%s\"%s"):format(column.name, cell,
          o.missing[cell] and " (gaps = \"skip\", \"hold\", \"linear\" or \"mask\" lets it pass)"
            or "")
      end
      numbers[k] = x or false
    end
    local one = series_of(cells, number)
    for k, column in ipairs(places.values) do
      local problem = fill(one[k], numbers[k] or nil)
      if problem then return ("column %s: %s"):format(column.name, problem) end
    end
    one.n = one.n + 1
    if places.time then one.times[one.n] = cells[places.time] end
  end, header)
  if not lines then return nil, message, code end
  if #order == 0 then return bad("EFORMAT", "%s: no values in it", tostring(path)) end

  local offsets, lines_of, total = core.ints():push(0), core.ints(), 0
  local moments, groups = symbol_field(), symbol_field()
  local columns = {}
  for k, column in ipairs(places.values) do
    columns[column.name] = { data = core.floats(), known = core.floats() }
    for _, one in ipairs(order) do
      if not one[k].last then
        return bad("EFORMAT", "%s: column %s: no value%s", tostring(path), column.name,
          places.by and (" of %s %s"):format(o.by, one.key) or "")
      end
      end_gaps(one[k])
      columns[column.name].data:append(one[k].data)
      columns[column.name].known:append(one[k].known)
    end
  end
  for _, one in ipairs(order) do
    total = total + one.n
    offsets:push(total)
    lines_of:push(one.line)
    for _, time in ipairs(one.times) do moments.take(time) end
    moments.close()
    groups.add(one.key)
  end
  offsets = offsets:tensor()
  local fields, joined = {}, {}
  if places.time then fields[names[places.time]] = moments.done() end
  if places.by then fields[o.by] = groups.done() end
  local function add(name, list)
    for _, what in ipairs { "data", "known" } do
      local parts = {}
      for k, one in ipairs(list) do parts[k] = columns[one][what] end
      if what == "data" or o.gaps == "mask" then
        fields[name .. (what == "known" and " known" or "")] = { data = side_by_side(parts),
          offsets = offsets }
      end
    end
  end
  for name, list in pairs(o.join) do
    for _, one in ipairs(list) do joined[one] = true end
    add(name, list)
  end
  for _, column in ipairs(places.values) do
    if not joined[column.name] then add(column.name, { column.name }) end
  end
  return new(path, fields, places.by and lines_of:tensor() or nil)
end

-- ---- using ------------------------------------------------------------------------------------

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
  local part = is_part(self.source)
  return ("%s, sequence %d%s%s"):format(part and self.source.path or self.source, i,
    part and (" of bytes %d to %d"):format(self.source.from + 1, self.source.to) or "",
    self.lines and (" (line %d)"):format(lines_before(self.source) + self.lines[i]) or "")
end

--- How the strings of a field were cut.
-- @string name field
-- @treturn ?string "symbol", "characters" or "words"; nil where none were: they came as symbols
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

--- A sequence of symbols as text: characters side by side, all else with blanks between.
-- @string name field
-- @int i sequence, from 1
-- @treturn string
function methods:string(name, i)
  local field = find(self, "corpus:string", name, "symbols")
  return table.concat(self:get(name, i), field.split == "characters" and "" or " ")
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
  local fields = {}
  for name, field in pairs(self.fields) do
    local data, lengths = core.gather_rows(field.ids or field.data, field.offsets, order)
    fields[name] = { ids = field.ids and data, data = field.data and data,
      offsets = core.offsets(lengths), symbols = field.symbols, split = field.split }
  end
  if #order == 0 then check.fail("corpus:select: expected at least one sequence, came none") end
  return new(self.source, fields, self.lines and (core.gather_rows(self.lines, nil, order)),
    self.places and function(i) return self.places(order[i]) end)
end

-- The same corpus with one more field, or with another one of that name.
local function with(self, name, field)
  local fields = { [name] = field }
  for key, value in pairs(self.fields) do fields[key] = fields[key] or value end
  return new(self.source, fields, self.lines, self.places)
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
      offsets = core.remap(ends, core.offsets(lengths)), split = field.split }
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
      return bad("EFORMAT", "%s: expected one file in field %s, came %d", self:place(i), name,
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
  local rng = check.type("corpus:shift", "rng", options.rng, "table")
  check.rng("corpus:shift", rng)
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

--- Mean and deviation of each column of a field of numbers, over all its rows: what
-- `neap.features.standardize` takes.
-- @string name field
-- @treturn tab `{ mean = {..}, deviation = {..} }`
function methods:moments(name)
  local field = find(self, "corpus:moments", name, "numbers")
  local mean, deviation = core.moments(field.data)
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
  local rng = check.type("corpus:split", "rng", options.rng, "table")
  check.rng("corpus:split", rng)
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
        check.fail("%s: field %s of %s: symbol \"%s\" is not in the vocabulary, which has no unk",
          who, name, tostring(self.source), symbol)
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
--   corpus and the field's name, for messages
function methods:encode(name, vocab, options)
  options = check.options("corpus:encode", options, { "start", "stop", "unknown" })
  local from = { corpus = self, name = name }
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
  return { data = self:encode(name, vocab, { unknown = options.unknown }).data }
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
  local spelled, place = symbol_field("characters"), core.ints()
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
    from = { corpus = self, name = name } }
end

function meta:__len() return self.n end

function meta:__tostring()
  return ("corpus %s: %d sequence%s; %s"):format(tostring(self.source), self.n,
    self.n == 1 and "" or "s", table.concat(self:names(), ", "))
end

return corpus

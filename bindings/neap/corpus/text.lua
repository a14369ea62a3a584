--- Readers of text: cells between tabs, whole texts, CoNLL-U, lexicons of Festival.
-- @submodule neap.corpus
local check = require "neap.check"
local core = require "neap.core"
local vocab = require "neap.vocab"
local class = require "neap.corpus.class"
local files = require "neap.corpus.file"
local new, symbol_field, check_splits = class.new, class.symbols, class.check_splits
local bad, each_line, is_part, lines_before = files.bad, files.each_line, files.is_part,
  files.lines_before

local corpus = {}

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
  local header, names = files.check_header("corpus.tsv", options), options.columns
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
      local problem = files.wrong_names(names)
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
  local file, message, code = files.open(source, "rb")
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

return corpus

--- Vocabularies: symbols (words, UTF-8 characters, tags) to numbers and back.
-- Ids count from 1 in Lua; tensors, files and C hold id - 1.
--
-- Where a string stands for a sequence, the vocabulary cuts it into symbols, as its `split` says:
-- "characters", "words" (between blanks) or "symbol" (the string is one symbol). A vocabulary of a
-- corpus has the split of the field that it was counted from, so that a text goes into a model as
-- it did in training. Where nothing says it, it is "characters" if all symbols are single
-- characters, else "words". A list of symbols goes as it is.
--
-- A vocabulary of pieces, counted from what `corpus:align` made, has the split "pieces": a symbol is
-- several words with blanks between, or none. A string is cut at blanks.
--
-- A vocabulary of subwords (@{vocab.bpe}) has the split "bpe": words are cut into subwords, also
-- those of a list. Each word ends with a blank, so that subwords side by side are the text.
-- @module neap.vocab
local bpe = require "neap.bpe"
local check = require "neap.check"
local core = require "neap.core"

local vocab = {}
local methods = {}
local meta = { __name = "neap.vocab" }
meta.__index = methods

local special_names = { "unk", "start", "stop" }
local spelling = { unk = "<unk>", start = "<s>", stop = "</s>" }

-- Adds a symbol, or says why not.
local function add(self, symbol)
  if type(symbol) ~= "string" then
    return ("expected strings as symbols, came %s"):format(type(symbol))
  elseif not utf8.len(symbol) then
    return ("symbol %q is not UTF-8"):format(symbol)
  elseif self.index[symbol] then
    return ("symbol \"%s\" came twice"):format(symbol)
  end
  self.symbols[#self.symbols + 1] = symbol
  self.index[symbol] = #self.symbols
end

-- Adds the special symbols that options ask for, in a fixed order.
local function add_specials(self, who, options)
  if options.specials ~= nil then check.type(who, "specials", options.specials, "table") end
  for _, name in ipairs(special_names) do
    local symbol = options[name]
    if symbol == true then symbol = spelling[name] end
    if symbol then
      local problem = add(self, symbol)
      if problem then return problem end
      self[name] = #self.symbols
    end
  end
  for _, symbol in ipairs(options.specials or {}) do
    local problem = add(self, symbol)
    if problem then return problem end
  end
end

local function empty(lower)
  return setmetatable({ symbols = {}, index = {}, lower = lower or false }, meta)
end

-- How a text is cut into symbols.
local splits = {
  symbol = function(text, take) take(text) end,
  characters = function(text, take)
    for c in text:gmatch(utf8.charpattern) do take(c) end
  end,
  words = function(text, take)
    for w in text:gmatch("%S+") do take(w) end
  end,
}

splits.pieces = splits.words

-- Symbols of such a split as a text.
function vocab.text(split, symbols)
  local text = table.concat(symbols, split == "characters" and "" or " ")
  if split ~= "pieces" then return text end
  return (text:gsub("^ +", ""):gsub(" +$", ""):gsub("  +", " "))
end

--- The way to cut texts of that name: a function of the text and of another that takes each symbol.
-- @string who the function, for the message
-- @string name the option
-- @string split "symbol", "characters", "words" or "pieces"
-- @treturn func
function vocab.splitter(who, name, split)
  if not splits[split] then
    local near = core.nearest(tostring(split), { "symbol", "characters", "words", "pieces" })
    check.fail("%s: %s: expected \"symbol\", \"characters\", \"words\" or \"pieces\", came %s%s",
      who, name, check.came(split), near and ("; did you mean \"%s\"?"):format(near) or "")
  end
  return splits[split]
end

-- The split where nothing says it. The symbols up to `specials` are never in a text.
local function likely_split(self, specials)
  for id = specials + 1, #self.symbols do
    if id ~= self.unk and id ~= self.start and id ~= self.stop
      and utf8.len(self.symbols[id]) ~= 1 then
      return "words"
    end
  end
  return "characters"
end

--- A vocabulary of given symbols, in their order, the special ones first.
-- @tab list symbols; and by name:
--   `unk`, `start`, `stop` (true for `<unk>`, `<s>`, `</s>`, or a spelling): the symbol for all
--   unknown ones, those that begin and end a sequence; `specials`: a list of further ones;
--   `lower`: ASCII capitals are taken as small letters; `split`: how a string is cut, see above
-- @treturn vocab fields `unk`, `start`, `stop` hold their ids or nil
function vocab.new(list)
  check.type("vocab.new", "symbols", list, "table")
  check.list("vocab.new", list)
  local options = {}
  for key, value in pairs(list) do
    if math.type(key) ~= "integer" then options[key] = value end
  end
  check.options("vocab.new", options, { "unk", "start", "stop", "specials", "lower", "split" })
  if options.split ~= nil then vocab.splitter("vocab.new", "split", options.split) end
  local self = empty(options.lower)
  local problem = add_specials(self, "vocab.new", options)
  local specials = #self.symbols
  for i = 1, problem and 0 or #list do
    local symbol = list[i]
    if self.lower and type(symbol) == "string" then symbol = symbol:lower() end
    problem = problem or add(self, symbol)
  end
  if problem then check.fail("vocab.new: %s", problem) end
  self.split = options.split or likely_split(self, specials)
  return self
end

-- The symbols that come at least `min` times, most frequent first, equals in the order of their
-- bytes.
local function by_count(counts, min)
  local found = {}
  for symbol, times in pairs(counts) do
    if times >= min then found[#found + 1] = symbol end
  end
  table.sort(found, function(a, b)
    if counts[a] ~= counts[b] then return counts[a] > counts[b] end
    return bpe.before(a, b)
  end)
  return found
end

local function is_corpus(x) return type(x) == "table" and type(x.counts) == "function" end

-- The corpus comes first, then its field.
local function in_order(who, source, field)
  if is_corpus(field) then
    check.fail("%s: expected a corpus, then its field, came %s, then %s", who, check.came(source),
      check.came(field))
  end
end

-- Calls take(symbol, times) for what a corpus, a list or an iterator gives.
local function each_symbol(who, source, field, take)
  if is_corpus(source) then
    if field == nil then check.fail("%s: expected a field of the corpus, came nil", who) end
    for symbol, times in pairs(source:counts(field)) do take(symbol, times) end
  elseif type(source) == "table" then
    for _, symbol in ipairs(check.list(who, source)) do take(symbol, 1) end
  elseif type(source) == "function" then
    for symbol in source do take(symbol, 1) end
  else
    check.fail("%s: expected a corpus, a list or an iterator, came %s", who, check.came(source))
  end
end

--- A vocabulary of what is there, most frequent first, equals in the order of their bytes.
-- @param source a corpus; or a list of symbols; or an iterator function that gives symbols
-- @string[opt] field of the corpus
-- @tab[opt] options `min`: take symbols that come at least so often (1); `max_size`: at most so
--   many, the special ones included; `characters`: count the UTF-8 characters of the symbols
--   instead; `lower`, `unk`, `start`, `stop`, `specials`, `split` as in @{new}. Where min or
--   max_size may leave symbols out, `unk` is true unless it is given as false.
-- @treturn vocab
function vocab.count(source, field, options)
  in_order("vocab.count", source, field)
  if type(field) == "table" and options == nil then field, options = nil, field end
  options = check.options("vocab.count", options,
    { "min", "max_size", "characters", "lower", "unk", "start", "stop", "specials", "split" })
  local split = options.split or options.characters and "characters" or nil
  if split ~= nil then vocab.splitter("vocab.count", "split", split) end
  local min = check.integer("vocab.count", "min", options.min or 1, 1)
  local max_size = options.max_size and
    check.integer("vocab.count", "max_size", options.max_size, 1)

  local counts = {}
  local function take(symbol, times)
    if type(symbol) ~= "string" or not utf8.len(symbol) then
      check.fail("vocab.count: expected symbols in UTF-8, came %s", check.came(symbol))
    end
    if options.lower then symbol = symbol:lower() end
    if options.characters then
      for c in symbol:gmatch(utf8.charpattern) do counts[c] = (counts[c] or 0) + times end
    else
      counts[symbol] = (counts[symbol] or 0) + times
    end
  end
  each_symbol("vocab.count", source, field, take)
  if field ~= nil and type(source) == "table" and source.split_of then
    split = split or source:split_of(field)
  end

  local unk = options.unk
  if unk == nil then unk = min > 1 or max_size ~= nil end
  local self = empty(options.lower)
  local problem = add_specials(self, "vocab.count", { unk = unk, start = options.start,
    stop = options.stop, specials = options.specials })
  if problem then check.fail("vocab.count: %s", problem) end
  local specials = #self.symbols
  for symbol in pairs(counts) do
    if self.index[symbol] then
      check.fail("vocab.count: the special symbol \"%s\" comes in the data; "
        .. "give it another spelling", symbol)
    end
  end
  local found = by_count(counts, min)
  local room = max_size and math.max(max_size - #self.symbols, 0) or #found
  for i = 1, math.min(room, #found) do add(self, found[i]) end
  self.split = split or likely_split(self, specials)
  return self
end

-- What stands for each byte of a character that is no symbol.
local function byte_symbol(byte) return ("<0x%02X>"):format(byte) end

-- Makes a vocabulary one of subwords: `merges` are pairs of ids, `bytes` the id of the first byte's
-- symbol or nil.
local function set_merges(self, merges, bytes)
  self.split, self.merges, self.bytes = "bpe", merges, bytes
  self.cut_word = bpe.cutter(self.symbols, self.index, merges, function(character)
    if not bytes then return { self.unk } end
    local ids = { character:byte(1, -1) }
    for i, byte in ipairs(ids) do ids[i] = bytes + byte end
    return ids
  end)
  return self
end

--- A vocabulary of subwords, by byte pair encoding (see @{neap.bpe}). Its symbols are the special
-- ones, those of bytes, the blank that ends a word, the characters of the data, most frequent
-- first, and what was merged, in that order. Any text can be cut: a character that is no symbol
-- becomes `unk`, or the symbols of its bytes. The data is counted word by word, once, and need not
-- stay.
-- @param source a corpus, whose fields are cut at blanks; or a list of words; or an iterator
--   function
-- @param[opt] field of the corpus, or a list of fields whose words are counted together
-- @tab[opt] options `merges`: at most so many (8000, if there is no size); `size`: symbols at most;
--   `min`: merge pairs that come at least so often (2); `min_character`: characters that come less
--   often are no symbols (1); `bytes`: true: 256 symbols of bytes stand for all characters that are
--   none, and even what is not UTF-8 can be cut; else there is `unk`; `lower`, `unk`, `start`,
--   `stop`, `specials` as in @{new}
-- @treturn vocab
function vocab.bpe(source, field, options)
  in_order("vocab.bpe", source, field)
  local plain = type(field) == "table" and #field == 0 -- options, not a list of fields
  if plain and options == nil then field, options = nil, field end
  options = check.options("vocab.bpe", options, { "merges", "size", "min", "min_character", "bytes",
    "lower", "unk", "start", "stop", "specials" })
  local size = options.size and check.integer("vocab.bpe", "size", options.size, 1)
  local merges = check.integer("vocab.bpe", "merges",
    options.merges or size and math.maxinteger >> 2 or 8000, 0)
  local min = check.integer("vocab.bpe", "min", options.min or 2, 1)
  local rare = check.integer("vocab.bpe", "min_character", options.min_character or 1, 1)
  local bytes = check.boolean("vocab.bpe", "bytes", options.bytes)
  if options.unk == false and not bytes then
    check.fail("vocab.bpe: unk: without it characters that are no symbols need bytes = true")
  end

  local times, letters = {}, {}
  local function take(text, n)
    if type(text) ~= "string" or not utf8.len(text) then
      check.fail("vocab.bpe: expected words in UTF-8, came %s", check.came(text))
    end
    if options.lower then text = text:lower() end
    for word in text:gmatch "%S+" do times[word] = (times[word] or 0) + n end
  end
  local fields = type(field) == "table" and field or { field }
  for k = 1, math.max(#fields, 1) do
    local name = fields[k]
    if name ~= nil and type(source) == "table" and source.split_of
      and source:split_of(name) == "characters" then
      check.fail("vocab.bpe: field %s: expected one that is cut into words, came one of characters",
        name)
    end
    each_symbol("vocab.bpe", source, name, take)
  end

  local self = empty(options.lower)
  local problem = add_specials(self, "vocab.bpe", { start = options.start, stop = options.stop,
    unk = options.unk or options.unk == nil and not bytes, specials = options.specials })
  local first_byte = bytes and #self.symbols + 1 or nil
  for byte = 0, bytes and 255 or -1 do problem = problem or add(self, byte_symbol(byte)) end
  problem = problem or add(self, bpe.stop)
  for word, n in pairs(times) do
    for c in word:gmatch(utf8.charpattern) do letters[c] = (letters[c] or 0) + n end
  end
  for _, c in ipairs(by_count(letters, rare)) do
    if not problem and self.index[c] then
      problem = ("the special symbol \"%s\" comes in the data; give it another spelling"):format(c)
    end
    problem = problem or add(self, c)
  end
  if problem then check.fail("vocab.bpe: %s", problem) end
  if size and size < #self.symbols then
    check.fail("vocab.bpe: size: expected at least the %d special symbols%s and characters, "
      .. "came %d", #self.symbols, bytes and ", bytes" or "", size)
  end

  -- A character that is no symbol joins nothing: it parts the word, here and when it is cut later.
  local words, counts, order = {}, {}, {}
  for word in pairs(times) do order[#order + 1] = word end
  table.sort(order, bpe.before)
  for _, word in ipairs(order) do
    local part = {}
    local function close()
      if #part > 1 then words[#words + 1], counts[#counts + 1] = part, times[word] end
      part = {}
    end
    for c in word:gmatch(utf8.charpattern) do
      if self.index[c] then part[#part + 1] = self.index[c] else close() end
    end
    part[#part + 1] = self.index[bpe.stop]
    close()
  end
  local list = bpe.learn(self.symbols, words, counts, { merges = merges, size = size, min = min })
  for id, symbol in ipairs(self.symbols) do self.index[symbol] = id end
  return set_merges(self, list, first_byte)
end

-- Without a symbol that is a string, a dot may stand for a colon.
local function no_symbol(self, name, symbol)
  check.self("vocab", name, self)
  check.type("vocab:" .. name, "symbol", symbol, "string")
end

--- The id of a symbol.
-- @string symbol
-- @treturn ?int from 1; that of `unk` for an unknown one; nil if there is none
function methods:id(symbol)
  if type(symbol) ~= "string" then no_symbol(self, "id", symbol) end
  if self.lower then symbol = symbol:lower() end
  return self.index[symbol] or self.unk
end

--- Is this very symbol in the vocabulary?
-- @string symbol
-- @treturn bool
function methods:has(symbol)
  if type(symbol) ~= "string" then no_symbol(self, "has", symbol) end
  return self.index[self.lower and symbol:lower() or symbol] ~= nil
end

--- The symbol of an id. Raises if there is none.
-- @int id from 1
-- @treturn string
function methods:symbol(id)
  return self.symbols[check.integer("vocab:symbol", "id", id, 1, #self.symbols)]
end

-- Calls take(id) for the subwords of a text.
local function each_subword(self, text, take)
  if self.lower then text = text:lower() end
  for word in text:gmatch "%S+" do
    for _, id in ipairs(self.cut_word(word)) do take(id) end
  end
end

--- The ids of a sequence. An unknown symbol raises if the vocabulary has no `unk`.
-- @param sequence a list of symbols (of words where the vocabulary has subwords), or a string,
--   which is cut as the vocabulary's `split` says
-- @treturn {int,...} from 1
function methods:encode(sequence)
  local ids = {}
  local function take(symbol)
    if type(symbol) ~= "string" then
      check.fail("vocab:encode: expected symbols, which are strings, came %s", check.came(symbol))
    end
    if self.merges then
      return each_subword(self, symbol, function(id) ids[#ids + 1] = id end)
    end
    ids[#ids + 1] = self:id(symbol)
      or check.fail("vocab:encode: unknown symbol \"%s\", and no unk (a vocabulary made with "
        .. "unk = true takes all)", symbol)
  end
  if type(sequence) == "string" then
    if not self.bytes and not utf8.len(sequence) then
      check.fail("vocab:encode: the string is not UTF-8")
    end
    if self.merges then take(sequence) else splits[self.split](sequence, take) end
  elseif type(sequence) == "table" then
    for _, symbol in ipairs(check.list("vocab:encode: sequence", sequence)) do take(symbol) end
  else
    check.fail("vocab:encode: sequence: expected a string or a list of symbols, came %s",
      check.came(sequence))
  end
  return ids
end

--- The symbols of a sequence as they stand there, also unknown ones; not of subwords.
-- @param sequence a list of symbols, or a string, as for @{encode}
-- @treturn {string,...}
function methods:cut(sequence)
  if type(sequence) ~= "string" then return check.table("vocab:cut", "sequence", sequence) end
  local symbols = {}
  splits[self.split](sequence, function(symbol) symbols[#symbols + 1] = symbol end)
  return symbols
end

--- The same as an i32 tensor [n] of ids from 0, as programs take them.
-- @param sequence a list of symbols, or a string
-- @treturn tensor
function methods:tensor(sequence)
  local ids = self:encode(sequence)
  for i = 1, #ids do ids[i] = ids[i] - 1 end
  return core.tensor(ids, "i32")
end

--- The symbols of ids.
-- @param ids a list of ids from 1, or an i32 tensor [n] of ids from 0
-- @treturn {string,...}
function methods:decode(ids)
  local base = 0
  if type(ids) == "userdata" then
    ids, base = ids:totable(), 1
  end
  check.type("vocab:decode", "ids", ids, "table")
  local symbols = {}
  for i, id in ipairs(ids) do symbols[i] = self:symbol(id + base) end
  return symbols
end

--- Symbols as a text: characters and subwords side by side, all else with blanks between; pieces as
-- what they are made of.
-- @tab symbols
-- @treturn string
function methods:text(symbols)
  check.table("vocab:text", "symbols", symbols)
  if not self.merges then return vocab.text(self.split, symbols) end
  local out = {}
  for i, symbol in ipairs(symbols) do
    local id = self.bytes and self.index[symbol]
    local byte = id and id - self.bytes
    out[i] = byte and byte >= 0 and byte < 256 and string.char(byte) or symbol
  end
  return (table.concat(out):gsub(" $", ""))
end

--- Symbols as a corpus has them: subwords and pieces as the words that they make, all else as it is.
-- @tab symbols
-- @treturn {string,...}
function methods:words(symbols)
  if not self.merges and self.split ~= "pieces" then return symbols end
  local words = {}
  for word in self:text(symbols):gmatch "%S+" do words[#words + 1] = word end
  return words
end

--- A text and what goes on after it: a blank stands between words.
-- @string before
-- @string after
-- @treturn string
function methods:join(before, after)
  local apart = self.split ~= "characters" and not before:find "%s$"
  return before .. (apart and " " or "") .. after
end

--- The vocabulary as a plain table, for JSON. `merges` are the two ids, from 1, of each merge, one
-- after the other; `bytes` is the id of the symbol of byte 0.
-- @treturn tab
function methods:plain()
  return { symbols = table.move(self.symbols, 1, #self.symbols, 1, {}), unk = self.unk,
    start = self.start, stop = self.stop, lower = self.lower, split = self.split,
    merges = self.merges and table.move(self.merges, 1, #self.merges, 1, {}), bytes = self.bytes }
end

-- Takes merges and bytes from a plain table, or refuses them.
local function with_merges(self, plain, refuse)
  local merges, n = {}, #self.symbols
  if type(plain.merges) ~= "table" or #plain.merges % 2 ~= 0 then
    return refuse("merges: expected a list of pairs of ids, came %s", check.came(plain.merges))
  end
  for k, id in ipairs(plain.merges) do
    id = type(id) == "number" and math.tointeger(id)
    if not id or not self.symbols[id] then
      return refuse("merges: number %d: expected an id in 1..%d, came %s", k, n,
        check.came(plain.merges[k]))
    end
    merges[k] = id
    local text = k % 2 == 0 and self.symbols[merges[k - 1]] .. self.symbols[id]
    if text and not self.index[text] then
      return refuse("merges: pair %d makes \"%s\", which is no symbol", k // 2, text)
    end
  end
  local bytes = plain.bytes
  if bytes ~= nil then
    bytes = type(bytes) == "number" and math.tointeger(bytes)
    for byte = 0, 255 do
      if not bytes or self.symbols[bytes + byte] ~= byte_symbol(byte) then
        return refuse("bytes: expected the id of the first of 256 symbols of bytes, came %s",
          check.came(plain.bytes))
      end
    end
  elseif not self.unk then
    return refuse("unk: subwords need it where there are no bytes")
  end
  if not self.index[bpe.stop] then
    return refuse("symbols: the blank that ends a word is not among them")
  end
  return set_merges(self, merges, bytes)
end

--- A vocabulary from what @{plain} gave, perhaps by way of a file.
-- @tab plain
-- @treturn[1] vocab
-- @return[2] nil
-- @treturn[2] string what is wrong with it
-- @treturn[2] string "EFORMAT"
function vocab.from(plain)
  local function refuse(format, ...)
    return nil, "vocab: " .. format:format(...), "EFORMAT"
  end
  if type(plain) ~= "table" or type(plain.symbols) ~= "table" then
    return refuse("expected a list of symbols, came none")
  end
  local self = empty(plain.lower == true)
  for _, symbol in ipairs(plain.symbols) do
    local problem = add(self, symbol)
    if problem then return refuse("%s", problem) end
  end
  for _, name in ipairs(special_names) do
    local id = plain[name]
    if id ~= nil then
      id = type(id) == "number" and math.tointeger(id)
      if not id or not self.symbols[id] then
        return refuse("%s: expected an id in 1..%d, came %s", name, #self.symbols,
          tostring(plain[name]))
      end
      self[name] = id
    end
  end
  if plain.split == "bpe" or plain.merges ~= nil then
    return with_merges(self, plain, refuse)
  end
  if plain.split ~= nil and not splits[plain.split] then
    return refuse("split: expected symbol, characters, words, pieces or bpe, came %s",
      tostring(plain.split))
  end
  self.split = plain.split or likely_split(self, 0) -- earlier files do not say it
  return self
end

check.methods("vocab", methods, { id = true, has = true })

function meta:__len() return #self.symbols end

function meta:__tostring()
  local specials = {}
  for _, name in ipairs(special_names) do
    if self[name] then specials[#specials + 1] = name .. " " .. self.symbols[self[name]] end
  end
  return ("vocab of %d symbols%s"):format(#self.symbols,
    #specials > 0 and ": " .. table.concat(specials, ", ") or "")
end

return setmetatable(vocab, { __call = function(_, ...) return vocab.count(...) end })

--- Pretrained vectors of words from a text file, as a start for an embedding.
--
-- The file has a line for each word: the word and its numbers, with blanks between (GloVe, Pennington
-- et al. 2014); in the text format of word2vec (Mikolov et al. 2013) a first line says how many words
-- there are and how many numbers each has. Only words of the vocabulary are kept, so that the file may
-- be large; the lines of other words are passed over.
--
--     local vectors = assert(neap.vectors("glove.6B.100d.txt", words))
--     print(vectors)                      -- vectors of 100 numbers: 9310 of 10000 symbols found
--     neap.embed { size = vectors.size, init = vectors.weight, frozen = true }
-- @module neap.vectors
local check = require "neap.check"
local core = require "neap.core"
local rngs = require "neap.rng"

local meta = { __name = "neap.vectors" }

function meta:__tostring()
  return ("vectors of %d numbers: %d of %d symbols found"):format(self.size, self.found,
    self.found + #self.missing)
end

local function bad(code, format, ...) return nil, "vectors: " .. format:format(...), code end

-- The numbers of a line whose word is wanted; false if the word goes on behind a blank; or nil and
-- what is wrong.
local function numbers_of(text, width)
  local parts, list = {}, {}
  for part in text:gmatch "[^ \t]+" do parts[#parts + 1] = part end
  local more = #parts - width
  for i = math.max(more, 0) + 1, #parts do
    local x = tonumber(parts[i])
    if not x or x - x ~= 0 or parts[i]:find "[xX]" then
      return nil, ("expected %d numbers, came %s"):format(width, check.came(parts[i]))
    end
    list[#list + 1] = x + 0.0
  end
  if more > 0 and not tonumber(parts[1]) then return false end
  if more ~= 0 then return nil, ("expected %d numbers, came %d"):format(width, #parts) end
  return list
end

-- What the lines hold of the wanted words: a list of numbers by id, and their width; or nil and what
-- is wrong. exact: word -> id; near: small letters -> ids.
local function read(file, exact, near)
  local found, sure, width, promised, words, at = {}, {}, nil, nil, 0, 0
  for line in file:lines() do
    at = at + 1
    if at == 1 then line = line:gsub("^\xEF\xBB\xBF", "") end
    local n, w = line:match "^(%d+)[ \t]+(%d+)[ \t\r]*$"
    local word, rest = line:match "^([^ \t]+)[ \t]+(.-)[ \t\r]*$"
    if at == 1 and n then
      promised, width = tonumber(n), math.tointeger(tonumber(w))
      if not width or width < 1 then
        return nil, ("1: expected how many words there are and how many numbers each has, came %s")
          :format(check.came(line))
      end
    elseif word and rest ~= "" then
      words = words + 1
      width = width or select(2, rest:gsub("[^ \t]+", ""))
      local id = exact[word]
      local list, problem
      if id and not sure[id] or not id and near[word] then
        list, problem = numbers_of(rest, width)
        if list == nil then return nil, ("%d: %s"):format(at, problem) end
      end
      if list == nil then -- of a word that nobody wants at least as many numbers
        local _, n = rest:gsub("[^ \t]+", "")
        if n < width then return nil, ("%d: expected %d numbers, came %d"):format(at, width, n) end
      elseif list and id then
        found[id], sure[id] = list, true
      elseif list then
        for _, other in ipairs(near[word]) do found[other] = found[other] or list end
      end
    elseif line:find "[^ \t\r]" then
      return nil, ("%d: expected a word and %s, came %s"):format(at,
        width and width .. " numbers" or "its numbers", check.came(line))
    end
  end
  if promised and words ~= promised then
    return nil, ("%d: line 1 says that there are %d words, came %d"):format(at, promised, words)
  end
  return found, width
end

-- Of each number the mean and the deviation over what was found.
local function moments(found, width)
  local mean, deviation, n = {}, {}, 0
  for j = 1, width do mean[j], deviation[j] = 0, 0 end
  local ids = {}
  for id in pairs(found) do ids[#ids + 1] = id end
  table.sort(ids) -- sums in one order
  n = #ids
  for _, id in ipairs(ids) do
    for j, x in ipairs(found[id]) do mean[j] = mean[j] + x / n end
  end
  for _, id in ipairs(ids) do
    for j, x in ipairs(found[id]) do deviation[j] = deviation[j] + (x - mean[j]) ^ 2 / n end
  end
  for j = 1, width do deviation[j] = deviation[j] ^ 0.5 end
  return mean, deviation
end

--- Reads the vectors of a vocabulary's symbols.
-- @function vectors
-- @string path
-- @param vocab the file's words have to be spelt as its symbols
-- @tab[opt] options `missing`: what symbols get that the file does not have: "normal": drawn with the
--   mean and the deviation that each number has over those found; "mean": that mean; "zeros".
--   `lower`: a symbol that is not there itself gets the vector of its small letters (ASCII; false).
--   `rng`: where chance comes from (neap.rng(1))
-- @treturn[1] tab `{ weight = [symbols, size], size, found, missing }`: how many were found, and a
--   list of the symbols that were not
-- @return[2] nil
-- @treturn[2] string what is wrong, with file and line
-- @treturn[2] string "EIO" or "EFORMAT"
return function(path, vocab, options)
  check.type("vectors", "path", path, "string")
  if type(vocab) ~= "table" or type(vocab.symbols) ~= "table" or #vocab.symbols == 0 then
    check.fail("vectors: vocab: expected a vocabulary, came %s", check.came(vocab))
  end
  options = check.options("vectors", options, { "missing", "lower", "rng" })
  local fill = options.missing == nil and "normal" or options.missing
  if fill ~= "normal" and fill ~= "mean" and fill ~= "zeros" then
    check.fail("vectors: missing: expected \"normal\", \"mean\" or \"zeros\", came %s",
      check.came(fill))
  end
  local lower = check.boolean("vectors", "lower", options.lower)
  local rng = check.rng("vectors", options.rng) or rngs.new(1)

  local exact, near = {}, {}
  for id, symbol in ipairs(vocab.symbols) do
    exact[symbol] = id
    if lower then
      local small = symbol:lower()
      near[small] = near[small] or {}
      table.insert(near[small], id)
    end
  end
  local file <close>, message = io.open(path, "rb")
  if not file then return bad("EIO", "cannot open %s", message) end
  local _, why = file:read(0)
  if why then return bad("EIO", "cannot read %s: %s", path, why) end
  local found, width = read(file, exact, near)
  if not found then return bad("EFORMAT", "%s:%s", path, width) end
  if next(found) == nil then
    return bad("EFORMAT", "%s: expected words of the vocabulary, came none of its %d symbols", path,
      #vocab.symbols)
  end

  local mean, deviation = moments(found, width)
  local rows, missing = {}, {}
  for id, symbol in ipairs(vocab.symbols) do
    local row = found[id]
    if not row then
      missing[#missing + 1], row = symbol, {}
      for j = 1, width do
        row[j] = fill == "zeros" and 0 or fill == "mean" and mean[j]
          or mean[j] + deviation[j] * rng:normal()
      end
    end
    rows[id] = row
  end
  return setmetatable({ weight = core.tensor(rows), size = width, missing = missing,
    found = #vocab.symbols - #missing }, meta)
end

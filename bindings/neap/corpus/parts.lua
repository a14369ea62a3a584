--- A file in parts.
-- @submodule neap.corpus
local check = require "neap.check"
local class = require "neap.corpus.class"
local file = require "neap.corpus.file"
local bad, part_meta = file.bad, file.part_meta

local corpus = {}

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
  if getmetatable(c) ~= class.meta then
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

return corpus

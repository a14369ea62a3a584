--- How good predictions are.
-- @module neap.metrics
local check = require "neap.check"

local metrics = {}

local scores_meta = { __name = "neap.scores" }

-- Its numbers and texts by name, those of tables in it in brackets.
function scores_meta:__tostring()
  local names, parts = {}, {}
  for name in pairs(self) do
    if type(name) == "string" then names[#names + 1] = name end
  end
  table.sort(names)
  for _, name in ipairs(names) do
    local value, text = self[name], nil
    local meta = type(value) == "table" and getmetatable(value) or scores_meta
    if math.type(value) == "float" then
      text = metrics.number(value)
    elseif type(value) ~= "table" then
      text = tostring(value)
    elseif meta == scores_meta then
      text = scores_meta.__tostring(value)
      text = text ~= "" and "(" .. text .. ")"
    end
    if text then parts[#parts + 1] = name .. " " .. text end
  end
  return table.concat(parts, "  ")
end

--- A table of scores that prints as a line of its numbers.
-- @tab scores
-- @treturn tab the same
function metrics.scores(scores) return setmetatable(scores, scores_meta) end

--- A number as people read it: four significant digits.
-- @number x
-- @treturn string
function metrics.number(x) return x == x and ("%#.4g"):format(x) or "nan" end

--- The fewest insertions, deletions and substitutions that make one list into the other
-- (Levenshtein 1966).
-- @tab a
-- @tab b
-- @treturn int
function metrics.edit_distance(a, b)
  check.type("edit_distance", "a", a, "table")
  check.type("edit_distance", "b", b, "table")
  local row = {}
  for j = 0, #b do row[j] = j end
  for i = 1, #a do
    local diagonal = row[0]
    row[0] = i
    for j = 1, #b do
      local best = diagonal + (a[i] == b[j] and 0 or 1)
      diagonal = row[j]
      if row[j] + 1 < best then best = row[j] + 1 end
      if row[j - 1] + 1 < best then best = row[j - 1] + 1 end
      row[j] = best
    end
  end
  return row[#b]
end

local function same_count(who, hypotheses, references)
  check.type(who, "hypotheses", hypotheses, "table")
  check.type(who, "references", references, "table")
  if #hypotheses ~= #references then
    check.fail("%s: %d hypotheses for %d entries of references", who, #hypotheses, #references)
  end
end

-- The same, and each hypothesis is a list, each entry of references a list of lists.
local function lists(who, hypotheses, references)
  same_count(who, hypotheses, references)
  for i, hypothesis in ipairs(hypotheses) do
    check.type(who, ("hypothesis %d"):format(i), hypothesis, "table")
    check.type(who, ("references: entry %d"):format(i), references[i], "table")
    for k, reference in ipairs(references[i]) do
      if type(reference) ~= "table" then
        check.fail("%s: references: entry %d is a list of references, each a list: number %d is %s",
          who, i, k, check.came(reference))
      end
    end
  end
end

local function equal(a, b)
  if #a ~= #b then return false end
  for i = 1, #a do
    if a[i] ~= b[i] then return false end
  end
  return true
end

--- The share of sequences that equal none of their references: the word error rate of spelling to
-- phonemes.
-- @tab hypotheses a list of lists
-- @tab references for each hypothesis the list of its references, each a list
-- @treturn number 0 to 1; 0 for no sequences
function metrics.sequence_error_rate(hypotheses, references)
  lists("sequence_error_rate", hypotheses, references)
  local wrong = 0
  for i, hypothesis in ipairs(hypotheses) do
    local right = false
    for _, reference in ipairs(references[i]) do right = right or equal(hypothesis, reference) end
    if not right then wrong = wrong + 1 end
  end
  return #hypotheses == 0 and 0 or wrong / #hypotheses
end

--- Edit distance to the closest reference over its length, both summed: the phoneme error rate of
-- spelling to phonemes, the word error rate of speech.
-- @tab hypotheses a list of lists
-- @tab references for each hypothesis the list of its references, each a list
-- @treturn number 0 for no sequences; may pass 1
function metrics.symbol_error_rate(hypotheses, references)
  lists("symbol_error_rate", hypotheses, references)
  local edits, symbols = 0, 0
  for i, hypothesis in ipairs(hypotheses) do
    local best, length
    for _, reference in ipairs(references[i]) do
      local distance = metrics.edit_distance(hypothesis, reference)
      if not best or distance < best then best, length = distance, #reference end
    end
    if not best then check.fail("symbol_error_rate: entry %d has no reference", i) end
    edits, symbols = edits + best, symbols + length
  end
  return symbols == 0 and (edits > 0 and math.huge or 0) or edits / symbols
end

--- The share of equal entries.
-- @tab predicted a list
-- @tab wanted a list of the same length
-- @treturn number 0 to 1; 0 for no entries
function metrics.accuracy(predicted, wanted)
  same_count("accuracy", predicted, wanted)
  local right = 0
  for i, value in ipairs(predicted) do
    if value == wanted[i] then right = right + 1 end
  end
  return #predicted == 0 and 0 or right / #predicted
end

local confusion = {}
local meta = { __index = confusion, __name = "neap.confusion" }

--- A table of what was wanted against what was predicted.
-- @param classes a vocabulary, or a list of names, or a number of classes
-- @treturn confusion
function metrics.confusion(classes)
  local names = {}
  if type(classes) == "number" then
    for i = 1, check.integer("confusion", "classes", classes, 1) do names[i] = tostring(i) end
  else
    check.type("confusion", "classes", classes, "table")
    table.move(classes.symbols or classes, 1, #classes, 1, names)
  end
  local self = { names = names, total = 0 }
  for i = 1, #names do
    self[i] = {}
    for j = 1, #names do self[i][j] = 0 end
  end
  return setmetatable(self, meta)
end

--- Counts one prediction, or two lists of them.
-- @param wanted a class from 1, or a list
-- @param predicted a class from 1, or a list of the same length
-- @treturn confusion itself
function confusion:add(wanted, predicted)
  if type(wanted) == "table" then
    same_count("confusion:add", predicted, wanted)
    for i = 1, #wanted do self:add(wanted[i], predicted[i]) end
    return self
  end
  check.integer("confusion:add", "wanted", wanted, 1, #self.names)
  check.integer("confusion:add", "predicted", predicted, 1, #self.names)
  self[wanted][predicted] = self[wanted][predicted] + 1
  self.total = self.total + 1
  return self
end

--- The share of right predictions.
-- @treturn number 0 to 1; 0 for none
function confusion:accuracy()
  local right = 0
  for i = 1, #self.names do right = right + self[i][i] end
  return self.total == 0 and 0 or right / self.total
end

--- F1 of a class: 2 right / (wanted + predicted).
-- @int class from 1
-- @treturn ?number nil if it was neither wanted nor predicted
function confusion:f1(class)
  local wanted, predicted = 0, 0
  for i = 1, #self.names do
    wanted, predicted = wanted + self[class][i], predicted + self[i][class]
  end
  return wanted + predicted > 0 and 2 * self[class][class] / (wanted + predicted) or nil
end

--- The plain mean of F1 over the classes that were wanted or predicted.
-- @treturn number 0 to 1
function confusion:macro_f1()
  local sum, n = 0, 0
  for i = 1, #self.names do
    local f1 = self:f1(i)
    if f1 then sum, n = sum + f1, n + 1 end
  end
  return n == 0 and 0 or sum / n
end

local WIDTH = 100 -- columns of a line

local function long(text) return utf8.len(text) or #text end

-- Rows are what was wanted, columns what was predicted. Where the names are too long to stand over
-- the columns, both have numbers.
function meta:__tostring()
  local rows, heads, head, width, cell = {}, {}, 0, 0, #tostring(self.total)
  for j, name in ipairs(self.names) do
    rows[j], heads[j] = name, name
    head, width = math.max(head, long(name)), width + 1 + math.max(long(name), cell)
  end
  if head + width > WIDTH then
    local digits = #tostring(#heads)
    for j, name in ipairs(self.names) do
      rows[j], heads[j] = ("%s %" .. digits .. "d"):format(name, j), tostring(j)
    end
    head = head + 1 + digits
  end
  local lines = { "rows: wanted, columns: predicted" }
  local function add(title, value)
    local line = { (" "):rep(head - long(title)) .. title }
    for j, name in ipairs(heads) do
      local text = value(j)
      line[j + 1] = (" "):rep(math.max(long(name), cell) - long(text)) .. text
    end
    lines[#lines + 1] = table.concat(line, " ")
  end
  add("", function(j) return heads[j] end)
  for i, title in ipairs(rows) do
    add(title, function(j) return self[i][j] == 0 and "." or tostring(self[i][j]) end)
  end
  return table.concat(lines, "\n")
end

return metrics

--- Values as readable text: what the prompt prints, and what print makes of a tensor.
-- @module neap.show
local check = require "neap.check"

local WIDTH = 78               -- columns of a line
local ROWS, BLOCKS = 14, 6     -- of a tensor, before the middle is left out
local ENTRIES, DEPTH = 24, 3   -- of a table

-- ---- tensors ----

-- Which of 1..n are shown where `most` fit: their numbers, false where the middle is left out.
local function shown(n, most)
  local list = {}
  if n <= most then
    for i = 1, n do list[i] = i end
    return list
  end
  local half = math.max(most // 2, 1)
  for i = 1, half do list[i] = i end
  list[half + 1] = false
  for i = half, 1, -1 do list[#list + 1] = n - i + 1 end
  return list
end

-- How to write numbers so that they can be compared by eye.
local function format_of(numbers)
  local whole, least, most = true, math.huge, 0
  for _, x in ipairs(numbers) do
    local size = math.abs(x)
    if size == size and size < math.huge then
      whole = whole and size == math.floor(size)
      if size > 0 then least = math.min(least, size) end
      most = math.max(most, size)
    end
  end
  if whole and most < 1e7 then return "%.0f" end
  if most >= 1e5 or (most < 1e-2 and least < math.huge) then return "%.4e" end
  return "%.4f"
end

local function number(format, x)
  if x ~= x then return "nan" end
  if x == 0 then x = 0.0 end -- no sign
  return (format:format(x))
end

-- Calls visit(index, i, j, last) for each element that is shown, row by row: i or j is false where
-- the middle is left out. index: the positions before the last two, changed between blocks.
local function each(shape, columns, visit)
  local rank = #shape
  local column_list = shown(shape[rank], columns)
  local function rows(index)
    local n = rank > 1 and shape[rank - 1] or 1
    for _, i in ipairs(shown(n, rank > 2 and ROWS // 2 or ROWS)) do
      for k, j in ipairs(i and column_list or { false }) do visit(index, i, j, k == 1) end
    end
  end
  local function blocks(index)
    local axis = #index + 1
    if axis > rank - 2 then return rows(index) end
    for _, i in ipairs(shown(shape[axis], BLOCKS)) do
      if i then
        index[axis] = i
        blocks(index)
        index[axis] = nil
      else
        visit(nil, false, false, true)
      end
    end
  end
  blocks {}
end

local function tensor(t)
  local shape, head = t:shape(), check.came(t)
  if t:size() == 0 then return head end
  if #shape == 0 then return head .. "  " .. number(format_of { t:item() }, t:item()) end
  local function at(index, i, j)
    if #shape == 1 then return t:get(j) end
    local position = table.move(index, 1, #index, 1, {})
    return t:get(table.unpack(table.move({ i, j }, 1, 2, #position + 1, position)))
  end
  -- first with the narrowest columns, to see how wide they must be
  local numbers, wide = {}, 1
  each(shape, (WIDTH - 4) // 3, function(index, i, j)
    if i and j then numbers[#numbers + 1] = at(index, i, j) end
  end)
  local format = format_of(numbers)
  for _, x in ipairs(numbers) do wide = math.max(wide, #number(format, x)) end
  local lines, title = { head }, ""
  each(shape, (WIDTH - 4) // (wide + 2), function(index, i, j, first)
    local name = index and #index > 0 and "[" .. table.concat(index, "][") .. "]" or ""
    if index and name ~= title then lines[#lines + 1], title = name, name end
    local text = not index and ".." or not i and (" "):rep(wide) .. ".." or not j and " .."
      or ("%" .. wide + 2 .. "s"):format(number(format, at(index, i, j)))
    if first then lines[#lines + 1] = text else lines[#lines] = lines[#lines] .. text end
  end)
  return table.concat(lines, "\n")
end

-- ---- what C holds ----

local function params(p)
  local lines = {}
  for _, name in ipairs(p:names()) do
    lines[#lines + 1] = ("  %-40s [%s]%s"):format(name, table.concat(p:shape(name), ","),
      p:frozen(name) and "  frozen" or "")
  end
  table.insert(lines, 1, ("%d parameters in %d tensors"):format(p:size(), #lines))
  return table.concat(lines, "\n")
end

local function state(s)
  local lines = { ("state of %d row%s"):format(s:rows(), s:rows() == 1 and "" or "s") }
  for _, slot in ipairs(s:slots()) do
    lines[#lines + 1] = ("  %-40s %s"):format(slot, check.came(s:get(slot)))
  end
  return table.concat(lines, "\n")
end

local held = { ["neap.tensor"] = tensor, ["neap.params"] = params, ["neap.state"] = state }

local function userdata(value)
  local meta = getmetatable(value)
  local open = held[meta and meta.__name]
  -- closed: its methods would raise
  local ok, text = pcall(open or tostring, value)
  return ok and text or check.came(value)
end

-- ---- tables and strings ----

local escapes = { ["\n"] = "\\n", ["\t"] = "\\t", ["\r"] = "\\r", ["\\"] = "\\\\", ["\""] = "\\\"" }

local function escape(text)
  return (text:gsub("[%c\\\"]", function(c)
    return escapes[c] or ("\\%03d"):format(c:byte())
  end))
end

local function quoted(text)
  if utf8.len(text) then return "\"" .. escape(text) .. "\"" end
  local parts, at = {}, 1
  while at <= #text do
    local _, bad = utf8.len(text, at)
    parts[#parts + 1] = escape(text:sub(at, (bad or #text + 1) - 1))
    if bad then parts[#parts + 1] = ("\\x%02X"):format(text:byte(bad)) end
    at = (bad or #text) + 1
  end
  return "\"" .. table.concat(parts) .. "\""
end

local function first(a, b) -- of two keys: numbers, then strings, then what is left
  local rank = { number = 1, string = 2 }
  local x, y = rank[type(a)] or 3, rank[type(b)] or 3
  if x ~= y then return x < y end
  if x == 3 then return tostring(a) < tostring(b) end
  return a < b
end

local function is_plain(value)
  local meta = type(value) == "table" and getmetatable(value)
  return type(value) == "table" and not (type(meta) == "table" and (meta.__tostring or meta.__name))
end

local plain_table

-- A value inside of a table.
local function inner(value, depth, above)
  if is_plain(value) then
    if above[value] then return "(a table that holds this one)" end
    if next(value) == nil then return "{}" end
    if depth >= DEPTH then return "{ .. }" end
    return plain_table(value, depth + 1, above)
  elseif type(value) == "string" then
    if #value > 60 then value = value:sub(1, (utf8.offset(value, 0, 57) or 57) - 1) .. ".." end
    return quoted(value)
  end
  return type(value) == "function" and "function" or check.came(value)
end

function plain_table(t, depth, above)
  above[t] = true
  local n, keys = rawlen(t), {}
  local parts, named, hidden = {}, false, 0
  for key in next, t do
    if not (math.type(key) == "integer" and key >= 1 and key <= n) then keys[#keys + 1] = key end
  end
  table.sort(keys, first)
  for i = 1, math.min(n, ENTRIES) do parts[i] = inner(rawget(t, i), depth, above) end
  if n > ENTRIES then parts[#parts + 1] = (".. %d more"):format(n - ENTRIES) end
  for k, key in ipairs(keys) do
    if k > ENTRIES then hidden = hidden + 1 goto continue end
    named = true
    local name = type(key) == "string" and key:find "^[%a_][%w_]*$" and key
      or "[" .. inner(key, DEPTH, above) .. "]"
    parts[#parts + 1] = name .. " = " .. inner(rawget(t, key), depth, above)
    ::continue::
  end
  if hidden > 0 then parts[#parts + 1] = (".. %d more"):format(hidden) end
  above[t] = nil
  if #parts == 0 then return "{}" end

  local line = "{ " .. table.concat(parts, ", ") .. " }"
  if #line + 2 * depth <= WIDTH and not line:find "\n" then return line end
  local lines = {}
  for i, part in ipairs(parts) do
    local text = part:gsub("\n", "\n  ") .. (i < #parts and "," or "")
    local last = lines[#lines]
    -- a list of short values fills its lines
    if last and not named and not text:find "\n" and #last + #text + 2 * depth < WIDTH then
      lines[#lines] = last .. " " .. text
    else
      lines[#lines + 1] = "  " .. text
    end
  end
  return "{\n" .. table.concat(lines, "\n") .. "\n}"
end

-- ---- modules ----

-- Names below each other in columns, as many as fit.
local function columns(names)
  local width, lines = 0, {}
  for _, name in ipairs(names) do width = math.max(width, #name + 2) end
  local across = math.max((WIDTH - 2) // width, 1)
  local down = (#names + across - 1) // across
  for row = 1, down do
    local line = {}
    for i = row, #names, down do line[#line + 1] = names[i] .. (" "):rep(width - #names[i]) end
    lines[row] = "  " .. table.concat(line):gsub(" +$", "")
  end
  return table.concat(lines, "\n")
end

-- All names of a table of functions, in columns by kind; nil if it is another table. Its
-- metatable's `names`, a list of tables, tells what is loaded when first asked for.
local function module(t)
  local meta, kind, functions, all = getmetatable(t), {}, 0, 0
  for key, value in next, t do
    if type(key) ~= "string" or not key:find "^[%a_][%w_]*$" then return nil end
    all = all + 1
    if type(value) == "function" then functions = functions + 1 end
    kind[key] = type(value) == "table" and "modules" or type(value) == "function" and "functions"
      or "values"
  end
  if functions < 8 or functions * 2 < all then return nil end
  local later = type(meta) == "table" and type(meta.names) == "table" and meta.names or {}
  for _, names in ipairs(later) do
    for name in pairs(names) do kind[name] = "modules" end
  end
  local parts = {}
  for _, group in ipairs { "functions", "modules", "values" } do
    local names = {}
    for name, of in pairs(kind) do
      if of == group then
        names[#names + 1] = group == "values" and name .. " = " .. inner(t[name], DEPTH, {}) or name
      end
    end
    table.sort(names)
    if #names > 0 then parts[#parts + 1] = group .. "\n" .. columns(names) end
  end
  return table.concat(parts, "\n")
end

--- A value as text for people: tensors with their numbers (of large ones the ends), models, layers,
-- programs as they describe themselves, strings in quotes, tables with what they hold, tables of
-- functions by their names.
-- @param value
-- @treturn string perhaps of several lines
return function(value)
  if type(value) == "string" then return quoted(value) end
  if type(value) == "userdata" then return userdata(value) end
  if is_plain(value) then return module(value) or plain_table(value, 0, {}) end
  return tostring(value)
end

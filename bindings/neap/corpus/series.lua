--- Columns of numbers, as of spreadsheets.
-- @submodule neap.corpus
local check = require "neap.check"
local core = require "neap.core"
local class = require "neap.corpus.class"
local files = require "neap.corpus.file"
local new, symbol_field = class.new, class.symbols
local bad, each_line, is_part = files.bad, files.each_line, files.is_part

local corpus = {}

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
  local o = { header = files.check_header("corpus.series", options), columns = options.columns,
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
      local problem = files.wrong_names(names)
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
      elseif not x or not (math.abs(x) <= 3.4028235e38) then -- what a float holds
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
        local mask = o.gaps == "mask" and name .. " known" or nil
        fields[what == "data" and name or mask] = { data = side_by_side(parts), offsets = offsets,
          known = what == "data" and mask or nil }
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

return corpus

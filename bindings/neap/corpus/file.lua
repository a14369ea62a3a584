-- Files, and parts of files: opened, read line by line, and what is wrong with them.
local check = require "neap.check"

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

return { bad = bad, part_meta = part_meta, is_part = is_part, open = open,
  lines_before = lines_before, each_line = each_line, wrong_names = wrong_names,
  check_header = check_header }

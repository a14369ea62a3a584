-- docs/notes.md: it has all rows of the study notes, and what it names for a row is there and names
-- that row itself; and no spec or script names a row that docs/notes.md does not name it for.

local document = "docs/notes.md"

local function content(path)
  local file <close> = assert(io.open(path))
  return file:read "a"
end

local function lines_of(command)
  local list = {}
  local pipe <close> = assert(io.popen(command))
  for line in pipe:lines() do list[#list + 1] = line end
  return list
end

-- Numbers as they are written: "4, 10 and 13 to 15".
local function numbers(text, into)
  text = text:gsub("(%d+) to (%d+)", function(from, to)
    for n = from, to do into[math.tointeger(n)] = true end
    return ""
  end)
  for n in text:gmatch "%d+" do into[math.tointeger(tonumber(n))] = true end
  return into
end

-- The rows that the titles of a spec begin with, or that a script's first comment names.
local function rows_of(path)
  local rows = {}
  if path:find "_spec%.lua$" then
    for text in content(path):gmatch '"rows? (%d[%d,%a ]-): ' do numbers(text, rows) end
  else
    local header = {}
    for line in content(path):gmatch "([^\n]*)\n" do
      if not line:find "^%-%-" then break end
      header[#header + 1] = line:gsub("^%-+ ?", "")
    end
    local text = table.concat(header, " "):match "Rows? (%d[%d,%a ]-) of docs/notes%.md"
    if text then numbers(text, rows) end
  end
  return rows
end

-- The rows of the table: number -> { slip =, shown =, commands }.
local function rows()
  local list = {}
  for line in content(document):gmatch "[^\n]+" do
    local n, slip, shown, commands = line:match "^| (%d+) ?([*!]*) | [%d, ]+ | (.-) | (.-) |$"
    if n then
      local row = { slip = slip ~= "", shown = shown, commands = {} }
      for command in commands:gmatch "`([^`]+)`" do row.commands[#row.commands + 1] = command end
      assert.is_nil(list[math.tointeger(n)], "row " .. n .. " is there twice")
      list[math.tointeger(n)] = row
    end
  end
  return list
end

-- The file that a command is about; nil if it is about none.
local function file_of(command)
  local name = command:match "^scripts/tools/test ([%w_]+_spec)$"
  if name then return "spec/lua/" .. name .. ".lua" end
  return command:match "^scripts/neap run (scripts/examples/[%w_]+%.lua)"
end

describe("docs/notes.md", function()
  it("knows numbers as they are written", function()
    local function list(text)
      local out = {}
      for n in pairs(numbers(text, {})) do out[#out + 1] = n end
      table.sort(out)
      return table.concat(out, " ")
    end
    assert.equal("7", list "7")
    assert.equal("4 10 13 14 15", list "4, 10 and 13 to 15")
  end)

  it("has all 64 rows, each with what is shown and a command", function()
    local all, n = rows(), 0
    for _ in pairs(all) do n = n + 1 end
    assert.equal(64, n)
    for k = 1, 64 do
      assert(all[k] and #all[k].shown > 10 and #all[k].commands > 0, "row " .. k)
    end
  end)

  it("names files that are there and name the row", function()
    for k, row in ipairs(rows()) do
      local named = 0
      for _, command in ipairs(row.commands) do
        local path = file_of(command)
        if path then
          named = named + 1
          assert(io.open(path), ("row %d: no %s"):format(k, path)):close()
          assert.is_true(rows_of(path)[k], ("%s does not name row %d"):format(path, k))
        end
      end
      assert(named > 0, ("row %d: neither a script nor a spec"):format(k))
    end
  end)

  it("has each spec and script that names a row", function()
    local listed = {}
    for k, row in ipairs(rows()) do
      for _, command in ipairs(row.commands) do
        listed[k .. " " .. (file_of(command) or "")] = true
      end
    end
    local files = lines_of "ls spec/lua/*_spec.lua scripts/examples/*.lua"
    assert(#files > 50)
    for _, path in ipairs(files) do
      for k in pairs(rows_of(path)) do
        assert.is_true(listed[k .. " " .. path], ("%s names row %d, %s not"):format(path, k, document))
      end
    end
  end)

  it("gives commands that exist, with options that they have", function()
    local seen, help = {}, table.concat(lines_of "scripts/neap --help", "\n")
    for k, row in ipairs(rows()) do
      for _, command in ipairs(row.commands) do
        local path = file_of(command)
        if not path then
          local name = command:match "^scripts/neap (%l+)$"
          assert(name and help:find("\n   " .. name .. " ", 1, true), ("row %d: %s"):format(k, command))
        elseif command:find "%.lua " and not seen[command] then
          seen[command] = true
          local text = table.concat(lines_of("scripts/neap run " .. path .. " --help"), "\n")
          for option in command:gmatch " (%-%-%l+)" do
            assert(text:find(option, 1, true), ("row %d: %s has no %s"):format(k, path, option))
          end
        end
      end
    end
  end)

  it("links to what is there", function()
    local n = 0
    for target, anchor in content(document):gmatch "%]%(([^)#]*)#?([^)]*)%)" do
      local text = content(target == "" and document or "docs/" .. target)
      local found = anchor == ""
      for title in text:gmatch "\n#+ ([^\n]+)" do
        found = found or title:lower():gsub("[^%w ]", ""):gsub(" ", "-") == anchor
      end
      assert.is_true(found, target .. "#" .. anchor)
      n = n + 1
    end
    assert(n > 3)
  end)

  it("says what is right where the notes slip", function()
    local marked, told = {}, {}
    for k, row in ipairs(rows()) do if row.slip then marked[#marked + 1] = k end end
    for n, text in content(document):gmatch "\n%- %*%*(%d+)%*%* ([^\n]+)" do
      told[#told + 1] = math.tointeger(n)
      assert(#text > 40)
    end
    assert.same({ 6, 14, 18, 26, 35, 36, 37, 41, 49, 52, 56 }, marked)
    assert.same(marked, told)
  end)
end)

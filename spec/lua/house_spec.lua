-- The rules of the house: who may include whom, what is exported, what the library never calls.

local build = os.getenv "NEAP_BUILD" or "build"

local function lines_of(command)
  local list = {}
  local pipe <close> = assert(io.popen(command))
  for text in pipe:lines() do list[#list + 1] = text end
  return list
end

local function content(path)
  local file <close> = assert(io.open(path, "rb"))
  return file:read "a"
end

local function c_files(directory)
  return lines_of("find " .. directory .. " -name '*.[ch]' | sort")
end

--- The text with comments and the contents of strings blanked; line ends stay.
local function code_only(text)
  local function blank(s) return (s:gsub("[^\n]", " ")) end
  local out, at = {}, 1
  while at <= #text do
    local from = text:find("[\"'/]", at)
    if not from then break end
    out[#out + 1] = text:sub(at, from - 1)
    local two, to = text:sub(from, from + 1), nil
    if two == "/*" then
      _, to = text:find("*/", from + 2, true)
    elseif two == "//" then
      to = (text:find("\n", from, true) or #text + 1) - 1
    elseif two:sub(1, 1) ~= "/" then
      to = from + 1
      while to <= #text and text:sub(to, to) ~= two:sub(1, 1) do
        to = to + (text:sub(to, to) == "\\" and 2 or 1)
      end
    else
      to = from
    end
    to = to or #text
    local piece = text:sub(from, to)
    out[#out + 1] = (two:sub(1, 1) == "/" and #piece == 1) and piece or blank(piece)
    at = to + 1
  end
  out[#out + 1] = text:sub(at)
  return table.concat(out)
end

--- Calls f(line number, included name, true for <...>) for each #include.
local function each_include(text, f)
  local number = 0
  for row in (text .. "\n"):gmatch "(.-)\n" do
    number = number + 1
    local open, name = row:match '^%s*#%s*include%s*([<"])([^>"]+)'
    if name then f(number, name, open == "<") end
  end
end

--- The path that `name`, included in the file `path`, means: "a/b.c", "../d.h" -> "d.h".
local function resolve(path, name)
  local parts = {}
  for part in (path:match "^(.*)/[^/]*$" .. "/" .. name):gmatch "[^/]+" do
    if part == ".." then parts[#parts] = nil elseif part ~= "." then parts[#parts + 1] = part end
  end
  return table.concat(parts, "/")
end

local floors = {
  base = 0, kernel = 1, tensor = 2, op = 3, graph = 4, model = 5, train = 6, file = 6, api = 7,
}

--- What is wrong with the includes of a file under runtime/.
local function wrong_includes(path, text)
  local wrong = {}
  local function say(number, what) wrong[#wrong + 1] = ("%s:%d: %s"):format(path, number, what) end
  local floor = floors[path:match "^runtime/(%w+)/"]
  each_include(text, function(number, name, system)
    if name:find "^lua" or name:find "^lauxlib" then say(number, "includes " .. name) end
    if name == "cblas.h" and path ~= "runtime/kernel/gemm.c" then say(number, "includes cblas.h") end
    if system then return end
    local target = resolve(path, name)
    if target == "runtime/neap.h" then return end
    local above = floors[target:match "^runtime/(%w+)/"]
    if not above then
      say(number, name .. " is on no floor")
    elseif not floor or above > floor then
      say(number, "includes upward: " .. target)
    end
  end)
  return wrong
end

--- What is wrong with the includes of a file under bindings/core/.
local function wrong_core_includes(path, text)
  local wrong = {}
  each_include(text, function(number, name, system)
    local target = name == "neap.h" and "runtime/neap.h" or resolve(path, name)
    if not system and target ~= "runtime/neap.h" and not target:find "^bindings/core/[^/]+$" then
      wrong[#wrong + 1] = ("%s:%d: includes %s"):format(path, number, name)
    end
  end)
  return wrong
end

local never = {
  "abort", "exit", "_exit", "quick_exit", "assert", "longjmp", "siglongjmp", "printf", "vprintf",
  "puts", "putchar", "perror",
}

--- Calls that a library in somebody's process must not make.
local function wrong_calls(path, text)
  local wrong, number = {}, 0
  for row in (code_only(text) .. "\n"):gmatch "(.-)\n" do
    number = number + 1
    for _, name in ipairs(never) do
      if row:find("%f[%w_]" .. name .. "%s*%(") then
        wrong[#wrong + 1] = ("%s:%d: calls %s"):format(path, number, name)
      end
    end
  end
  return wrong
end

local function all_wrong(directory, check)
  local wrong, files = {}, c_files(directory)
  assert(#files > 0, "no files in " .. directory)
  for _, path in ipairs(files) do
    for _, what in ipairs(check(path, content(path))) do wrong[#wrong + 1] = what end
  end
  return wrong
end

--- The names that an object file or library defines for others, as a set.
local function defined(files, options)
  local names = {}
  for _, row in ipairs(lines_of("nm " .. options .. " --defined-only " .. files)) do
    local name = row:match "^%x+ [TDBRVWi] ([%w_]+)"
    if name and not name:find "^__" then names[name] = true end -- __: a sanitizer's
  end
  return names
end

local function sorted(set)
  local list = {}
  for name in pairs(set) do list[#list + 1] = name end
  table.sort(list)
  return list
end

describe("the house", function()
  it("recognizes what is wrong", function()
    local text = '#include <lua.h>\n#include "../op/op.h"\n#include "../neap.h"\n#include <cblas.h>\n'
    assert.same({
      "runtime/base/x.c:1: includes lua.h",
      "runtime/base/x.c:2: includes upward: runtime/op/op.h",
      "runtime/base/x.c:4: includes cblas.h",
    }, wrong_includes("runtime/base/x.c", text))
    assert.same({}, wrong_includes("runtime/op/x.c", '#include "op.h"\n#include "../base/base.h"\n'))
    assert.same({ "bindings/core/x.c:2: includes ../../runtime/base/base.h" },
      wrong_core_includes("bindings/core/x.c",
        '#include "neap.h"\n#include "../../runtime/base/base.h"\n#include "core.h"\n'))
    assert.same({ "x.c:2: calls exit", "x.c:4: calls printf" },
      wrong_calls("x.c", '/* abort() */ s = "exit(";\n exit(1);\nsnprintf(b, n, f); _Static_assert(1);\n'
        .. "c = '\"'; a / b; printf(x); // puts(\n"))
  end)

  it("includes downward only", function()
    assert.same({}, all_wrong("runtime", wrong_includes))
  end)

  it("binds Lua to the public header alone", function()
    assert.same({}, all_wrong("bindings/core", wrong_core_includes))
  end)

  it("never ends or talks past its host", function()
    assert.same({}, all_wrong("runtime", wrong_calls))
  end)

  it("exports what neap.h declares, and nothing else", function()
    local declared = {}
    for name in code_only(content "runtime/neap.h"):gmatch "NEAP_API[^;]-(neap_[%w_]+)%s*%(" do
      declared[name] = true
    end
    assert.is_true(declared.neap_version)
    local exported, missing, extra = defined(build .. "/libneap.so", "-D"), {}, {}
    for name in pairs(declared) do
      if not exported[name] then missing[name] = true end
    end
    for name in pairs(exported) do
      if not declared[name] then extra[name] = true end
    end
    assert.same({ missing = {}, extra = {} }, { missing = sorted(missing), extra = sorted(extra) })
  end)

  it("defines what it exports in api/ alone", function()
    for _, object in ipairs(lines_of("find " .. build .. "/obj/runtime -name '*.o' | sort")) do
      local in_api = object:find("/runtime/api/", 1, true) ~= nil
      for name in pairs(defined(object, "-g")) do
        assert.equal(in_api, name:find "^neap_" ~= nil, object .. " defines " .. name)
      end
    end
  end)

  it("names nothing but ni_.. and neap_.. for other files", function()
    local names, count = defined(build .. "/libneap.a", "-g"), 0
    for name in pairs(names) do
      count = count + 1
      assert(name:find "^ni_" or name:find "^neap_", name)
    end
    assert(count > 300, count)
  end)

  it("lets a Lua module show its luaopen function alone", function()
    assert.same({ "luaopen_neap_core" }, sorted(defined(build .. "/neap/core.so", "-D")))
    assert.same({ "luaopen_neap_line" }, sorted(defined(build .. "/neap/line.so", "-D")))
  end)

  it("names no path of one machine", function()
    local private = { "/wo" .. "rk/", "/tm" .. "p/h", "/ro" .. "ot/", "/ho" .. "me/" }
    local files = lines_of "git ls-files 2>/dev/null"
    if #files == 0 then files = lines_of "find . -type f -not -path './build/*' -not -path './.git/*'" end
    assert.is_true(#files > 0)
    for _, path in ipairs(files) do
      local file = io.open(path, "rb")
      if file then -- a file that is being removed is still listed
        local text = file:read "a"
        file:close()
        for _, name in ipairs(private) do
          local at = text:find(name, 1, true)
          assert.is_nil(at, at and path .. " names " .. text:sub(at, at + 30))
        end
      end
    end
  end)
end)

-- The documents: their code runs, what is generated is up to date, what they link to is there.
local help = require "data_help"

local build = os.getenv "NEAP_BUILD" or "build"

local function content(path)
  local file <close> = assert(io.open(path))
  return file:read "a"
end

local function shell(command)
  local pipe = assert(io.popen("{ " .. command .. "; } 2>&1"))
  local text = pipe:read "a"
  local _, _, status = pipe:close()
  return text, status
end

local function here() return (shell "pwd"):gsub("\n", "") end

local function absolute(path) return path:find "^/" and path or here() .. "/" .. path end

--- The blocks of a document that are marked as one language: { code, line }.
local function blocks(path, language)
  local list, code, number = {}, nil, 0
  for line in content(path):gmatch "([^\n]*)\n" do
    number = number + 1
    if code and line == "```" then
      if code.language == language then
        list[#list + 1] = { table.concat(code, "\n") .. "\n", code.line }
      end
      code = nil
    elseif code then
      code[#code + 1] = line
    elseif line:find "^```" then
      code = { language = line:sub(4), line = number }
    end
  end
  assert(not code, path .. ": a block is left open")
  return list
end

for _, document in ipairs { "README.md", "docs/guide.md" } do
  describe(document, function()
    local folder
    setup(function() folder = help.folder() end)
    teardown(function() folder.remove() end)

    it("has Lua that runs", function()
      local scripts = blocks(document, "lua")
      assert.is_true(#scripts > 0)
      for _, script in ipairs(scripts) do
        folder.write("script.lua", script[1])
        local text, status = shell(("cd '%s' && '%s/scripts/neap' run script.lua")
          :format(folder.path, here()))
        assert.equal(0, status, ("%s:%d: %s"):format(document, script[2], text))
        assert.not_matches("traceback", text, 1, true)
      end
    end)

    it("has C that compiles and runs", function()
      local hosts = blocks(document, "c")
      assert.is_true(#hosts > 0)
      local model = folder.path .. "/sine.safetensors"
      if not io.open(model) then -- the README's first script has saved it
        local _, status = shell("scripts/neap run scripts/examples/sine.lua --quick --epochs 1 "
          .. "--model '" .. model .. "'")
        assert.equal(0, status)
      end
      for _, host in ipairs(hosts) do
        folder.write("host.c", host[1])
        local sanitizers = build:find "asan" and "-fsanitize=address,undefined" or ""
        local text, status = shell(("cd '%s' && ${CC:-cc} %s host.c -Wall -Werror -I'%s/runtime' "
          .. "'%s/libneap.a' -lopenblas -lm -lpthread -o host"):format(folder.path, sanitizers, here(),
            absolute(build)))
        assert.equal(0, status, ("%s:%d: %s"):format(document, host[2], text))
        text, status = shell(("cd '%s' && echo 0.1 0.2 | env -u LD_PRELOAD ./host sine.safetensors")
          :format(folder.path))
        assert.equal(0, status, text)
        assert.matches(host[1]:find("stream", 1, true) and "^%S+\n%S+\n$"
          or "^program learn\nprogram predict\nprogram simulate\n%d+ numbers in %d+ parameters\n$", text)
      end
    end)

    it("links to files that are there", function()
      local folder_of = document:match "^.*/" or ""
      for target in content(document):gmatch "%]%(([^)#:]+)%)" do
        assert.is_true(os.rename(folder_of .. target, folder_of .. target) ~= nil, target)
      end
    end)
  end)
end

it("docs/ops.md is what make docs makes", function()
  assert.equal(shell "scripts/neap run scripts/tools/ops.lua", content "docs/ops.md")
end)

it("make install brings the documents, the examples, and a path to the library", function()
  local text = shell "make -s -n install PREFIX=/opt/made BUILD=build/nothing"
  assert.matches("-L${libdir} -Wl,-rpath,${libdir} -lneap", text, 1, true)
  local list = text:match "for f in ([^;]*); do [^;]*/opt/made/share/neap/%$f"
  for _, file in ipairs { "README.md", "docs/guide.md", "docs/ops.md", "scripts/examples/g2p.lua",
    "scripts/examples/common.lua", "scripts/embed/run_model.c" } do
    assert.matches(file, list, 1, true)
  end
  assert.matches("rm %-rf [^\n]* /opt/made/share/neap\n",
    (shell "make -s -n uninstall PREFIX=/opt/made BUILD=build/nothing"))
end)

it("README.md names every example script", function()
  local readme = content "README.md"
  for name in (shell "ls scripts/examples"):gmatch "(%w+%.lua)" do
    if name ~= "common.lua" then assert.matches("`" .. name .. "`", readme, 1, true) end
  end
end)

-- The command neap: running scripts, the prompt through a pipe and on a terminal.

--- Runs a shell command: what it wrote to both streams, and its exit status.
local function shell(command)
  local pipe = assert(io.popen("{ " .. command .. "; } 2>&1", "r"))
  local text = pipe:read "a"
  local _, _, status = pipe:close()
  return text, status
end

describe("neap run", function()
  local path
  before_each(function() path = os.tmpname() end)
  after_each(function() os.remove(path) end)

  local function run(source, args)
    local file <close> = assert(io.open(path, "w"))
    file:write(source)
    file:flush()
    return shell("scripts/neap run " .. path .. " " .. (args or ""))
  end

  it("hands a script its arguments, options too", function()
    local text, status = run("print(arg[0], #arg, arg[2], ...)", "--epochs 3 --help")
    assert.equal(path .. "\t3\t3\t--epochs\t3\t--help\n", text)
    assert.equal(0, status)
  end)

  it("finds its checkout through links, from anywhere", function()
    local file <close> = assert(io.open(path, "w"))
    file:write "print(package.searchpath('neap.repl', package.path) ~= nil)"
    file:flush()
    local link = os.tmpname()
    local text, status = shell(("ln -sf \"$PWD/scripts/neap\" %s && cd / && env -u LUA_PATH_5_4 %s run %s")
      :format(link, link, path))
    os.remove(link)
    assert.equal("true\n", text)
    assert.equal(0, status)
  end)

  it("shows an error with its traceback and ends with 1", function()
    local text, status = run "local function deep() error 'bad' end\ndeep()\n"
    assert.equal(1, status)
    assert.equal(([[
neap: FILE:1: bad
stack traceback:
	[C]: in function 'error'
	FILE:1: in local 'deep'
	FILE:2: in main chunk
]]):gsub("FILE", path), text)
  end)

  it("says what is wrong with a file that it cannot run", function()
    local text, status = run "x = = 1"
    assert.matches(":1: unexpected symbol near '='", text, 1, true)
    assert.equal(1, status)
    text, status = shell "scripts/neap run no/such.lua"
    assert.matches("no/such.lua: No such file", text, 1, true)
    assert.equal(1, status)
  end)

  it("runs standard input", function()
    local text, status = shell "echo 'print(arg[0], ...)' | scripts/neap run - a -b"
    assert.equal("-\ta\t-b\n", text)
    assert.equal(0, status)
    text, status = shell "echo 'error \"bad\"' | scripts/neap run -"
    assert.matches("^neap: stdin:1: bad\n", text)
    assert.equal(1, status)
  end)

  it("leaves coroutines as Lua has them, but for Ctrl-C", function()
    local text, status = run [[
local co = coroutine.create(function(...)
  print(...)
  print(coroutine.yield(1, 2))
  error "bad"
end)
print(coroutine.resume(co, "a", nil))
print(coroutine.resume(co))
print(coroutine.resume(co))
print(pcall(coroutine.resume, 5))
local numbers = coroutine.wrap(function(n) for i = 1, n do coroutine.yield(i) end end)
print(numbers(2), numbers(), numbers())
print(pcall(numbers))
local closed
local failing = coroutine.wrap(function()
  local guard <close> = setmetatable({}, { __close = function() closed = true end })
  error { 7 }
end)
local ok, e = pcall(failing)
print(ok, e[1], closed)
print(pcall(coroutine.wrap(function() error("worse", 0) end)))
print(pcall(coroutine.wrap(function() coroutine.wrap(coroutine.yield)(1) return "through" end)))
local function press() io.popen("(sleep 0.2; kill -INT $PPID) &"):close() end
local caught = coroutine.create(function()
  print(pcall(coroutine.wrap(function() press() while true do end end)))
  press()
  while true do end
end)
print(coroutine.resume(caught))
print(pcall(function() press() while true do end end))
]]
    assert.equal(0, status, text)
    text = text:gsub("%S-:(%d+:)", "%1")
    assert.equal([[
a	nil
true	1	2

false	4: bad
false	cannot resume dead coroutine
false	bad argument #1 to 'coroutine.resume' (thread expected, got number)
1	2
false	cannot resume dead coroutine
false	7	true
false	worse
true	through
false	24: interrupted!
false	26: interrupted!
false	29: interrupted!
]], text)
  end)

  it("ends with 130 on Ctrl-C", function()
    local text, status = run "io.popen('kill -INT $PPID'):close()\nwhile true do end"
    assert.equal(130, status)
    assert.matches(path .. ":%d: interrupted!", text)
  end)
end)

describe("neap", function()
  it("names the nearest command and option", function()
    local text, status = shell "scripts/neap rnu x"
    assert.matches("Did you mean 'run'?", text, 1, true)
    assert.equal(2, status)
    text, status = shell "scripts/neap --verison"
    assert.matches("Did you mean '--version'?", text, 1, true)
    assert.equal(2, status)
  end)

  it("says how to run a file, and what info expects", function()
    local text, status = shell "scripts/neap sine.lua --quick"
    assert.equal("neap: did you mean: neap run sine.lua\n", text)
    assert.equal(2, status)
    text, status = shell "scripts/neap info"
    assert.matches("^neap: info: expected a model file", text)
    assert.equal(2, status)
  end)

  it("tells its version", function()
    local text, status = shell "scripts/neap --version"
    assert.matches("^neap %d+%.%d+%.%d+ %(Lua 5%.4%)\n$", text)
    assert.equal(0, status)
  end)

  it("lists only commands that are there", function()
    local text = shell "scripts/neap --help"
    for name in text:match("Commands:\n(.*)\n\n"):gmatch "\n   (%l+)" do
      local _, status = shell("scripts/neap " .. name .. " --help")
      assert.equal(0, status, name)
    end
    for _, name in ipairs { "test", "deps", "fuzz" } do
      local told, status = shell("scripts/tools/" .. name .. " --help")
      assert.equal(0, status)
      assert.matches("\n  " .. name .. " ", told, 1, true)
    end
  end)
end)

describe("the prompt", function()
  --- What it prints for some lines of input through a pipe: output, errors.
  local function feed(input)
    local path = os.tmpname()
    local file = assert(io.open(path, "w"))
    file:write(input)
    file:close()
    local out = shell("scripts/neap <" .. path .. " 2>/dev/null")
    local err = shell("scripts/neap <" .. path .. " 2>&1 >/dev/null")
    os.remove(path)
    return out, err
  end

  it("prints what expressions give and keeps what statements set", function()
    local out, err = feed "1 + 1\nx = 5\nx, 'a', nil\nreturn x\n"
    assert.equal('2\n5\t"a"\tnil\n5\n', out)
    assert.equal("", err)
  end)

  it("reads on until a chunk is whole", function()
    local out, err = feed "for i = 1, 2 do\nprint(i)\nend\nmath.max(\n7,\n9)\n"
    assert.equal("1\n2\n9\n", out)
    assert.equal("", err)
    out, err = feed "(function("
    assert.equal("", out)
    assert.matches("near <eof>", err, 1, true)
  end)

  it("goes on after errors", function()
    local out, err = feed "foo bar\nerror('bad')\nerror({})\nlocal t = nil; t.x = 1\n'alive'\n"
    assert.equal('"alive"\n', out)
    assert.matches("stdin:1: syntax error near 'bar'\n", err, 1, true)
    assert.matches("stdin:1: bad\nstack traceback:\n", err, 1, true)
    assert.matches("(error object is a table value)", err, 1, true)
    assert.matches("attempt to index a nil value (local 't')", err, 1, true)
    assert.is_nil(err:find("neap.line", 1, true)) -- the prompt's own part of the traceback
  end)

  it("ends with 1 where something went wrong, on a pipe", function()
    for input, expected in pairs { ["neap.foo\\n"] = 1, ["x = = 1\\n1\\n"] = 1, ["x = ("] = 1,
      ["1\\n"] = 0, [""] = 0 } do
      assert.equal(expected, select(2, shell(("printf '%s' | scripts/neap"):format(input))), input)
    end
  end)

  it("knows the last value, and the words for help and for leaving", function()
    local out, err = feed "6\n_ * 7\nnil\nx = 1\n_\n"
    assert.equal("6\n42\nnil\n42\n", out)
    assert.equal("", err)
    for _, word in ipairs { "quit", "quit()", "exit", "exit()" } do
      out, err = feed("1\n" .. word .. "\nprint 'not here'\n")
      assert.same({ "1\n", "" }, { out, err })
    end
    for _, word in ipairs { "help", "help()" } do
      out, err = feed(word .. "\n2\n_\n")
      assert.matches("quit, exit, Ctrl%-D   leave\n.*\n2\n2\n$", out)
      assert.equal("", err)
    end
  end)

  it("goes on after Ctrl-C", function()
    local out, err = feed "io.popen('kill -INT $PPID'):close() while true do end\n'alive'\n"
    assert.equal('"alive"\n', out)
    assert.matches("interrupted!", err, 1, true)
    -- twice: the second comes as the first has been answered
    out, err = feed "while true do coroutine.wrap(function() \z
      io.popen('(sleep 0.2; kill -INT $PPID) &'):close() while true do end end)() end\n\z
      while true do io.popen('kill -INT $PPID'):close() end\n'alive'\n"
    assert.equal('"alive"\n', out)
    assert.equal(2, select(2, err:gsub("interrupted!\n", "")))
    out, err = feed "coroutine.wrap(function() io.popen('kill -INT $PPID'):close() \z
      while true do end end)()\n\z
      coroutine.resume(coroutine.create(function() io.popen('kill -INT $PPID'):close() \z
      while true do end end))\n'alive'\n"
    assert.matches('^false\t"stdin:1: interrupted!"\n"alive"\n$', out)
    assert.matches("^stdin:1: interrupted!\n", err)
  end)

  it("edits lines on a terminal, completes names and keeps the history", function()
    if not os.execute "script -qec true /dev/null >/dev/null 2>&1 </dev/null" then
      return pending "no program script here, or no pseudo-terminals"
    end
    local home = os.tmpname()
    os.remove(home)
    -- Tab completes string.gs to string.gsub; ^H deletes the é, which is two bytes, at once.
    local keys = [[string.gs\t("aa", "a", "b")\n"x\303\251\010y"\n]]
    local text = shell(("mkdir %s && (printf '%s'; sleep 1; printf '\\004') | "
      .. "env TERM=xterm LC_ALL=C.UTF-8 HOME=%s XDG_STATE_HOME= script -qec scripts/neap /dev/null && "
      .. "cat %s/.neap_history; rm -r %s"):format(home, keys, home, home, home))
    assert.matches('"bb"\t2', (text:gsub(" +", "\t")))
    assert.matches('\n"xy"\r\n', text, 1, true)
    assert.matches('string.gsub("aa",\\040"a",\\040"b")\n"xy"\n', text, 1, true)
  end)

  it("keeps statements of several lines whole, drops them on Ctrl-D, keeps the history on os.exit",
    function()
      if not os.execute "script -qec true /dev/null >/dev/null 2>&1 </dev/null" then
        return pending "no program script here, or no pseudo-terminals"
      end
      local home = os.tmpname()
      os.remove(home)
      -- the last but one line brings back the loop, three entries up
      local text = shell(("mkdir %s && (printf 'for i = 7, 8 do\\nprint(i)\\nend\\nx = {\\n'; "
        .. "sleep 1; printf '\\004'; sleep 0.3; printf '40 + 1\\n\\033[A\\033[A\\n'; sleep 0.3; "
        .. "printf 'os.exit(0)\\n'; sleep 0.5) | env TERM=xterm HOME=%s XDG_STATE_HOME= script "
        .. "-qec scripts/neap /dev/null; cat %s/.neap_history; rm -r %s")
        :format(home, home, home, home))
      assert.matches("`neap` and `op` are there", text, 1, true)
      assert.matches("\n41\r\n.*\n7\r\n8\r\n", text)
      local loop = "for\\040i\\040=\\0407,\\0408\\040do\\012print(i)\\012end\n"
      assert.matches(loop .. "40\\040+\\0401\n" .. loop .. "os.exit(0)\n", text, 1, true)
    end)
end)

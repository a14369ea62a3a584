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

  it("goes on after Ctrl-C", function()
    local out, err = feed "io.popen('kill -INT $PPID'):close() while true do end\n'alive'\n"
    assert.equal('"alive"\n', out)
    assert.matches("interrupted!", err, 1, true)
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
end)

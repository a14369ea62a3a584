-- scripts/tools/fuzz: rounds, seeds, and what it says of a failure.

local function fuzz(script, arguments)
  local path = os.tmpname()
  local file = assert(io.open(path, "w"))
  file:write("#!/bin/sh\n", script, "\n")
  file:close()
  os.execute("chmod +x " .. path)
  local pipe = assert(io.popen(("scripts/tools/fuzz %s %s 2>&1"):format(arguments, path)))
  local text = pipe:read "a"
  local _, _, status = pipe:close()
  os.remove(path)
  return text, status, path:match "[^/]*$"
end

describe("make fuzz", function()
  it("ends at the first failure and says how it is repeated", function()
    local text, status, name = fuzz("echo $1 files; [ $2 != 7 ]", "600 5")
    assert.equal(1, status)
    assert.equal(("fuzz: from seed 5\n500 files\nfuzz: %s failed with seed 7; "
      .. "again: make fuzz SECONDS=0 SEED=7\n"):format(name), text)
    assert.equal(1, select(2, fuzz("kill -SEGV $$", "600 5")))
  end)

  it("makes one round at least, with a seed that it names", function()
    local text, status = fuzz("[ $2 = 5 ]", "0 5")
    assert.equal("fuzz: from seed 5\nfuzz: no failure with the seeds 5 to 5\n", text)
    assert.equal(0, status)
    text, status = fuzz("exit 0", "0 ''")
    local first = text:match "^fuzz: from seed (%d+)\n"
    assert.equal(("fuzz: from seed %s\nfuzz: no failure with the seeds %s to %s\n"):format(first,
      first, first), text)
    assert.equal(0, status)
  end)

  it("refuses what is no number", function()
    local text, status = fuzz("exit 0", "soon 5")
    assert.equal("fuzz: SECONDS, SEED: expected whole numbers, came 'soon'\n", text)
    assert.equal(2, status)
  end)
end)

-- Run by `make test-arm64` alone, on an emulated aarch64: a model that this machine's own processor
-- has trained gives the same answers there, and training goes the same way, to rounding.
local core = require "neap.core"

local build = assert(os.getenv "NEAP_BUILD", "make test-arm64 runs this spec")

-- Layers of every kind of kernel, and a cell that the library has never seen.
local script = [[
local neap = require "neap"
local op = neap.op

local leaky = neap.cell {
  name = "leaky",
  params = function(p, c)
    p.w, p.u = { c.input, c.size }, { c.size, c.size }
    p.keep = { c.size, init = 0 }
  end,
  state = function(c) return { h = c.size } end,
  step = function(p, x, s)
    local keep = op.sigmoid(p.keep)
    local h = keep * s.h + (1 - keep) * op.tanh(op.matmul(x, p.w) + op.matmul(s.h, p.u))
    return h, { h = h }
  end,
}
local waves = {}
for n = 1, 5 do
  waves[n] = {}
  for t = 1, 20 + 3 * n do waves[n][t] = math.sin(t / n) + 0.3 * math.cos(t * n) end
end
local model = neap.forecaster { rng = neap.rng(5), net = neap.chain {
  leaky { size = 9 }, neap.lstm { size = 13 }, neap.layer_norm {}, neap.gru { size = 11 } } }
local batch, adam = model:batch(waves), neap.adam { rate = 1e-2, clip = 1 }
for _ = 1, 60 do io.write(("%.9g\n"):format(model:learn(batch, adam))) end
assert(model:save(arg[1]))
]]

local function output(command)
  local pipe <close> = assert(io.popen(command))
  return pipe:read "a"
end

--- All numbers in a text.
local function numbers(text)
  local list = {}
  for word in text:gmatch "%S+" do list[#list + 1] = tonumber(word) end
  return list
end

local function near(expected, got, most)
  assert.equal(#expected, #got)
  for i, x in ipairs(expected) do
    if not (math.abs(x - got[i]) <= most * math.max(1, math.abs(x))) then
      error(("number %d: %.9g here, %.9g there"):format(i, x, got[i]))
    end
  end
end

describe("aarch64", function()
  local source, model, theirs = os.tmpname(), os.tmpname(), os.tmpname()
  local lines, losses = {}, nil

  setup(function()
    local file <close> = assert(io.open(source, "w"))
    file:write(script)
    file:close()
    for t = 1, 40 do lines[t] = ("%.9g"):format(math.sin(t / 2.5)) end
    losses = numbers(output(("NEAP_BUILD=build LUA=lua5.4 scripts/neap run %s %s"):format(source,
      model)))
  end)
  teardown(function() for _, path in ipairs { source, model, theirs } do os.remove(path) end end)

  it("is what runs this", function()
    assert.equal("neon", core.cpu_level())
    assert.is_true(pcall(core.cpu_select, "generic"))
    core.cpu_select "neon"
  end)

  it("answers as the processor that has trained the model", function()
    assert.equal(60, #losses)
    assert.is_true(losses[60] < 0.5 * losses[1])
    for _, how in ipairs { "", " --stream" } do
      local ask = ("echo '%s' | %%s/embed/run_model %s%s"):format(table.concat(lines, "\n"), model, how)
      local here = numbers(output(ask:format "build"))
      assert.equal(40, #here)
      near(here, numbers(output(ask:format(build .. "/run " .. build))), 1e-5)
    end
  end)

  it("trains as that one does", function()
    near(losses, numbers(output(("scripts/neap run %s %s"):format(source, theirs))), 1e-4)
  end)
end)

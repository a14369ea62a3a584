--- What a large vocabulary costs. First the output layer: linear and cross-entropy over V symbols,
-- forward and backward. Then the input layer: an embedding of V rows all of which have been looked
-- up at some time; each batch looks up 1000 of them, and the gradient is clipped by norm. Best times,
-- and bytes as the library counts them; tabs between:
--   scripts/neap run scripts/bench/vocabulary.lua [SECONDS] [THREADS]
local neap = require "neap"
local core = require "neap.core"
local op = neap.op

local seconds, threads = tonumber(arg[1] or "1"), tonumber(arg[2] or "1")
if not seconds or seconds <= 0 or math.type(threads) ~= "integer" or threads < 1 then
  io.stderr:write("vocabulary: expected seconds of a measurement and a number of threads, came ",
    table.concat(arg, " "), "\n")
  os.exit(2)
end
local pool, rng = core.pool(threads), neap.rng(1)

-- The quickest milliseconds of each of the parts of a step; they run one after the other.
local function best(...)
  local parts, ms = { ... }, {}
  local function once()
    for i, part in ipairs(parts) do
      local began = core.clock()
      part()
      local now = (core.clock() - began) * 1e3
      ms[i] = ms[i] and math.min(ms[i], now) or now
    end
  end
  once() -- touches the memory
  ms = {}
  local ends = core.clock() + seconds
  repeat once() until core.clock() > ends
  return ms
end

local function ids(rows, below)
  local list = {}
  for r = 1, rows do list[r] = { rng:int(below) - 1 } end
  return neap.tensor(list, "i32")
end

local function mb(bytes) return bytes / 2 ^ 20 end

print "output\tV\tH\trows\tlogits_MB\trun_MB\tforward_ms\tbackward_ms"
local H, rows = 256, 1024
for _, V in ipairs { 65, 10000, 100000 } do
  local pr = neap.program(function(rec)
    local x = rec:param("x", { rows, H }) -- stands for the layers before
    local at = rec:input("at", { space = "T", dtype = "i32" })
    local to = rec:input("to", { space = "T", dtype = "i32" })
    return { loss = op.cross_entropy(neap.linear { size = V } (op.embedding(at, x)), to) }
  end)
  local run = pr:run { learn = true, pool = pool }
  run:feed { at = ids(rows, rows), to = ids(rows, V) }
  local ms = best(function()
    pr.params:touch()
    run:forward()
  end, function() run:backward() end)
  print(("output\t%d\t%d\t%d\t%.1f\t%.1f\t%.2f\t%.2f"):format(V, H, rows, mb(rows * V * 4),
    mb(run.core:bytes()), ms[1], ms[2]))
  pr, run = nil, nil
  collectgarbage()
end

-- Forward and backward of a table's rows.
local function looking_up(program)
  local run = program:run { learn = true, pool = pool }
  program.params:pool(pool)
  return run, function(at) run:feed { at = at }:forward() end
end

print "input\tV\tH\tids\toptimizer\tlive_MB\tzero_ms\tbackward_ms\tstep_ms"
H, rows = 64, 1000
for _, V in ipairs { 10000, 100000, 800000 } do
  local batches = {}
  for i = 1, 16 do batches[i] = ids(rows, V) end
  for _, name in ipairs { "sgd", "adam", "adam lazy" } do
    local pr = neap.program(function(rec)
      local at = rec:input("at", { space = "T", dtype = "i32" })
      local x = neap.embed { size = H, input = V } (at)
      return { loss = op.sum(op.sum_rows(op.square(x))) }
    end)
    local run, forward = looking_up(pr)
    local optim = neap[name:match "%a+"] { rate = 1e-3, clip = 1, lazy = name:find "lazy" and true }
    for from = 0, V - 1, 10000 do -- every row once
      local list = {}
      for i = 1, 10000 do list[i] = { from + i - 1 } end
      forward(neap.tensor(list, "i32"))
      run:backward()
    end
    optim:step(pr.params)
    run, forward = looking_up(pr)
    collectgarbage()
    local turn = 0
    local ms = best(function()
      turn = turn % #batches + 1
      forward(batches[turn])
    end, function() pr.params:zero_grad() end, function() run:backward() end,
      function() optim:step(pr.params) end)
    print(("input\t%d\t%d\t%d\t%s\t%.1f\t%.3f\t%.3f\t%.3f"):format(V, H, rows, name,
      mb(core.memory_live()), ms[2], ms[3], ms[4]))
    pr, run, forward, optim = nil, nil, nil, nil
    collectgarbage()
    collectgarbage()
  end
end

--- How the memory and the time of a training step grow with the steps of its sequences, with and without
-- `recompute`: a language model and a classifier of one LSTM.
--
--     scripts/neap run scripts/bench/memory.lua [MOST_STEPS]
--
-- told_mb: bytes of the run, told before and counted after; peak_mb: what the process had in memory at most
-- in the first step; cpu_ms: processor time of a step, one thread, the median of five by turns.
local neap = require "neap"
local core = require "neap.core"

local most = math.tointeger(tonumber(arg[1] or 100000))
local B, D, H, V = 4, 64, 128, 64
local symbols, rng = {}, neap.rng(1)
for i = 1, V do symbols[i] = string.char(32 + i) end
local vocab, classes = neap.vocab.new(symbols), neap.vocab.new { "yes", "no" }

local function net() return neap.chain { neap.embed { size = D }, neap.lstm { size = H } } end

local function ids(n)
  local t = neap.zeros({ n }, "i32")
  for i = 1, n do t[i] = rng:int(V) - 1 end
  return t
end

local tasks = {
  { "language_model", function(options)
    options.vocab, options.net = vocab, net()
    return neap.language_model(options)
  end, function(T, lengths)
    return { input = { data = ids(T * B), lengths = lengths },
      target = { data = ids(T * B), lengths = lengths } }
  end },
  { "seq2class", function(options)
    options.input, options.output, options.pool, options.net = vocab, classes, "mean", net()
    return neap.seq2class(options)
  end, function(T, lengths)
    return { input = { data = ids(T * B), lengths = lengths }, output = neap.zeros({ B }, "i32") }
  end },
}

-- A learning step as a function that gives its processor time; what was told; what the process had at
-- most.
local function prepared(task, recompute, T)
  local model, lengths = task[2] { recompute = recompute, rng = neap.rng(1) }, neap.zeros({ B }, "i32")
  local told = model:memory { rows = B, lengths = T }.run
  local batch, optim = task[3](T, lengths:fill(T)), neap.adam { rate = 1e-3, clip = 1 }
  local function step()
    local began = os.clock()
    model:learn(batch, optim)
    return os.clock() - began
  end
  collectgarbage()
  local known = core.peak(true)
  step()
  assert(model:run("learn", true):bytes() == told)
  return step, told / 1e6, known and core.peak() / 1e6 or 0
end

local function median(list)
  table.sort(list)
  return list[(#list + 1) // 2]
end

print "task             T       recompute  told_mb   peak_mb    cpu_ms  ratio"
for _, task in ipairs(tasks) do
  local T = 1000
  while T <= most do
    local rows, ratios = {}, {}
    for k, recompute in ipairs { false, true } do -- one after the other: each has a peak of its own
      local step, told, peak = prepared(task, recompute, T)
      rows[k] = { recompute, told, peak, {}, step = k == 2 and step }
    end
    rows[1].step = prepared(task, false, T)
    for i = 1, 5 do -- by turns
      for _, row in ipairs(rows) do row[4][i] = row.step() end
      ratios[i] = rows[2][4][i] / rows[1][4][i]
    end
    for k, row in ipairs(rows) do
      print(("%-16s %-7d %-9s %8.1f %9.1f %9.1f  %s"):format(task[1], T, row[1], row[2], row[3],
        median(row[4]) * 1e3, k == 2 and ("%.2f"):format(median(ratios)) or ""))
    end
    T = T * 10
  end
end

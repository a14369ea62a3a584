--- How the cost of a training step grows with T, B, H and V: one of them at a time, the others as
-- they stand. Prints a table with tabs between; with a second argument writes a picture (SVG, by
-- gnuplot) too:  scripts/neap run scripts/bench/growth.lua [SECONDS] [FILE.svg]
local neap = require "neap"
local core = require "neap.core"
local op = neap.op

local seconds, picture = tonumber(arg[1] or "0.2"), arg[2]
if not seconds or seconds <= 0 then
  io.stderr:write("growth: expected the seconds of a measurement, came ", arg[1], "\n")
  os.exit(2)
end

local base = { T = 64, B = 32, H = 256, V = 64 }
local grows = {
  { "T", { 8, 16, 32, 64, 128, 256, 512 } },
  { "B", { 1, 2, 4, 8, 16, 32, 64, 128 } },
  { "H", { 16, 32, 64, 128, 256, 512, 1024 } },
  { "V", { 16, 64, 256, 1024, 4096, 16384 } },
}

-- Milliseconds of forward and backward of a language model: one LSTM as wide as its input, a
-- softmax over V symbols at each step. The quickest of the repetitions.
local function measure(c)
  local program = neap.program(function(rec)
    local ids = rec:input("ids", { space = "T", dtype = "i32" })
    local y = neap.lstm { size = c.H } (neap.embed { size = c.H, input = c.V } (ids))
    return { loss = op.cross_entropy(neap.linear { size = c.V } (y), ids) }
  end)
  local rng, ids = neap.rng(1), {}
  for t = 1, c.T do
    ids[t] = {}
    for b = 1, c.B do ids[t][b] = rng:int(c.V) - 1 end
  end
  local run = program:run { learn = true }
  run:feed { ids = neap.tensor(ids, "i32") }
  local function step()
    local began = core.clock()
    program.params:touch()
    run:forward()
    program.params:zero_grad()
    run:backward "loss"
    return core.clock() - began
  end
  step() -- touches the memory
  local best, ends = math.huge, core.clock() + seconds
  repeat best = math.min(best, step()) until core.clock() > ends
  return best * 1e3
end

print "grows\tT\tB\tH\tV\tms\tms_per_unit"
local curves = {}
for _, g in ipairs(grows) do
  local name, values = g[1], g[2]
  curves[#curves + 1] = "$" .. name .. " << EOD"
  for _, n in ipairs(values) do
    local c = setmetatable({ [name] = n }, { __index = base })
    local ms = measure(c)
    print(("%s\t%d\t%d\t%d\t%d\t%.3f\t%.5f"):format(name, c.T, c.B, c.H, c.V, ms, ms / n))
    curves[#curves + 1] = ("%d %.4f"):format(n, ms)
  end
  curves[#curves + 1] = "EOD"
end

if picture then
  local pipe = assert(io.popen("gnuplot", "w"))
  pipe:write(table.concat(curves, "\n"), "\n",
    "set terminal svg size 760,440 font 'sans,13'\nset output '", picture, "'\n",
    "set logscale xy\nset grid\nset key top left\nset xlabel 'T, B, H or V'\n",
    "set ylabel 'milliseconds a training step'\nplot ")
  for i, g in ipairs(grows) do
    pipe:write(i > 1 and ", " or "", "$", g[1], " with linespoints lw 2 title '", g[1], "'")
  end
  pipe:write "\n"
  if not pipe:close() then
    io.stderr:write "growth: no picture: apt-get install gnuplot-nox\n"
    os.exit(1)
  end
end

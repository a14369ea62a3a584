--- What gates do: read, forced, replaced, learned. Rows 7, 8, 10, 13, 15, 31 and 35 of docs/notes.md.
-- A rule is computed by an LSTM with weights set by hand and learned by one from random weights: x1 is
-- added to a memory where x2 = 1, x2 = -1 resets it, x3 = 1 puts it out.
local neap = require "neap"
local op = neap.op
local common = dofile((arg[0]:match "^.*/" or "") .. "common.lua")

local options = common.options {
  "Shows what the gates of LSTM and GRU do, by hand and learned.", epochs = 60, quick = 20,
  extend = common.picture_option,
}
local rng = neap.rng(options.seed)
local digits = neap.vocab.new { "0", "1", "2", "3", "4", "5", "6", "7", "8", "9" }

local model
local rule = "net.lstm."
if options.load then
  model = common.load(options, "synced_seq2seq")
  if model.inputs[1].size ~= 3 or not model:program "predict".outputs[rule .. "f"]
    or not model.output:has "9" then
    common.fail(1, options.load .. ": expected a model that this script has made")
  end
end

-- The lecture's example of nine steps.
local steps = {}
for t, x1 in ipairs { 1, 3, 2, 4, 2, 1, 3, 6, 1 } do
  steps[t] = { x1, ({ 0, 1, 0, 1, 0, 0, -1, 1, 0 })[t], (t == 6 or t == 9) and 1 or 0 }
end

local function row(name, values, format)
  local text = {}
  for t, x in ipairs(values) do text[t] = (format or "%6.2f"):format(x) end
  print(common.column(name, 6) .. table.concat(text, " "))
end
local function column(rows, k)
  local out = {}
  for t, x in ipairs(rows) do out[t] = x[k] end
  return out
end
local function inputs()
  for k, name in ipairs { "x1", "x2", "x3" } do row(name, column(steps, k), "%6d") end
end

-- What a layer gives for one sequence: a function of a watched name, or "y", that gives the steps.
local function run_of(layer, x, weights)
  local pr = neap.program(function(rec)
    return { y = (layer(rec:input("x", { space = "T", dims = { #x[1] } }))) }
  end)
  for name, value in pairs(weights) do pr.params:set("r." .. name, value) end
  local run = pr:run():feed { x = neap.tensor(x):reshape { #x, 1, #x[1] } }:forward()
  return function(name)
    return run:value(name == "y" and name or "r." .. name, "concat"):totable()
  end, pr.params
end

-- ---- by hand ----

-- Weights of i, f, g and o for (x1, x2, x3), and their biases; nothing comes from h.
local by_hand = {
  weight_ih = neap.tensor { { 0, 100, 0 }, { 0, 100, 0 }, { 1, 0, 0 }, { 0, 0, 100 } },
  weight_hh = neap.zeros { 4, 1 }, bias_ih = neap.tensor { -10, 10, 0, -10 },
  bias_hh = neap.zeros { 4 },
}
local function lecture(x, gates)
  return run_of(neap.lstm { size = 1, candidate = "identity", output = "identity", watch = true,
    gates = gates, name = "r" }, x, by_hand)
end

print "an LSTM with weights set by hand: gates i, f, o, memory c, output y; * where it moves"
inputs()
local seen = lecture(steps)
for _, name in ipairs { "i", "f", "o", "c", "y" } do
  local values, marks = column(seen(name), 1), {}
  row(name, values)
  if name == "c" or name == "y" then
    for t, x in ipairs(values) do
      marks[t] = math.abs(x - (values[t - 1] or 0)) > 0.01 and "     *" or "      "
    end
    print((" "):rep(7) .. table.concat(marks, " "))
  end
end
local table_y = column(seen "y", 1)

print "\nthe same with one gate forced: 8 comes in at step 1, and the output is open"
local pulse = { { 8, 1, 1 }, { 0, 0, 1 }, { 0, 0, 1 }, { 0, 0, 1 } }
for _, gate in ipairs { "f", "i", "o" } do
  for _, share in ipairs { 0, 0.5, 1 } do
    local name = gate == "o" and "y" or "c"
    row(("%s = %.1f  %s"):format(gate, share, name),
      column(lecture(pulse, { [gate] = share })(name), 1))
  end
end

-- Forget 0, input 1, output 1: the plain network h = tanh(W x + U h').
local function plain_network()
  local x = {}
  for t = 1, 12 do x[t] = { rng:normal(), rng:normal() } end
  local function made(output)
    return neap.lstm { size = 4, gates = { f = 0, i = 1, o = 1 }, output = output, name = "r" }
  end
  local y, params = run_of(made "identity", x, {})
  local weights, same = {}, 0
  for _, name in ipairs { "weight_ih", "weight_hh", "bias_ih", "bias_hh" } do
    weights[name] = op.slice(params:get("r." .. name), 9, 12, 1) -- the block of g
  end
  local plain = run_of(neap.elman { size = 4, fused = false, name = "r" }, x, weights) "y"
  for t, h in ipairs(y "y") do
    for k, v in ipairs(h) do same = same + (v == plain[t][k] and 1 or 0) end
  end
  print(("\nforget 0, input 1, output 1 is the plain network: %d of %d numbers the same to the bit")
    :format(same, 4 * #x))
  local ones = { weight_ih = neap.tensor { { 0 }, { 0 }, { 1 }, { 0 } },
    weight_hh = neap.zeros { 4, 1 }, bias_ih = neap.zeros { 4 }, bias_hh = neap.zeros { 4 } }
  for _, output in ipairs { "identity", "tanh" } do
    print(("  output function %-9s at 1: %.4f"):format(output .. ",", run_of(neap.lstm { size = 1,
      gates = { f = 0, i = 1, o = 1 }, output = output, name = "r" }, { { 1 } }, ones) "y"[1][1]))
  end
  return same
end
local result = { by_hand_6 = table_y[6], by_hand_9 = table_y[9], same_bits = plain_network() }

-- The GRU in its two times two forms, with the same weights.
local function conventions()
  local x = {}
  for t = 1, 20 do x[t] = { rng:normal(), rng:normal() } end
  local first, params = run_of(neap.gru { size = 3, name = "r" }, x, {})
  local weights, turned = {}, {}
  for _, name in ipairs { "weight_ih", "weight_hh", "bias_ih", "bias_hh" } do
    local w = params:get("r." .. name)
    weights[name] = w
    turned[name] = op.concat({ op.slice(w, 1, 3, 1), -op.slice(w, 4, 6, 1), op.slice(w, 7, 9, 1) }, 1)
  end
  local function off(given, w)
    local most = 0
    given.size, given.name = 3, "r"
    local y = run_of(neap.gru(given), x, w) "y"
    for t, h in ipairs(first "y") do
      for k, v in ipairs(h) do most = math.max(most, math.abs(v - y[t][k])) end
    end
    return most
  end
  print "\nGRU beside h = (1 - z) n + z h', n = tanh(W x + r (U h')): largest difference"
  print(("  h = z n + (1 - z) h'                        %.7f"):format(off({ update = "take" },
    weights)))
  print(("  the same, the signs of z's weights turned   %.7f"):format(off({ update = "take" },
    turned)))
  print(("  n = tanh(W x + U (r h'))                    %.7f"):format(off({ reset = "before" },
    weights)))
end
conventions()

-- ---- learned: which gate remembers, and which functions gate ----

local marked, symbols = neap.vocab.new { "A", "B", "C", "D" },
  neap.vocab.new { "A", "B", "C", "D", "a", "b", "c", "d" }
-- One capital somewhere, then `lag` other letters: which one was it?
local function marks(n, lag)
  local text, first = {}, {}
  for i = 1, n do
    local lead = rng:int(5)
    text[i], first[i] = {}, marked.symbols[rng:int(4)]
    for t = 1, lead + 1 + lag do
      text[i][t] = t == lead + 1 and first[i] or symbols.symbols[4 + rng:int(4)]
    end
  end
  local corpus = neap.corpus.from({ text = text, first = first })
  return { input = corpus:encode("text", symbols), output = corpus:label("first", marked) }
end

-- Learns it. Gives the accuracy and, by name, what a gate or state does on sequences with so many
-- letters after the capital: its mean, the share above 0.9, its least and its most.
local function learned(layer, lag)
  local held = marks(200, lag)
  local model = neap.seq2class { input = symbols, output = marked, rng = rng,
    threads = options.threads, net = neap.chain { neap.embed { size = 8 }, layer } }
  local fitted = neap.fit(model, {
    optim = neap.adam { rate = 1e-2, clip = 1 }, epochs = options.quick and 6 or 16, quiet = true,
    minutes = options.minutes,
    train = function()
      return neap.batches(marks(options.quick and 600 or 1000, lag), { size = 32, rng = rng })
    end,
    dev = function() return model:score(held) end,
  })
  return fitted.best and fitted.best.accuracy or 0, function(name, after)
    local run = model:run "predict":feed(neap.batches(marks(100, after), { size = 100 })())
    local least, most, sum, n, open = math.huge, -math.huge, 0, 0, 0
    for _, units in ipairs(run:forward():value("net.chain." .. layer.kind .. "2." .. name,
      "concat"):totable()) do
      for _, x in ipairs(units) do
        least, most, sum, n = math.min(least, x), math.max(most, x), sum + x, n + 1
        open = open + (x > 0.9 and 1 or 0)
      end
    end
    return { mean = sum / n, open = open / n, least = least, most = most }
  end
end

if not model then
  print "\nGRU: a symbol kept over so many steps; accuracy, and what the gates do (z = 1 keeps)"
  print "  steps  free   r = 1  z = 0    mean r  mean z  z above 0.9"
  for _, lag in ipairs(options.quick and { 0, 10 } or { 0, 1, 3, 10, 20 }) do
    local function gru(gates) return neap.gru { size = 16, watch = true, gates = gates } end
    local accuracy, look = learned(gru(), lag)
    local r, z = look("r", lag), look("z", lag)
    print(("  %5d  %.3f  %.3f  %.3f    %.3f   %.3f   %.3f"):format(lag, accuracy,
      (learned(gru { r = 1 }, lag)), (learned(gru { z = 0 }, lag)), r.mean, z.mean, z.open))
    result[("z_%02d"):format(lag)] = z.mean
  end

  local lag = options.quick and 5 or 10
  print(("\nLSTM: a symbol kept over %d steps; other functions in its gates and for its candidate")
    :format(lag))
  print "  gates         candidate  accuracy  f from .. to   largest c: as far  200 steps"
  for _, pair in ipairs { { "sigmoid", "tanh" }, { "hard_sigmoid", "tanh" }, { "relu", "tanh" },
    { "softplus", "tanh" }, { "identity", "tanh" }, { "sigmoid", "sigmoid" },
    { "sigmoid", "relu" } } do
    local accuracy, look = learned(neap.lstm { size = 16, watch = true, gate = pair[1],
      candidate = pair[2] }, lag)
    local f, largest = look("f", lag), {}
    for i, steps_after in ipairs { lag, 200 } do
      local ok, c = pcall(look, "c", steps_after)
      largest[i] = ok and ("%.3g"):format(math.max(c.most, -c.least))
        or c:match "%w+ came up" or error(c, 0)
    end
    print(("  %-13s %-10s %.3f     %6.2f .. %-8.2f %13s   %s"):format(pair[1], pair[2], accuracy,
      f.least, f.most, largest[1], largest[2]))
  end
end

-- ---- learned: the rule ----

-- Sequences that follow it, with sums up to 9.
local function ruled(n)
  local x, y = {}, {}
  for i = 1, n do
    x[i], y[i] = {}, {}
    local memory = 0
    for t = 1, 5 + rng:int(7) do
      local x1, chance = rng:int(6), rng:uniform()
      local x2 = chance < 0.15 and -1 or chance < 0.55 and memory + x1 <= 9 and 1 or 0
      local x3 = rng:uniform() < 0.4 and 1 or 0
      memory = x2 == -1 and 0 or memory + x2 * x1
      x[i][t], y[i][t] = { x1, x2, x3 }, tostring(x3 * memory)
    end
  end
  local corpus = neap.corpus.from { x = x, y = y }
  return { input = corpus:encode "x", output = corpus:encode("y", digits) }
end

if not model then
  print "\nthe rule learned from random weights, 16 units"
  rng = neap.rng(options.seed):fork "rule"
  model = neap.synced_seq2seq { input = 3, output = digits, rng = rng, threads = options.threads,
    net = neap.lstm { size = 16, candidate = "identity", output = "identity", watch = true } }
  local held = ruled(200)
  neap.fit(model, {
    optim = neap.adam { rate = 1e-2, clip = 1 }, epochs = options.epochs,
    minutes = options.minutes,
    rate = function(_, first, done) return first * (1 + math.cos(math.pi * done)) / 2 end,
    train = function() return neap.batches(ruled(2000), { size = 32, rng = rng }) end,
    dev = function() return model:score(held) end,
  })
end
common.save(options, model)

-- The gradient of ln P(right answer at step t) by each input: what the answer hangs on.
local answers = model:predict { steps }[1]
local function saliency(t, answer)
  local wanted = {}
  for k = 1, #steps do wanted[k] = k == t and model.output:id(answer) - 1 or -1 end -- -1: not asked
  local run = model:run("learn", true)
  run:want_gradient "input"
  run:feed { rows = 1, input = neap.tensor(steps):reshape { #steps, 1, 3 },
    output = { data = neap.tensor(wanted, "i32"), lengths = neap.tensor({ #steps }, "i32") } }
  run:forward()
  model.params:zero_grad()
  run:backward()
  local sizes, most, sum, late = {}, 0, 0, 0
  for k, g in ipairs(run:gradient("input", "concat"):totable()) do
    sizes[k] = (g[1] ^ 2 + g[2] ^ 2 + g[3] ^ 2) ^ 0.5
    most, sum = math.max(most, sizes[k]), sum + sizes[k]
    if k >= 7 then late = late + sizes[k] end
  end
  for k, size in ipairs(sizes) do sizes[k] = most > 0 and size / most or 0 end
  return sizes, sum > 0 and late / sum or 0
end

print "\nwhat it answers, and what its answers at steps 6 and 9 hang on (gradient by input, largest 1)"
inputs()
print(common.column("y", 6) .. ("%6s "):rep(#steps):format(table.unpack(answers)))
row("at 6", (saliency(6, "7")))
local of_9, after = saliency(9, "6")
row("at 9", of_9)
print(("share of steps 7 to 9, from the reset on, in the answer at step 9: %.3f"):format(after))

-- Gates, c and h on the nine steps: each a list of steps, of units.
local function trace()
  local run, out = model:run "predict", { h = {} }
  run:feed { rows = 1, input = neap.tensor(steps):reshape { #steps, 1, 3 } }:forward()
  for _, name in ipairs { "i", "f", "o", "c" } do
    out[name] = run:value(rule .. name, "concat"):totable()
  end
  for t, c in ipairs(out.c) do
    out.h[t] = {}
    for k, x in ipairs(c) do out.h[t][k] = out.o[t][k] * x end
  end
  return out
end

-- How far one unit moves at each step, as shares of the farthest.
local function moves(values, k)
  local out, most = {}, 1e-9
  for t = 1, #values do
    out[t] = math.abs(values[t][k] - (t > 1 and values[t - 1][k] or 0))
    most = math.max(most, out[t])
  end
  for t = 1, #out do out[t] = out[t] / most end
  return out
end

-- How each unit's c goes with the memory of the rule, on held-out sequences: correlations.
local function follows()
  local held, run = ruled(200), model:run "predict"
  run:feed(neap.batches(held, { size = 200, bucket = false })()):forward()
  local cells, memory, at = run:value(rule .. "c", "concat"):totable(), {}, 0
  for i = 1, #held.input.offsets - 1 do
    local sum = 0
    for _ = held.input.offsets[i] + 1, held.input.offsets[i + 1] do
      at = at + 1
      local x = held.input.data[at]
      sum = x[2] == -1 and 0 or sum + x[2] * x[1]
      memory[at] = sum
    end
  end
  local out = {}
  for k = 1, #cells[1] do
    local c, n, sc, sm, cc, mm, cm = column(cells, k), #memory, 0, 0, 0, 0, 0
    for i = 1, n do
      sc, sm = sc + c[i], sm + memory[i]
      cc, mm, cm = cc + c[i] ^ 2, mm + memory[i] ^ 2, cm + c[i] * memory[i]
    end
    out[k] = (n * cm - sc * sm) / math.max(((n * cc - sc ^ 2) * (n * mm - sm ^ 2)) ^ 0.5, 1e-9)
  end
  return out
end

rng = neap.rng(options.seed):fork "score"
local traces, goes_with, order = trace(), follows(), {}
for k in ipairs(goes_with) do order[k] = k end
table.sort(order, function(a, b) return math.abs(goes_with[a]) > math.abs(goes_with[b]) end)
print("\nits units on these steps: where c and h move, how far i, f, o are open (blank 0, @ 1);"
  .. "\nand how each unit's c goes with the memory of the rule (correlation)")
local cell = "  %4s  |%-9s| |%-9s| |%-9s| |%-9s| |%-9s|  %s"
print((cell:gsub("|", " ")):format("unit", "c moves", "h moves", "i", "f", "o", "correlation"))
local maps = { { "c moves", {} }, { "h moves", {} }, { "i", {} }, { "f", {} }, { "o", {} } }
for n, k in ipairs(order) do
  local shades = {}
  for m, values in ipairs { moves(traces.c, k), moves(traces.h, k), column(traces.i, k),
    column(traces.f, k), column(traces.o, k) } do
    maps[m][2][n], shades[m] = values, common.shade(values)
  end
  shades[6] = ("%6.2f"):format(goes_with[k])
  print(cell:format(k, table.unpack(shades)))
end
common.plot(options, { title = "gates and memory by unit and step", maps = maps })

local scores = model:score(ruled(200))
result.after_reset, result.correlation = after, math.abs(goes_with[order[1]])
result.dev_accuracy, result.parameters = scores.accuracy, model:parameters()
common.result(result)

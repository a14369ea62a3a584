--- `neap bench`: how fast this machine runs the usual recurrent workloads, beside other software and
-- beside what the machine can do at most.
--
-- Workloads: W1 a training step (forward, back-propagation through time, all gradients; weights are
-- packed anew each time, as after an update), W2 a whole sequence, W3 one step of one stream through
-- the C API (`W3-lua`: through Lua, input and output included; `W3-block`: one of 64 in one call), W4 a training loop of a character
-- model. Peer `neap` is the fused layer; `neap-cell` the same LSTM written as a script's cell from
-- primitive ops; `neap-gates` written with a product for each gate.
-- @module neap.bench
local core = require "neap.core"
local neap = require "neap"
local op = neap.op

local cells = { "rnn", "lstm", "gru" }
local gates = { rnn = 1, lstm = 4, gru = 3 }
local layers = { rnn = neap.elman, lstm = neap.lstm, gru = neap.gru }

-- workload, T, B, D, H, L
local shapes = {
  { "W1", 28, 64, 28, 128, 1 }, { "W1", 64, 32, 128, 256, 2 }, { "W1", 35, 20, 650, 650, 2 },
  { "W1", 100, 16, 512, 512, 1 },
  { "W2", 100, 1, 64, 128, 1 }, { "W2", 100, 1, 256, 512, 1 }, { "W2", 35, 32, 256, 256, 2 },
  { "W3", 1, 1, 1, 16, 1 }, { "W3", 1, 1, 1, 32, 1 }, { "W3", 1, 1, 1, 64, 1 },
  { "W3", 1, 1, 64, 128, 1 }, { "W3", 1, 1, 256, 512, 1 },
  { "W4", 64, 32, 128, 256, 2 },
}
local VOCABULARY = 65

-- ---- the same LSTM from primitive ops -----------------------------------------------------------

-- All gates in one product.
local merged = neap.cell {
  name = "merged",
  params = function(p, c)
    local k = 1 / c.size ^ 0.5
    p.w = { 4 * c.size, c.input, init = { "uniform", -k, k } }
    p.u = { 4 * c.size, c.size, init = { "uniform", -k, k } }
    p.b = { 4 * c.size, init = { "uniform", -k, k } }
  end,
  state = function(c) return { h = c.size, c = c.size } end,
  step = function(p, x, s)
    local i, f, g, o = op.split(op.linear(x, p.w, p.b) + op.linear(s.h, p.u), 4)
    local c = op.sigmoid(f) * s.c + op.sigmoid(i) * op.tanh(g)
    local h = op.sigmoid(o) * op.tanh(c)
    return h, { h = h, c = c }
  end,
}

-- A product for each gate, as the equations are printed.
local apart = neap.cell {
  name = "apart",
  params = function(p, c)
    local k = 1 / c.size ^ 0.5
    for _, g in ipairs { "i", "f", "g", "o" } do
      p["w" .. g] = { c.size, c.input, init = { "uniform", -k, k } }
      p["u" .. g] = { c.size, c.size, init = { "uniform", -k, k } }
      p["b" .. g] = { c.size, init = { "uniform", -k, k } }
    end
  end,
  state = function(c) return { h = c.size, c = c.size } end,
  step = function(p, x, s)
    local function gate(g)
      return op.linear(x, p["w" .. g], p["b" .. g]) + op.linear(s.h, p["u" .. g])
    end
    local c = op.sigmoid(gate "f") * s.c + op.sigmoid(gate "i") * op.tanh(gate "g")
    local h = op.sigmoid(gate "o") * op.tanh(c)
    return h, { h = h, c = c }
  end,
}

local kinds = { neap = function(cell) return layers[cell] end,
  ["neap-cell"] = function(cell) return cell == "lstm" and merged end,
  ["neap-gates"] = function(cell) return cell == "lstm" and apart end }

-- ---- one case of ours: a function of n that does it n times and gives the seconds ----------------

local function repeated(fn)
  return function(n)
    local began = core.clock()
    for _ = 1, n do fn() end
    return core.clock() - began
  end
end

local function uniform(rng, shape)
  local n = 1
  for _, d in ipairs(shape) do n = n * d end
  local flat = {}
  for i = 1, n do flat[i] = rng:uniform(-1, 1) end
  return neap.tensor(flat):reshape(shape)
end

local function stack(kind, c)
  return function(x)
    local last
    for _ = 1, c.L do x, last = kind { size = c.H } (x) end
    return x, last
  end
end

local made = {}

function made.W1(kind, c, threads, rng)
  local pr = neap.program(function(rec)
    local x = rec:input("x", { space = "T", dims = { c.D } })
    local _, last = stack(kind, c)(x)
    return { loss = op.sum(op.sum_rows(op.square(last.h))) }
  end)
  local pool = core.pool(threads)
  local run = pr:run { learn = true, pool = pool }
  pr.params:pool(pool)
  run:feed { x = uniform(rng, { c.T, c.B, c.D }) }
  return repeated(function()
    pr.params:touch()
    run:forward()
    pr.params:zero_grad()
    run:backward()
  end)
end

local function predicting(kind, c)
  return neap.program(function(rec)
    return { y = (stack(kind, c)(rec:input("x", { space = "T", dims = { c.D } }))) }
  end)
end

function made.W2(kind, c, threads, rng)
  local run = predicting(kind, c):run { pool = core.pool(threads) }
  run:feed { x = uniform(rng, { c.T, c.B, c.D }) }
  return repeated(function() run:forward() end)
end

function made.W3(kind, c, _, rng)
  local stream = predicting(kind, c):stream()
  stream:input(1, uniform(rng, { c.D }))
  return function(n) return stream:time_steps(n) end
end

made["W3-block"] = function(kind, c, _, rng)
  local stream = predicting(kind, c):stream { block = 64 }
  stream:input(1, uniform(rng, { 64, c.D }))
  return function(n)
    local steps = (n + 63) // 64 * 64
    return stream:time_steps(steps) * n / steps
  end
end

made["W3-lua"] = function(kind, c, _, rng)
  local stream = predicting(kind, c):stream()
  local x, y = uniform(rng, { 1, c.D }), uniform(rng, { 1, c.H })
  return repeated(function() stream:step(x, y) end)
end

function made.W4(kind, c, threads, rng)
  local symbols, ids = {}, {}
  for i = 1, VOCABULARY do symbols[i] = string.char(32 + i) end
  for i = 1, 200000 do ids[i] = rng:int(VOCABULARY) - 1 end
  local net = { neap.embed { size = c.D } }
  for _ = 1, c.L do net[#net + 1] = kind { size = c.H } end
  net[#net + 1] = neap.linear {}
  local model = neap.language_model { vocab = neap.vocab(symbols), rng = rng, threads = threads,
    net = neap.chain(net) }
  local optim = neap.adam { rate = 1e-3, clip = 1 }
  local data = neap.tensor(ids, "i32")
  local batches = neap.batches.stream(data, { batch = c.B, steps = c.T })
  return repeated(function()
    local batch = batches()
    if not batch then
      batches = neap.batches.stream(data, { batch = c.B, steps = c.T })
      batch = batches()
    end
    model:learn(batch, optim)
  end)
end

-- Megabytes that the process has in memory at most while a case is made and run, with nothing of the
-- cases before it; nil where the system does not tell.
local function peak_of(make, ...)
  collectgarbage()
  collectgarbage()
  if not core.peak(true) then return nil end
  make(...)(1)
  return core.peak() / 1e6
end

-- ---- arithmetic ---------------------------------------------------------------------------------

-- Of one run: 2*G*H*(I+H) for each step, row and layer; learning adds the same for the gradients of
-- the weights, and those of the data, which the first layer's input needs not.
local function flops(w, cell, c)
  local sum, learns = 0, w == "W1" or w == "W4"
  for layer = 1, c.L do
    local i = layer == 1 and c.D or c.H
    sum = sum + 2 * gates[cell] * c.H * (i + c.H)
    if learns then
      sum = sum + 2 * gates[cell] * c.H * (i + c.H) + 2 * gates[cell] * c.H
        * (c.H + (layer > 1 and i or 0))
    end
  end
  if w == "W4" then sum = sum + 6 * c.H * VOCABULARY end
  return sum * c.T * c.B
end

-- Microseconds of a step that reads all weights from the cache that holds them, and 60 ns.
local function floor(cell, c, limits)
  local bytes = 4 * gates[cell] * c.H * (c.D + c.H)
  local level = bytes <= 32e3 and "L1" or bytes <= 0.75e6 and "L2" or "L3"
  return bytes / (limits[level .. " 1"] * 1e3) + 0.06
end

local function median(list)
  local sorted = table.move(list, 1, #list, 1, {})
  table.sort(sorted)
  return (sorted[(#sorted + 1) // 2] + sorted[#sorted // 2 + 1]) / 2, sorted[1], sorted[#sorted]
end

-- ---- peers: programs that read a case a line and answer with microseconds -----------------------

local Peer = {}
Peer.__index = Peer

local function quoted(text) return "'" .. text:gsub("'", "'\\''") .. "'" end

local function shell(command)
  local pipe = io.popen(command .. " 2>/dev/null")
  local text = pipe:read "a"
  return pipe:close() and text or nil
end

-- Starts a peer; nil and why if it is not there.
function Peer.start(name, command, folder)
  local fifo = ("%s/%s"):format(folder, name:gsub("%W", "_"))
  if not os.execute(("rm -f %s && mkfifo %s"):format(quoted(fifo), quoted(fifo))) then
    return nil, "cannot make " .. fifo
  end
  local from = io.popen(("env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE %s < %s 2> %s.err")
    :format(command, quoted(fifo), quoted(fifo)))
  local to = io.open(fifo, "w")
  to:setvbuf "line"
  local hello = from:read "l"
  if hello ~= "ready" then
    to:close()
    from:close()
    local err = io.open(fifo .. ".err")
    local why = err and err:read "a":match "([^\n]*)\n?$" or ""
    return nil, why ~= "" and why or "it did not start"
  end
  return setmetatable({ name = name, to = to, from = from }, Peer)
end

-- Microseconds and megabytes at most; nil if the peer has no such case.
function Peer:time(w, cell, c, threads, seconds)
  self.to:write(("%s %s %d %d %d %d %d %d %g\n"):format(w, cell, c.T, c.B, c.D, c.H, c.L, threads,
    seconds))
  local line = self.from:read "l"
  if not line then error("bench: " .. self.name .. " has ended", 0) end
  local us, mb = line:match "^(%S+)%s*(%S*)$"
  return tonumber(us), tonumber(mb)
end

function Peer:stop()
  self.to:close()
  self.from:close()
end

-- ---- the command --------------------------------------------------------------------------------

-- "W1,W3" -> { W1 = true, W3 = true }; all of them must be in known.
local function list(what, text, known)
  local set = {}
  for word in text:gmatch "[^,%s]+" do
    local found = false
    for _, k in ipairs(known) do found = found or k == word end
    if not found then
      error(("bench: --%s: expected some of %s, came %s"):format(what, table.concat(known, ","),
        word), 0)
    end
    set[word] = true
  end
  return set
end

local function positive(what, value)
  if not value or value <= 0 then error("bench: --" .. what .. ": expected a number above 0", 0) end
  return value
end

local function read_limits(program, threads, seconds)
  local text = shell(("%s %d %g"):format(quoted(program), threads, seconds))
  if not text then return nil end
  local limits = {}
  for name, n, value in text:gmatch "(%S+)\t(%d+)\t(%S+)" do
    limits[name .. " " .. n] = tonumber(value)
  end
  return limits
end

-- A line of the table: tabs between, or columns of fixed widths, text to the left.
local widths = { 19, 8, 4, 4, 3, 4, 4, 2, 7, 11, 16, 11, 10, 8, 9 }
local function table_line(cells_of_row, aligned)
  if not aligned then return table.concat(cells_of_row, "\t") end
  local parts = {}
  for i, cell in ipairs(cells_of_row) do
    parts[i] = ("%" .. (i <= 3 and "-" or "") .. widths[i] .. "s"):format(cell)
  end
  return table.concat(parts, " ")
end

--- Runs the command.
-- @tab options `only`, `cells`, `threads` (lists with commas), `limits`, `peers`, `json`, `seconds`,
--   `repeats`; `aligned`: columns for the eye; `folder`: where the programs of scripts/bench are,
--   `programs`: where they are built
return function(options)
  local workloads, hidden, threads = {}, {}, {}
  for _, s in ipairs(shapes) do
    if s[1] ~= workloads[#workloads] then workloads[#workloads + 1] = s[1] end
    hidden[tostring(s[5])] = true
  end
  local names = {}
  for name in pairs(hidden) do names[#names + 1] = name end
  table.sort(names, function(a, b) return tonumber(a) < tonumber(b) end)
  workloads[#workloads + 1] = "W3-lua"
  workloads[#workloads + 1] = "W3-block"
  local only = options.only and list("only", options.only, workloads)
  local some = options.cells and list("cells", options.cells, cells)
  local sizes = options.hidden and list("hidden", options.hidden, names)
  positive("seconds", options.seconds)
  positive("repeats", options.repeats)
  for word in (options.threads or "1,2"):gmatch "[^,%s]+" do
    threads[#threads + 1] = positive("threads", math.tointeger(tonumber(word)))
  end
  local out, notes, rows = io.stdout, io.stderr, {}
  local function note(...) notes:write("# ", string.format(...), "\n") end
  note("kernels %s, OpenBLAS %s", core.cpu_level(), core.blas_core())

  local limits
  if options.limits then
    limits = read_limits(options.programs .. "/limits", math.max(table.unpack(threads)),
      options.seconds / 5)
    if not limits then note("limits are left out: run 'make bench-programs' in the checkout") end
    local known = {}
    for name in pairs(limits or {}) do known[#known + 1] = name end
    table.sort(known)
    for _, name in ipairs(known) do
      note("limit %s thread: %.1f %s", name, limits[name], name:find "fma" and "GFLOP/s" or "GB/s")
    end
  end

  local peers, temporary = {}, nil
  if options.peers then
    temporary = shell("mktemp -d"):match "%S+"
    local pythons = { os.getenv "NEAP_BENCH_PYTHON" or "python3", "python3", "/usr/bin/python3" }
    for _, p in ipairs {
      { "onednn", { "env" }, quoted(options.programs .. "/onednn"),
        "apt-get install libdnnl-dev g++, then 'make bench-programs'" },
      { "torch", pythons, quoted(options.folder .. "/torch_peer.py"),
        "apt-get install python3-torch libopenblas0-openmp" },
      { "onnxruntime", pythons, quoted(options.folder .. "/onnxruntime_peer.py"),
        "a Python with onnxruntime and onnx, named by NEAP_BENCH_PYTHON" } } do
      local peer, why
      for _, with in ipairs(p[2]) do
        if not peer then peer, why = Peer.start(p[1], with .. " " .. p[3], temporary) end
      end
      if peer then peers[#peers + 1] = peer else note("%s is left out (%s): %s", p[1], why, p[4]) end
    end
  end

  local head = { "peer", "workload", "cell", "T", "B", "D", "H", "L", "threads", "median_us",
    "GFLOPs_effective", "min_us", "spread_pct", "peak_mb" }
  if limits then head[#head + 1] = "limit_pct" end
  if not options.json then out:write(table_line(head, options.aligned), "\n") end

  local function row(peer, w, cell, c, n, times, peak)
    local m, least, most = median(times)
    local count = flops(w:match "^W%d", cell, c)
    local r = { peer, w, cell, c.T, c.B, c.D, c.H, c.L, n, ("%.3f"):format(m),
      ("%.2f"):format(count / m * 1e-3), ("%.3f"):format(least),
      ("%.1f"):format((most - least) / m * 100), peak and ("%.1f"):format(peak) or "" }
    if limits then
      local share = w:find "^W3" and floor(cell, c, limits) / m
        or count / m * 1e-3 / (limits["fma " .. n] or math.huge)
      r[#r + 1] = ("%.1f"):format(share * 100)
    end
    rows[#rows + 1] = r
    if not options.json then
      out:write(table_line(r, options.aligned), "\n")
      out:flush()
    end
    return m
  end

  local function case(w, cell, c, n)
    local ours = {}
    for _, name in ipairs { "neap", "neap-cell", "neap-gates" } do
      local kind = kinds[name](cell)
      if kind and (name == "neap" or c.H >= 128 and w:find "^W[123]$") then
        ours[#ours + 1] = { name, kind, 1, {}, peak_of(made[w], kind, c, n, neap.rng(1)) }
      end
    end
    for _, o in ipairs(ours) do
      o[2] = made[w](o[2], c, n, neap.rng(1))
      local spent = o[2](1)
      while spent < 0.02 do
        o[3] = o[3] * 2
        spent = o[2](o[3])
      end
      o[3] = math.max(1, math.ceil(o[3] * options.seconds / spent))
    end
    local theirs = {}
    for _, peer in ipairs(peers) do -- warm
      for _, variant in ipairs(w == "W3-block" and { "-seq1000" } or { "", "-repack" }) do
        local asked = w:gsub("-block", "") .. variant
        local us, peak = peer:time(asked, cell, c, n, 0.02)
        if us then
          theirs[#theirs + 1] = { peer.name .. variant, function()
            return (peer:time(asked, cell, c, n, options.seconds))
          end, {}, peak }
        end
      end
    end
    for _ = 1, options.repeats do -- by turns
      for _, o in ipairs(ours) do table.insert(o[4], o[2](o[3]) / o[3] * 1e6) end
      for _, t in ipairs(theirs) do table.insert(t[3], t[2]()) end
    end
    local mine
    for _, o in ipairs(ours) do
      local m = row(o[1], w, cell, c, n, o[4], o[5])
      mine = mine or m
      if w == "W4" then note("%s: %.0f characters a second", o[1], c.T * c.B / m * 1e6) end
    end
    for _, t in ipairs(theirs) do
      row(t[1], w, cell, c, n, t[3], t[4])
      local ratios = {}
      for i, us in ipairs(t[3]) do ratios[i] = us / ours[1][4][i] end
      note("%s %s H%d, %d thread%s: neap is %.2f times as fast as %s", w, cell, c.H, n,
        n == 1 and "" or "s", (median(ratios)), t[1])
    end
  end

  for _, s in ipairs(shapes) do
    local c = { T = s[2], B = s[3], D = s[4], H = s[5], L = s[6] }
    for _, w in ipairs(s[1] == "W3" and { "W3", "W3-lua", "W3-block" } or { s[1] }) do
      for _, cell in ipairs(cells) do
        if (not only or only[w] or only[s[1]]) and (not some or some[cell])
          and (not sizes or sizes[tostring(c.H)]) then
          for _, n in ipairs(s[1] == "W3" and { 1 } or threads) do
            if s[1] ~= "W4" or cell == "lstm" then case(w, cell, c, n) end
          end
        end
      end
    end
  end
  for i = #peers, 1, -1 do peers[i]:stop() end -- later ones hold the pipes of earlier ones open
  if temporary then os.execute("rm -rf " .. quoted(temporary)) end
  if options.json then
    local objects = {}
    for i, r in ipairs(rows) do
      objects[i] = {}
      for k, name in ipairs(head) do objects[i][name] = k > 3 and tonumber(r[k]) or r[k] end
    end
    out:write(require "cjson".encode(objects), "\n")
  end
end

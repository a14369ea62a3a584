-- The same-bits rule: what must not change a single bit of a result. All comparisons are of bytes.
local core = require "neap.core"
local neap = require "neap"
local op = neap.op
local help = require "run_help"

local levels = {}
local best = core.cpu_level()
for _, level in ipairs { "avx512", "avx2", "neon", "generic" } do
  if pcall(core.cpu_select, level) then levels[#levels + 1] = level end
end
core.cpu_select(best)

-- ---- the models ----

local inputs = 11

-- A cell of the script's own with two states, one of them i32.
local drift = neap.cell {
  name = "drift",
  params = function(p, c)
    p.w, p.u, p.pace = { c.input, c.size }, { c.size, c.size }, { c.size, init = 0.1 }
  end,
  state = function(c) return { h = c.size, count = { c.size, dtype = "i32" } } end,
  step = function(p, x, s)
    local count = op.cast(s.count, "f32")
    local h = op.tanh(op.matmul(x, p.w) + op.matmul(s.h, p.u) + count * p.pace)
    local more = op.where(op.greater(h, 0), op.cast(count + 1, "i32"), s.count)
    return op.concat { h, op.cast(more, "f32") }, { h = h, count = more }
  end,
}

local function sequence(rec) return rec:input("x", { space = "T", dims = { inputs } }) end

-- Outputs of a layer over x, with a learned first state if `learned`.
local function over(make, learned)
  return function(size)
    local layer = make(size)
    return function(rec)
      local init = {}
      for _, name in ipairs(learned or {}) do init[name] = rec:param("first." .. name, { size }) end
      local y, last = layer(sequence(rec), init)
      local out = { y = y }
      for name, v in pairs(last or {}) do
        if v.dtype == "f32" then out[name] = v end
      end
      return out
    end
  end
end

-- name, function(size) -> recorded function; streams: can be stepped
local models = {
  { "elman", over(function(n) return neap.elman { size = n } end), streams = true },
  { "relu elman, learned first state",
    over(function(n) return neap.elman { size = n, activation = "relu" } end, { "h" }),
    streams = true },
  { "lstm", over(function(n) return neap.lstm { size = n } end), streams = true },
  { "lstm, learned first state",
    over(function(n) return neap.lstm { size = n } end, { "h", "c" }), streams = true },
  { "lstm's twin, learned first state",
    over(function(n) return neap.lstm { size = n, fused = false } end, { "h", "c" }),
    streams = true },
  { "peephole lstm", over(function(n) return neap.lstm { size = n, peepholes = true } end),
    streams = true },
  { "lstm with much", function(size)
    local layer = neap.lstm { size = size, coupled = true, projection = 5, peepholes = true,
      layer_norm = true, clip = 2, first = "learned",
      candidate = "softsign", gates = { o = function(o) return op.clamp(o, 0.1, 0.9) end } }
    return function(rec) return { y = (layer(sequence(rec))) } end
  end, streams = true },
  { "gru with much", over(function(n)
    return neap.gru { size = n, reset = "before", update = "take", layer_norm = true, bias = false }
  end), streams = true },
  { "elman with much", function(size)
    local layer = neap.elman { size = size, activation = { "scaled_tanh", alpha = 1.5 },
      layer_norm = true, clip = 1, first = "learned" }
    return function(rec) return { y = (layer(sequence(rec))) } end
  end, streams = true },
  { "a pyramid", function(size)
    local net = neap.chain { neap.bidir { neap.gru { size = size }, merge = "mul" }, neap.fold {},
      neap.highway { neap.lstm { size = 2 * size } }, neap.fold { steps = 3 },
      neap.elman { size = size, layer_norm = true } }
    return function(rec)
      local y, last = net(sequence(rec))
      return { y = op.concat { last.h, op.mean_time(y) } }
    end
  end },
  { "gru, reset after, learned first state",
    over(function(n) return neap.gru { size = n } end, { "h" }), streams = true },
  { "gru, reset before, learned first state",
    over(function(n) return neap.gru { size = n, reset = "before" } end, { "h" }), streams = true },
  { "gru's twin, reset before",
    over(function(n) return neap.gru { size = n, reset = "before", fused = false } end),
    streams = true },
  { "a script's cell", over(function(n) return drift { size = n } end), streams = true },
  { "a script's cell, learned first state",
    over(function(n) return drift { size = n } end, { "h" }), streams = true },
  { "jordan", function(size)
    local layer = neap.jordan { size = size, output = 5 }
    return function(rec) return { y = (layer(sequence(rec))) } end
  end, streams = true },
  { "a stack", function(size)
    local net = neap.chain { neap.lstm { size = size }, neap.layer_norm(),
      neap.residual { neap.gru { size = size } }, neap.activation "relu",
      drift { size = size }, neap.linear { size = 7 } }
    return function(rec) return { y = op.log_softmax((net(sequence(rec)))) } end
  end, streams = true },
  { "both directions", function(size)
    local net = neap.chain { neap.bidir { neap.lstm { size = size } },
      neap.bidir { neap.gru { size = size }, merge = "sum" } }
    return function(rec)
      local y, last = net(sequence(rec))
      return { y = y, last = last.h }
    end
  end },
  { "pooling over time", function(size)
    local layer = neap.gru { size = size }
    return function(rec)
      local y = layer(sequence(rec))
      return { y = op.concat { op.last(y), op.mean_time(y), op.max_time(y), op.sum_time(y) } }
    end
  end },
  { "attention from primitive ops", function(size)
    local encode = neap.gru { size = size }
    return function(rec)
      local y = encode(sequence(rec))
      local memory = op.padded(y)
      local scores = op.bmm(op.spread(memory, y), y) * 0.3
      local mask = op.spread(op.padding_mask(y), y)
      local weights = op.masked_softmax(scores, mask)
      local turned = op.spread(op.transpose(memory), y)
      local sums = op.tanh(op.reshape(y, { 1, size }) + op.spread(memory, y))
      return { y = op.bmm(weights, op.spread(memory, y)),
        hard = op.gather(op.spread(memory, y), op.argmax(weights)),
        additive = op.bmm(op.masked_softmax(op.sum(sums), mask), turned, { transpose_b = true }),
        scaled = op.reshape(op.sum(op.sin(scores * op.sum(y, 1, true))), { 1 }),
        turned = op.bmm(weights, turned, { transpose_b = true }),
        score = op.reshape(op.sum(scores), { 1 }),
        asked = op.reshape(op.sum(op.sin(op.bmm(y, turned))), { 1 }),
        once = op.bmm(op.bmm(op.last(y), memory, { transpose_b = true }), memory) }
    end
  end },
  { "attention over its own past and future", function(size)
    local encode, attend = neap.lstm { size = size }, neap.attention { kind = "additive", size = 9 }
    local dot = neap.attention { kind = "general", scale = 0.3 }
    return function(rec)
      local x = sequence(rec)
      local memory = encode(x)
      return { y = op.concat { (attend(x, memory)), (dot(x, memory)) } }
    end
  end },
}

-- A model of that size; its loss is a sum over rows, so that a row's gradients are its own.
local function model(spec, size)
  local build = spec[2](size)
  local program = neap.program(function(rec)
    local out, all = build(rec), {}
    for name in pairs(out) do all[#all + 1] = name end
    table.sort(all)
    for i, name in ipairs(all) do all[i] = out[name] end
    out.loss = help.loss(table.unpack(all))
    return out
  end)
  help.scatter(program.params, neap.rng(size), 0.3)
  return program
end

-- ---- batches ----

local lengths = { 4, 0, 7, 1, 5, 2 }

local function total(list)
  local sum = 0
  for _, n in ipairs(list) do sum = sum + n end
  return sum
end

-- Rows as tensors [length, inputs]; row(b) may be asked for alone.
local function rows_of(list, seed)
  local rows = {}
  for b, n in ipairs(list) do
    rows[b] = n > 0 and help.normal(neap.rng(seed * 100 + b), { n, inputs })
      or neap.zeros { 0, inputs }
  end
  return rows
end

-- The rows `order` of a batch, one after the other.
local function concat(rows, order)
  local bytes, list = {}, {}
  for i, b in ipairs(order) do
    bytes[i], list[i] = rows[b]:tobytes(), rows[b]:shape()[1]
  end
  return { x = { data = core.tensor_from_string(table.concat(bytes), { total(list), inputs }),
    lengths = neap.tensor(list, "i32") } }, list
end

local function padded(rows, list, filler)
  local steps = 0
  for _, n in ipairs(list) do steps = math.max(steps, n) end
  local t = neap.zeros { steps + 2, #list, inputs }
  t:fill(filler)
  for b, n in ipairs(list) do
    for s = 1, n do
      for i = 1, inputs do t:set(s, b, i, rows[b]:get(s, i)) end
    end
  end
  return { x = { data = t, lengths = neap.tensor(list, "i32"), padded = true } }
end

local function all(n)
  local order = {}
  for i = 1, n do order[i] = i end
  return order
end

-- ---- results ----

-- Everything a run makes of a batch, as bytes by name. A tensor of rows: a list of bytes by row,
-- and past the end of a row nothing but zeros.
local function results(program, batch, list, options)
  options = options or {}
  local run = program:run { learn = true, pool = options.pool, seed = 5 }
  run:want_gradient "x"
  run:feed(batch):forward()
  program.params:zero_grad()
  run:backward()
  local made = { rows = {}, whole = {} }
  local function by_row(name, t)
    local shape, bytes, parts = t:shape(), t:tobytes(), {}
    local sequence = #shape == 3
    local wide, batch_rows = 4 * shape[#shape], #list
    for b, n in ipairs(list) do
      local row = {}
      for s = 1, sequence and shape[1] or 1 do
        local at = ((s - 1) * batch_rows + b - 1) * wide
        local piece = bytes:sub(at + 1, at + wide)
        if sequence and s > n then
          assert.falsy(piece:find "[^\0]", name .. ": its padding is not 0")
        else
          row[s] = piece
        end
      end
      parts[b] = table.concat(row)
    end
    made.rows[name] = parts
  end
  for name in pairs(program.outputs) do
    if name == "loss" then
      made.whole.loss = run:value "loss":tobytes()
    else
      by_row(name, run:value(name))
    end
  end
  by_row("gradient of x", run:gradient "x")
  for _, name in ipairs(program.params:names()) do
    made.whole["gradient of " .. name] = program.params:grad(name):tobytes()
  end
  return made
end

-- came and expected: lists of bytes by row; order[i]: the row of expected that is row i of came
local function same_rows(came, expected, order, what)
  for name, rows in pairs(expected.rows) do
    for i, b in ipairs(order) do
      if came.rows[name][i] ~= rows[b] then
        error(("%s: %s of row %d has other bits"):format(what, name, b), 2)
      end
    end
  end
end

local function same(came, expected, what)
  same_rows(came, expected, all(#expected.rows["gradient of x"]), what)
  for name, bytes in pairs(expected.whole) do
    if came.whole[name] ~= bytes then error(("%s: %s has other bits"):format(what, name), 2) end
  end
end

local function at_each_level(f)
  for _, level in ipairs(levels) do
    core.cpu_select(level)
    local ok, message = pcall(f, level)
    core.cpu_select(best)
    if not ok then error(level .. ": " .. tostring(message), 0) end
  end
end

local function for_each_model(what, f)
  for _, spec in ipairs(models) do
    it(what .. ": " .. spec[1], function() at_each_level(function() f(spec) end) end)
  end
end

describe("the same bits", function()
  for_each_model("on a second run, in a run used before", function(spec)
    local program = model(spec, 19)
    local rows = rows_of(lengths, 1)
    local batch = concat(rows, all(#rows))
    local first = results(program, batch, lengths)
    same(results(program, batch, lengths), first, "a second run")
    -- a run that has held larger and smaller batches
    local run = program:run { learn = true }
    for _, order in ipairs { { 3, 3, 3, 5, 1, 5, 6, 2 }, { 2 }, { 4, 2 }, all(#rows) } do
      run:feed(concat(rows, order)):forward()
      program.params:zero_grad()
      run:backward()
    end
    for _, name in ipairs(program.params:names()) do
      local came = program.params:grad(name):tobytes()
      assert(came == first.whole["gradient of " .. name], "gradient of " .. name)
    end
    assert(first.whole.loss == run:value "loss":tobytes())
  end)

  for_each_model("for any content of the padding", function(spec)
    local program = model(spec, 19)
    local rows = rows_of(lengths, 2)
    local expected = results(program, concat(rows, all(#rows)), lengths)
    for _, filler in ipairs { 0, 0 / 0, math.huge, -1e30 } do
      same(results(program, padded(rows, lengths, filler), lengths), expected,
        "padding " .. filler)
    end
  end)

  for_each_model("for a row alone, in a batch, in a permuted batch", function(spec)
    local function check(size, list, orders)
      local program = model(spec, size)
      local rows = rows_of(list, 3)
      local expected = results(program, concat(rows, all(#rows)), list)
      for b in ipairs(rows) do
        local batch, alone = concat(rows, { b })
        same_rows(results(program, batch, alone), expected, { b }, "alone, size " .. size)
      end
      for _, order in ipairs(orders) do
        local batch, other = concat(rows, order)
        same_rows(results(program, batch, other), expected, order, "other batch, size " .. size)
      end
    end
    for _, size in ipairs { 5, 19, 64 } do
      check(size, lengths, { { 6, 5, 4, 3, 2, 1 }, { 2, 3, 1, 6, 4, 5 }, { 1, 3 },
        { 5, 5, 3, 3, 3, 1, 1, 1, 4, 4, 6, 2, 2, 6, 6, 1, 5, 3, 5, 3, 1 } })
    end
    -- beyond four registers of 8 and of 16 numbers, and shortly before
    check(7, { 2, 67, 30, 57 }, { { 1, 3 }, { 3, 4 } })
  end)

  for_each_model("with one thread and with more", function(spec)
    local program = model(spec, 64) -- large enough for the work to be shared out
    local rows, list = nil, {}
    for b = 1, 24 do list[b] = (b * 7) % 23 end
    rows = rows_of(list, 4)
    local batch = concat(rows, all(#rows))
    local expected = results(program, batch, list)
    for threads = 2, core.cpu_level() == best and 3 or 2 do
      local pool <close> = neap.pool(threads)
      same(results(program, batch, list, { pool = pool }), expected, threads .. " threads")
    end
  end)

  it("of what is drawn by chance, on a second run and with two threads", function()
    local program = model({ "", function(size)
      local net = neap.chain { neap.dropout { rate = 0.4 }, neap.lstm { size = size },
        neap.dropout { rate = 0.2 } }
      return function(rec)
        local x = sequence(rec)
        local y = net(x)
        return { y = y * op.uniform(y) + op.cast(op.reshape(op.sample(y), { 1 }), "f32") }
      end
    end }, 64)
    at_each_level(function()
      local rows = rows_of({ 9, 14, 3, 14 }, 5)
      local batch, list = concat(rows, all(4))
      local expected = results(program, batch, list)
      same(results(program, batch, list), expected, "a second run")
      local pool <close> = neap.pool(2)
      same(results(program, batch, list, { pool = pool }), expected, "two threads")
    end)
  end)

  it("for ids in the padding that no table has", function()
    local net = neap.chain { neap.embed { size = 6, input = 10 }, neap.gru { size = 9 } }
    local program = neap.program(function(rec)
      local y, last = net(rec:input("ids", { space = "T", dtype = "i32" }))
      return { y = y, h = last.h, loss = help.loss(y) }
    end)
    local function made(filler)
      local ids = neap.tensor({ { 1, 2, 9 }, { filler, 3, 0 }, { filler, 4, filler } }, "i32")
      local run = program:run { learn = true }
      run:feed { ids = { data = ids, lengths = neap.tensor({ 1, 3, 2 }, "i32"), padded = true } }
      run:forward()
      program.params:zero_grad()
      run:backward()
      return run:value "y":tobytes() .. run:value "h":tobytes()
        .. program.params:grad "chain.embed1.weight":tobytes()
    end
    local expected = made(0)
    assert(expected == made(-1))
    assert(expected == made(2147483647))
  end)
end)

-- ---- streams and states ----

-- The batch that a stream of #rows rows sees at step s: rows that have ended see zeros.
local function step_input(rows, s)
  local bytes = {}
  for b, t in ipairs(rows) do
    bytes[b] = s <= t:shape()[1] and t[s]:tobytes() or ("\0"):rep(4 * inputs)
  end
  return core.tensor_from_string(table.concat(bytes), { #rows, inputs })
end

-- A program with y alone, which can be stepped.
local function stepped(spec, size)
  local build = spec[2](size)
  local program = neap.program(function(rec) return { y = build(rec).y } end)
  help.scatter(program.params, neap.rng(size), 0.3)
  return program
end

-- y as bytes, [step][row], of a whole-sequence run.
local function whole(program, rows, state)
  local batch, list = concat(rows, all(#rows))
  local run = program:run()
  if state then run:state(state) end
  run:feed(batch):forward()
  local y = run:value "y"
  local shape, bytes, out = y:shape(), y:tobytes(), {}
  local wide = 4 * shape[3]
  for s = 1, shape[1] do
    out[s] = {}
    for b = 1, #list do
      local at = ((s - 1) * #list + b - 1) * wide
      out[s][b] = bytes:sub(at + 1, at + wide)
    end
  end
  return out
end

local function row_bytes(t, b)
  local wide = t:size() // #t * 4
  return t:tobytes():sub((b - 1) * wide + 1, b * wide)
end

-- Steps from..to of a stream against the whole run; stream row i is row of[i].
local function steps_equal(stream, rows, expected, from, to, of)
  of = of or all(#rows)
  local seen = {}
  for i, b in ipairs(of) do seen[i] = rows[b] end
  for s = from, to do
    stream:input(1, step_input(seen, s))
    stream:step()
    local y = stream:output(1)
    for i, b in ipairs(of) do
      if s <= rows[b]:shape()[1] and row_bytes(y, i) ~= expected[s][b] then
        error(("step %d of row %d has other bits"):format(s, b), 2)
      end
    end
  end
end

local function for_each_stream(what, f)
  for _, spec in ipairs(models) do
    if spec.streams then
      it(what .. ": " .. spec[1], function() at_each_level(function() f(spec) end) end)
    end
  end
end

describe("streamed and whole", function()
  for_each_stream("step by step", function(spec)
    for _, size in ipairs { 3, 19, 64 } do
      local program = stepped(spec, size)
      local rows = rows_of(lengths, 6)
      local expected = whole(program, rows)
      for b, row in ipairs(rows) do
        local alone <close> = program:stream()
        steps_equal(alone, { row }, whole(program, { row }), 1, lengths[b])
      end
      local stream <close> = program:stream { rows = #rows }
      steps_equal(stream, rows, expected, 1, 7)
      stream:reset()
      steps_equal(stream, rows, expected, 1, 7)
    end
  end)

  for_each_stream("state saved in the middle, restored in another stream", function(spec)
    local program = stepped(spec, 19)
    local rows = rows_of({ 7, 7, 7 }, 7)
    local expected = whole(program, rows)
    local stream <close> = program:stream { rows = 3 }
    local other <close> = program:stream { rows = 3 }
    steps_equal(stream, rows, expected, 1, 4)
    local kept = stream:state()
    steps_equal(stream, rows, expected, 5, 7)
    stream:set_state(kept)
    steps_equal(stream, rows, expected, 5, 7)
    -- through tensors, as a file would keep it
    local copy = program:state(3)
    for _, slot in ipairs(kept:slots()) do copy:set(slot, kept:get(slot)) end
    other:set_state(copy)
    steps_equal(other, rows, expected, 5, 7)
  end)

  for_each_stream("rows reset and gathered", function(spec)
    local program = stepped(spec, 19)
    local rows = rows_of({ 7, 7, 7 }, 8)
    local expected = whole(program, rows)
    local stream <close> = program:stream { rows = 3 }
    steps_equal(stream, rows, expected, 1, 4)
    local kept = stream:state()
    -- rows 3, 1, 1 go on
    local gathered = kept:clone()
    gathered:gather { 3, 1, 1 }
    stream:set_state(gathered)
    steps_equal(stream, rows, expected, 5, 7, { 3, 1, 1 })
    -- a stream of two rows takes two of them
    local two <close> = program:stream { rows = 2 }
    local fewer = kept:clone()
    fewer:gather { 2, 3 }
    assert.equal(2, fewer:rows())
    two:set_state(fewer)
    steps_equal(two, rows, expected, 5, 7, { 2, 3 })
    -- row 2 begins anew, the others go on
    local anew = kept:clone()
    anew:reset { 2 }
    stream:set_state(anew)
    for s = 1, 3 do
      local x = { rows[1], rows[2], rows[3] }
      local bytes = { x[1][s + 4]:tobytes(), x[2][s]:tobytes(), x[3][s + 4]:tobytes() }
      stream:input(1, core.tensor_from_string(table.concat(bytes), { 3, inputs }))
      stream:step()
      local y = stream:output(1)
      assert(expected[s + 4][1] == row_bytes(y, 1))
      assert(expected[s][2] == row_bytes(y, 2))
      assert(expected[s + 4][3] == row_bytes(y, 3))
    end
  end)

  for_each_stream("a run that goes on where another ended", function(spec)
    local program = stepped(spec, 19)
    local rows = rows_of({ 7, 3, 5 }, 9)
    local expected = whole(program, rows)
    local function part(from, to)
      local cut = {}
      for b, t in ipairs(rows) do
        local bytes, n = {}, t:shape()[1]
        for s = from, math.min(to, n) do bytes[#bytes + 1] = t[s]:tobytes() end
        cut[b] = core.tensor_from_string(table.concat(bytes), { #bytes, inputs })
      end
      return cut
    end
    local state, first = program:state(3), part(1, 3)
    local made = whole(program, first, state)
    local kept = state:clone()
    for s = 1, 3 do
      for b = 1, 3 do assert(expected[s][b] == made[s][b]) end
    end
    for _, from in ipairs { state, kept } do
      made = whole(program, part(4, 7), from) -- row 2 has nothing more
      for s = 4, 7 do
        for b, t in ipairs(rows) do
          if s <= t:shape()[1] then assert(expected[s][b] == made[s - 3][b]) end
        end
      end
    end
    -- a sequence without steps leaves its state as it was
    for _, slot in ipairs(kept:slots()) do
      assert(row_bytes(state:get(slot), 2) == row_bytes(kept:get(slot), 2))
    end
    -- and a stream takes it over
    state = program:state(3)
    whole(program, first, state)
    local stream <close> = program:stream { rows = 3 }
    stream:set_state(state)
    steps_equal(stream, rows, expected, 4, 7)
  end)
end)

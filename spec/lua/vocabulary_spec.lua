-- Large vocabularies: the gradient of logits takes their place; of an embedding's table only the
-- rows that are looked up are added to, cleared, summed and updated. Comparisons are of bytes.
local core = require "neap.core"
local neap = require "neap"
local op = neap.op
local help = require "run_help"

local function ids(rng, count, below, from)
  local list = {}
  for i = 1, count do list[i] = rng:int(below - (from or 0)) - 1 + (from or 0) end
  return neap.tensor(list, "i32")
end

local function gradients(params)
  local all = {}
  for _, name in ipairs(params:names()) do all[name] = params:grad(name):tobytes() end
  return all
end

local function values(params)
  local all = {}
  for _, name in ipairs(params:names()) do all[name] = params:get(name):tobytes() end
  return all
end

local function same(came, expected, what)
  for name, bytes in pairs(expected) do
    if came[name] ~= bytes then error(("%s: %s has other bits"):format(what, name), 2) end
  end
end

-- ---- the output layer ----

local lengths, V, H = { 5, 0, 3, 7, 1 }, 700, 6
local total = 16

local cell = neap.cell {
  name = "last", params = function(p, c) p.w, p.u = { c.input, c.size }, { c.size, c.output } end,
  state = function(c) return { h = c.size } end,
  step = function(p, x, s)
    local h = op.tanh(op.matmul(x, p.w) + s.h)
    return op.matmul(h, p.u), { h = h }
  end,
}

-- name -> logits of x [T,B,H]
local heads = {
  linear = function(x) return neap.linear { size = V } (x) end,
  ["product and bias"] = function(x)
    return op.matmul(x, x.rec:param("w", { H, V })) + x.rec:param("b", { V })
  end,
  ["sum of two"] = function(x)
    return neap.linear { size = V } (x) + op.tanh(neap.linear { size = V } (x))
  end,
  ["a cell's output"] = function(x) return (cell { size = 4, output = V } (x)) end,
  ["two dimensions"] = function(x)
    return op.reshape(neap.linear { size = V } (x), { 2, V // 2 })
  end,
}

-- How the loss reads the logits, and the most that an id may be.
local losses = {
  plain = function(z, y) return op.cross_entropy(z, y) end,
  smooth = function(z, y) return op.cross_entropy(z, y, { smoothing = 0.1 }) end,
  masked = function(z, y)
    return op.cross_entropy(z, y, { mask = op.less(op.cast(y, "f32"), V / 4) })
  end,
  weighted = function(z, y)
    local each = op.cross_entropy(z, y, { rows = true })
    each = each * op.sin(each)
    for _ = 1, #each.dims do each = op.sum(each) end
    return op.sum_rows(op.reshape(each, { 1 }))
  end,
}

-- more: function of the logits giving further outputs
local function model(head, loss, more)
  local program = neap.program(function(rec)
    local z = head(rec:input("x", { space = "T", dims = { H } }))
    local y = rec:input("y", { space = "T", dtype = "i32", dims = #z.dims > 1 and { 2 } or nil })
    local out = more and more(z) or {}
    out.loss = op.reshape(loss(z, y), {})
    return out
  end)
  help.scatter(program.params, neap.rng(3), 0.4)
  return program
end

local function kept(z) return { z = z } end

local function run_of(program, threads, recompute)
  local rng, n = neap.rng(8), neap.tensor(lengths, "i32")
  local run = program:run { learn = true, pool = core.pool(threads or 1), recompute = recompute }
  local wide = #program.types.y.dims > 0
  local y = ids(rng, total * (wide and 2 or 1), wide and V // 2 or V, -1)
  run:feed { x = { data = help.normal(rng, { total, H }), lengths = n },
    y = { data = wide and y:reshape { total, 2 } or y, lengths = n } }
  return run
end

local function learned(run)
  run:forward()
  run.program.params:zero_grad()
  run:backward()
  return gradients(run.program.params)
end

describe("logits of a loss", function()
  for name, head in pairs(heads) do
    for kind, loss in pairs(losses) do
      it(("are turned into their gradient in place: %s, %s"):format(name, kind), function()
        local read = run_of(model(head, loss, kept))
        local expected = learned(read)
        local program = model(head, loss)
        for _, threads in ipairs { 1, 3 } do
          local run = run_of(program, threads)
          for _ = 1, 2 do
            same(learned(run), expected, kind)
            assert.equal(read:value "loss":tobytes(), run:value "loss":tobytes())
          end
          local less = read:bytes() - run:bytes()
          assert(less > 0.8 * total * V * 4, "one tensor of logits less, " .. less)
        end
        local parts = run_of(program, 1, true) -- in segments sums are others
        for _ = 1, 2 do
          learned(parts)
          for _, of in ipairs(program.params:names()) do
            help.near(program.params:grad(of), help.flat(read.program.params:grad(of)), 1e-5, of)
          end
        end
      end)
    end
  end

  -- The same loss from other ops, which keep the logits.
  local function spelled(z, y)
    local id = op.cast(op.maximum(op.cast(y, "f32"), 0), "i32")
    local each = -op.sum(op.log_softmax(z) * op.one_hot(id, V))
    return op.mean_rows(op.reshape(each, { 1 }), op.cast(op.greater_equal(y, 0), "f32"))
  end
  -- name -> a loss that reads them more than once, and what it must be near to
  local function squares(z) return 1e-2 * op.mean_rows(op.sum(op.square(z), 1, true)) end
  local twice = {
    ["by two losses"] = { function(z, y) return op.cross_entropy(z, y) + op.cross_entropy(z, y) end,
      function(z, y) return 2 * spelled(z, y) end },
    ["by their squares before"] = { function(z, y) return squares(z) + op.cross_entropy(z, y) end,
      function(z, y) return squares(z) + spelled(z, y) end },
    ["by their squares after"] = { function(z, y) return op.cross_entropy(z, y) + squares(z) end,
      function(z, y) return spelled(z, y) + squares(z) end },
    ["by a sum"] = { function(z, y)
      return op.cross_entropy(z, y) + 1e-2 * op.mean_rows(op.sum(z, 1, true))
    end, function(z, y) return spelled(z, y) + 1e-2 * op.mean_rows(op.sum(z, 1, true)) end },
    ["by nobody else"] = { losses.plain, spelled },
    ["as ids"] = { function(z, y) return op.cross_entropy(z, y) + 0 * op.mean_rows(op.reshape(
      op.cast(op.argmax(z), "f32"), { 1 })) end, spelled },
  }
  for name, pair in pairs(twice) do
    it("have the right gradient where they are read " .. name, function()
      local run, spelt = run_of(model(heads.linear, pair[1])), run_of(model(heads.linear, pair[2]))
      learned(run)
      learned(spelt)
      local params = run.program.params
      for _, of in ipairs(params:names()) do
        help.near(params:grad(of), help.flat(spelt.program.params:grad(of)), 1e-5, of)
      end
    end)
  end

  it("and their gradient can be asked for", function()
    local program = model(heads.linear, losses.plain, kept)
    local run, n = program:run { learn = true }, neap.tensor(lengths, "i32")
    local batch = { x = { data = help.normal(neap.rng(8), { total, H }), lengths = n },
      y = { data = ids(neap.rng(2), total, V), lengths = n } }
    run:want_gradient "z"
    run:feed(batch):forward()
    local z = run:value "z":tobytes()
    run:backward()
    assert.equal(z, run:value "z":tobytes())
    assert.equal(z, program:run():feed(batch):forward():value "z":tobytes())
    local flat = help.flat(run:gradient("z", "concat"))
    for r = 0, total - 1 do
      local sum, size = 0, 0
      for i = 1, V do
        sum, size = sum + flat[r * V + i], size + math.abs(flat[r * V + i])
      end
      assert(math.abs(sum) < 1e-6 and size > 0.9 / total, "softmax less one")
    end
  end)

  it("are made again where a number that is not finite is looked for", function()
    local program = model(heads.linear, losses.plain)
    local run = run_of(program)
    local expected = learned(run)
    program.params:zero_grad()
    assert.is_nil((run.core:find_nonfinite(program.outputs.loss)))
    same(gradients(program.params), expected, "found nothing")
  end)
end)

-- ---- the input layer ----

local rows, width = 300, 5 -- rows that do not end with lines of the cache

-- Rows of a table by ids. dense: with a term that gives all of them a gradient of 0.
local function table_model(dense)
  local program = neap.program(function(rec)
    local w = rec:param("table", { rows, width })
    local u = rec:param("u", { width, 3 })
    local a = rec:input("a", { space = "T", dtype = "i32" })
    local b = rec:input("b", { space = "B", dtype = "i32" })
    local x = op.sum_time(op.tanh(op.matmul(op.embedding(a, w), u))) -- the table is read twice
    local y = op.tanh(op.matmul(op.embedding(b, w), u))
    local loss = op.reshape(op.sum_rows(op.reshape(op.sum(x * (y + 2)), { 1 })), {})
    return { loss = dense and loss + 0 * op.sum(op.sum(w)) or loss }
  end)
  help.scatter(program.params, neap.rng(4))
  return program
end

local function batch_of(number)
  local rng = neap.rng(100 + number)
  return { a = { data = ids(rng, 9, rows), lengths = neap.tensor({ 4, 0, 5 }, "i32") },
    b = ids(rng, 3, rows) }
end

-- The numbers of the rows of a table, as bytes.
local function parts(bytes)
  local list = {}
  for r = 1, rows do list[r] = bytes:sub(4 * width * (r - 1) + 1, 4 * width * r) end
  return list
end

local zeros = ("\0"):rep(4 * width)

describe("an embedding's gradient", function()
  it("lies in the rows that were looked up, until it is cleared", function()
    for _, threads in ipairs { 1, 3, 0 } do
      local program = table_model()
      local options = { learn = true, pool = core.pool(math.max(threads, 1)),
        recompute = threads == 0 }
      local run, params = program:run(options), program.params
      local dense = table_model(true)
      local other = dense:run(options)
      for pass = 1, 3 do
        local used = {}
        for number = pass, pass + 2 do -- summed over several batches
          local batch = batch_of(number)
          run:feed(batch):forward():backward()
          other:feed(batch):forward():backward()
          for _, t in ipairs { batch.a.data, batch.b } do
            for _, id in ipairs(help.flat(t)) do used[id + 1] = true end
          end
        end
        same(gradients(params), gradients(dense.params), "all rows")
        local some = 0
        for r, part in ipairs(parts(params:grad "table":tobytes())) do
          if part ~= zeros then some = some + 1 end
          assert(used[r] or part == zeros)
        end
        assert(some > 10)
        params:zero_grad()
        dense.params:zero_grad()
        assert.equal(zeros:rep(rows), params:grad "table":tobytes())
        assert.equal(zeros:rep(3), params:grad "u":tobytes())
      end
    end
  end)

  it("stays where parameters are added", function()
    local program = table_model()
    program:run { learn = true }:feed(batch_of(1)):forward():backward()
    local before = program.params:grad "table":tobytes()
    for i = 1, 5 do program.params:add("more" .. i, { 100 * i, 3 }) end
    assert.equal(before, program.params:grad "table":tobytes())
    program.params:zero_grad()
    assert.equal(zeros:rep(rows), program.params:grad "table":tobytes())
  end)

  it("is nothing while the table is frozen", function()
    local program = table_model()
    local run, params, optim = program:run { learn = true }, program.params, neap.sgd { rate = 1 }
    params:freeze "table"
    run:feed(batch_of(1)):forward():backward()
    assert.equal(zeros:rep(rows), params:grad "table":tobytes())
    local before = params:get "table":tobytes()
    optim:step(params)
    assert.equal(before, params:get "table":tobytes())
    params:freeze("table", false)
    run:forward():backward()
    assert.not_equal(zeros:rep(rows), params:grad "table":tobytes())
  end)

  it("is that of all rows where a product reads the table too", function()
    local function model(tied)
      local program = neap.program(function(rec)
        local w = rec:param("table", { rows, width })
        local out = tied and w or rec:param("out", { rows, width })
        local a = rec:input("a", { space = "T", dtype = "i32" })
        local b = rec:input("b", { space = "B", dtype = "i32" })
        local x = op.tanh(op.sum_time(op.embedding(a, w)))
        return { loss = op.cross_entropy(op.linear(x, out), b) }
      end)
      local draw = help.normal(neap.rng(3), { rows, width })
      for _, name in ipairs(program.params:names()) do program.params:set(name, draw) end
      return program
    end
    local tied, apart = model(true), model(false)
    local optim, values_before = neap.sgd { rate = 1 }, tied.params:get "table":tobytes()
    for _, program in ipairs { tied, apart } do
      program:run { learn = true }:feed(batch_of(1)):forward():backward()
    end
    local g, h = help.flat(apart.params:grad "table"), help.flat(apart.params:grad "out")
    for i = 1, #g do g[i] = g[i] + h[i] end
    help.near(tied.params:grad "table", g, 1e-6, "both together")
    optim:step(tied.params)
    local now = parts(tied.params:get "table":tobytes())
    for r, part in ipairs(parts(values_before)) do assert.not_equal(part, now[r]) end
    tied.params:zero_grad()
    assert.equal(zeros:rep(rows), tied.params:grad "table":tobytes())
  end)

  it("comes from the ids of a cell's steps too", function()
    local function model(dense)
      local counter = neap.cell {
        name = "counter",
        params = function(p) p.w = { rows, width } end,
        state = function() return { id = { 1, dtype = "i32" }, h = width } end,
        step = function(p, x, s)
          local h = op.tanh(s.h + op.reshape(op.embedding(s.id, p.w), { width }) + x)
          return h, { id = op.cast(op.cast(s.id, "f32") + 7, "i32"), h = h }
        end,
      }
      local program = neap.program(function(rec)
        local x = rec:input("x", { space = "T", dims = { width } })
        local loss = help.loss((counter {} (x)))
        return { loss = dense and loss + 0 * op.sum(op.sum(rec:param("counter.w", { rows, width })))
          or loss }
      end)
      help.scatter(program.params, neap.rng(4))
      return program
    end
    local few, all = model(), model(true)
    local batch = { x = help.normal(neap.rng(1), { 4, 2, width }) }
    for _, program in ipairs { few, all } do
      local run = program:run { learn = true }
      run:feed(batch):forward():backward()
    end
    same(gradients(few.params), gradients(all.params), "in a loop")
    local name = few.params:names()[1]
    for r, part in ipairs(parts(few.params:grad(name):tobytes())) do
      assert.equal((r - 1) % 7 ~= 0 or r > 22, part == zeros)
    end
    few.params:zero_grad()
    assert.equal(zeros:rep(rows), few.params:grad(name):tobytes())
  end)
end)

describe("an update of a table", function()
  local rules = {
    { "sgd", { rate = 0.3 } }, { "sgd", { rate = 0.3, weight_decay = 0.1 } },
    { "sgd", { rate = 0.1, momentum = 0.9 } }, { "sgd", { rate = 0.1, clip = 0.2 } },
    { "sgd", { rate = 0.1, clip_value = 0.01 } }, { "rmsprop", { rate = 0.01 } },
    { "rmsprop", { rate = 0.01, momentum = 0.5, clip = 0.3 } },
    { "adam", { rate = 0.05 } }, { "adam", { rate = 0.05, clip = 0.1, weight_decay = 0.01 } },
    { "adamw", { rate = 0.05 } }, { "adamw", { rate = 0.05, weight_decay = 0, clip_value = 0.01 } },
  }
  local function text(rule) return tostring(neap[rule[1]](rule[2])) end

  -- Steps of learning from batches number from .. to.
  local function train(program, optim, from, to)
    local run = program:run { learn = true }
    for number = from, to do
      run:feed(batch_of(number)):forward()
      program.params:zero_grad()
      run:backward()
      optim:step(program.params)
    end
  end

  for _, rule in ipairs(rules) do
    it("is that of all rows, to the bit: " .. text(rule), function()
      local program, dense = table_model(), table_model(true)
      local one, two = neap[rule[1]](rule[2]), neap[rule[1]](rule[2])
      train(program, one, 1, 6)
      train(dense, two, 1, 6)
      same(values(program.params), values(dense.params), text(rule))
      assert.same(two:report(), one:report())
    end)

    it("goes on where it was saved, to the bit: " .. text(rule), function()
      local whole, first, resumed = table_model(), table_model(), table_model()
      train(whole, neap[rule[1]](rule[2]), 1, 6)
      local optim, archive = neap[rule[1]](rule[2]), core.archive()
      train(first, optim, 1, 3)
      optim:on(first.params):save(archive, "o.")
      for _, name in ipairs(first.params:names()) do
        resumed.params:set(name, first.params:get(name))
      end
      local again = neap[rule[1]](rule[2])
      assert(again:on(resumed.params):load(archive, "o."))
      train(resumed, again, 4, 6)
      same(values(resumed.params), values(whole.params), text(rule))
    end)
  end

  it("needs no memory for SGD without momentum", function()
    local program, archive = table_model(), core.archive()
    train(program, neap.sgd { rate = 1 }, 1, 1)
    local params = program.params
    local function takes(optim)
      collectgarbage()
      local live = core.memory_live()
      optim:step(params)
      optim:on(params):save(archive, tostring(optim))
      return core.memory_live() - live
    end
    assert(takes(neap.sgd { rate = 1 }) < 1000)
    assert.same({}, archive:names())
    assert(takes(neap.sgd { rate = 1, momentum = 0.5 }) > 2 * rows * width * 4)
    assert.equal(4, #archive:names())
  end)

  -- The rule of one row that is updated only where it was looked up; steps are counted for all.
  for _, kind in ipairs { "adam", "adamw", "sgd" } do
    it("that is lazy leaves other rows alone: " .. kind, function()
      local program = table_model()
      local run, params = program:run { learn = true }, program.params
      local c = { rate = 0.05, weight_decay = 0.01 }
      if kind == "sgd" then c.momentum = 0.9 end
      local optim = neap[kind] { rate = c.rate, weight_decay = c.weight_decay,
        momentum = c.momentum, lazy = true }
      local w, m, v = help.flat(params:get "table"), {}, {}
      for i = 1, #w do m[i], v[i] = 0, 0 end
      for number = 1, 8 do
        local batch, used = batch_of(number), {}
        for _, t in ipairs { batch.a.data, batch.b } do
          for _, id in ipairs(help.flat(t)) do used[id + 1] = true end
        end
        run:feed(batch):forward()
        params:zero_grad()
        run:backward()
        local g, before = help.flat(params:grad "table"), parts(params:get "table":tobytes())
        optim:step(params)
        for i = 1, #w do
          if used[(i - 1) // width + 1] then
            local slope = g[i] + (kind ~= "adamw" and c.weight_decay * w[i] or 0)
            if kind == "sgd" then
              m[i] = c.momentum * m[i] + slope
              w[i] = w[i] - c.rate * m[i]
            else
              m[i] = 0.9 * m[i] + 0.1 * slope
              v[i] = 0.999 * v[i] + 0.001 * slope ^ 2
              local step = m[i] / (1 - 0.9 ^ number)
                / (math.sqrt(v[i] / (1 - 0.999 ^ number)) + 1e-8)
              w[i] = w[i] - c.rate * (step + (kind == "adamw" and c.weight_decay * w[i] or 0))
            end
          end
        end
        for r, part in ipairs(parts(params:get "table":tobytes())) do
          assert.equal(not used[r], part == before[r])
        end
      end
      help.near(params:get "table", w, 1e-5, "lazy")
    end)
  end

  it("that is lazy goes on where it was saved", function()
    local options = { rate = 0.05, clip = 0.3, lazy = true }
    local whole, first, resumed = table_model(), table_model(), table_model()
    train(whole, neap.adam(options), 1, 6)
    local optim, archive = neap.adam(options), core.archive()
    train(first, optim, 1, 3)
    optim:on(first.params):save(archive, "o.")
    for _, name in ipairs(first.params:names()) do
      resumed.params:set(name, first.params:get(name))
    end
    local again = neap.adam(options)
    assert(again:on(resumed.params):load(archive, "o."))
    train(resumed, again, 4, 6)
    same(values(resumed.params), values(whole.params), "lazy")
    assert.equal("adam clip=0.3 lazy rate=0.05", tostring(optim))
  end)
end)

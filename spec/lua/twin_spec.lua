-- Each fused layer and its twin recorded from primitive ops: the same outputs, last states and
-- gradients. Inputs and first states are rows of parameters, so that their gradients are compared
-- in double too.
local core = require "neap.core"
local neap = require "neap"
local op = neap.op
local help = require "run_help"

local lengths = { 4, 0, 1, 6, 3, 1, 0 }
local inputs = 5

local function ragged(list)
  local total = 0
  for _, n in ipairs(list) do total = total + n end
  local ids = neap.zeros({ total }, "i32")
  for i = 1, total do ids[i] = i - 1 end
  return { data = ids, lengths = neap.tensor(list, "i32") }, total
end

local function count_up(n)
  local ids = neap.zeros({ n }, "i32")
  for i = 1, n do ids[i] = i - 1 end
  return ids
end

-- All numbers that two programs over the same parameters make of a batch, compared.
local function compare(a, b, batch, what)
  for _, double in ipairs { true, false } do
    local bound = double and 1e-9 or 1e-5
    local made = {}
    for i, pr in ipairs { a, b } do
      local run = pr:run { learn = true, double = double }
      run:feed(batch):forward()
      pr.params:zero_grad()
      run:backward()
      made[i] = {}
      for name, id in pairs(pr.outputs) do
        made[i][name] = double and run.core:read_doubles(id, "padded") or help.flat(run:value(name))
      end
      for _, name in ipairs(pr.params:names()) do
        if not pr.params:frozen(name) then
          made[i]["gradient of " .. name] = double and run.core:param_grad(name)
            or help.flat(pr.params:grad(name))
        end
      end
    end
    for name, expected in pairs(made[2]) do
      help.near(made[1][name], expected, bound, ("%s, %s: %s"):format(what,
        double and "double" or "float", name))
    end
  end
end

local subjects = {
  { "elman tanh", function(n) return neap.elman { size = n } end, { "h" } },
  { "elman relu", function(n) return neap.elman { size = n, activation = "relu" } end, { "h" } },
  { "elman sigmoid", function(n) return neap.elman { size = n, activation = "sigmoid" } end,
    { "h" } },
  { "elman identity", function(n) return neap.elman { size = n, activation = "identity" } end,
    { "h" } },
  { "elman without bias", function(n) return neap.elman { size = n, bias = false } end, { "h" } },
  { "lstm", function(n) return neap.lstm { size = n, forget_bias = 1 } end, { "h", "c" } },
  { "lstm with learned first states",
    function(n) return neap.lstm { size = n, first = "learned" } end, { "h", "c" } },
  { "lstm without bias", function(n) return neap.lstm { size = n, bias = false } end,
    { "h", "c" } },
  { "gru, reset after", function(n) return neap.gru { size = n } end, { "h" } },
  { "gru, reset after, without bias", function(n) return neap.gru { size = n, bias = false } end,
    { "h" } },
  { "gru, reset before", function(n) return neap.gru { size = n, reset = "before" } end, { "h" } },
  { "gru, reset before, without bias",
    function(n) return neap.gru { size = n, reset = "before", bias = false } end, { "h" } },
}

describe("fused and recorded are the same:", function()
  local batch, total = ragged(lengths)
  batch = { at = batch, row = count_up(#lengths) }

  -- first(rec, name, size): a first state or nil. wrap: what is made of the layer. rows: of x.
  local function twins(make, states, size, first, call, rows)
    local rng = neap.rng(size)
    local layer, fused = make(size), nil
    local function record(recorded)
      return neap.program(function(rec)
        local at, row = rec:input("at", { space = "T", dtype = "i32" }), nil
        local x, init = op.embedding(at, rec:param("x", { rows or total, inputs })), {}
        if first == "given" then row = rec:input("row", { space = "B", dtype = "i32" }) end
        for _, name in ipairs(states) do
          if first == "given" then
            init[name] = op.embedding(row, rec:param("first." .. name, { #lengths, size }))
          elseif first == "learned" then
            init[name] = rec:param("first." .. name, { size })
          end
        end
        local y, last = call(layer, x, init)
        local out, all = { y = y }, { y }
        for _, name in ipairs(states) do
          out[name] = last[name]
          all[#all + 1] = last[name]
        end
        out.loss = help.loss(table.unpack(all))
        return out
      end, { params = fused and fused.params, recorded = recorded })
    end
    fused = record(false)
    assert.falsy(tostring(fused):find "state '")
    local twin = record(true)
    assert.truthy(tostring(twin):find "state '")
    help.scatter(fused.params, rng, 1 / size ^ 0.5) -- the identity must not run away
    return fused, twin
  end

  for _, subject in ipairs(subjects) do
    local name, make, states = table.unpack(subject)
    it(name, function()
      for _, size in ipairs { 7, 20 } do
        for _, first in ipairs { "zero", "given", "learned" } do
          local fused, twin = twins(make, states, size, first, function(l, x, s) return l(x, s) end)
          compare(fused, twin, batch, ("size %d, first states %s"):format(size, first))
        end
      end
    end)
  end

  it("in several pieces of a walk, with the same bits by any threads and without learning", function()
    local long, rows = ragged { 1700, 900, 0, 1699, 1, 1700, 1400, 3, 1650, 1700, 1211, 800 }
    for _, subject in ipairs { subjects[1], subjects[6], subjects[9], subjects[11] } do
      local name, make, states = table.unpack(subject)
      local fused, twin = twins(make, states, 40, "zero", function(l, x) return l(x) end, rows)
      compare(fused, twin, { at = long }, name)
      local expected
      for threads = 1, 3 do
        local run = fused:run { learn = true, pool = core.pool(threads) }
        run:feed({ at = long }):forward()
        fused.params:zero_grad()
        run:backward()
        local all = { run:value("y"):tobytes() }
        for _, n in ipairs(fused.params:names()) do all[#all + 1] = fused.params:grad(n):tobytes() end
        expected = expected or all
        for i, bytes in ipairs(all) do
          assert.is_true(bytes == expected[i], ("%s, threads %d: %d"):format(name, threads, i))
        end
      end
      local run = fused:run { pool = core.pool(2) }
      assert.is_true(run:feed({ at = long }):forward():value("y"):tobytes() == expected[1], name)
    end
  end)

  it("both directions of an lstm, with first states", function()
    for _, merge in ipairs { "concat", "sum", "mean", "mul" } do
      local layer = function(n) return neap.bidir { neap.lstm { size = n }, merge = merge } end
      local fused, twin = twins(layer, { "h", "c" }, 6, "given", function(l, x, s)
        return l(x, { forward = s, backward = { h = s.c, c = s.h } })
      end)
      compare(fused, twin, batch, merge)
    end
  end)

  it("a stack with a residual connection", function()
    local function make(n)
      return neap.chain { neap.gru { size = n }, neap.residual { neap.lstm { size = n } },
        neap.elman { size = n } }
    end
    local fused, twin = twins(make, { "h" }, 9, "zero", function(l, x) return l(x) end)
    compare(fused, twin, batch, "stack")
  end)
end)

-- ---- attention ----

-- The same from padded matrices. Gives the context and the weights.
local function attention(rec, kind, options, query, memory)
  local function param(name, dims) return rec:at("attention", nil, rec.param, rec, name, dims) end
  local keys, wide = memory, query.width
  if kind == "additive" then wide = options.size or wide end
  if kind ~= "dot" then keys = op.linear(memory, param("key", { wide, memory.width })) end
  local k, v, mask = op.padded(keys), op.padded(memory), op.padding_mask(memory)
  if query.space ~= k.space then
    k, v, mask = op.spread(k, query), op.spread(v, query), op.spread(mask, query)
  end
  local scores
  if kind == "additive" then
    local q = op.linear(query, param("query", { wide, query.width }), param("bias", { wide }))
    scores = op.sum(op.tanh(op.reshape(q, { 1, wide }) + k) * param("score", { wide }))
  else
    scores = op.bmm(k, query) * (options.scale or 1)
  end
  local weights = op.masked_softmax(scores, mask)
  return op.bmm(weights, v), weights
end

describe("fused attention and the same from primitive ops:", function()
  -- Two queries have no memory, one has nothing to ask.
  local asked, remembered = { 3, 1, 0, 2, 4 }, { 2, 0, 5, 7, 1 }
  local queries, n_queries = ragged(asked)
  local memories, n_memories = ragged(remembered)
  local batch = { query = queries, memory = memories, row = count_up(#asked) }
  local wide = 6

  for _, case in ipairs { { "dot", {} }, { "dot", { scale = 0.4 } }, { "general", { scale = 2 } },
    { "additive", { size = 11 } }, { "additive", {} } } do
    local kind, options = table.unpack(case)
    for _, from in ipairs { "query", "row" } do
      it(("%s%s, asked %s"):format(kind, next(options) and " with options" or "",
        from == "row" and "once a row" or "at each step"), function()
        options.kind = kind
        local layer = neap.attention(options)
        local n = from == "row" and #asked or n_queries
        local function record(fused, params)
          return neap.program(function(rec)
            local at = rec:input(from, { space = from == "row" and "B" or "T", dtype = "i32" })
            local query = op.embedding(at, rec:param("queries", { n, wide }))
            local memory = op.embedding(rec:input("memory", { space = "S", dtype = "i32" }),
              rec:param("memories", { n_memories, kind == "dot" and wide or 8 }))
            local context, weights
            if fused then
              context, weights = layer(query, memory)
            else
              context, weights = attention(rec, kind, options, query, memory)
            end
            return { context = context, weights = weights, loss = help.loss(context) }
          end, { params = params })
        end
        local fused = record(true)
        local names = #fused.params:names()
        local twin = record(false, fused.params)
        assert.equal(names, #fused.params:names())
        help.scatter(fused.params, neap.rng(3))
        compare(fused, twin, batch, kind)
      end)
    end
  end
end)

-- ---- gather ----

-- What it picks is a sum over one-hot factors, too.
it("gather and a product with one-hot ids are the same", function()
  local batch, total = ragged { 3, 0, 5, 1 }
  local function record(fused, params)
    return neap.program(function(rec)
      local at = rec:input("at", { space = "T", dtype = "i32" })
      local x = op.embedding(at, rec:param("x", { total, 12 }))
      local scores, parts = op.slice(x, 1, 4), op.reshape(op.slice(x, 1, 12), { 4, 3 })
      local ids = op.argmax(op.reshape(op.sin(5 * op.slice(x, 1, 8)), { 2, 4 })) -- [T,B,2]
      local score, part
      if fused then
        score, part = op.gather(scores, ids), op.gather(parts, ids)
      else
        local ones = op.one_hot(ids, 4)
        score, part = op.sum(ones * op.reshape(scores, { 1, 4 })), op.bmm(ones, parts)
      end
      return { score = score, part = part, loss = help.loss(score, part) }
    end, { params = params })
  end
  local fused = record(true)
  help.scatter(fused.params, neap.rng(4))
  compare(fused, record(false, fused.params), { at = batch }, "gather")
end)

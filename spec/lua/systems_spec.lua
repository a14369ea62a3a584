-- Rows of systems.md: recurrence, memory, order, stacks, directions, back-propagation through time.
local neap = require "neap"
local help = require "systems_help"
local op = neap.op
local near = help.near

-- Hidden and output layers of the worked example: all weights 1, no bias, linear, two units each.
local function elman_example()
  return neap.chain { neap.elman { size = 2, activation = "identity", bias = false },
    neap.linear { size = 2, bias = false } }
end

local function all_ones(f, width)
  local pr = help.net(f, width)
  help.fill(pr.params, 1)
  return pr
end

local example = { { 1, 1 }, { 1, 1 }, { 2, 2 } }

describe("systems.md, networks:", function()
  it("row 1: an RNN unrolls to any length, its depth, and sees all of the past and no future",
    function()
      local layer = neap.elman { size = 3 }
      local pr = help.net(layer, 2)
      local run, rng = pr:run { learn = true }, neap.rng(1)
      run:want_gradient "x"
      for _, T in ipairs { 1, 4, 60 } do
        local batch = { x = help.field { help.noise(rng, T, 2) } }
        run:feed(batch):forward()
        assert.equal(T, run.core:steps(1)) -- the depth of the unrolled network
        assert.same({ T, 1, 3 }, run:value("y"):shape())
        for _, t in ipairs { 1, T // 2 + 1, T } do
          local dy = neap.zeros { T, 1, 3 }
          for i = 1, 3 do dy:set(t, 1, i, 1) end
          run:feed(batch):forward()
          run.core:backward(pr.outputs.y, dy)
          local dx = run:gradient "x"
          for k = 1, T do
            local size = math.abs(dx:get(k, 1, 1)) + math.abs(dx:get(k, 1, 2))
            assert(size > 0 == (k <= t), ("dO(%d)/dx(%d) is %g"):format(t, k, size))
          end
        end
      end
    end)

  it("row 3: sequences of different length in one batch are each as if alone, to the bit",
    function()
    local rng = neap.rng(3)
    local sequences = {}
    for i, n in ipairs { 2, 7, 1, 5 } do sequences[i] = help.noise(rng, n, 3) end
    for _, make in ipairs { neap.elman, neap.lstm, neap.gru } do
      local pr = help.net(make { size = 4 }, 3)
      local run = help.run(pr, sequences)
      local y, h, at = run:value("y", "concat"):totable(), run:value("h"):totable(), 0
      for b, s in ipairs(sequences) do
        local alone = help.run(pr, s)
        assert.same(alone:value("y", "concat"):totable(), table.move(y, at + 1, at + #s, 1, {}))
        assert.same(alone:value("h"):totable()[1], h[b])
        assert.same(h[b], y[at + #s]) -- memory is not of a fixed length: each row's own last step
        at = at + #s
      end
    end
  end)

  it("row 5: the gradient is clipped to the threshold, by norm and by value, and it is counted",
    function()
      local function step(options, gradient)
        local pr = neap.program(function(rec)
          local w = rec:param("w", { 2 }, "zeros")
          return { loss = op.sum(w * rec:input("g", { dims = { 2 } })) }
        end)
        options.rate = 1
        local optim, run = neap.sgd(options), pr:run { learn = true }
        run:feed { g = neap.tensor(gradient) }:forward()
        pr.params:zero_grad()
        run:backward()
        optim:step(pr.params)
        return (-pr.params:get "w"):totable(), optim:report()
      end
      local w, report = step({ clip = 1 }, { 30, 40 })
      near({ 0.6, 0.8 }, w) -- the same direction, the threshold's length
      near(50, report.norm, 1e-4)
      assert.equal(1, report.clipped_norm)
      w, report = step({ clip_value = 10 }, { -30, 4 })
      near({ -10, 4 }, w)
      assert.equal(1, report.clipped_value)
      w, report = step({ clip = 1, clip_value = 10 }, { 0.3, -0.4 })
      near({ 0.3, -0.4 }, w)
      assert.same({ 0, 0, 1 }, { report.clipped_norm, report.clipped_value, report.steps })
    end)

  it("row 5: with clipping an exploding network is trained, without it the numbers run away",
    function()
      local function train(options)
        local pr = neap.program(function(rec)
          local x = rec:input("x", { space = "T", dims = { 1 } })
          local layer = neap.elman { size = 1, activation = "identity", bias = false, name = "r" }
          local _, s = layer(x)
          return { loss = op.mse(s.h, rec:input("y", { space = "B", dims = { 1 } })) }
        end)
        help.set(pr.params, { ["r.weight_ih"] = 1, ["r.weight_hh"] = 1.5 })
        local x = { { 1 } }
        for t = 2, 20 do x[t] = { 0 } end
        local optim, run = neap.sgd(options), pr:run { learn = true }
        local first, last
        for _ = 1, 20 do
          run:feed { x = help.field { x }, y = neap.tensor { { 0 } } }:forward()
          last = run:item()
          first = first or last
          pr.params:zero_grad()
          run:backward()
          optim:step(pr.params)
        end
        return first, last, optim:report()
      end
      local first, last, report = train { rate = 0.05, clip = 1 }
      near(1.5 ^ 38, first, 100)
      assert(last < 0.1, last)
      assert(report.clipped_norm >= 10)
      assert.error_matches(function() train { rate = 0.05 } end, "infinity came up")
    end)

  it("row 6: one to one, one to many, many to one, many to many, many to another many", function()
    local rng = neap.rng(6)
    local function learns(build, batch)
      local pr = neap.program(build, { seed = 2 })
      local run, optim, losses = pr:run { learn = true }, neap.adam { rate = 0.05 }, {}
      for i = 1, 15 do
        run:feed(batch):forward()
        losses[i] = run:item()
        pr.params:zero_grad()
        run:backward()
        optim:step(pr.params)
      end
      assert(losses[15] < 0.7 * losses[1], ("%g is not below %g"):format(losses[15], losses[1]))
      return run
    end
    local vectors = neap.tensor(help.noise(rng, 2, 3))
    local many = help.field { help.noise(rng, 4, 3), help.noise(rng, 2, 3) }
    local classes = neap.tensor({ 0, 1 }, "i32")
    local function ids(...)
      local data, lengths = {}, {}
      for b, s in ipairs { ... } do
        lengths[b] = #s
        table.move(s, 1, #s, #data + 1, data)
      end
      return { data = neap.tensor(data, "i32"), lengths = neap.tensor(lengths, "i32") }
    end

    learns(function(rec) -- 1 -> 1: no recurrence
      local z = neap.linear { size = 2 } (rec:input("x", { space = "B", dims = { 3 } }))
      return { loss = op.cross_entropy(z, rec:input("y", { space = "B", dtype = "i32" })) }
    end, { x = vectors, y = classes })

    local decoder = { embed = neap.embed { size = 4, input = 5 }, cell = neap.gru { size = 6 },
      head = neap.linear { size = 5 } }
    local function decode(rec, first)
      local y = rec:input("y", { space = "S", dtype = "i32" })
      local h = decoder.cell(decoder.embed(rec:input("before", { space = "S", dtype = "i32" })),
        { h = first })
      return op.cross_entropy(decoder.head(h), y)
    end
    local to = { y = ids({ 1, 2, 3 }, { 4, 3, 2, 1, 1 }),
      before = ids({ 0, 1, 2 }, { 0, 4, 3, 2, 1 }) }

    learns(function(rec) -- 1 -> n: the one vector is the decoder's first state
      return { loss = decode(rec,
        neap.linear { size = 6 } (rec:input("x", { space = "B", dims = { 3 } }))) }
    end, { x = vectors, y = to.y, before = to.before })

    learns(function(rec) -- n -> 1
      local _, s = neap.lstm { size = 6 } (rec:input("x", { space = "T", dims = { 3 } }))
      local z = neap.linear { size = 2 } (s.h)
      return { loss = op.cross_entropy(z, rec:input("y", { space = "B", dtype = "i32" })) }
    end, { x = many, y = classes })

    learns(function(rec) -- n -> n: an output for each step
      local x = rec:input("x", { space = "T", dims = { 3 } })
      local z = neap.linear { size = 3 } (neap.lstm { size = 6 } (x))
      return { loss = op.cross_entropy(z, rec:input("y", { space = "T", dtype = "i32" })) }
    end, { x = many, y = ids({ 0, 1, 2, 0 }, { 2, 2 }) })

    local run = learns(function(rec) -- n -> m
      local _, s = neap.gru { size = 6 } (rec:input("x", { space = "T", dims = { 3 } }))
      return { loss = decode(rec, s.h) }
    end, { x = many, y = to.y, before = to.before })
    assert.same({ 4, 5 }, { run.core:steps(1), run.core:steps(2) })
  end)

  it("row 12: every cell in both directions", function()
    local mine = neap.cell {
      name = "mine",
      params = function(p, c) p.w, p.u = { c.input, c.size }, { c.size, c.size } end,
      state = function(c) return { h = c.size } end,
      step = function(p, x, s)
        local h = op.softsign(op.matmul(x, p.w) + op.matmul(s.h, p.u))
        return h, { h = h }
      end,
    }
    local x = help.noise(neap.rng(12), 5, 2)
    local back = {}
    for t = 1, 5 do back[t] = x[6 - t] end
    for _, make in ipairs { neap.elman, neap.lstm, neap.gru, neap.jordan, mine } do
      local pr = help.net(neap.bidir { make { size = 3,
        output = make == neap.jordan and 3 or nil } }, 2)
      local y = help.outputs(pr, x)
      assert.equal(6, #y[1])
      -- its halves are the cell alone, forward, and on the reversed sequence
      for half, name in ipairs { "forward", "backward" } do
        local alone = help.net(make { size = 3, output = make == neap.jordan and 3 or nil }, 2)
        for _, key in ipairs(alone.params:names()) do
          alone.params:set(key, pr.params:get("bidir." .. name .. key:match "%..*$"))
        end
        local z = help.outputs(alone, half == 1 and x or back)
        for t = 1, 5 do
          assert.same(z[half == 1 and t or 6 - t], table.move(y[t], 3 * half - 2, 3 * half, 1, {}))
        end
      end
    end
  end)

  it("row 16: memory is one more input and starts at 0", function()
    local pr = neap.program(function(rec)
      local layer = neap.elman { size = 2, name = "r" }
      local x = rec:input("x", { space = "T", dims = { 3 } })
      local h0 = rec:input("h0", { space = "B", dims = { 2 } })
      return { y = layer(x), z = layer(x, { h = h0 }) }
    end)
    local p = pr.params
    local x, h0 = help.noise(neap.rng(16), 1, 3), { 0.3, -0.8 }
    local run = pr:run():feed { x = help.field { x }, h0 = neap.tensor { { 0, 0 } } }:forward()
    assert.same(run:value("y"):totable(), run:value("z"):totable())
    run:feed { x = help.field { x }, h0 = neap.tensor { h0 } }:forward()
    assert.not_same(run:value("y"):totable(), run:value("z"):totable())
    -- the memory beside the input: one layer over both
    local both = { table.unpack(x[1]) }
    table.move(h0, 1, 2, 4, both)
    local weights = op.concat({ p:get "r.weight_ih", p:get "r.weight_hh" }, 2)
    local a = op.linear(neap.tensor { both }, weights, p:get "r.bias_ih" + p:get "r.bias_hh")
    near(op.tanh(a), run:value("z")[1])
  end)

  it("row 17: [1,1] [1,1] [2,2] with all weights 1 gives 4, 12, 32 from hidden 2, 6, 16", function()
    local y = help.outputs(all_ones(elman_example(), 2), example)
    assert.same({ { 4, 4 }, { 12, 12 }, { 32, 32 } }, y)
    local hidden = neap.elman { size = 2, activation = "identity", bias = false }
    assert.same({ { 2, 2 }, { 6, 6 }, { 16, 16 } }, help.outputs(all_ones(hidden, 2), example))
  end)

  it("row 18: memory is fully connected (1+1+2+2 = 6); a diagonal one would give 4 and put out 8",
    function()
      local diagonal = neap.cell {
        name = "diagonal",
        params = function(p, c) p.w, p.u = { c.input, c.size }, { c.size } end,
        state = function(c) return { h = c.size } end,
        step = function(p, x, s)
          local h = op.matmul(x, p.w) + s.h * p.u
          return h, { h = h }
        end,
      }
      assert.same({ 4, 4 }, help.outputs(all_ones(diagonal { size = 2 }, 2), example)[2])
      local chain = neap.chain { diagonal { size = 2 }, neap.linear { size = 2, bias = false } }
      assert.same({ 8, 8 }, help.outputs(all_ones(chain, 2), example)[2])
      assert.same({ 12, 12 }, help.outputs(all_ones(elman_example(), 2), example)[2])
    end)

  it("row 19: order matters", function()
    local pr = all_ones(elman_example(), 2)
    assert.same({ { 4, 4 }, { 16, 16 }, { 36, 36 } },
      help.outputs(pr, { { 1, 1 }, { 2, 2 }, { 1, 1 } }))
    assert.same({ { 8, 8 }, { 20, 20 }, { 44, 44 } },
      help.outputs(pr, { { 2, 2 }, { 1, 1 }, { 1, 1 } }))
  end)

  it("row 20: any stacking: mixed cells, deep, residual", function()
    local layers = { neap.elman { size = 4 }, neap.lstm { size = 3 }, neap.gru { size = 4 },
      neap.jordan { size = 5, output = 4 }, neap.residual { neap.bidir { neap.gru { size = 2 } } },
      neap.lstm { size = 2, peepholes = true } }
    local whole = help.net(neap.chain(layers), 3)
    local x = help.noise(neap.rng(20), 6, 3)
    local apart = help.net(function(v)
      for i, l in ipairs(layers) do
        l.name = l.kind .. i
        v = l(v)
      end
      return v
    end, 3)
    for _, name in ipairs(apart.params:names()) do
      apart.params:set(name, whole.params:get("chain." .. name))
    end
    assert.equal(#whole.params:names(), #apart.params:names())
    assert.same(help.outputs(whole, x), help.outputs(apart, x))
    local errors = neap.gradcheck(neap.chain(layers), { T = 3, B = 2, input = 3 })
    for name, e in pairs(errors) do assert(e < 1e-5, name .. " " .. e) end
  end)

  it("row 21: an Elman network's memory is its hidden layer", function()
    local pr = help.net(neap.elman { size = 3 }, 2)
    local x = help.noise(neap.rng(21), 4, 2)
    local y = help.outputs(pr, x)
    -- from the hidden layer of step 2 it goes on as if it had never stopped
    local run = pr:run()
    local state = pr:state(1)
    run:state(state)
    run:feed { x = help.field { { x[1], x[2] } } }:forward()
    assert.same({ y[2] }, state:get(1):totable())
    run:feed { x = help.field { { x[3], x[4] } } }:forward()
    assert.same({ y[3], y[4] }, run:value("y", "concat"):totable())
  end)

  it("row 22: a Jordan network's memory is its output: the example gives 4, 20, 88", function()
    local pr = all_ones(neap.jordan { size = 2, output = 2, activation = "identity",
      out = "identity", bias = false }, 2)
    assert.same({ { 4, 4 }, { 20, 20 }, { 88, 88 } }, help.outputs(pr, example))
  end)

  it("row 23: in a bidirectional network each output sees past and future", function()
    local x = help.noise(neap.rng(23), 5, 2)
    local function moved(layer, k)
      local pr = help.net(layer, 2, { seed = 5 })
      local before = help.outputs(pr, x)
      local keep = x[k]
      x[k] = { keep[1] + 0.5, keep[2] }
      local after = help.outputs(pr, x)
      x[k] = keep
      local sees = {}
      for t = 1, 5 do
        sees[t] = false
        for i = 1, #before[t] do sees[t] = sees[t] or before[t][i] ~= after[t][i] end
      end
      return sees
    end
    for k = 1, 5 do
      assert.same({ 1 >= k, 2 >= k, 3 >= k, 4 >= k, 5 >= k }, moved(neap.gru { size = 3 }, k))
      assert.same({ true, true, true, true, true }, moved(neap.bidir { neap.gru { size = 3 } }, k))
    end
  end)

  it("row 33: step by step: what was new memory is old memory at the next step", function()
    local pr = help.net(neap.elman { size = 3 }, 2)
    local x = help.noise(neap.rng(33), 4, 2)
    local y = help.outputs(pr, x)
    local stream = pr:stream { rows = 1 }
    assert.same({ 0, 0, 0 }, stream:state():get(1):totable()[1])
    for t = 1, 4 do
      stream:input(1, x[t])
      stream:step()
      assert.same(y[t], stream:state():get(1):totable()[1])
    end
    stream:reset()
    stream:input(1, x[1])
    stream:step()
    assert.same(y[1], stream:state():get(1):totable()[1])
  end)

  it("row 40: S = f(U X + W S'), O = g(V S), as it is written", function()
    local as_written = neap.cell {
      name = "r",
      params = function(p, c) p.U, p.W, p.V = { c.input, 3 }, { 3, 3 }, { 3, 2 } end,
      state = function() return { S = 3 } end,
      step = function(p, X, s)
        local S = op.tanh(op.matmul(X, p.U) + op.matmul(s.S, p.W))
        local O = op.softmax(op.matmul(S, p.V))
        return O, { S = S }
      end,
    }
    local cell = help.net(as_written {}, 2)
    local layers = help.net(neap.chain { neap.elman { size = 3, bias = false, name = "h" },
      neap.linear { size = 2, bias = false, name = "o" }, op.softmax }, 2)
    local p, q = cell.params, layers.params
    q:set("chain.h.weight_ih", op.transpose(p:get "r.U"))
    q:set("chain.h.weight_hh", op.transpose(p:get "r.W"))
    q:set("chain.o.weight", op.transpose(p:get "r.V"))
    local x = help.noise(neap.rng(40), 6, 2)
    local o = help.outputs(cell, x)
    near(o, help.outputs(layers, x), 1e-6)
    -- and in plain Lua
    local U, W, V = p:get "r.U", p:get "r.W", p:get "r.V"
    local S = { 0, 0, 0 }
    for t = 1, 6 do
      local new, z, total = {}, {}, 0
      for j = 1, 3 do
        local a = 0
        for i = 1, 2 do a = a + x[t][i] * U:get(i, j) end
        for i = 1, 3 do a = a + S[i] * W:get(i, j) end
        new[j] = help.tanh(a)
      end
      S = new
      for k = 1, 2 do
        z[k] = math.exp(S[1] * V:get(1, k) + S[2] * V:get(2, k) + S[3] * V:get(3, k))
        total = total + z[k]
      end
      near({ z[1] / total, z[2] / total }, o[t], 1e-6)
    end
  end)

  it("row 41: weight_ih is the input's, weight_hh the state's, whatever U and W mean elsewhere",
    function()
      local x = help.noise(neap.rng(41), 3, 2)
      for kind, gates in pairs { elman = 1, lstm = 4, gru = 3 } do
        local pr = help.net(neap[kind] { size = 3, name = "r" }, 2)
        assert.same({ gates * 3, 2 }, pr.params:shape "r.weight_ih")
        assert.same({ gates * 3, 3 }, pr.params:shape "r.weight_hh")
        if kind == "elman" then
          local zero = neap.zeros { 3, 3 }
          pr.params:set("r.weight_hh", zero) -- without state weights no step knows of another
          local y = help.outputs(pr, x)
          assert.same(help.outputs(pr, { x[3] })[1], y[3])
        end
      end
    end)

  it("row 42: f may be sigmoid, tanh, relu, or anything else", function()
    local functions = {
      sigmoid = help.sigmoid, tanh = help.tanh, relu = function(a) return math.max(a, 0) end,
      identity = function(a) return a end, softsign = function(a) return a / (1 + math.abs(a)) end,
    }
    local x = { { 0.5 }, { -1.25 }, { 2 } }
    for name, f in pairs(functions) do
      local pr = help.net(neap.elman { size = 1, activation = name, name = "r" }, 1)
      help.set(pr.params, { ["r.weight_ih"] = 0.7, ["r.weight_hh"] = -0.4,
        ["r.bias_ih"] = { 0.1 }, ["r.bias_hh"] = { 0.2 } })
      local h, expected = 0, {}
      for t = 1, 3 do
        h = f(0.7 * x[t][1] + 0.1 - 0.4 * h + 0.2)
        expected[t] = { h }
      end
      near(expected, help.outputs(pr, x), 1e-6, name)
    end
    assert.error_matches(function() neap.elman { size = 1, activation = "tahn" } end,
      "elman: unknown activation")
  end)
end)

describe("systems.md, back-propagation through time:", function()
  -- s = tanh(U x + W s'), o = softmax(V s), E the sum of -ln o[y]: by hand, in plain Lua.
  local function by_hand(U, W, V, x, y)
    local H, C, T = #W, #V, #x
    local s = { [0] = {} }
    for j = 1, H do s[0][j] = 0 end
    local E, o = 0, {}
    for t = 1, T do
      s[t], o[t] = {}, {}
      for j = 1, H do
        local a = 0
        for i = 1, #x[t] do a = a + U[j][i] * x[t][i] end
        for i = 1, H do a = a + W[j][i] * s[t - 1][i] end
        s[t][j] = help.tanh(a)
      end
      local total = 0
      for k = 1, C do
        local z = 0
        for j = 1, H do z = z + V[k][j] * s[t][j] end
        o[t][k] = math.exp(z)
        total = total + o[t][k]
      end
      for k = 1, C do o[t][k] = o[t][k] / total end
      E = E - math.log(o[t][y[t] + 1])
    end
    local function zeros(rows, columns)
      local m = {}
      for i = 1, rows do
        m[i] = {}
        for j = 1, columns do m[i][j] = 0 end
      end
      return m
    end
    local dU, dW, dV, parts = zeros(H, #x[1]), zeros(H, H), zeros(C, H), {}
    local down = {}
    for j = 1, H do down[j] = 0 end
    for t = T, 1, -1 do
      local ds = { table.unpack(down) }
      for k = 1, C do
        local dz = o[t][k] - (k == y[t] + 1 and 1 or 0)
        for j = 1, H do
          dV[k][j] = dV[k][j] + dz * s[t][j]
          ds[j] = ds[j] + dz * V[k][j]
        end
      end
      parts[t] = zeros(H, H)
      for j = 1, H do down[j] = 0 end
      for j = 1, H do
        local da = ds[j] * (1 - s[t][j] ^ 2)
        for i = 1, #x[t] do dU[j][i] = dU[j][i] + da * x[t][i] end
        for i = 1, H do
          parts[t][j][i] = da * s[t - 1][i]
          dW[j][i] = dW[j][i] + parts[t][j][i]
          down[i] = down[i] + da * W[j][i]
        end
      end
    end
    return E, dU, dW, dV, parts
  end

  -- The network of 004, its sum of losses over all steps; fused or recorded.
  local function network(options)
    return neap.program(function(rec)
      local x = rec:input("x", { space = "T", dims = { 3 } })
      local s = neap.elman { size = 2, bias = false, fused = options.fused, name = "s" } (x)
      local z = neap.linear { size = 3, bias = false, name = "o" } (s)
      local rows = op.cross_entropy(z, rec:input("y", { space = "T", dtype = "i32" }),
        { rows = true })
      return { loss = op.reshape(op.sum_rows(op.reshape(rows, { 1 })), {}), s = s }
    end)
  end
  local x, y = { { 1, 0, 0 }, { 0, 0, 1 }, { 0, 1, 0 }, { 1, 0, 0 } }, { 2, 1, 0, 2 }
  local function batch()
    return { x = help.field { x },
      y = { data = neap.tensor(y, "i32"), lengths = neap.tensor({ 4 }, "i32") } }
  end

  it("row 14: the gradients are those that 004 derives", function()
    for _, fused in ipairs { true, false } do
      local pr = network { fused = fused }
      local p = pr.params
      local E, dU, dW, dV = by_hand(p:get "s.weight_ih":totable(), p:get "s.weight_hh":totable(),
        p:get "o.weight":totable(), x, y)
      local run = pr:run { learn = true }
      run:feed(batch()):forward()
      near(E, run:item(), 1e-5)
      p:zero_grad()
      run:backward()
      near(dU, p:grad "s.weight_ih", 2e-6)
      near(dW, p:grad "s.weight_hh", 2e-6)
      near(dV, p:grad "o.weight", 2e-6)
    end
  end)

  it("row 57: shared parameters: the steps' contributions can be read and sum to the gradient",
    function()
      -- the step's sum before tanh is watched: its gradient at step t, times the state before, is
      -- what step t adds to the gradient of weight_hh
      local watched = neap.cell {
        name = "s",
        params = function(p, c) p.weight_ih, p.weight_hh = { 2, c.input }, { 2, 2 } end,
        state = function() return { h = 2 } end,
        step = function(p, v, s)
          local a = op.watch("a", op.linear(v, p.weight_ih) + op.linear(s.h, p.weight_hh))
          local h = op.tanh(a)
          return h, { h = h }
        end,
      }
      local pr = neap.program(function(rec)
        local s = watched {} (rec:input("x", { space = "T", dims = { 3 } }))
        local z = neap.linear { size = 3, bias = false, name = "o" } (s)
        local mask = rec:input("mask", { space = "T" })
        local rows = op.cross_entropy(z, rec:input("y", { space = "T", dtype = "i32" }),
          { rows = true })
        return { loss = op.reshape(op.sum_rows(op.reshape(rows * mask, { 1 })), {}), s = s }
      end)
      local p = pr.params
      local run = pr:run { learn = true }
      run:want_gradient "a"
      local function contributions(mask)
        local b = batch()
        b.mask = { data = neap.tensor(mask), lengths = b.y.lengths }
        run:feed(b):forward()
        p:zero_grad()
        run:backward()
        local da, s, parts = run:gradient("a", "concat"):totable(),
          run:value("s", "concat"):totable(), {}
        for t = 1, 4 do
          local before = s[t - 1] or { 0, 0 }
          parts[t] = { { da[t][1] * before[1], da[t][1] * before[2] },
            { da[t][2] * before[1], da[t][2] * before[2] } }
        end
        return parts
      end
      local function sum(parts)
        local total = { { 0, 0 }, { 0, 0 } }
        for t = 1, 4 do
          for j = 1, 2 do
            for i = 1, 2 do total[j][i] = total[j][i] + parts[t][j][i] end
          end
        end
        return total
      end

      local _, _, dW, _, expected = by_hand(p:get "s.weight_ih":totable(),
        p:get "s.weight_hh":totable(), p:get "o.weight":totable(), x, y)
      local parts = contributions { 1, 1, 1, 1 }
      near(expected, parts, 2e-6)
      near(sum(parts), p:grad "s.weight_hh", 2e-6)
      near(dW, p:grad "s.weight_hh", 2e-6)

      -- the loss of step 4 alone goes back three steps: 4, 3, 2 (step 1 has no memory before it)
      parts = contributions { 0, 0, 0, 1 }
      near(sum(parts), p:grad "s.weight_hh", 2e-6)
      for t = 2, 4 do
        assert(math.abs(parts[t][1][1]) > 1e-6, "step " .. t .. " adds nothing")
      end
      -- and of step 2 alone: what comes later has no part in it
      parts = contributions { 0, 1, 0, 0 }
      near({ { { 0, 0 }, { 0, 0 } }, { { 0, 0 }, { 0, 0 } } }, { parts[3], parts[4] }, 0)
    end)

  it("row 57: finite differences agree", function()
    for _, make in ipairs { neap.elman, neap.lstm, neap.gru } do
      for _, fused in ipairs { true, false } do
        local errors = neap.gradcheck(make { size = 3, fused = fused }, { T = 4, B = 3, input = 2 })
        local n = 0
        for name, e in pairs(errors) do
          n = n + 1
          assert(e < 1e-6, ("%s: %g"):format(name, e))
        end
        assert.equal(4, n)
      end
    end
  end)

  it("row 58: an index is a one-hot vector, o = softmax(V s)", function()
    local ids = { 4, 0, 2, 2, 1 }
    local function program(how)
      return neap.program(function(rec)
        local i = rec:input("x", { space = "T", dtype = "i32" })
        local x
        if how == "index" then
          x = op.embedding(i, rec:param("U", { 5, 3 }))
        else
          x = op.matmul(op.one_hot(i, 5), rec:param("U", { 5, 3 }))
        end
        local s = neap.elman { size = 3, name = "s" } (x)
        local z = neap.linear { size = 4, bias = false, name = "V" } (s)
        local y = rec:input("y", { space = "T", dtype = "i32" })
        return { o = op.softmax(z), loss = op.cross_entropy(z, y) }
      end)
    end
    local lengths = neap.tensor({ 5 }, "i32")
    local results = {}
    for k, how in ipairs { "index", "one-hot" } do
      local pr = program(how)
      local run = pr:run { learn = true }
      run:feed { x = { data = neap.tensor(ids, "i32"), lengths = lengths },
        y = { data = neap.tensor({ 0, 1, 2, 3, 0 }, "i32"), lengths = lengths } }
      run:forward()
      run:backward()
      results[k] = { o = run:value("o"):totable(), dU = pr.params:grad "U":totable(),
        dW = pr.params:grad "s.weight_hh":totable() }
    end
    assert.same(results[1].o, results[2].o)
    near(results[1].dU, results[2].dU, 1e-7)
    near(results[1].dW, results[2].dW, 1e-7)
    near({ 0, 0, 0 }, results[1].dU[4], 0) -- an id that does not occur
    for t = 1, 5 do
      local o = results[1].o[t][1]
      near(1, o[1] + o[2] + o[3] + o[4], 1e-6)
    end
  end)

  it("row 59: a loss at chosen steps only; steps without input", function()
    local pr = neap.program(function(rec)
      local x = rec:input("x", { space = "T", dims = { 2 } })
      local z = neap.linear { size = 3 } (neap.gru { size = 3 } (x))
      local y = rec:input("y", { space = "T", dtype = "i32" })
      return { loss = op.cross_entropy(z, y), z = z }
    end)
    local s = help.noise(neap.rng(59), 5, 2)
    local lengths = neap.tensor({ 5 }, "i32")
    local run = pr:run { learn = true }
    run:want_gradient "z"
    run:feed { x = help.field { s },
      y = { data = neap.tensor({ -1, 2, -1, 0, -1 }, "i32"), lengths = lengths } }
    run:forward()
    run:backward()
    local dz, z, loss = run:gradient("z", "concat"):totable(), run:value("z", "concat"):totable(), 0
    for t, id in pairs { [2] = 2, [4] = 0 } do
      local total = math.exp(z[t][1]) + math.exp(z[t][2]) + math.exp(z[t][3])
      loss = loss + math.log(total) - z[t][id + 1]
    end
    near(loss / 2, run:item(), 1e-6)
    for t = 1, 5 do
      assert((dz[t][1] ~= 0) == (t == 2 or t == 4), "step " .. t)
    end

    -- a cell that is wound up once and then runs on by itself
    local clock = neap.cell {
      name = "clock",
      params = function(p) p.u = { 2, 2 } end,
      state = function() return { h = 2 } end,
      step = function(p, _, state)
        local h = op.matmul(state.h, p.u)
        return h, { h = h }
      end,
    }
    local free = neap.program(function(rec)
      local steps = rec:input("steps", { space = "T" })
      return { y = clock {} (steps, { h = rec:input("first", { space = "B", dims = { 2 } }) }) }
    end)
    free.params:set("clock.u", neap.tensor { { 0, 1 }, { -1, 0 } }) -- a quarter turn
    local turn = free:run():feed { steps = neap.zeros { 4, 1 }, first = neap.tensor { { 1, 0 } } }
    assert.same({ { { 0, 1 } }, { { -1, 0 } }, { { 0, -1 } }, { { 1, 0 } } },
      turn:forward():value("y"):totable())
  end)

  it("row 60: the number of parameters does not depend on the number of steps", function()
    local pr = help.net(neap.lstm { size = 4 }, 3)
    local before, rng = pr.params:size(), neap.rng(60)
    assert.equal(4 * (4 * 3 + 4 * 4 + 4 + 4), before)
    for _, T in ipairs { 1, 10, 300 } do
      assert.equal(T, #help.outputs(pr, help.noise(rng, T, 3)))
      assert.equal(before, pr.params:size())
    end
    -- an unrolled network without sharing would need as many as it has steps
    local apart = {}
    for t = 1, 10 do apart[t] = neap.lstm { size = 4, name = "step" .. t } end
    local unshared = help.net(function(x)
      local y
      for t = 1, 10 do y = apart[t](x) end
      return y
    end, 3)
    assert.equal(10 * before, unshared.params:size())
  end)
end)

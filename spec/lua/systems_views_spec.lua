-- Rows of systems.md: windows beside recurrence, gates and gradients looked at, derivations by hand.
local neap = require "neap"
local help = require "systems_help"
local op = neap.op
local near, sigmoid, tanh = help.near, help.sigmoid, help.tanh

-- Which outputs change when step k of x does.
local function sees(pr, x, k)
  local before = help.outputs(pr, x)
  local keep = x[k]
  x[k] = {}
  for i, v in ipairs(keep) do x[k][i] = v + 0.5 end
  local after, out = help.outputs(pr, x), {}
  x[k] = keep
  for t = 1, #x do
    out[t] = false
    for i = 1, #before[t] do out[t] = out[t] or before[t][i] ~= after[t][i] end
  end
  return out
end

describe("systems.md, windows:", function()
  it("row 2: a convolution over time sees a window of the past, an RNN all of it; both share weights",
    function()
      local x = help.noise(neap.rng(2), 7, 2)
      local convolution = help.net(neap.chain { neap.features.window { steps = 3 },
        neap.linear { size = 2 }, op.relu }, 2, { seed = 4 })
      help.set(convolution.params, { ["chain.linear2.bias"] = { 5, 5 } }) -- so that relu is open
      local rnn = help.net(neap.elman { size = 2 }, 2)
      for k = 1, 7 do
        local window, all = {}, {}
        for t = 1, 7 do window[t], all[t] = t >= k and t < k + 3, t >= k end
        assert.same(window, sees(convolution, x, k))
        assert.same(all, sees(rnn, x, k))
      end
      -- as many weights for any number of steps, and the same answer wherever in time a pattern stands
      local pattern = table.move(x, 1, 3, 1, {})
      local late = table.move(pattern, 1, 3, 5, help.noise(neap.rng(3), 4, 2))
      near(help.outputs(convolution, pattern)[3], help.outputs(convolution, late)[7], 0)
    end)

  -- Letters, and at each step the one two steps before.
  local letters = neap.vocab.new { "a", "b" }
  local function delayed(rng, n)
    local text, before = {}, {}
    for i = 1, n do
      text[i], before[i] = {}, { "?", "?" }
      for t = 1, 8 do
        text[i][t] = letters.symbols[rng:int(2)]
        before[i][t + 2] = t <= 6 and text[i][t] or nil
      end
    end
    local corpus = neap.corpus.from { text = text, before = before }
    return { input = corpus:encode("text", letters),
      output = corpus:encode("before", letters, { unknown = "ignore" }) }
  end

  it("row 4: a feed-forward network on a window takes the same data; it knows what its window holds",
    function()
      local function accuracy(net)
        local rng = neap.rng(4)
        local task = neap.synced_seq2seq { input = letters, output = letters, rng = rng, net = net }
        local train, optim = delayed(rng, 200), neap.adam { rate = 2e-2 }
        for _ = 1, 12 do
          for batch in neap.batches(train, { size = 20, rng = rng }) do task:learn(batch, optim) end
        end
        return task:score(delayed(rng, 200)).accuracy
      end
      local function window(steps)
        return neap.chain { neap.embed { size = 3 }, neap.features.window { steps = steps },
          neap.linear { size = 12 }, op.tanh }
      end
      local short, enough = accuracy(window(2)), accuracy(window(3))
      local rnn = accuracy(neap.chain { neap.embed { size = 3 }, neap.gru { size = 12 } })
      assert(short < 0.6 and enough > 0.98 and rnn > 0.98, ("%g %g %g"):format(short, enough, rnn))
    end)

  it("row 4: one hidden layer comes nearer to a function the more units it has", function()
    local x, y = {}, {}
    for i = 1, 50 do
      x[i] = { (i - 25.5) / 25 }
      y[i] = { math.sin(4 * x[i][1]) }
    end
    local function off(units)
      local net = neap.chain { neap.linear { size = units }, op.tanh, neap.linear { size = 1 } }
      local pr = neap.program(function(rec)
        local z = net(rec:input("x", { space = "B", dims = { 1 } }))
        return { z = z, loss = op.mse(z, rec:input("y", { space = "B", dims = { 1 } })) }
      end, { seed = 1 })
      local run, optim = pr:run { learn = true }, neap.adam { rate = 2e-2 }
      run:feed { x = neap.tensor(x), y = neap.tensor(y) }
      for step = 1, 1500 do
        optim:rate(2e-2 * (1 - step / 1501))
        run:forward()
        pr.params:zero_grad()
        run:backward()
        optim:step(pr.params)
      end
      local worst, z = 0, run:forward():value("z"):totable()
      for i = 1, 50 do worst = math.max(worst, math.abs(z[i][1] - y[i][1])) end
      return worst
    end
    local one, some, many = off(1), off(3), off(24)
    assert(one > 0.5 and some < one / 2 and many < 0.03, ("%g %g %g"):format(one, some, many))
  end)
end)

describe("systems.md, looking inside:", function()
  -- The lecture's cell on its nine steps: x1 comes in where x2 = 1, x2 = -1 resets, x3 = 1 puts out.
  local steps = {}
  for t, x1 in ipairs { 1, 3, 2, 4, 2, 1, 3, 6, 1 } do
    steps[t] = { x1, ({ 0, 1, 0, 1, 0, 0, -1, 1, 0 })[t], (t == 6 or t == 9) and 1 or 0 }
  end
  local function lecture()
    local pr = help.net(neap.lstm { size = 1, candidate = "identity", output = "identity",
      watch = true, name = "r" }, 3)
    help.set(pr.params, { ["r.bias_ih"] = { -10, 10, 0, -10 },
      ["r.weight_ih"] = { { 0, 100, 0 }, { 0, 100, 0 }, { 1, 0, 0 }, { 0, 0, 100 } },
      ["r.weight_hh"] = { { 0 }, { 0 }, { 0 }, { 0 } }, ["r.bias_hh"] = { 0, 0, 0, 0 } })
    return pr
  end

  it("row 8: gates mark where c and h move; a step that is not marked gets no gradient", function()
    local pr = lecture()
    local run = pr:run { learn = true }
    run:want_gradient "x"
    run:feed { x = help.field { steps } }:forward()
    local function moved(name)
      local values, marks = run:value(name, "concat"):totable(), {}
      for t, v in ipairs(values) do
        local before = t > 1 and values[t - 1][1] or 0
        if math.abs(v[1] - before) > 0.01 then marks[#marks + 1] = t end
      end
      return marks
    end
    assert.same({ 2, 4, 7, 8 }, moved "r.c")
    assert.same({ 6, 7, 9 }, moved "y")
    local open = {}
    for t, i in ipairs(run:value("r.i", "concat"):totable()) do
      if i[1] > 0.5 then open[#open + 1] = t end
    end
    assert.same({ 2, 4, 8 }, open)
    -- y(6) and y(9) together, by x1 of each step
    local dy = neap.zeros { 9, 1, 1 }
    dy:set(6, 1, 1, 1)
    dy:set(9, 1, 1, 1)
    run.core:backward(pr.outputs.y, dy)
    for t, d in ipairs(run:gradient("x", "concat"):totable()) do
      near((t == 2 or t == 4 or t == 8) and 1 or 0, d[1], 5e-4)
    end
  end)

  it("row 15: saliency: what an answer hangs on is the gradient by the input, and a reset cuts it",
    function()
      local pr = lecture()
      local run = pr:run { learn = true }
      run:want_gradient "x"
      local function saliency(t)
        run:feed { x = help.field { steps } }:forward()
        local dy = neap.zeros { 9, 1, 1 }
        dy:set(t, 1, 1, 1)
        run.core:backward(pr.outputs.y, dy)
        return run:gradient("x", "concat"):totable()
      end
      local at_6, at_9 = saliency(6), saliency(9)
      for t = 1, 9 do
        near((t == 2 or t == 4) and 1 or 0, at_6[t][1], 5e-4)
        near(t == 8 and 1 or 0, at_9[t][1], 5e-4) -- what came before the reset at 7 does not count
      end
      -- and it is what a small change of the input does
      steps[4][1] = 4.01
      local moved = help.outputs(pr, steps)[6][1]
      steps[4][1] = 4
      near(at_6[4][1], (moved - help.outputs(pr, steps)[6][1]) / 0.01, 1e-3)
    end)

  it("row 15: hidden states can be seen as they move, all at once and step by step", function()
    local pr = lecture()
    local run = help.run(pr, steps)
    local c = run:value("r.c", "concat"):totable()
    near({ { 0 }, { 3 }, { 3 }, { 7 }, { 7 }, { 7 }, { 0 }, { 6 }, { 6 } }, c, 1e-3)
    local stream = pr:stream()
    for t = 1, 9 do
      stream:input("x", steps[t])
      stream:step()
      assert.same(c[t], stream:state():get "r.c":totable()[1])
    end
  end)

  it("row 13: the GRU in both forms of its reset and both meanings of its update", function()
    local rng = neap.rng(13)
    local x = help.noise(rng, 6, 2)
    for _, reset in ipairs { "after", "before" } do
      for _, update in ipairs { "keep", "take" } do
        local pr = help.net(neap.gru { size = 2, reset = reset, update = update, name = "r" }, 2)
        local p = {}
        for _, name in ipairs { "weight_ih", "weight_hh", "bias_ih", "bias_hh" } do
          p[name] = pr.params:get("r." .. name):totable()
        end
        local h, expected = { 0, 0 }, {}
        local function sum(side, block, k, v) -- of W x + b, or U h' + c
          local w, b = p["weight_" .. side], p["bias_" .. side]
          local row = 2 * (block - 1) + k
          return w[row][1] * v[1] + w[row][2] * v[2] + b[row]
        end
        for t = 1, 6 do
          local r, z, new = {}, {}, {}
          for k = 1, 2 do
            r[k] = sigmoid(sum("ih", 1, k, x[t]) + sum("hh", 1, k, h))
            z[k] = sigmoid(sum("ih", 2, k, x[t]) + sum("hh", 2, k, h))
          end
          for k = 1, 2 do
            local n = tanh(sum("ih", 3, k, x[t]) + (reset == "after" and r[k] * sum("hh", 3, k, h)
              or sum("hh", 3, k, { r[1] * h[1], r[2] * h[2] })))
            local keep = update == "keep" and z[k] or 1 - z[k]
            new[k] = keep * h[k] + (1 - keep) * n
          end
          h, expected[t] = new, new
        end
        near(expected, help.outputs(pr, x), 1e-6)
      end
    end
  end)

  it("row 62: a gradient fades by layer as it fades by time; an open forget gate keeps it", function()
    -- its length at what each layer reads, from the last step's outputs back
    local function flow(layers, steps_)
      local pr = neap.program(function(rec)
        local x = rec:input("x", { space = "T", dims = { 8 } })
        for k, l in ipairs(layers) do x = l(op.watch("read" .. k, x)) end
        return { loss = op.sum(op.sum_rows(op.square(op.last(x)))) }
      end, { seed = 1 })
      local run, lengths = pr:run { learn = true }, {}
      for k = 1, #layers do run:want_gradient("read" .. k) end
      run:feed { x = help.field { help.noise(neap.rng(62), steps_, 8) } }:forward()
      run:backward()
      for k = 1, #layers do
        lengths[k] = {}
        for t, d in ipairs(run:gradient("read" .. k, "concat"):totable()) do
          lengths[k][t] = 0
          for _, v in ipairs(d) do lengths[k][t] = lengths[k][t] + v * v end
          lengths[k][t] = lengths[k][t] ^ 0.5
        end
      end
      return lengths
    end
    local function stack(n, make)
      local layers = {}
      for k = 1, n do layers[k] = make("layer" .. k) end
      return layers
    end
    local plain = flow(stack(20, function(name)
      return neap.chain { neap.linear { size = 8 }, op.tanh, name = name }
    end), 1)
    assert(plain[1][1] < 1e-3 * plain[20][1], plain[1][1] / plain[20][1])
    local rnn = flow(stack(2, function(name) return neap.elman { size = 8, name = name } end), 20)
    local lstm = flow(stack(2, function(name)
      return neap.lstm { size = 8, forget_bias = 6, name = name }
    end), 20)
    for k = 1, 2 do
      assert(rnn[k][1] < 1e-3 * rnn[k][20], rnn[k][1] / rnn[k][20])
      assert(lstm[k][1] > 0.1 * lstm[k][20], lstm[k][1] / lstm[k][20])
    end
    assert(rnn[1][20] < rnn[2][20]) -- and by layer, at the same step
  end)
end)

describe("systems.md, derivations:", function()
  it("row 64: the gradients of an LSTM, derived by hand", function()
    -- the loss is the sum over all steps and units of u h; blocks i f g o
    local H, T = 2, 5
    local rng = neap.rng(64)
    local x, u = help.noise(rng, T, 3), help.noise(rng, T, H)
    for _, fused in ipairs { true, false } do
      local pr = help.net(neap.lstm { size = H, fused = fused, name = "r" }, 3, { seed = 9 })
      local W, U = pr.params:get "r.weight_ih":totable(), pr.params:get "r.weight_hh":totable()
      local b, c = pr.params:get "r.bias_ih":totable(), pr.params:get "r.bias_hh":totable()
      -- forward
      local h, cell, gate = { [0] = { 0, 0 } }, { [0] = { 0, 0 } }, {}
      for t = 1, T do
        gate[t], h[t], cell[t] = {}, {}, {}
        for row = 1, 4 * H do
          local a = b[row] + c[row]
          for j = 1, 3 do a = a + W[row][j] * x[t][j] end
          for j = 1, H do a = a + U[row][j] * h[t - 1][j] end
          gate[t][row] = (row > 2 * H and row <= 3 * H) and tanh(a) or sigmoid(a)
        end
        for k = 1, H do
          local i, f, g, o = gate[t][k], gate[t][H + k], gate[t][2 * H + k], gate[t][3 * H + k]
          cell[t][k] = f * cell[t - 1][k] + i * g
          h[t][k] = o * tanh(cell[t][k])
        end
      end
      -- back through time
      local function zeros(rows, columns)
        local m = {}
        for i = 1, rows do
          m[i] = {}
          for j = 1, columns do m[i][j] = 0 end
        end
        return m
      end
      local dW, dU, db = zeros(4 * H, 3), zeros(4 * H, H), zeros(1, 4 * H)[1]
      local dh_next, dc_next = { 0, 0 }, { 0, 0 }
      for t = T, 1, -1 do
        local da, dc = {}, {}
        for k = 1, H do
          local i, f, g, o = gate[t][k], gate[t][H + k], gate[t][2 * H + k], gate[t][3 * H + k]
          local dh = u[t][k] + dh_next[k]
          local th = tanh(cell[t][k])
          dc[k] = dh * o * (1 - th ^ 2) + dc_next[k]
          da[k] = dc[k] * g * i * (1 - i)
          da[H + k] = dc[k] * cell[t - 1][k] * f * (1 - f)
          da[2 * H + k] = dc[k] * i * (1 - g ^ 2)
          da[3 * H + k] = dh * th * o * (1 - o)
          dc_next[k] = dc[k] * f
        end
        dh_next = { 0, 0 }
        for row = 1, 4 * H do
          for j = 1, 3 do dW[row][j] = dW[row][j] + da[row] * x[t][j] end
          for j = 1, H do
            dU[row][j] = dU[row][j] + da[row] * h[t - 1][j]
            dh_next[j] = dh_next[j] + da[row] * U[row][j]
          end
          db[row] = db[row] + da[row]
        end
      end
      local run = pr:run { learn = true }
      run:feed { x = help.field { x } }:forward()
      local dy = neap.zeros { T, 1, H }
      for t = 1, T do
        for k = 1, H do dy:set(t, 1, k, u[t][k]) end
      end
      pr.params:zero_grad()
      run.core:backward(pr.outputs.y, dy)
      near(dW, pr.params:grad "r.weight_ih", 3e-6)
      near(dU, pr.params:grad "r.weight_hh", 3e-6)
      near(db, pr.params:grad "r.bias_ih", 3e-6)
      near(db, pr.params:grad "r.bias_hh", 3e-6)
    end
  end)

  it("row 64: scaled dot-product attention: softmax(q k / sqrt d) v", function()
    local rng = neap.rng(65)
    local memory, query, d = help.noise(rng, 4, 6), help.noise(rng, 3, 6), 6
    local attention = neap.attention { kind = "dot", scale = 1 / d ^ 0.5 }
    local pr = neap.program(function(rec)
      return { y = (attention(rec:input("q", { space = "T", dims = { d } }),
        rec:input("m", { space = "S", dims = { d } }))) }
    end)
    local run = pr:run():feed { q = help.field { query }, m = help.field { memory } }:forward()
    for t, y in ipairs(run:value("y", "concat"):totable()) do
      local weights, total, expected = {}, 0, { 0, 0, 0, 0, 0, 0 }
      for s = 1, 4 do
        local z = 0
        for k = 1, d do z = z + query[t][k] * memory[s][k] end
        weights[s] = math.exp(z / d ^ 0.5)
        total = total + weights[s]
      end
      for s = 1, 4 do
        for k = 1, d do expected[k] = expected[k] + weights[s] / total * memory[s][k] end
      end
      near(expected, y, 1e-6)
    end
  end)
end)

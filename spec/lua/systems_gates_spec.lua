-- Rows of systems.md: gates, cells, parameter counts, vanishing and exploding gradients, memory.
local neap = require "neap"
local help = require "systems_help"
local op = neap.op
local near, sigmoid, tanh = help.near, help.sigmoid, help.tanh

-- Sets a layer of one unit named r by gate: { i = { wx.., wh, b }, f = .., g = .., o = .. }.
local function set_gates(params, inputs, gates)
  local ih, hh, b = {}, {}, {}
  for k, name in ipairs { "i", "f", "g", "o" } do
    local w = gates[name]
    ih[k] = table.move(w, 1, inputs, 1, {})
    hh[k] = { w[inputs + 1] }
    b[k] = w[inputs + 2]
  end
  help.set(params, { ["r.weight_ih"] = ih, ["r.weight_hh"] = hh, ["r.bias_ih"] = b,
    ["r.bias_hh"] = { 0, 0, 0, 0 } })
end

-- The outputs and the watched values of one sequence, by name: lists over time.
local function traces(pr, x, names)
  local run, out = help.run(pr, x), {}
  for _, name in ipairs(names) do
    out[name] = {}
    for t, v in ipairs(run:value(name, "concat"):totable()) do
      out[name][t] = #v == 1 and v[1] or v
    end
  end
  return out
end

-- The lecture's cell: x1 comes in where x2 = 1, x2 = -1 resets the memory, x3 = 1 puts it out.
local function lecture()
  local pr = help.net(neap.lstm { size = 1, candidate = "identity", output = "identity",
    watch = true, name = "r" }, 3)
  set_gates(pr.params, 3, { g = { 1, 0, 0, 0, 0 }, i = { 0, 100, 0, 0, -10 },
    f = { 0, 100, 0, 0, 10 }, o = { 0, 0, 100, 0, -10 } })
  return pr
end

describe("systems.md, gates:", function()
  it("row 7: gates are read by name and, forced to 0, 1/2, 1, do what is said of them", function()
    local x = help.noise(neap.rng(7), 4, 2)
    local free = help.net(neap.lstm { size = 2, watch = true, name = "r" }, 2, { seed = 3 })
    local seen = traces(free, x, { "y", "r.i", "r.f", "r.g", "r.o", "r.c" })
    local function forced(gates)
      local pr = help.net(neap.lstm { size = 2, gates = gates, watch = true, name = "r" }, 2)
      pr.params:copy(free.params)
      local names = { "y", "r.g", "r.c" }
      for _, name in ipairs { "i", "f", "o" } do
        if not gates[name] then names[#names + 1] = "r." .. name end
      end
      return traces(pr, x, names)
    end
    for t = 1, 4 do
      for j = 1, 2 do
        local function at(name) return seen[name][t][j] end
        assert(at "r.i" > 0 and at "r.i" < 1 and at "r.f" > 0 and at "r.f" < 1)
        local before = t > 1 and seen["r.c"][t - 1][j] or 0
        near(at "r.f" * before + at "r.i" * at "r.g", at "r.c", 1e-6)
        near(at "r.o" * tanh(at "r.c"), at "y", 1e-6)
      end
    end
    for _, share in ipairs { 0, 0.5, 1 } do
      local f, i, o = forced { f = share }, forced { i = share }, forced { o = share }
      for t = 1, 4 do
        for j = 1, 2 do
          local function before(s) return t > 1 and s["r.c"][t - 1][j] or 0 end
          -- forget near 0 forgets, near 1 remembers
          near(share * before(f) + f["r.i"][t][j] * f["r.g"][t][j], f["r.c"][t][j], 1e-6)
          near(i["r.f"][t][j] * before(i) + share * i["r.g"][t][j], i["r.c"][t][j], 1e-6)
          near(share * tanh(o["r.c"][t][j]), o.y[t][j], 1e-6)
        end
      end
    end
    -- GRU: n, r, z
    local gru = help.net(neap.gru { size = 2, watch = true, name = "r" }, 2)
    local run = help.run(gru, x)
    for _, name in ipairs { "r.r", "r.z" } do
      for _, v in ipairs(run:value(name, "concat"):totable()) do
        assert(v[1] > 0 and v[1] < 1 and v[2] > 0 and v[2] < 1)
      end
    end
  end)

  it("row 9: h and c both go on: the state is (h, c)", function()
    local pr = help.net(neap.lstm { size = 2, name = "r" }, 2)
    local x = help.noise(neap.rng(9), 6, 2)
    local y = help.outputs(pr, x)
    local run, state = pr:run(), pr:state(1)
    assert.same({ "r.h", "r.c" }, state:slots())
    local function go(s, from, to)
      run:state(s)
      run:feed { x = help.field { table.move(x, from, to, 1, {}) } }:forward()
      return run:value("y", "concat"):totable()
    end
    go(state, 1, 3)
    local both, only_h, only_c = state:clone(), state:clone(), state:clone()
    only_h:set("r.c", neap.zeros { 1, 2 })
    only_c:set("r.h", neap.zeros { 1, 2 })
    local rest = table.move(y, 4, 6, 1, {})
    assert.same(rest, go(both, 4, 6))
    assert.not_same(rest, go(only_h, 4, 6))
    assert.not_same(rest, go(only_c, 4, 6))
    assert.same({ y[6] }, both:get "r.h":totable())
  end)

  it("row 10: any function in each gate; those without bounds do not gate, and are warned of", function()
    local function gate(functions, x)
      local layer = neap.lstm { size = 1, gate = functions, watch = true, name = "r" }
      local pr = help.net(layer, 1)
      set_gates(pr.params, 1, { i = { 1, 0, 0 }, f = { 1, 0, 0 }, g = { 1, 0, 0 },
        o = { 1, 0, 0 } })
      local seen = traces(pr, { { x } }, { "r.i", "r.f", "r.g", "r.o" })
      return seen["r.i"][1], seen["r.f"][1], seen["r.g"][1], seen["r.o"][1], tostring(layer)
    end
    local i, f, g, o, text = gate({ i = "hard_sigmoid", f = "relu", o = "sigmoid" }, 8)
    near(1, i)
    near(8, f) -- it neither closes nor keeps: it multiplies
    near(tanh(8), g)
    near(sigmoid(8), o)
    assert.matches("gate f: relu has no bounds", text, 1, true)
    assert.not_matches("bounds", select(5, gate("sigmoid", 8)), 1, true)
    -- why tanh for the candidate: its mean is 0 around 0, and it is four times as steep there
    local function slope(name)
      local _, d = neap.grad(function(x) return op.sum(op[name](x)) end, neap.tensor { 0 })
      return d:get(1)
    end
    near(1, slope "tanh")
    near(0.25, slope "sigmoid")
    near(0, op.tanh(neap.tensor { 0 }):get(1))
    near(0.5, op.sigmoid(neap.tensor { 0 }):get(1))
  end)

  it("row 11: parameters of LSTM : GRU : RNN are exactly 4 : 3 : 1", function()
    for _, sizes in ipairs { { 1, 1 }, { 7, 3 }, { 16, 64 } } do
      for _, bias in ipairs { true, false } do
        local function count(kind)
          return help.net(neap[kind] { size = sizes[1], bias = bias }, sizes[2]).params:size()
        end
        local one = count "elman"
        assert.equal(sizes[1] * (sizes[1] + sizes[2] + (bias and 2 or 0)), one)
        assert.same({ 4 * one, 3 * one }, { count "lstm", count "gru" })
      end
    end
    -- one update gate, and no output gate: h is a mean of h' and n, weighted by z
    local pr = help.net(neap.gru { size = 1, name = "r" }, 1)
    local p = pr.params
    p:set("r.weight_ih", neap.tensor { { 0 }, { 0 }, { 1 } })
    p:set("r.weight_hh", neap.zeros { 3, 1 })
    p:set("r.bias_hh", neap.zeros { 3 })
    for z, share in pairs { [-100] = 0, [0] = 0.5, [100] = 1 } do
      p:set("r.bias_ih", neap.tensor { 0, z, 0 })
      local y = help.outputs(pr, { { 1 }, { -2 } })
      local h = (1 - share) * tanh(1)
      near({ { h }, { (1 - share) * tanh(-2) + share * h } }, y)
    end
  end)

  -- The cell with 001's names, as a script would write it. g and h as given; f is a sigmoid.
  local function named_cell(g, h)
    return neap.cell {
      name = "named",
      params = function(p, c)
        for _, name in ipairs { "z", "z_i", "z_f", "z_o" } do
          p["w_" .. name], p["u_" .. name], p["b_" .. name] = { 2, c.input }, { 2, 2 }, { 2 }
        end
      end,
      state = function() return { a = 2, c = 2 } end,
      step = function(p, x, s)
        local v = {}
        for _, name in ipairs { "z", "z_i", "z_f", "z_o" } do
          v[name] = op.watch(name, op.linear(x, p["w_" .. name], p["b_" .. name])
            + op.linear(s.a, p["u_" .. name]))
        end
        local f = op.sigmoid
        local c = op.watch("c'", g(v.z) * f(v.z_i) + s.c * f(v.z_f))
        local a = h(c) * f(v.z_o)
        return a, { a = a, c = c }
      end,
    }
  end

  it("row 24: z, z_i, z_f, z_o and c are at hand by these names", function()
    local mine = help.net(named_cell(op.tanh, op.tanh) {}, 3)
    local ours = help.net(neap.lstm { size = 2, watch = true, name = "r" }, 3)
    local p, q = ours.params, mine.params
    q:set("named.b_z", neap.tensor { 0.1, -0.2 })
    for k, name in ipairs { "z_i", "z_f", "z", "z_o" } do -- blocks i f g o
      for ours_name, mine_name in pairs { weight_ih = "w_", weight_hh = "u_", bias_ih = "b_" } do
        q:set("named." .. mine_name .. name,
          op.slice(p:get("r." .. ours_name), 2 * k - 1, 2 * k, 1))
      end
    end
    p:set("r.bias_hh", neap.zeros { 8 })
    local x = help.noise(neap.rng(24), 5, 3)
    local a = traces(mine, x, { "z", "z_i", "z_f", "z_o", "c'", "y" })
    local b = traces(ours, x, { "r.g", "r.i", "r.f", "r.o", "r.c", "y" })
    for t = 1, 5 do
      for j = 1, 2 do
        near(tanh(a.z[t][j]), b["r.g"][t][j])
        near(sigmoid(a.z_i[t][j]), b["r.i"][t][j])
        near(sigmoid(a.z_f[t][j]), b["r.f"][t][j])
        near(sigmoid(a.z_o[t][j]), b["r.o"][t][j])
        near(a["c'"][t][j], b["r.c"][t][j])
        near(a.y[t][j], b.y[t][j])
      end
    end
  end)

  it("row 25: c' = g(z) f(z_i) + c f(z_f), a = h(c') f(z_o)", function()
    local w = { i = { 0.5, -0.3, 0.1 }, f = { -0.4, 0.6, 0.2 }, g = { 0.9, 0.7, -0.1 },
      o = { 0.3, -0.8, 0.4 } } -- input, state, bias of each
    local x = { { 1 }, { -0.5 }, { 2 }, { 0.25 } }
    for _, functions in ipairs { { "tanh", "tanh", tanh, tanh },
      { "identity", "identity", function(v) return v end, function(v) return v end },
      { "relu", "sigmoid", function(v) return math.max(v, 0) end, sigmoid } } do
      local g, h = functions[3], functions[4]
      for _, fused in ipairs(functions[1] == "tanh" and { true, false } or { false }) do
        local pr = help.net(neap.lstm { size = 1, name = "r", fused = fused,
          candidate = not fused and functions[1] or nil,
          output = not fused and functions[2] or nil }, 1)
        set_gates(pr.params, 1, w)
        local c, a, expected = 0, 0, {}
        for t = 1, 4 do
          local function pre(k) return w[k][1] * x[t][1] + w[k][2] * a + w[k][3] end
          local z, z_i, z_f, z_o = pre "g", pre "i", pre "f", pre "o"
          c = g(z) * sigmoid(z_i) + c * sigmoid(z_f)
          a = h(c) * sigmoid(z_o)
          expected[t] = { a }
        end
        near(expected, help.outputs(pr, x), 1e-6)
      end
    end
  end)

  it("row 26: f(z_i) = 1 is open, 0.5 half open, 0 closed: g(z), 0.5 g(z), 0", function()
    local pr = help.net(neap.lstm { size = 1, watch = true, name = "r" }, 1)
    for z_i, share in pairs { [100] = 1, [0] = 0.5, [-100] = 0 } do
      set_gates(pr.params, 1,
        { i = { 0, 0, z_i }, f = { 0, 0, 0 }, g = { 1, 0, 0 }, o = { 0, 0, 0 } })
      local v = traces(pr, { { 0.8 } }, { "r.i", "r.g", "r.c" })
      near(share, v["r.i"][1], 1e-7)
      near(tanh(0.8), v["r.g"][1], 1e-6)
      near(share * tanh(0.8), v["r.c"][1], 1e-6)
    end
  end)

  it("row 27: a forget gate of 1 remembers, of 0 forgets", function()
    local pr = help.net(neap.lstm { size = 1, watch = true, name = "r" }, 1)
    local x = { { 1 }, { 0 }, { 0 }, { 0 } }
    local function cells(z_f) -- only the first step's input comes in
      set_gates(pr.params, 1,
        { i = { 200, 0, -100 }, f = { 0, 0, z_f }, g = { 1, 0, 0 }, o = { 0, 0, 0 } })
      return traces(pr, x, { "r.c" })["r.c"]
    end
    local v = tanh(1)
    near({ v, v, v, v }, cells(100))
    near({ v, 0, 0, 0 }, cells(-100))
    near({ v, v / 2, v / 4, v / 8 }, cells(0))
  end)

  it("row 28: an LSTM of three inputs and one output, linear g and h, memory 0", function()
    local pr = lecture()
    assert.same({ 4, 3 }, pr.params:shape "r.weight_ih")
    local v = traces(pr, { { 3, 0, 1 } }, { "r.c", "y" })
    near(3 * sigmoid(-10), v["r.c"][1], 1e-9) -- memory was 0: what came in is all there is
    near(3 * sigmoid(-10) * 1, v.y[1], 1e-9)
    assert.matches("recorded", tostring(neap.lstm { size = 1, candidate = "identity" }))
  end)

  it("row 29: [3,1,0] gives z 3, z_i 90, z_f 110, z_o -10, c' 3, a 1.3619361e-4", function()
    local pr = lecture()
    local v = traces(pr, { { 3, 1, 0 } }, { "r.g", "r.i", "r.f", "r.o", "r.c", "y" })
    near(3, v["r.g"][1], 0) -- g is linear: this is z
    near(1, v["r.i"][1], 0)
    near(1, v["r.f"][1], 0)
    near(sigmoid(-10), v["r.o"][1], 1e-10)
    near(3, v["r.c"][1], 0)
    near(1.3619361e-4, v.y[1], 1e-10)
    -- the sums before the gates
    local p = pr.params
    near({ { 90, 110, 3, -10 } },
      op.linear(neap.tensor { { 3, 1, 0 } }, p:get "r.weight_ih", p:get "r.bias_ih"), 0)
  end)

  it("row 30: [4,1,0] [2,0,0] [1,0,1] [3,-1,0] go on from there", function()
    local v = traces(lecture(),
      { { 3, 1, 0 }, { 4, 1, 0 }, { 2, 0, 0 }, { 1, 0, 1 }, { 3, -1, 0 } },
      { "r.c", "y" })
    near({ 3, 7, 6.9997730, 6.9995006, 0 }, v["r.c"], 1e-6)
    near({ 0, 0, 0, 6.9995006, 0 }, v.y, 4e-4)
    near(6.9995006, v.y[4], 1e-6)
  end)

  it("row 31: add x1 where x2 = 1, reset where x2 = -1, put out where x3 = 1", function()
    local x1 = { 1, 3, 2, 4, 2, 1, 3, 6, 1 }
    local x2 = { 0, 1, 0, 1, 0, 0, -1, 1, 0 }
    local x3 = { 0, 0, 0, 0, 0, 1, 0, 0, 1 }
    local x = {}
    for t = 1, 9 do x[t] = { x1[t], x2[t], x3[t] } end
    local y = traces(lecture(), x, { "y" }).y
    near({ 0, 0, 0, 0, 0, 7, 0, 0, 6 }, y, 6e-4)
    near(6.99950, y[6], 5e-6)
    near(5.99977, y[9], 5e-6)
  end)

  it("row 31: the same rule is learned from random weights", function()
    local rng, steps, rows, T = neap.rng(1), 3000, 32, 9
    local pr = neap.program(function(rec)
      local z = neap.linear { size = 1 } (neap.lstm { size = 24 } (rec:input("x",
        { space = "T", dims = { 3 } })))
      return { z = z, loss = op.mse(z, rec:input("y", { space = "T", dims = { 1 } })) }
    end)
    local run, optim = pr:run { learn = true }, neap.adam { rate = 1e-2, clip = 1 }
    for step = 1, steps do
      local x, y, memory = {}, {}, {}
      for t = 1, T do
        x[t], y[t] = {}, {}
        for b = 1, rows do
          local x1, chance = rng:int(6), rng:uniform()
          local x2 = chance < 0.3 and 1 or chance < 0.5 and -1 or 0
          local x3 = rng:uniform() < 0.4 and 1 or 0
          memory[b] = x2 == -1 and 0 or (memory[b] or 0) + (x2 == 1 and x1 or 0)
          x[t][b], y[t][b] = { x1, x2, x3 }, { x3 * memory[b] }
        end
      end
      optim:rate(1e-2 * (1 + math.cos(math.pi * step / steps)) / 2 + 1e-5)
      run:feed { x = neap.tensor(x), y = neap.tensor(y) }:forward()
      pr.params:zero_grad()
      run:backward()
      optim:step(pr.params)
    end
    local x = {} -- the lecture's table
    for t, x1 in ipairs { 1, 3, 2, 4, 2, 1, 3, 6, 1 } do
      x[t] = { { x1, ({ 0, 1, 0, 1, 0, 0, -1, 1, 0 })[t], (t == 6 or t == 9) and 1 or 0 } }
    end
    run:feed { x = neap.tensor(x), y = neap.zeros { T, 1, 1 } }:forward()
    local z = run:value("z", "concat"):totable()
    for t, y in ipairs { 0, 0, 0, 0, 0, 7, 0, 0, 6 } do
      assert.is_true(math.abs(z[t][1] - y) < 0.45, ("step %d: %g, not %g"):format(t, z[t][1], y))
    end
  end)

  it("row 32: an LSTM has 4 times the parameters of a network of as many neurons", function()
    for _, sizes in ipairs { { 1, 3 }, { 2, 2 }, { 33, 17 } } do
      local one = help.net(neap.elman { size = sizes[1] }, sizes[2])
      local four = help.net(neap.lstm { size = sizes[1] }, sizes[2])
      assert.equal(4 * one.params:size(), four.params:size())
      for _, name in ipairs { "weight_ih", "weight_hh", "bias_ih", "bias_hh" } do
        local a, b = one.params:shape("elman." .. name), four.params:shape("lstm." .. name)
        assert.same({ 4 * a[1], a[2] }, b)
      end
    end
  end)

  it("row 36: gates are called by what they do: f keeps the old memory, i lets the new one in",
    function()
      local c0 = { 0.7, -0.3 }
      local function last_c(gates)
        local pr = neap.program(function(rec)
          local x = rec:input("x", { space = "T", dims = { 2 } })
          local _, s = neap.lstm { size = 2, gates = gates, watch = true, name = "r" } (x,
            { c = rec:input("c", { space = "B", dims = { 2 } }) })
          return { c = s.c }
        end)
        local run = pr:run():feed { x = help.field { { { 0.4, -0.9 } } }, c = neap.tensor { c0 } }
        run:forward()
        return run:value("c"):totable()[1], run:value("r.g", "concat"):totable()[1]
      end
      assert.same(neap.tensor { c0 }:totable()[1], (last_c { f = 1, i = 0 }))
      local c, g = last_c { f = 0, i = 1 }
      assert.same(g, c)
      assert.error_matches(function() neap.lstm { size = 2, gates = { input = 1 } } end,
        "lstm: gates: expected a number or a function for i, f, g or o, came input = 1")
    end)

  it("row 39: two LSTM blocks as a hidden layer, each with weights of its own by name", function()
    local pr = help.net(neap.lstm { size = 2, name = "r" }, 1)
    local names = { "i", "f", "g", "o" }
    local rng, w = neap.rng(39), { ih = {}, hh = {}, b = {} }
    for k, name in ipairs(names) do
      for block = 1, 2 do
        local row = 2 * (k - 1) + block -- gate after gate, block after block
        w.ih[row] = { rng:normal() }
        w.hh[row] = { rng:normal(), rng:normal() }
        w.b[row] = rng:normal()
        w[name .. block] = { x = w.ih[row][1], h = w.hh[row], b = w.b[row] }
      end
    end
    help.set(pr.params, { ["r.weight_ih"] = w.ih, ["r.weight_hh"] = w.hh, ["r.bias_ih"] = w.b,
      ["r.bias_hh"] = { 0, 0, 0, 0, 0, 0, 0, 0 } })
    local x, h, c, expected = { { 0.5 }, { -1 }, { 2 } }, { 0, 0 }, { 0, 0 }, {}
    for t = 1, 3 do
      local new = {}
      for block = 1, 2 do
        local function pre(gate)
          local v = w[gate .. block] -- each block sees the outputs of both
          return v.x * x[t][1] + v.h[1] * h[1] + v.h[2] * h[2] + v.b
        end
        c[block] = sigmoid(pre "f") * c[block] + sigmoid(pre "i") * tanh(pre "g")
        new[block] = sigmoid(pre "o") * tanh(c[block])
      end
      h = new
      expected[t] = h
    end
    near(expected, help.outputs(pr, x), 1e-6)
  end)

  it("row 51: the cell is internal: only h goes to the next layer", function()
    local pr = neap.program(function(rec)
      local x = rec:input("x", { space = "T", dims = { 2 } })
      local y, s = neap.lstm { size = 3, name = "r" } (x)
      return { y = y, h = s.h, c = s.c }
    end)
    local run = help.run(pr, help.noise(neap.rng(51), 4, 2))
    local y, h, c = run:value("y"):totable(), run:value("h"):totable(), run:value("c"):totable()
    assert.same(h[1], y[4][1])
    assert.not_same(c[1], y[4][1])
    for j = 1, 3 do assert(math.abs(h[1][j]) < 1) end
    -- a chain hands on y alone; c comes only to who asks for it
    local chain = neap.program(function(rec)
      local z, s = neap.chain { neap.lstm { size = 3 }, neap.linear { size = 2 } } (
        rec:input("x", { space = "T", dims = { 2 } }))
      assert.is_nil(s)
      return { z = z }
    end)
    assert.same({ 2, 3 }, chain.params:shape "chain.linear2.weight")
  end)
end)

describe("systems.md, vanishing and exploding:", function()
  -- d h_T / d x_1 of a scalar network.
  local function reach(layer, T, values)
    local pr = help.net(layer, 1)
    help.set(pr.params, values)
    local run = pr:run { learn = true }
    run:want_gradient "x"
    local x = { { 1 } }
    for t = 2, T do x[t] = { 0 } end
    run:feed { x = help.field { x } }:forward()
    local dy = neap.zeros { T, 1, 1 }
    dy:set(T, 1, 1, 1)
    run.core:backward(pr.outputs.y, dy)
    return run:gradient("x"):get(1, 1, 1)
  end
  local function linear_rnn(w, steps)
    return reach(neap.elman { size = 1, activation = "identity", bias = false, name = "r" },
      steps + 1,
      { ["r.weight_ih"] = 1, ["r.weight_hh"] = w })
  end
  local function lstm(options, steps, gates)
    options.size, options.name = 1, "r"
    local layer = neap.lstm(options)
    local pr = help.net(layer, 1)
    set_gates(pr.params, 1, gates)
    local values = {}
    for _, name in ipairs(pr.params:names()) do values[name] = pr.params:get(name):totable() end
    return reach(layer, steps + 1, values)
  end
  local function close(expected, came)
    assert(math.abs(came / expected - 1) < 5e-4, ("expected %g, came %g"):format(expected, came))
  end

  it("row 34: a weight of 0.9 vanishes and one of 1.1 explodes over 50 and 100 steps", function()
    close(2.656e-5, linear_rnn(0.9, 100))
    close(5.154e-3, linear_rnn(0.9, 50))
    close(1.378e4, linear_rnn(1.1, 100))
    close(117.4, linear_rnn(1.1, 50))
    assert.equal(1, linear_rnn(1, 100))
  end)

  it("row 35: forget 0, input 1, output 1 is the standard RNN, bit for bit, if h is the identity",
    function()
      for _, H in ipairs { 1, 5, 16 } do
        local lstm_pr = help.net(neap.lstm { size = H, gates = { f = 0, i = 1, o = 1 },
          output = "identity", name = "r" }, 3, { seed = H })
        local elman_pr = help.net(neap.elman { size = H, fused = false, name = "r" }, 3)
        local p, q = lstm_pr.params, elman_pr.params
        for _, name in ipairs { "weight_ih", "weight_hh", "bias_ih", "bias_hh" } do
          q:set("r." .. name, op.slice(p:get("r." .. name), 2 * H + 1, 3 * H, 1)) -- block g
        end
        local x = { help.noise(neap.rng(H), 9, 3), help.noise(neap.rng(H + 1), 4, 3) }
        local a = help.run(lstm_pr, x):value("y", "concat")
        local b = help.run(elman_pr, x):value("y", "concat")
        assert.equal(b:tobytes(), a:tobytes())
      end
    end)

  it("row 35: with tanh as h it is tanh(tanh(.)): 0.6420, not 0.7616, at 1", function()
    local gates = { i = { 0, 0, 0 }, f = { 0, 0, 0 }, g = { 1, 0, 0 }, o = { 0, 0, 0 } }
    local function at_one(options)
      options.size, options.name, options.gates = 1, "r", { f = 0, i = 1, o = 1 }
      local pr = help.net(neap.lstm(options), 1)
      set_gates(pr.params, 1, gates)
      return help.outputs(pr, { { 1 } })[1][1]
    end
    near(0.6420, at_one {}, 5e-5)
    near(0.7616, at_one { output = "identity" }, 5e-5)
    near(tanh(tanh(1)), at_one {}, 1e-6)
  end)

  it("row 37: an LSTM helps against vanishing", function()
    -- an open forget gate carries the gradient through the cell undiminished
    local shut = { i = { 20, 0, -10 }, f = { 0, 0, 10 }, g = { 1, 0, 0 }, o = { 0, 0, 10 } }
    local near_one = lstm({ output = "identity" }, 100, shut)
    local at_once = lstm({ output = "identity" }, 0, shut)
    close(sigmoid(10) ^ 100, near_one / at_once)
    assert(lstm({}, 100, shut) > 0.1)
    -- which an RNN's state does not
    local rnn = reach(neap.elman { size = 1, name = "r" }, 101, { ["r.weight_ih"] = 1,
      ["r.weight_hh"] = 0.9, ["r.bias_ih"] = { 0 }, ["r.bias_hh"] = { 0 } })
    assert(rnn < 3e-5 and near_one > 0.1, rnn)
    -- only to some degree: a forget gate of one half is worse than the weight of 0.9
    shut.f[3] = 0
    assert(math.abs(lstm({}, 100, shut)) < 1e-20)
  end)

  it("row 37: an LSTM does not help against exploding: clipping stays", function()
    local open = { f = 1, i = 1, o = 1 }
    local function grows(g_state, steps)
      return lstm({ gates = open, candidate = "identity", output = "identity" }, steps,
        { i = { 0, 0, 0 }, f = { 0, 0, 0 }, g = { 1, g_state, 0 }, o = { 0, 0, 0 } })
    end
    close(1.1 ^ 100, grows(0.1, 100)) -- c' = c + 0.1 h: an RNN with this weight would vanish
    close(1.378e4, grows(0.1, 100))
    assert(grows(0.5, 100) > 1e17)
    -- with all gates free, too, until tanh saturates
    local free = lstm({}, 12,
      { i = { 0, 0, 10 }, f = { 0, 0, 10 }, g = { 1e-9, 3, 0 }, o = { 0, 0, 10 } })
    assert(math.abs(free) / 1e-9 > 1e6, free)
    -- which clipping keeps in bounds
    local pr = neap.program(function(rec)
      local x = rec:input("x", { space = "T", dims = { 1 } })
      local _, s = neap.lstm { size = 1, name = "r" } (x)
      return { loss = op.mse(s.c, 1) }
    end)
    set_gates(pr.params, 1,
      { i = { 0, 0, 10 }, f = { 0, 0, 10 }, g = { 1e-9, 3, 0 }, o = { 0, 0, 10 } })
    local x = {}
    for t = 1, 13 do x[t] = { 1 } end
    local run, optim = pr:run { learn = true }, neap.sgd { rate = 1, clip = 0.01 }
    run:feed { x = help.field { x } }:forward()
    pr.params:zero_grad()
    run:backward()
    local before = pr.params:clone()
    optim:step(pr.params)
    local moved = 0
    for _, name in ipairs(before:names()) do
      local d = pr.params:get(name) - before:get(name)
      moved = moved + op.sum(op.reshape(op.square(d), { d:size() })):item()
    end
    assert(optim:report().norm > 1, optim:report().norm)
    near(0.01, moved ^ 0.5, 1e-5)
  end)

  it("row 61: a symbol to be kept while others pass: over 2 steps all learn it, over 20 an RNN "
    .. "fails and LSTM and GRU hold", function()
      -- one of four symbols with a mark comes first; then unmarked ones; which was marked?
      local function accuracy(kind, lag)
        local rng = neap.rng(1)
        local pr = neap.program(function(rec)
          local _, s = neap[kind] { size = 16, name = "r" } (
            rec:input("x", { space = "T", dims = { 5 } }))
          local z = neap.linear { size = 4 } (s.h)
          return { loss = op.cross_entropy(z, rec:input("y", { space = "B", dtype = "i32" })),
            class = op.argmax(z) }
        end)
        if kind ~= "elman" then -- the forget gate, or z, starts open
          local b = pr.params:get "r.bias_ih"
          for k = 17, 32 do b[k] = 3 end
          pr.params:set("r.bias_ih", b)
        end
        local run, optim = pr:run { learn = true }, neap.adam { rate = 0.01, clip = 1 }
        local B, right = 32, 0
        for i = 1, 300 do
          local x, y = neap.zeros { lag + 1, B, 5 }, neap.zeros({ B }, "i32")
          for b = 1, B do
            y[b] = rng:int(4) - 1
            x:set(1, b, y[b] + 1, 1)
            x:set(1, b, 5, 1)
            for t = 2, lag + 1 do x:set(t, b, rng:int(4), 1) end
          end
          run:feed { x = x, y = y }:forward()
          local class = run:value "class"
          for b = 1, i > 290 and B or 0 do
            if class[b] == y[b] then right = right + 1 end
          end
          pr.params:zero_grad()
          run:backward()
          optim:step(pr.params)
        end
        return right / (10 * B)
      end
      for _, kind in ipairs { "elman", "lstm", "gru" } do
        local short, long = accuracy(kind, 2), accuracy(kind, 20)
        assert(short > 0.95, ("%s over 2 steps: %g"):format(kind, short))
        assert(kind == "elman" and long < 0.6 or kind ~= "elman" and long > 0.95,
          ("%s over 20 steps: %g"):format(kind, long))
      end
    end)
end)

-- Rows of systems.md: the modes of 003, attention, and the fitted sine.
local neap = require "neap"
local help = require "systems_help"
local op = neap.op
local near, tanh = help.near, help.tanh

local letters = neap.vocab.new { "a", "b", "c" }
local written = neap.vocab.new { "a", "b", "c", start = true, stop = true }

-- Lists of ids from 0 as a field.
local function ids(lists)
  local data, lengths = {}, {}
  for b, s in ipairs(lists) do
    lengths[b] = #s
    table.move(s, 1, #s, #data + 1, data)
  end
  return { data = neap.tensor(data, "i32"), lengths = neap.tensor(lengths, "i32") }
end

local function softmax(z)
  local e, total = {}, 0
  for i, v in ipairs(z) do
    e[i] = math.exp(v)
    total = total + e[i]
  end
  for i = 1, #e do e[i] = e[i] / total end
  return e
end

-- W x + b in plain Lua.
local function affine(w, x, b)
  local y = {}
  for i, row in ipairs(w) do
    y[i] = b and b[i] or 0
    for j, v in ipairs(x) do y[i] = y[i] + row[j] * v end
  end
  return y
end

local function weights(params, prefix)
  local out = {}
  for _, name in ipairs(params:names()) do
    local short = name:match("^" .. prefix:gsub("%.", "%%.") .. "(.*)$")
    if short then out[short] = params:get(name):totable() end
  end
  return out
end

-- One step of an Elman network in plain Lua.
local function elman_step(w, x, h)
  local a, b, y = affine(w.weight_ih, x, w.bias_ih), affine(w.weight_hh, h, w.bias_hh), {}
  for i = 1, #a do y[i] = tanh(a[i] + b[i]) end
  return y
end

describe("systems.md, sequence to class:", function()
  local classes = neap.vocab.new { "red", "green", "blue" }
  local function classifier(pool)
    return neap.seq2class { input = 2, output = classes, pool = pool, rng = neap.rng(4),
      net = neap.elman { size = 3, name = "f" }, head = neap.linear { name = "g" } }
  end
  local rng = neap.rng(44)
  local sequences = { help.noise(rng, 2, 2), help.noise(rng, 6, 2), help.noise(rng, 1, 2) }

  -- The class probabilities of one sequence in plain Lua.
  local function by_hand(params, sequence, pool)
    local f, g = weights(params, "net.f."), weights(params, "net.g.")
    local h, sum = { 0, 0, 0 }, { 0, 0, 0 }
    for _, x in ipairs(sequence) do
      h = elman_step(f, x, h)
      for i = 1, 3 do sum[i] = sum[i] + h[i] / #sequence end
    end
    return softmax(affine(g.weight, pool == "mean" and sum or h, g.bias))
  end

  for pool, row in pairs { last = "row 44: y = g(h_T): the last valid step, whatever the padding",
    mean = "row 45: y = g(mean of h_t): over the valid steps only" } do
    it(row, function()
      local task = classifier(pool)
      local program = task:program "predict"
      -- padded, and with wrong numbers in the padding
      local x = neap.zeros { 6, 3, 2 }
      x:fill(99)
      local lengths = {}
      for b, s in ipairs(sequences) do
        lengths[b] = #s
        for t, v in ipairs(s) do
          x:set(t, b, 1, v[1])
          x:set(t, b, 2, v[2])
        end
      end
      local run = program:run():feed { input = { data = x, lengths = neap.tensor(lengths, "i32"),
        padded = true } }
      local scores = run:forward():value("scores"):totable()
      for b, s in ipairs(sequences) do near(by_hand(task.params, s, pool), scores[b], 1e-6) end
      local predicted = task:predict(sequences)
      for b, p in ipairs(predicted) do near(scores[b][p.id], p.probability, 0) end
    end)
  end

  it("row 46: classes count from 1 in Lua and from 0 in tensors, at both borders", function()
    local task = classifier()
    local bias = "net.g.bias"
    task:program "predict"
    for id, name in ipairs { "red", "green", "blue" } do
      local b = neap.zeros { 3 }
      b[id] = 100
      task.params:set(bias, b)
      for _, p in ipairs(task:predict(sequences)) do
        assert.same({ id, name }, { p.id, p.class })
      end
      local batch = { rows = 3, input = help.field(sequences),
        output = { data = neap.tensor({ id - 1, id - 1, id - 1 }, "i32") } }
      near(0, task:loss(batch), 1e-6)
      assert.equal(id - 1, task:run("predict"):feed(batch):forward():value "class"[1])
    end
    local function loss(first, last)
      return task:loss { rows = 3, input = help.field(sequences),
        output = { data = neap.tensor({ first, 1, last }, "i32") } }
    end
    near(200 / 3, loss(0, 2), 1) -- the bias still says blue: 0 and 1 are 100 off, 2 is right
    near(50, loss(-1, 2), 1) -- no class: it does not count
    assert.error_matches(function() loss(0, 3) end,
      "cross_entropy.*id 3 is not in 0..2, row 3")
    assert.error_matches(function() loss(-2, 0) end,
      "cross_entropy.*id %-2 is not in 0..2.*row 1")
  end)
end)

describe("systems.md, a label for each step:", function()
  it("row 47: y_t = g(h_t), as many outputs as inputs, the loss over valid steps", function()
    local task = neap.synced_seq2seq { input = letters, output = neap.vocab.new { "x", "y" },
      rng = neap.rng(47), net = neap.chain { neap.embed { size = 2, name = "e" },
        neap.elman { size = 3, name = "f" }, neap.linear { name = "g" } } }
    local words, labels = { { 0, 2, 1, 1 }, { 2 }, { 1, 0 } }, { { 0, 1, -1, 1 }, { 1 }, { 0, 0 } }
    local batch = { rows = 3, input = ids(words), output = ids(labels) }
    task:program "predict"
    local e, f, g = weights(task.params, "net.chain.e."), weights(task.params, "net.chain.f."),
      weights(task.params, "net.chain.g.")
    local expected, loss, n = {}, 0, 0
    for b, word in ipairs(words) do
      local h = { 0, 0, 0 }
      for t, id in ipairs(word) do
        h = elman_step(f, e.weight[id + 1], h)
        local y = softmax(affine(g.weight, h, g.bias))
        expected[#expected + 1] = y
        if labels[b][t] >= 0 then
          loss, n = loss - math.log(y[labels[b][t] + 1]), n + 1
        end
      end
    end
    local run = task:run("predict"):feed(batch):forward()
    near(expected, run:value("scores", "concat"), 1e-6)
    assert.same({ 4, 3, 2 }, run:value("scores"):shape())
    near(loss / n, task:loss(batch), 1e-6)
    local tags = task:predict { "acbb", "c", "ba" }
    assert.same({ 4, 1, 2 }, { #tags[1], #tags[2], #tags[3] })
  end)
end)

describe("systems.md, one sequence to another:", function()
  -- f1, f2 and g are networks of their own; no attention, so that they stand as 003 writes them
  local function translator(options)
    options = options or {}
    return neap.async_seq2seq { input = letters, output = written,
      rng = neap.rng(options.seed or 48),
      max_length = options.max_length or 7,
      encoder = neap.chain { neap.embed { size = 2, name = "e" },
        neap.elman { size = 3, name = "f1" } },
      decoder = neap.decoder { embed = 2, layers = { neap.elman { size = 4, name = "f2" } },
        attention = false } }
  end
  -- A task with weights that make it write different things.
  local function stirred(options)
    local task = translator(options)
    for _, name in ipairs { "learn", "decode" } do task:program(name) end
    local rng = neap.rng(6)
    for _, name in ipairs(task.params:names()) do
      local t = task.params:get(name)
      local flat = t:reshape { t:size() }
      for i = 1, #flat do flat[i] = rng:normal() * 1.5 end
      task.params:set(name, flat:reshape(t:shape()))
    end
    return task
  end
  local function no_stop(task, bias)
    local b = task.params:get "decoder.output.bias"
    b[written.stop] = bias
    task.params:set("decoder.output.bias", b)
  end

  -- Scores of all steps in plain Lua; previous: ids from 1, or nil to feed its own.
  local function by_hand(params, word, previous, steps)
    local e, f1 = weights(params, "encoder.chain.e."), weights(params, "encoder.chain.f1.")
    local h = { 0, 0, 0 }
    for _, id in ipairs(letters:encode(word)) do h = elman_step(f1, e.weight[id], h) end
    local d, f2 = weights(params, "decoder."), weights(params, "decoder.f2.")
    h = affine(d["bridge.h1.weight"], h, d["bridge.h1.bias"])
    for i = 1, 4 do h[i] = tanh(h[i]) end
    local out, own = {}, written.start
    for t = 1, steps do
      h = elman_step(f2, d["embed.weight"][previous and previous[t] or own], h)
      out[t] = softmax(affine(d["output.weight"], h, d["output.bias"]))
      own = 1
      for v = 2, #out[t] do if out[t][v] > out[t][own] then own = v end end
      out[t].own = own
    end
    return out
  end

  it("row 48: h_t = f1, then h_{T+t} = f2(h_{T+t-1}, y_{t-1}), y_t = g: M is not T", function()
    local task = stirred()
    no_stop(task, -100)
    local ours = {}
    for i, word in ipairs { "abc", "c", "bbaacc" } do
      local expected = {}
      for t, y in ipairs(by_hand(task.params, word, nil, 7)) do
        expected[t] = written:symbol(y.own)
      end
      ours[i] = table.concat(task:predict { word } [1], " ")
      assert.equal(table.concat(expected, " "), ours[i])
    end
    assert(ours[1] ~= ours[2] or ours[2] ~= ours[3], "they all write " .. ours[1])
    -- two networks: neither has a parameter of the other
    local count = { encoder = 0, decoder = 0 }
    for _, name in ipairs(task.params:names()) do
      local part = name:match "^(%w+)%."
      count[part] = count[part] + 1
    end
    assert.same({ encoder = 5, decoder = 9 }, count)
  end)

  it("row 49: the output begins with a start symbol and ends with a stop symbol or at the limit",
    function()
      assert.error_matches(function()
        neap.async_seq2seq { input = letters, output = letters, encoder = neap.gru { size = 2 },
          decoder = neap.decoder { embed = 2, layers = { neap.gru { size = 2 } } } }
      end, "async_seq2seq: output: the vocabulary needs start and stop symbols")
      local task = stirred { max_length = 5 }
      no_stop(task, -100)
      local free = task:predict({ "abc", "b" }, { all = true })
      for _, h in ipairs(free) do
        assert.same({ 5, false }, { #h[1].symbols, h[1].stopped })
      end
      assert.equal(3, #task:predict({ "abc" }, { max_length = 3 })[1])
      no_stop(task, 100) -- it stops at once, and the stop symbol is not part of what is written
      for _, h in ipairs(task:predict({ "abc", "b" }, { all = true })) do
        assert.same({ {}, true }, { h[1].symbols, h[1].stopped })
      end
      for _, h in ipairs(task:predict({ "abc", "b" }, { beam = 3 })) do assert.same({}, h) end
      -- learning: the start symbol comes before, the stop symbol after
      local dir = require "data_help".folder()
      local corpus = assert(neap.corpus.tsv(dir.write("c.tsv", "ab\tcab\n"),
        { columns = { "x", "y" }, split = { x = "characters", y = "characters" } }))
      dir.remove()
      local fields = task:fields(corpus, "x", "y")
      local c, a, b = 2 + 3, 2 + 1, 2 + 2 -- after the two symbols of the library
      assert.same({ written.start - 1, c - 1, a - 1, b - 1 }, fields.previous.data:totable())
      assert.same({ c - 1, a - 1, b - 1, written.stop - 1 }, fields.output.data:totable())
    end)

  it("row 50: teacher forcing, free running, and a scheduled mix of both", function()
    local task = stirred()
    no_stop(task, -2)
    local words = { "abc", "c" }
    local targets = { written:encode "cabba", written:encode "ab" }
    local function batch(previous, mix)
      local p, o = {}, {}
      for b, target in ipairs(targets) do
        o[b], p[b] = {}, {}
        for t, id in ipairs(target) do
          o[b][t] = id - 1
          p[b][t] = (previous and previous[b][t] or t == 1 and written.start or target[t - 1]) - 1
        end
      end
      local input = {}
      for b, word in ipairs(words) do input[b] = letters:tensor(word):totable() end
      return { rows = 2, input = ids(input), previous = ids(p), output = ids(o), mix = mix }
    end
    local function loss(mix, previous) return task:forward(batch(previous, mix)):item() end
    local function expected(own)
      local sum, n, fed = 0, 0, {}
      for b, target in ipairs(targets) do
        local previous = { written.start }
        table.move(target, 1, #target - 1, 2, previous)
        local y = by_hand(task.params, words[b], not own and previous or nil, #target)
        fed[b] = { written.start }
        for t, id in ipairs(target) do
          sum, n = sum - math.log(y[t][id]), n + 1
          fed[b][t + 1] = y[t].own
        end
      end
      return sum / n, fed
    end
    local teacher = expected(false)
    local free, own = expected(true)
    assert(math.abs(teacher - free) > 0.01)
    near(teacher, loss(0), 1e-5)
    near(free, loss(1), 1e-5)
    near(free, loss(0, own), 1e-5) -- the same as forcing it to its own symbols
    local mixed, seen = loss(0.5), {}
    for _ = 1, 20 do
      mixed = loss(0.5)
      seen[("%.6f"):format(mixed)] = true
    end
    local kinds = 0
    for _ in pairs(seen) do kinds = kinds + 1 end
    assert(kinds > 2, kinds .. " kinds of mixture in 20 runs")
    near(free, loss(1), 1e-5)
    -- the mixed program learns through the same parameters as the other
    for _, mix in ipairs { 0, 1 } do
      task.params:zero_grad()
      task:forward(batch(own, mix)):backward()
      for _, name in ipairs(task.params:names()) do
        local g, size = task.params:grad(name), 0
        local flat = g:reshape { g:size() }
        for i = 1, #flat do size = math.max(size, math.abs(flat[i])) end
        assert(size > 0, name)
      end
    end
  end)

  it("rows 48 to 50: learned: each letter twice, back to front", function()
    local task = neap.async_seq2seq { input = letters, output = written, rng = neap.rng(1),
      max_length = 12,
      encoder = neap.chain { neap.embed { size = 8 }, neap.bidir { neap.gru { size = 16 } } },
      decoder = neap.decoder { embed = 8, layers = { neap.gru { size = 24 } } } }
    local rng, optim = neap.rng(2), neap.adam { rate = 0.01, clip = 1 }
    local function batch(n)
      local input, previous, output = {}, {}, {}
      for b = 1, n do
        input[b], previous[b], output[b] = {}, { written.start - 1 }, {}
        for t = 1, 1 + rng:int(3) do input[b][t] = rng:int(3) - 1 end
        for t = #input[b], 1, -1 do
          for _ = 1, 2 do
            local id = input[b][t] + 2
            table.insert(previous[b], id)
            table.insert(output[b], id)
          end
        end
        table.insert(output[b], written.stop - 1)
      end
      return { rows = n, input = ids(input), previous = ids(previous), output = ids(output) }
    end
    for i = 1, 300 do
      task.mix = i > 150 and 0.2 or 0
      task:learn(batch(16), optim)
    end
    local words, right = { "abc", "ca", "bbac", "cc" }, { "ccbbaa", "aacc", "ccaabbbb", "cccc" }
    for _, options in ipairs { { beam = 1 }, { beam = 3 } } do
      for i, symbols in ipairs(task:predict(words, options)) do
        assert.equal(right[i], table.concat(symbols))
      end
    end
  end)

  it("row 53: attention looks back over the encoder: weights can be read, sum to 1, padding is 0",
    function()
      local rng = neap.rng(53)
      local memory = { help.noise(rng, 2, 4), help.noise(rng, 5, 4), help.noise(rng, 1, 4) }
      local query = { help.noise(rng, 3, 4), help.noise(rng, 1, 4), help.noise(rng, 2, 4) }
      for _, kind in ipairs { "dot", "general", "additive" } do
        local pr = neap.program(function(rec)
          local m = rec:input("m", { space = "S", dims = { 4 } })
          local q = rec:input("q", { space = "T", dims = { 4 } })
          local context, a = neap.attention { kind = kind, name = "a" } (q, m)
          return { context = context, a = a }
        end)
        local run = pr:run():feed { m = help.field(memory), q = help.field(query) }:forward()
        local c, a, at = run:value("context", "concat"):totable(),
          run:value("a", "concat"):totable(), 0
        local w = weights(pr.params, "a.")
        for b, s in ipairs(query) do
          for _, q in ipairs(s) do
            at = at + 1
            -- forward: what the query asks; backward: what was seen
            local score = {}
            for i, m in ipairs(memory[b]) do
              local key = kind == "dot" and m or affine(w.key, m)
              score[i] = 0
              local asked = kind == "additive" and affine(w.query, q, w.bias) or q
              for k = 1, #key do
                score[i] = score[i] + (kind == "additive" and w.score[k] * tanh(asked[k] + key[k])
                  or asked[k] * key[k])
              end
            end
            local p, sum = softmax(score), 0
            local expected = { 0, 0, 0, 0 }
            for i = 1, 5 do
              near(p[i] or 0, a[at][i], p[i] and 1e-5 or 0)
              sum = sum + a[at][i]
              for k = 1, p[i] and 4 or 0 do expected[k] = expected[k] + p[i] * memory[b][i][k] end
            end
            near(1, sum, 1e-6)
            near(expected, c[at], 1e-5)
          end
        end
        assert.equal(6, at)
      end
    end)
end)

describe("systems.md, forecasting:", function()
  it("row 38: an LSTM fits a sine, better and better, and then draws it by itself", function()
    local function wave(from, n)
      local s = {}
      for t = 1, n do s[t] = math.sin(2 * math.pi * (from + t) / 25) end
      return s
    end
    local model = neap.forecaster { net = neap.lstm { size = 24 }, rng = neap.rng(1) }
    local list = {}
    for i = 1, 8 do list[i] = wave(3 * i, 76) end
    local batch, optim = model:batch(list), neap.adam { rate = 0.02, clip = 1 }
    local losses, errors = {}, {}
    for i = 1, 1000 do
      losses[i] = model:learn(batch, optim)
      if i % 20 == 0 then optim:rate(0.02 * (1 - i / 1050)) end
      if i == 1 or i == 100 or i == 1000 then
        local worst = 0
        local expected = wave(50, 50)
        for k, v in ipairs(model:rollout(wave(0, 50), 50)) do -- two periods on its own
          worst = math.max(worst, math.abs(v - expected[k]))
        end
        errors[#errors + 1] = worst
      end
    end
    assert(losses[1] > 10 * losses[100] and losses[100] > 2 * losses[1000])
    assert(errors[1] > errors[2] and errors[2] > errors[3])
    assert(errors[3] < 0.02, errors[3])
  end)
end)

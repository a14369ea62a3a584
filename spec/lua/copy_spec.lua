-- Attention that knows what it has attended to, and decoders that copy symbols of their input (See
-- et al. 2017, "Get to the point: summarization with pointer-generator networks").
local neap = require "neap"
local core = require "neap.core"
local gradients = require "run_help".gradients
local raises = require "data_help".raises
local op = neap.op

local function numbers(rng, n, w)
  local flat = {}
  for i = 1, n * w do flat[i] = rng:normal() end
  return neap.tensor(flat):reshape { n, w }
end

local function lengths(...) return neap.tensor({ ... }, "i32") end

-- ---- coverage ----

describe("coverage", function()
  local kinds = { "dot", "general", "additive" }

  -- Two memories of 2 and 5 elements, 4 and 2 queries.
  local function attention_on(layer)
    local program = neap.program(function(rec)
      local memory = rec:input("memory", { space = "S", dims = { 3 } })
      local query = rec:input("query", { space = "T", dims = { 3 } })
      local context, weights, loss = layer(query, memory)
      return { context = context, weights = weights, loss = loss }
    end, { seed = 5 })
    local rng = neap.rng(9)
    local batch = { memory = { data = numbers(rng, 7, 3), lengths = lengths(2, 5) },
      query = { data = numbers(rng, 6, 3), lengths = lengths(4, 2) } }
    return program, batch
  end

  -- One sequence's attention, in Lua's numbers: See et al. 2017, eq. 10 to 12.
  local function plain(kind, params, memory, queries)
    local function weights_of(name)
      return params:has("attention." .. name) and params:get("attention." .. name):totable()
    end
    local key, query, bias = weights_of "key", weights_of "query", weights_of "bias"
    local u, w = weights_of "score", weights_of "coverage"
    local function times(m, x)
      local y = {}
      for i, row in ipairs(m) do
        y[i] = 0
        for j, v in ipairs(row) do y[i] = y[i] + v * x[j] end
      end
      return y
    end
    local covered, out = {}, {}
    for s = 1, #memory do covered[s] = 0 end
    for t, q in ipairs(queries) do
      if query then
        q = times(query, q)
        for i = 1, #q do q[i] = q[i] + bias[i] end
      end
      local score, sum = {}, 0
      for s, m in ipairs(memory) do
        local k, e = key and times(key, m) or m, 0
        for i = 1, #k do
          local x = k[i] + w[i] * covered[s]
          e = e + (kind == "additive" and u[i] * math.tanh(q[i] + x) or q[i] * x)
        end
        score[s] = math.exp(e)
        sum = sum + score[s]
      end
      out[t] = { weights = {}, context = { 0, 0, 0 }, loss = 0 }
      for s, m in ipairs(memory) do
        local a = score[s] / sum
        out[t].weights[s] = a
        out[t].loss = out[t].loss + math.min(a, covered[s])
        covered[s] = covered[s] + a
        for i = 1, 3 do out[t].context[i] = out[t].context[i] + a * m[i] end
      end
    end
    return out
  end
  math.tanh = math.tanh or function(x) return 1 - 2 / (math.exp(2 * x) + 1) end

  for _, kind in ipairs(kinds) do
    it("is the paper's formula, " .. kind, function()
      local program, batch = attention_on(neap.attention { kind = kind, coverage = true })
      local run = program:run():feed(batch):forward()
      local m, q = batch.memory.data:totable(), batch.query.data:totable()
      for b, rows in ipairs { { 1, 2, 1, 4 }, { 3, 7, 5, 6 } } do
        local memory = table.move(m, rows[1], rows[2], 1, {})
        local queries = table.move(q, rows[3], rows[4], 1, {})
        for t, want in ipairs(plain(kind, program.params, memory, queries)) do
          assert.near(want.loss, run:value("loss"):get(t, b), 1e-5)
          for s, a in ipairs(want.weights) do
            assert.near(a, run:value("weights"):get(t, b, s), 1e-5)
          end
          for i, c in ipairs(want.context) do
            assert.near(c, run:value("context"):get(t, b, i), 1e-5)
          end
          for s = #want.weights + 1, 5 do
            assert.equal(0.0, run:value("weights"):get(t, b, s))
          end
        end
      end
    end)

    it("that weighs nothing is plain attention, " .. kind, function()
      local with, batch = attention_on(neap.attention { kind = kind, coverage = true })
      local without = attention_on(neap.attention { kind = kind })
      with.params:set("attention.coverage", neap.zeros { 3 })
      for _, name in ipairs(without.params:names()) do
        without.params:set(name, with.params:get(name))
      end
      local a = with:run():feed(batch):forward():value "context":totable()
      local b = without:run():feed(batch):forward():value "context":totable()
      for t, rows in ipairs(b) do
        for r, row in ipairs(rows) do
          for i, v in ipairs(row) do assert.near(v, a[t][r][i], 1e-6) end
        end
      end
    end)

    it("goes on from step to step in a stream, " .. kind, function()
      local program, batch = attention_on(neap.attention { kind = kind, coverage = true })
      local run = program:run():feed(batch):forward()
      local stream, space = program:stream(), nil
      for i, s in ipairs(program.spaces) do if s.name == "S" then space = i - 1 end end
      local q = batch.query.data
      -- the context of another length after it, then the first again
      for _, b in ipairs { 1, 2, 1 } do
        local from, n, first, steps = b == 1 and 1 or 3, b == 1 and 2 or 5, b == 1 and 1 or 5,
          b == 1 and 4 or 2
        local memory = {}
        for s = 1, n do memory[s] = batch.memory.data[from + s - 1]:totable() end
        stream:context_batch(1)
        stream:context_lengths(space, lengths(n))
        stream:context(program.inputs.memory, neap.tensor(memory), "concat")
        for t = 1, steps do
          stream:input("query", q[first + t - 1]:totable())
          stream:step()
          local whole, got = run:value "weights"[t][b]:totable(), stream:output "weights":totable()
          for s = 1, n do assert.equal(whole[s], got[1][s]) end
        end
      end
    end)
  end

  it("has a state as wide as the memory is long", function()
    local program, batch = attention_on(neap.attention { coverage = true })
    local run, state = program:run(), program:state(2)
    run:state(state)
    run:feed(batch):forward()
    assert.same({ 2, 5 }, state:get(1):shape())
    run:forward() -- the same memory: it goes on
    local sum = 0
    for _, v in ipairs(state:get(1):totable()[1]) do sum = sum + v end
    assert.near(8, sum, 1e-5)
    batch.memory = { data = numbers(neap.rng(1), 5, 3), lengths = lengths(2, 3) }
    run:feed(batch)
    raises("state: 'attention.coverage' is of 5 steps, the batch has 3: reset it first", function()
      run:forward()
    end)
    state:reset()
    run:forward()
    assert.same({ 2, 3 }, state:get(1):shape())
    -- kept, in a file and out of it
    local path, fresh = os.tmpname(), program:state(2)
    assert.same({ 2, 0 }, fresh:get(1):shape())
    assert(state:save(path))
    assert(fresh:load(path))
    os.remove(path)
    assert.equal(state:get(1):tobytes(), fresh:get(1):tobytes())
    assert.same(state:held(), fresh:held())
    run:state(state)
    local a = run:forward():value "weights":tobytes()
    run:state(fresh)
    assert.equal(a, run:forward():value "weights":tobytes())
    raises("state set: expected [2,3], got f32 [2,5]", function() fresh:set(1, neap.zeros { 2, 5 }) end)
    -- along its own sequence it would have to know the whole
    raises("scan state: 'x' has dimension -2, expected 1 or more", function()
      neap.program(function(rec)
        local x = rec:input("x", { space = "T", dims = { 2 } })
        return (rec:scan(x.space, { x = { dims = { -1 - x.space } } }, { "x" }, function(s)
          return x, { x = s.x }
        end))
      end)
    end)
  end)

  it("is an option of attention alone", function()
    raises("attention: coverage: expected true or false, came 1", function()
      neap.attention { coverage = 1 }
    end)
    raises("decoder: coverage: it is about attention, came attention = false", function()
      neap.decoder { embed = 2, layers = { neap.gru { size = 2 } }, attention = false,
        coverage = true }
    end)
    raises("decoder: coverage_loss: expected none without coverage, came 2", function()
      neap.decoder { embed = 2, layers = { neap.gru { size = 2 } }, coverage_loss = 2 }
    end)
    local ok, message = pcall(neap.program, function(rec)
      local x = rec:input("x", { space = "T", dims = { 3 } })
      return (neap.attention { coverage = true }(x, x))
    end)
    assert.is_false(ok)
    assert.matches("attention: coverage: the memory must be another sequence than the query, came "
      .. "[T,B,3]", message, 1, true)
    local query = "attention: query: expected a sequence such as [T,B,64], came [B,3]"
    ok, message = pcall(neap.program, function(rec)
      return (neap.attention { coverage = true }(rec:input("q", { space = "B", dims = { 3 } }),
        rec:input("m", { space = "S", dims = { 3 } })))
    end)
    assert.is_false(ok)
    assert.matches(query, message, 1, true)
  end)
end)

-- ---- input feeding ----

describe("input feeding", function()
  local vocab = neap.vocab.new { "a", "b", "c", start = true, stop = true }
  local function model_of(options)
    options.embed = 3
    return neap.async_seq2seq { input = vocab, output = vocab, rng = neap.rng(3), max_length = 6,
      encoder = neap.chain { neap.embed { size = 2 }, neap.elman { size = 3 } },
      decoder = neap.decoder(options) }
  end

  -- Luong et al. 2015, eq. 5 and section 3.3, in Lua's numbers: x_t = [symbol; o_t-1].
  it("gives o to the first layer at the next step", function()
    local model = neap.async_seq2seq { input = vocab, output = vocab, rng = neap.rng(3),
      encoder = neap.chain { neap.embed { size = 2 }, neap.elman { size = 4 } },
      decoder = neap.decoder { embed = 3, layers = { neap.elman { size = 4 } }, mix = 2,
        attention = "dot", input_feed = true, bridge = "zero" } }
    local function get(name) return model.params:get("decoder." .. name):totable() end
    local ids, source = { 3, 0, 2, 1 }, { 1, 0, 2 }
    local encoded = model:run("encode", false):feed { input = neap.tensor(source, "i32"):reshape { 3, 1 } }
      :forward()
    local memory = encoded:value("memory", "concat")
    local run = model:run("decode", false):feed {
      memory = { data = memory, lengths = lengths(3) }, previous = neap.tensor(ids, "i32"):reshape { 4, 1 } }:forward()
    local scores = run:value("scores", "concat"):totable()

    local function affine(w, b, x)
      local y = {}
      for i, row in ipairs(w) do
        y[i] = b[i]
        for j, v in ipairs(row) do y[i] = y[i] + v * x[j] end
      end
      return y
    end
    local function join(...)
      local out = {}
      for _, list in ipairs { ... } do table.move(list, 1, #list, #out + 1, out) end
      return out
    end
    local function tanh(list)
      for i, v in ipairs(list) do list[i] = 1 - 2 / (math.exp(2 * v) + 1) end
      return list
    end
    local m, h, o = memory:totable(), { 0, 0, 0, 0 }, { 0, 0 }
    for t, id in ipairs(ids) do
      local a = affine(get "elman.weight_ih", get "elman.bias_ih", join(get "embed.weight"[id + 1], o))
      local b = affine(get "elman.weight_hh", get "elman.bias_hh", h)
      for i = 1, 4 do a[i] = a[i] + b[i] end
      h = tanh(a)
      local weight, sum, context = {}, 0, { 0, 0, 0, 0 }
      for s = 1, 3 do
        local dot = 0
        for i = 1, 4 do dot = dot + m[s][i] * h[i] end
        weight[s] = math.exp(dot)
        sum = sum + weight[s]
      end
      for s = 1, 3 do
        for i = 1, 4 do context[i] = context[i] + weight[s] / sum * m[s][i] end
      end
      o = tanh(affine(get "mix.weight", get "mix.bias", join(h, context)))
      local z, total = affine(get "output.weight", get "output.bias", o), 0
      for _, v in ipairs(z) do total = total + math.exp(v) end
      for i, v in ipairs(z) do assert.near(v - math.log(total), scores[t][i], 1e-5) end
    end
  end)

  it("learns alone as among others", function()
    local model = model_of { layers = { neap.gru { size = 4 }, neap.lstm { size = 5 } },
      input_feed = true }
    assert.matches("input_feed=true", tostring(model), 1, true)
    local function batch(rows)
      local corpus = neap.corpus.from({ a = rows, b = rows }, { split = { a = "characters",
        b = "characters" } })
      return neap.batches(model:fields(corpus, "a", "b"), { size = #rows })()
    end
    local one, other = model:loss(batch { "abca" }), model:loss(batch { "b" })
    assert.near((5 * one + 2 * other) / 7, model:loss(batch { "abca", "b" }), 1e-6)
    local first, optim = model:loss(batch { "abca", "cb" }), neap.adam { rate = 2e-2 }
    for _ = 1, 60 do model:learn(batch { "abca", "cb" }, optim) end
    assert.is_true(model:loss(batch { "abca", "cb" }) < 0.2 * first)
  end)

  it("takes layers that do not say how wide they are", function()
    local cell = neap.cell { name = "plain",
      params = function(p, c) p.w, p.u = { c.input, c.size }, { c.size, c.size } end,
      state = function(c) return { h = c.size } end,
      step = function(p, x, s)
        local h = op.tanh(op.matmul(x, p.w) + op.matmul(s.h, p.u))
        return h, { h = h }
      end }
    local inside = { neap.jordan { size = 3, output = 4 }, neap.linear { size = 5 }, cell { size = 4 },
      neap.chain { neap.gru { size = 2 }, neap.elman { size = 6 } } }
    for _, l in ipairs(inside) do
      local model = model_of { input_feed = true, layers = { l } }
      assert.is_number(model:loss(neap.batches(model:fields(neap.corpus.from({ text = { "ab", "b" } },
        { split = { text = "characters" } }), "text", "text"), { size = 2 })()))
    end
  end)

  it("is about attention", function()
    raises("decoder: input_feed: it is about attention, came attention = false", function()
      neap.decoder { embed = 2, layers = { neap.gru { size = 2 } }, input_feed = true,
        attention = false }
    end)
    raises("decoder: input_feed: expected true or false, came 1", function()
      neap.decoder { embed = 2, layers = { neap.gru { size = 2 } }, input_feed = 1 }
    end)
  end)
end)

-- ---- copies ----

-- Names of four letters stand in sentences of few words and change places in their translation.
local function sentences(n, rng)
  local en, de = {}, {}
  local function name()
    local letters = {}
    for i = 1, 4 do letters[i] = string.char(96 + rng:int(26)) end
    return table.concat(letters)
  end
  for i = 1, n do
    local x, y, k = name(), name(), rng:int(3)
    en[i] = ({ { "tell", x, "of", y }, { "of", x, "tell", "now", y }, { "call", x } })[k]
    de[i] = ({ { y, "is", "told", "by", x }, { "now", y, "hears", "of", x }, { x, "comes" } })[k]
  end
  return neap.corpus.from({ en = en, de = de }, { split = { en = "words", de = "words" } })
end

describe("a decoder that copies", function()
  local train, test = sentences(500, neap.rng(4)), sentences(60, neap.rng(5))
  local en = neap.vocab(train, "en", { min = 3 })
  local de = neap.vocab(train, "de", { min = 3, start = true, stop = true })
  local function model_of(options, size)
    size = size or 16
    options.embed, options.layers = size, options.layers or { neap.gru { size = 3 * size // 2 } }
    return neap.async_seq2seq { input = en, output = de, rng = neap.rng(1), max_length = 8,
      encoder = neap.chain { neap.embed { size = size }, neap.bidir { neap.gru { size = size } } },
      decoder = neap.decoder(options) }
  end
  local texts, references = {}, {}
  for i = 1, #test do texts[i], references[i] = test:string("en", i), { test:get("de", i) } end
  local function learn(model, epochs)
    local fields, optim = model:fields(train, "en", "de"), neap.adam { rate = 1e-2, clip = 5 }
    for epoch = 1, epochs do
      for batch in neap.batches(fields, { size = 25, rng = neap.rng(epoch) }) do
        model:learn(batch, optim)
      end
    end
    return model
  end
  local function batch_of(model, n)
    return neap.batches(model:fields(train, "en", "de"), { size = n })()
  end

  it("writes names that it has never seen; without copies none", function()
    local blind = learn(model_of {}, 8)
    assert.equal(1, blind:score(texts, references).wer)
    for name, options in pairs { copy = { copy = true },
      coverage = { copy = 4, coverage = true, attention = "additive" } } do
      local model = learn(model_of(options), 8)
      assert.is_true(model:score(texts, references).wer < 0.1, name)
      assert.is_true(model:score(texts, references, { beam = 3 }).wer < 0.1, name)
      local path = os.tmpname()
      assert(model:save(path))
      local again = assert(neap.load(path))
      os.remove(path)
      for _, how in ipairs { {}, { beam = 4, all = true }, { attention = true },
        { temperature = 1, rng = neap.rng(3) } } do
        local other = {}
        for k, v in pairs(how) do other[k] = v end
        if how.rng then other.rng = neap.rng(3) end
        local a, b = model:predict(texts, how), again:predict(texts, other)
        if not how.all then assert.same(a, b) end
        for i = 1, how.all and #a or 0 do
          for k, h in ipairs(a[i]) do
            assert.same(h.symbols, b[i][k].symbols)
            assert.equal(h.score, b[i][k].score)
          end
        end
      end
      -- alone as among others of any length
      local all = model:predict(texts, { beam = 3, all = true })
      for i = 1, 5 do
        local one = model:predict({ texts[i] }, { beam = 3, all = true })[1]
        for k, h in ipairs(one) do
          assert.same(h.symbols, all[i][k].symbols)
          assert.equal(h.score, all[i][k].score)
        end
      end
    end
  end)

  it("is not needed where the symbol in view may stand for the unknown one", function()
    local model = learn(model_of {}, 8)
    local options = { replace_unk = true, beam = 2 }
    for i, said in ipairs(model:predict(texts, options)) do
      local plain, weights = model:predict({ texts[i] }, { beam = 2, attention = true })
      local symbols = en:cut(texts[i])
      for k, symbol in ipairs(plain[1]) do
        local best = 1
        for s = 1, #symbols do
          if weights[1]:get(k, s) > weights[1]:get(k, best) then best = s end
        end
        assert.equal(symbol == "<unk>" and symbols[best] or symbol, said[k])
      end
    end
    assert.is_true(model:score(texts, references, { replace_unk = true }).wer < 1)
    assert.same({ {} }, model:predict({ "" }, { replace_unk = true, max_length = 4,
      filter = function(_, scores)
        for id = 1, #scores do if id ~= de.stop then scores[id] = -math.huge end end
      end }))
    raises("predict: replace_unk: expected a list of sequences of symbols that are not subwords, came "
      .. "a batch", function() model:predict(batch_of(model, 2), options) end)
    raises("predict: replace_unk: expected true or false, came 1", function()
      model:predict({ "call a" }, { replace_unk = 1 })
    end)
    raises("predict: replace_unk: attention: the model's decoder has none", function()
      model_of { attention = false }:predict({ "call a" }, { replace_unk = true })
    end)
    local folded = neap.async_seq2seq { input = en, output = de, encoder = neap.chain {
      neap.embed { size = 2 }, neap.fold {}, neap.gru { size = 2 } }, decoder = neap.decoder {
      embed = 2, layers = { neap.gru { size = 2 } } } }
    raises("predict: replace_unk: the encoder gives 2 steps for 3 symbols", function()
      folded:predict({ "call a b" }, { replace_unk = true })
    end)
  end)

  it("has a distribution over its symbols and those of the input", function()
    local model = model_of { copy = 3 }
    local all = model:predict({ "tell Kjell of Bo" }, { beam = #de + 3, max_length = 1, all = true })[1]
    local sum, said = 0, {}
    for _, h in ipairs(all) do
      sum = sum + math.exp(h.log_probability)
      said[h.symbols[1] or "stop"] = true
    end
    assert.near(1, sum, 1e-5)
    for _, symbol in ipairs { "tell", "Kjell", "Bo", "<unk>", "told" } do assert.is_true(said[symbol], symbol) end
    -- as many unknown symbols as there is room for; the others are <unk>
    local few = model_of { copy = 1 }
    all = few:predict({ "tell Kjell of Bo" }, { beam = #de + 1, max_length = 1, all = true })[1]
    said = {}
    for _, h in ipairs(all) do said[h.symbols[1] or "stop"] = true end
    assert.is_true(said.tell and not said.Kjell)
    -- a filter meets the names as they are
    local seen = {}
    local out = model:predict({ "call Kjell" }, { max_length = 3, filter = function(symbols, scores)
      for _, symbol in ipairs(symbols) do seen[symbol] = true end
      assert.equal(#de + 3, #scores)
      for id = 1, #scores do if id ~= #de + 2 then scores[id] = -math.huge end end
    end })
    assert.same({ "Kjell", "Kjell", "Kjell" }, out[1])
    assert.is_true(seen.Kjell)
  end)

  it("learns by the paper's loss, -ln (p P(w) + (1 - p) attention to w)", function()
    local model = model_of({ copy = 2 }, 6)
    local batch = batch_of(model, 4)
    local encoded = model:run("encode", false):feed(batch):forward()
    local given = { previous = batch.previous }
    for name in pairs(encoded.program.outputs) do
      given[name] = encoded:value(name, "concat")
      if name == "memory" or name == "source" then
        given[name] = { data = given[name], lengths = batch.input.lengths }
      end
    end
    local run = model:run("decode", false):feed(given):forward()
    local scores, ids = run:value("scores", "concat"):totable(), batch.output.data:totable()
    local sum = 0
    for i, id in ipairs(ids) do sum = sum - scores[i][id + 1] end
    assert.near(sum / #ids, model:loss(batch), 1e-5)
  end)

  it("has right gradients, and loops as it runs in one", function()
    for _, options in ipairs { { copy = 2 }, { copy = 2, coverage = true, coverage_loss = 0.5 },
      { coverage = true, attention = "additive", coverage_loss = 2 },
      { copy = 1, coverage = true, input_feed = true, mix = 5 } } do
      options.layers = { neap.gru { size = 3 }, neap.lstm { size = 4 } }
      if not options.input_feed then options.layers[1] = neap.residual { neap.gru { size = 3 } } end
      local model = model_of(options, 3)
      local batch = batch_of(model, 3)
      local looped = model:run("mixed", false)
      looped:set("mix", 0)
      assert.near(model:loss(batch), looped:feed(batch):forward():item(), 1e-5)
      assert.near(model:loss(batch), model:recompute(true):run("learn", true):feed(batch):forward():item(),
        1e-6)
      local run = model:program "learn":run { learn = true, double = true }
      local function loss() return run:feed(batch):forward():item() end
      loss()
      run:backward()
      gradients(run, model.params:names(), loss, 1e-7, 4)
    end
  end)

  it("learns from its own symbols too, with fewer or more than it may copy", function()
    local model = model_of { copy = 1, coverage = true }
    local batch, optim = batch_of(model, 16), neap.adam { rate = 1e-2 }
    model.mix = 0.5
    local first = model:learn(batch, optim)
    for _ = 1, 30 do model:learn(batch, optim) end
    assert.is_true(model:learn(batch, optim) < 0.7 * first)
  end)

  it("says what it cannot copy", function()
    local known = neap.vocab.new { start = true, stop = true, "a" }
    local function made(options)
      local all = { input = en, output = de, rng = neap.rng(1), decoder = neap.decoder { embed = 2,
        copy = true, layers = { neap.gru { size = 2 } } }, encoder = neap.chain {
        neap.embed { size = 2 }, neap.gru { size = 2 } } }
      for name, v in pairs(options) do all[name] = v end
      return neap.async_seq2seq(all)
    end
    raises("async_seq2seq: decoder: copy: the output's vocabulary needs unk: unk = true",
      function() made { output = known } end)
    raises("async_seq2seq: decoder: copy: expected one input of symbols, and an output, that are not "
      .. "subwords", function() made { input = 3 } end)
    raises("async_seq2seq: smoothing: expected none where symbols are copied, came 0.1",
      function() made { smoothing = 0.1 } end)
    raises("async_seq2seq: weights: expected none where symbols are copied, came a table",
      function() made { weights = {} } end)
    raises("async_seq2seq: focal: expected none where symbols are copied, came 2",
      function() made { focal = 2 } end)
    raises("decoder: copy: expected an integer from 1 to 65536, came 0", function()
      neap.decoder { embed = 2, layers = { neap.gru { size = 2 } }, copy = 0 }
    end)
    raises("decoder: copy: it is about attention, came attention = false", function()
      neap.decoder { embed = 2, layers = { neap.gru { size = 2 } }, copy = 1, attention = false }
    end)
    local folded = made { encoder = neap.chain { neap.embed { size = 2 }, neap.fold {},
      neap.gru { size = 2 } } }
    local ok, message = pcall(folded.program, folded, "learn")
    assert.is_false(ok)
    assert.matches("decoder: copy: the encoder must give a value for each symbol, came [S/2,B,2]",
      message, 1, true)
    raises("async_seq2seq: watch: \"source\" is the task's own name, as \"memory\", \"source\" and those "
      .. "that begin with \"first_\" are", function()
      made { encoder = function(x)
        local y = neap.embed { size = 2 }(x)
        return op.watch("source", y)
      end }:program "learn"
    end)
    local model = made {}
    raises("predict: ensemble: 1: it copies 16 unknown symbols, the first model no", function()
      local plain = made { decoder = neap.decoder { embed = 2, layers = { neap.gru { size = 2 } } } }
      plain:predict({ "a" }, { ensemble = { model } })
    end)
    raises("predict: a model that copies needs the symbols themselves: expected a list of sequences, "
      .. "came a batch", function() model:predict(batch_of(model, 2)) end)
    raises("predict: ensemble: 1: it copies 3 unknown symbols, the first model 16", function()
      model:predict({ "call a" }, { ensemble = { made { decoder = neap.decoder { embed = 2, copy = 3,
        layers = { neap.gru { size = 2 } } } } } })
    end)
  end)
end)

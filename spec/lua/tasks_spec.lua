-- The task modules as a script uses them: learning a small made-up task, scores, predictions, files.
local neap = require "neap"
local op = neap.op
local core = require "neap.core"
local gradients = require "run_help".gradients
local help = require "data_help"
local raises = help.raises

local function temporary(name)
  local path = os.tmpname()
  os.remove(path)
  return path .. "-" .. name
end

-- Words over a b c; the class is the letter that comes most often in the second half.
local function words(n, rng)
  local text, class, double = {}, {}, {}
  local letters = { "a", "b", "c" }
  for i = 1, n do
    local w = {}
    for k = 1, rng:int(6) do w[k] = letters[rng:int(3)] end
    text[i] = table.concat(w)
    class[i] = w[#w]
    double[i] = table.concat(w, " "):gsub("%a", "%0 %0"):upper()
  end
  return neap.corpus.from({ text = text, class = class, double = double },
    { split = { text = "characters", double = "words" } })
end

local function learn(model, fields, steps, rate, rng)
  local optim, n = neap.adam { rate = rate, clip = 5 }, 0
  while true do
    for batch in neap.batches(fields, { size = 32, rng = rng }) do
      model:learn(batch, optim)
      n = n + 1
      if n == steps then return end
    end
  end
end

describe("seq2class", function()
  local rng = neap.rng(3)
  local data = words(300, rng)
  local chars, classes = neap.vocab(data, "text", { unk = true }), neap.vocab(data, "class")
  local function fields(c)
    return { input = c:encode("text", chars), output = c:label("class", classes) }
  end

  for _, pool in ipairs { "last", "mean", "max" } do
    it("learns, is saved and loaded, with pool = " .. pool, function()
      local model = neap.seq2class { input = chars, output = classes, rng = neap.rng(1), pool = pool,
        net = neap.chain { neap.embed { size = 8 }, neap.lstm { size = 16 } } }
      learn(model, fields(data), 120, 1e-2, neap.rng(2))
      local scores = model:score(fields(data))
      assert.equal(300, scores.n)
      assert.matches("^accuracy %d%.%d+  macro_f1 %d%.%d+  n 300$", tostring(scores))
      raises("score: expected a table of options, came 3", function()
        model:score(fields(data), 3)
      end)
      assert.is_true(scores.accuracy > 0.9, "accuracy " .. scores.accuracy)
      local path = temporary("model")
      assert.is_true(model:save(path))
      local loaded = assert(neap.load(path))
      os.remove(path)
      local a, b = model:predict { "abca", "b", "" }, loaded:predict { "abca", "b", "" }
      for i = 1, 3 do
        assert.equal(a[i].class, b[i].class)
        assert.equal(a[i].probability, b[i].probability)
      end
      assert.equal("b", a[2].class)
      assert.equal(scores.accuracy, loaded:score(fields(data)).accuracy)
      -- a loaded task goes on learning
      local batch = neap.batches(fields(data), { size = 32 })()
      local optim = neap.sgd { rate = 0.1 }
      assert.equal(model:learn(batch, optim), loaded:learn(batch, optim))
    end)
  end

  it("says what is wrong with its options", function()
    local function message(options)
      local ok, text = pcall(neap.seq2class, options)
      assert.is_false(ok)
      return text
    end
    assert.matches("tasks_spec.lua:%d+: seq2class: unknown option \"nett\"; did you mean \"net\"",
      message { input = chars, output = classes, nett = 1 })
    assert.matches("seq2class: output: expected a vocabulary of classes, came 5",
      message { input = chars, output = 5, net = neap.lstm { size = 2 } })
    assert.matches("seq2class: net: expected a layer or a function of the inputs, came nil",
      message { input = chars, output = classes })
    assert.matches("pool: expected \"last\", \"mean\" or \"max\", came \"first\"",
      message { input = chars, output = classes, net = neap.lstm { size = 2 }, pool = "first" })
  end)
end)

it("a task's method says what it was called on, and which kind of task has it", function()
  local v, k = neap.vocab.new { "a", "b", start = true, stop = true }, neap.vocab.new { "x", "y" }
  local model = neap.seq2class { input = v, output = k,
    net = neap.chain { neap.embed { size = 2 }, neap.gru { size = 2 } } }
  raises("seq2class.predict: expected a seq2class first, came a table: call it with a colon, "
    .. "task:predict(..)", function() model.predict { "ab" } end)
  raises("seq2class.program: expected a seq2class first, came \"predict\": call it with a colon, "
    .. "task:program(..)", function() model.program "predict" end)
  raises("seq2class.loss: expected a seq2class first", function() model.loss {} end)
  raises("seq2class has no method rollout; forecaster has it", function() model:rollout() end)
  raises("seq2class has no method posteriors; synced_seq2seq, hmm have it", function()
    model:posteriors { "ab" }
  end)
  assert.is_nil(model.pool) -- what is no method of any kind is no mistake
  local data = neap.corpus.from { input = { { "a", "b" } }, output = { "x" } }
  local fields = { input = data:encode("input", v), output = data:label("output", k) }
  local given = neap.batches(fields)
  raises("learn: expected a batch, came fields (input): neap.batches makes batches of them",
    function() model:learn(fields, neap.adam {}) end)
  raises("loss: expected a batch, came fields (input)", function() model:loss(fields) end)
  raises("predict: expected a list of sequences or a batch, came fields (input)", function()
    model:predict(fields)
  end)
  raises("learn: expected a batch, came neap.batches: 1 of up to 32 sequences; input, output: it "
    .. "gives batches one after the other, for batch in .. do", function()
      model:learn(given, neap.adam {})
    end)
  raises("predict: expected a list of sequences or a batch, came neap.batches", function()
    model:predict(given)
  end)
  raises("predict: [2] is nil, but there is a [3]", function() model:predict { "a", nil, "b" } end)
  raises("predict: sequence 1: [2] is nil, but there is a [3]", function()
    model:predict { { "a", nil, "b" } }
  end)
  local empty = neap.vocab.new {}
  raises("seq2class: input: the vocabulary is empty", function()
    neap.seq2class { input = empty, output = k, net = neap.gru { size = 2 } }
  end)
  raises("seq2class: output: the vocabulary is empty", function()
    neap.seq2class { input = v, output = empty, net = neap.gru { size = 2 } }
  end)
  local both = neap.seq2class { input = { a = v, b = { vocab = v, nested = true } }, output = k,
    net = function(x) return neap.gru { size = 2 }(neap.embed { size = 2 }(x.a)) end }
  raises("predict: expected a batch, as neap.batches makes them, of the task's inputs a, b "
    .. "(nested), came a list", function() both:predict { "ab" } end)
  raises("optimizer: expected the params of a model or program, came neap.seq2class", function()
    neap.adam {}:step(model)
  end)
  local program = model:program "predict"
  raises("program.run: expected a program first, came nil: call it with a colon, program:run(..)",
    function() program.run() end)
  raises("run.feed: expected a run first, came a table", function() program:run().feed {} end)
  local writer = neap.async_seq2seq { input = v, output = v,
    encoder = neap.chain { neap.embed { size = 2 }, neap.gru { size = 2 } },
    decoder = neap.decoder { embed = neap.embed { size = 2 }, layers = { neap.gru { size = 2 } } } }
  raises("fields: expected a corpus and two of its fields, came \"s\" first", function()
    writer:fields("s", "c")
  end)
end)

it("a sequence of numbers may be a tensor", function()
  local k = neap.vocab.new { "x", "y" }
  for _, kind in ipairs { "seq2class", "synced_seq2seq" } do
    local model = neap[kind] { input = 2, output = k, net = neap.gru { size = 2 } }
    assert.same(model:predict { { { 1, 2 }, { 3, 4 } }, { { 5, 6 } } },
      model:predict { neap.tensor { { 1, 2 }, { 3, 4 } }, neap.tensor { { 5, 6 } } })
    raises("predict: sequence 2: expected a tensor [T,2], came f32 [4,3]", function()
      model:predict { neap.zeros { 1, 2 }, neap.zeros { 4, 3 } }
    end)
  end
  local narrow = neap.seq2class { input = 1, output = k, net = neap.gru { size = 2 } }
  assert.same(narrow:predict { { 1, 2 } }, narrow:predict { neap.tensor { 1, 2 } })
end)

describe("async_seq2seq", function()
  local data = words(400, neap.rng(5))
  local input, output = neap.vocab(data, "text", { unk = true }),
    neap.vocab(data, "double", { start = true, stop = true })
  local function model_of(decoder)
    return neap.async_seq2seq { input = input, output = output, rng = neap.rng(1), max_length = 20,
      encoder = neap.chain { neap.embed { size = 12 }, neap.bidir { neap.gru { size = 16 } } },
      decoder = decoder }
  end
  local function check_words(model, options)
    local right, sequences, want = 0, { "abc", "ccb", "a", "bacb", "cabba" }, {}
    for i, w in ipairs(sequences) do
      want[i] = w:gsub("%a", "%0%0"):upper():gsub("%a", "%0 "):sub(1, -2)
    end
    for i, h in ipairs(model:predict(sequences, options)) do
      if table.concat(h, " ") == want[i] then right = right + 1 end
    end
    return right
  end

  it("reads and writes subwords, and scores words", function()
    local pairs_of = neap.corpus.from({ en = { "a small dog", "two small dogs", "the dog sleeps",
      "two dogs sleep", "a cat sleeps", "the small cat" }, de = { "ein kleiner hund",
      "zwei kleine hunde", "der hund schläft", "zwei hunde schlafen", "eine katze schläft",
      "die kleine katze" } }, { split = { en = "words", de = "words" } })
    local en = neap.vocab.bpe(pairs_of, "en", { merges = 12 })
    local de = neap.vocab.bpe(pairs_of, "de", { merges = 20, start = true, stop = true,
      bytes = true })
    local model = neap.async_seq2seq { input = en, output = de, rng = neap.rng(3), max_length = 40,
      encoder = neap.chain { neap.embed { size = 16 }, neap.bidir { neap.gru { size = 16 } } },
      decoder = neap.decoder { embed = 16, layers = { neap.gru { size = 32 } } } }
    learn(model, model:fields(pairs_of, "en", "de"), 150, 1e-2, neap.rng(4))
    local texts, references = {}, {}
    for i = 1, #pairs_of do
      texts[i], references[i] = pairs_of:string("en", i), { pairs_of:get("de", i) }
    end
    local scores = model:score(texts, references)
    assert.equal(0, scores.per)
    assert.same({ "zwei", "kleine", "hunde" }, scores.hypotheses[2])
    assert.equal(100, neap.metrics.bleu(scores.hypotheses, references, { order = 3 }).bleu)
    local path = os.tmpname()
    assert(model:save(path))
    local again = assert(neap.load(path))
    os.remove(path)
    assert.same(model:predict(texts), again:predict(texts))
    assert.equal("der hund schläft", again.output:text(again:predict({ "the dog sleeps" })[1]))
  end)

  it("learns with attention, decodes greedily and with a beam, is saved and loaded", function()
    local model = model_of(neap.decoder { embed = 12, layers = { neap.lstm { size = 32 } } })
    learn(model, model:fields(data, "text", "double"), 350, 1e-2, neap.rng(2))
    assert.is_true(check_words(model) >= 4)
    assert.is_true(check_words(model, { beam = 3 }) >= 4)
    -- the best of a beam is at least as likely as the greedy one; hypotheses come in order
    local all = model:predict({ "abcab" }, { beam = 4, all = true, length_penalty = 0 })[1]
    assert.equal(4, #all)
    for i = 2, 4 do
      assert.is_true(all[i - 1].score >= all[i].score or all[i - 1].stopped and not all[i].stopped)
    end
    local path = temporary("model")
    assert.is_true(model:save(path))
    local loaded = assert(neap.load(path))
    os.remove(path)
    assert.same(model:predict({ "abcab", "c" }, { beam = 3 }), loaded:predict({ "abcab", "c" }, { beam = 3 }))
    -- alone and in a batch, and whatever was decoded before
    local one = model:predict({ "bac" }, { beam = 3, all = true })
    local many = model:predict({ "abcabc", "bac", "a" }, { beam = 3, all = true })
    assert.same(one[1], many[2])
  end)

  it("learns from its own symbols: scheduled mix, free running, without attention", function()
    local model = model_of(neap.decoder { embed = 12, layers = { neap.gru { size = 24 } },
      attention = false, dropout = 0.1 })
    local batch = neap.batches(model:fields(data, "text", "double"), { size = 16 })()
    local optim = neap.adam { rate = 1e-2 }
    -- mix 0 in the looped program is teacher forcing: the same loss but for rounding
    local looped = model:run("mixed", false)
    looped:set("mix", 0)
    looped:feed(batch):forward()
    local plain = model:run("learn", false):feed(batch):forward():item()
    assert.is_true(math.abs(looped:item() - plain) < 1e-5 * plain)
    looped:set("mix", 1)
    looped:feed(batch):forward()
    assert.is_true(math.abs(looped:item() - plain) > 1e-4)
    model.mix = 0.5
    local first = model:learn(batch, optim)
    for _ = 1, 40 do model:learn(batch, optim) end
    local last = model:learn(batch, optim)
    assert.is_true(last < first * 0.8, ("%g -> %g"):format(first, last))
  end)

  -- states that the encoder's summary can fill and others that it cannot; a step that counts
  local counter = neap.cell {
    name = "counter",
    params = function(p, c)
      p.w, p.u = { c.input, c.size }, { c.size, c.size }
      p.b = { c.size, init = "zeros" }
    end,
    state = function(c) return { h = c.size, pair = { 2, c.size }, n = { 1, dtype = "i32" } } end,
    prepare = function(p) return { twice = p.b * 2 } end,
    step = function(p, x, s, ctx)
      local h = op.tanh(op.matmul(x, p.w) + op.matmul(s.h, p.u) + ctx.twice)
      local n = op.cast(s.n, "f32")
      return op.concat { h, op.equal(n, 2) },
        { h = h, pair = s.pair * 0.5, n = op.cast(n + 1, "i32") }
    end,
  }

  it("looks back on a pyramid's fewer steps; loaded, and in C, it writes the same", function()
    local model = neap.async_seq2seq { input = input, output = output, rng = neap.rng(1),
      max_length = 20, decoder = neap.decoder { embed = 8, layers = { neap.gru { size = 32 } } },
      encoder = neap.chain { neap.embed { size = 10 }, neap.bidir { neap.gru { size = 12 } },
        neap.fold {}, neap.bidir { neap.lstm { size = 12 } } } }
    learn(model, model:fields(data, "text", "double"), 300, 1e-2, neap.rng(2))
    assert.is_true(check_words(model) >= 3)
    local path = temporary("model")
    assert.is_true(model:save(path))
    local loaded, letters = assert(neap.load(path)), { "abcab", "c", "bacc" }
    for _, options in ipairs { { attention = true }, { attention = true, beam = 3 } } do
      local said, weights = model:predict(letters, options)
      local again = loaded:predict(letters, options)
      assert.same(said, again)
      for i, word in ipairs(letters) do
        assert.same({ #said[i], (#word + 1) // 2 }, weights[i]:shape())
        for _, row in ipairs(weights[i]:totable()) do
          local sum = 0
          for _, v in ipairs(row) do sum = sum + v end
          assert.near(1, sum, 1e-5)
        end
      end
    end
    local host = require "host_help"
    local out, err = host.execute(("%s %s"):format(host.run_model, path),
      table.concat(letters, "\n") .. "\n")
    os.remove(path)
    assert.equal("", err)
    local lines = {}
    for _, said in ipairs(model:predict(letters)) do lines[#lines + 1] = table.concat(said) end
    assert.equal(table.concat(lines, "\n") .. "\n", out)
  end)

  it("has decoders of cells of the script's own, alone and among the library's", function()
    for name, layers in pairs {
      own = { counter { size = 10 } },
      jordan = { neap.jordan { size = 8, output = 12 } },
      mixed = { neap.gru { size = 9 }, counter { size = 7 }, neap.elman { size = 10 } },
      options = { neap.lstm { size = 10, projection = 7, coupled = true, recurrent_dropout = 0.1 },
        neap.gru { size = 9, layer_norm = true, zoneout = 0.1 } },
      residual = { neap.gru { size = 9 }, neap.residual { neap.lstm { size = 9 } }, neap.highway {
        neap.chain { counter { size = 7 }, neap.dropout { rate = 0.1 }, neap.linear { size = 9 } } } },
      ["first states in a chain that are learned"] = { neap.chain { neap.layer_norm {},
        neap.lstm { size = 6, first = "learned", recurrent_dropout = 0.1 }, neap.activation "relu",
        neap.residual { neap.gru { size = 6, first = "learned" } } } },
      ["first states that are learned"] = { neap.lstm { size = 10, first = "learned" },
        neap.gru { size = 9, first = "learned", clip = 3 } },
    } do
      for _, attention in ipairs { "additive", false } do
        local model = model_of(neap.decoder { embed = 6, layers = layers, attention = attention,
          bridge = not name:find "learned" })
        local batch = neap.batches(model:fields(data, "text", "double"), { size = 16 })()
        -- the looped step is the same decoder
        local looped = model:run("mixed", false)
        looped:set("mix", 0)
        looped:feed(batch):forward()
        local plain = model:loss(batch)
        assert.is_true(math.abs(looped:item() - plain) < 1e-5 * plain, name)
        local optim, first = neap.adam { rate = 1e-2 }, nil
        for step = 1, 30 do
          model.mix = step > 20 and 0.3 or 0
          first = first or model:learn(batch, optim)
          model:learn(batch, optim)
        end
        assert.is_true(model:loss(batch) < 0.85 * first, name)
        local path = temporary("model")
        assert.is_true(model:save(path))
        local loaded = assert(neap.load(path))
        os.remove(path)
        for _, options in ipairs { {}, { beam = 3 } } do
          assert.same(model:predict({ "abcab", "c", "" }, options),
            loaded:predict({ "abcab", "c", "" }, options))
        end
        -- streamed as in the whole: the scores of what it wrote
        local run, written = model:run("decode", false), model:predict({ "abc" })[1]
        local encoded = model:run("encode", false)
        encoded:feed { input = { data = input:tensor "abc", lengths = neap.tensor({ 3 }, "i32") } }
        encoded:forward()
        local fed = { output.start - 1, table.unpack(output:encode(written)) }
        for i = 2, #fed do fed[i] = fed[i] - 1 end
        local lengths = neap.tensor({ #fed }, "i32")
        local given = { previous = { data = neap.tensor(fed, "i32"), lengths = lengths } }
        for key in pairs(encoded.program.outputs) do
          given[key] = encoded:value(key, "concat")
          if key == "memory" then
            given[key] = { data = given[key], lengths = neap.tensor({ 3 }, "i32") }
          end
        end
        run:feed(given):forward()
        local best = run:value("best", "concat")
        for i, symbol in ipairs(written) do assert.equal(output:id(symbol) - 1, best[i]) end
      end
    end
  end)

  it("begins with the encoder's summary where the state is a vector, else with zeros", function()
    local model = model_of(neap.decoder { embed = 6, layers = { counter { size = 10 } } })
    local outputs = model:program("encode").outputs
    assert.is_truthy(outputs.first_h1)
    assert.is_nil(outputs.first_pair1)
    assert.is_nil(outputs.first_n1)
    model = model_of(neap.decoder { embed = 6, layers = { counter { size = 10 } }, bridge = false })
    assert.is_nil(model:program("encode").outputs.first_h1)
  end)

  describe("has a bridge from an encoder of another shape", function()
    local op = neap.op
    local sizes = { h = 5, c = 5 }
    local function first_states(encoder, options)
      options.embed = 6
      local model = neap.async_seq2seq { input = input, output = output, rng = neap.rng(2),
        encoder = encoder, decoder = neap.decoder(options) }
      local run = model:run("encode", false)
      run:feed { input = { data = input:tensor "abcab", lengths = neap.tensor({ 2, 3 }, "i32") } }
      return run:forward(), model
    end
    -- the last states of its layers, as it has them
    local states
    local function encoder()
      states = {}
      local embed, layers = neap.embed { size = 4 }, { neap.bidir { neap.lstm { size = 3 } },
        neap.fold {}, neap.lstm { size = 5 } }
      return function(x)
        local a, s = layers[1](embed(x))
        local b, r = layers[3](layers[2](a))
        for i, last in ipairs { s, r } do
          for name, v in pairs(last) do op.watch(name .. "_of_" .. i, v) end
        end
        return b, r, { s, r }
      end
    end

    it("dense: an activation of all states of its last recurrent layer", function()
      for name, act in pairs { tanh = op.tanh, relu = op.relu, identity = op.identity } do
        local run, model = first_states(encoder(), { bridge = { "dense", activation = name },
          layers = { neap.gru { size = 7 }, neap.lstm { size = 3 } } })
        local s = op.concat { run:value "c_of_2", run:value "h_of_2" }
        for _, state in ipairs { "h1", "h2", "c2" } do
          local at = "decoder.bridge." .. state
          local want = act(op.linear(s, model.params:get(at .. ".weight"),
            model.params:get(at .. ".bias")))
          local got = run:value("first_" .. state):totable()
          for b, row in ipairs(want:totable()) do
            for i, x in ipairs(row) do assert.near(x, got[b][i], 1e-6) end
          end
        end
      end
    end)

    it("copy: layer by layer as they are, also out of a chain", function()
      local layers = { neap.lstm { size = 6 }, neap.lstm { size = 5 } }
      local run = first_states(encoder(), { bridge = "copy", layers = layers })
      for i = 1, 2 do
        for name in pairs(sizes) do
          assert.equal(run:value(("%s_of_%d"):format(name, i)):tobytes(),
            run:value(("first_%s%d"):format(name, i)):tobytes())
        end
      end
      local chain = neap.chain { neap.embed { size = 4 }, neap.bidir { neap.gru { size = 3 } },
        neap.residual { neap.chain { neap.gru { size = 2 }, neap.linear { size = 6 } } },
        neap.linear { size = 6 } }
      run = first_states(chain, { bridge = "copy", layers = { neap.residual { neap.gru { size = 6 } },
        neap.linear { size = 3 }, neap.gru { size = 2 } } })
      assert.same({ 2, 6 }, run:value("first_h1"):shape())
      assert.same({ 2, 2 }, run:value("first_h3"):shape())
    end)

    it("zero: none", function()
      for _, bridge in ipairs { "zero", false } do
        local run = first_states(encoder(), { bridge = bridge, layers = { neap.lstm { size = 3 } } })
        assert.is_nil(run.program.outputs.first_h1)
      end
    end)

    it("and says what cannot be copied", function()
      local function message(layers)
        local ok, text = pcall(first_states, encoder(), { bridge = "copy", layers = layers })
        assert.is_false(ok)
        return text
      end
      for text, layers in pairs {
        ["layer 2 begins with h [B,4], the encoder's recurrent layer 2 of 2 ends with c [B,5], "
          .. "h [B,5]: bridge = \"dense\" makes one from the other"] = { neap.lstm { size = 6 },
          neap.gru { size = 4 } },
        ["layer 1 begins with n [B,1], the encoder's recurrent layer 1 of 2 ends with c [B,6], "
          .. "h [B,6]"] = { counter { size = 6 }, neap.lstm { size = 5 } },
        ["layer 3 begins with h [B,5], the encoder's recurrent layer 3 of 2 ends with no state"]
          = { neap.lstm { size = 6 }, neap.lstm { size = 5 }, neap.gru { size = 5 } },
        ["it has 1 recurrent layers, the encoder has 2, the last of which ends with c [B,5], h [B,5]"]
          = { neap.lstm { size = 6 } },
      } do
        assert.matches("decoder: bridge: copy: " .. text, message(layers), 1, true)
      end
    end)
  end)

  it("may be asked again by the filter of its own search", function()
    local v = neap.vocab.new { start = true, stop = true, "a", "b", "c" }
    local model = neap.async_seq2seq { input = v, output = v, rng = neap.rng(9), max_length = 5,
      encoder = neap.chain { neap.embed { size = 4 }, neap.gru { size = 4 } },
      decoder = neap.decoder { embed = 4, layers = { neap.gru { size = 4 } } } }
    for beam = 1, 3 do
      local function written(inner)
        return model:predict({ "abc", "b" }, { beam = beam, filter = function() inner() end })
      end
      assert.same(written(function() end), written(function() model:predict { "ccc" } end))
    end
  end)

  it("says where a batch's row is from", function()
    local v = neap.vocab.new { start = true, stop = true, "a", "b", "c" }
    local model = neap.async_seq2seq { input = v, output = v, rng = neap.rng(9),
      encoder = neap.chain { neap.embed { size = 4, input = 3 }, neap.gru { size = 4 } },
      decoder = neap.decoder { embed = 4, layers = { neap.gru { size = 4 } } } }
    local corpus = neap.corpus.from({ t = { "a", "c" } }, { split = { t = "characters" } })
    local batch = neap.batches(model:fields(corpus, "t", "t"), { size = 2 })()
    local ok, message = pcall(model.loss, model, batch)
    assert.is_false(ok)
    assert.matches("a script, sequence 2", message, 1, true)
    raises("feed: expected a batch", function() model:learn(3, neap.sgd { rate = 1 }) end)
  end)

  it("shows what it looked at", function()
    local model = model_of(neap.decoder { embed = 12, layers = { neap.lstm { size = 16 } } })
    learn(model, model:fields(data, "text", "double"), 60, 1e-2, neap.rng(2))
    local words_, options = { "abcab", "c", "", "bb" }, { attention = true, max_length = 8 }
    local written, weights = model:predict(words_, options)
    assert.same(model:predict(words_, { max_length = 8 }), written)
    assert.is_nil((select(2, model:predict(words_))))
    for b, w in ipairs(weights) do
      assert.same({ #written[b], #words_[b] }, w:shape())
      for _, row in ipairs(w) do
        local sum = 0
        for _, x in ipairs(row) do sum = sum + x end
        assert.is_true(#row == 0 or math.abs(sum - 1) < 1e-5)
      end
    end
    -- alone as among others, and in a beam
    for b, word in ipairs(words_) do
      local one, alone = model:predict({ word }, options)
      assert.same(written[b], one[1])
      assert.equal(weights[b]:tobytes(), alone[1]:tobytes())
    end
    options = { attention = true, max_length = 8, beam = 3, all = true }
    local all, best = model:predict(words_, options)
    for b, list in ipairs(all) do
      assert.equal(best[b], list[1].attention)
      for _, h in ipairs(list) do
        assert.same({ #h.symbols, #words_[b] }, h.attention:shape())
        if table.concat(h.symbols) == table.concat(written[b]) then
          assert.same(weights[b]:totable(), h.attention:totable())
        end
      end
    end
    -- they are the weights of the recorded program
    local run = model:run("decode", false)
    assert.equal("f32 [T,B,max S]", ("f32 "
      .. require "neap.record".type_text(run.program.spaces, run.program.core:type(
        run.program.outputs.attention))))
    raises("decoder: layers: 1: it learns its first states, but the bridge computes them", function()
      neap.decoder { embed = 2, layers = { neap.gru { size = 2, first = "learned" } } }
    end)
    local blind = model_of(neap.decoder { embed = 2, layers = { neap.gru { size = 2 } },
      attention = false })
    local ok, text = pcall(blind.predict, blind, { "a" }, { attention = true })
    assert.is_false(ok)
    assert.matches("predict: attention: the model's decoder has none", text, 1, true)
  end)

  it("prints its encoder, its decoder, and which way each layer goes", function()
    local text = tostring(model_of(neap.decoder { embed = 3, dropout = 0.25, attention = "dot",
      layers = { neap.lstm { size = 32, peepholes = true },
        neap.jordan { size = 2, output = 32 } } }))
    for _, line in ipairs { "bridge=dense", "encoder: chain", "1 embed size=12", "gru size=16 (fused)",
      "decoder: decoder", "embed size=3", "1 lstm peepholes=true size=32 (recorded)",
      "2 jordan output=32 size=2 (recorded)", "attention kind=dot", "dropout=0.25" } do
      assert.matches(line, text, 1, true)
    end
    local line = debug.getinfo(1, "l").currentline + 1
    local function net(x) return neap.gru { size = 2 } (neap.embed { size = 2 } (x)) end
    text = tostring(neap.synced_seq2seq { input = input, output = input, net = net })
    assert.matches("net: a function, spec/lua/tasks_spec.lua:" .. line, text, 1, true)
  end)

  it("refuses a vocabulary without start and stop", function()
    local ok, text = pcall(neap.async_seq2seq, { input = input, output = input,
      encoder = neap.lstm { size = 2 }, decoder = {} })
    assert.is_false(ok)
    assert.matches("needs start and stop symbols", text)
  end)
end)

describe("a network that sees what comes", function()
  it("is none for a task that foretells", function()
    local v = neap.vocab.new { "a", "b" }
    local function two_ways() return neap.bidir { neap.gru { size = 3 } } end
    local message = ": net: expected one whose steps see nothing of those after them, which it is to "
      .. "foretell; came one in which "
    local model = neap.language_model { vocab = v,
      net = neap.chain { neap.embed { size = 2 }, two_ways() } }
    raises("language_model" .. message, function() model:program "learn" end)
    local forecaster = neap.forecaster { net = two_ways() }
    local batch = neap.forecaster { net = neap.gru { size = 1 } }:batch { { 1, 2, 3 } }
    raises("forecaster" .. message, function() forecaster:learn(batch, neap.sgd { rate = 1 }) end)
    raises("forecaster" .. message, function() forecaster:score { { 1, 2, 3 } } end)
  end)
end)

describe("a task of several inputs", function()
  local words, letters = neap.vocab.new { "a", "b", "c", "d" }, neap.vocab.new { "x", "y" }

  it("knows how many symbols each has, and which inputs there are", function()
    local function model(inputs, f)
      return neap.seq2class { input = inputs, output = letters, net = f }
    end
    for _, inputs in ipairs { { a = words, b = letters }, { a = letters, b = words },
      { a = 2, b = words } } do
      local made = model(inputs, function(x)
        local vectors = neap.embed { size = 3, name = "e" }(x.b)
        return (neap.gru { size = 2 }(math.type(inputs.a) and op.concat { x.a, vectors } or vectors))
      end)
      assert.same({ #inputs.b, 3 }, made.params:shape "net.e.weight")
    end
    raises("the task has no input position; it has pos, word", function()
      model({ word = words, pos = 1 }, function(x) return x.position end):program "learn"
    end)
    raises("the task has no input words (did you mean word?)", function()
      model({ word = words, pos = 1 }, function(x) return x.words end):program "learn"
    end)
  end)

  it("refuses fields of another vocabulary", function()
    local corpus = neap.corpus.from({ t = { "ab", "cd" }, class = { "x", "y" } },
      { split = { t = "characters" } })
    local model = neap.seq2class { input = words, output = letters,
      net = neap.chain { neap.embed { size = 2 }, neap.gru { size = 2 } } }
    local turned = neap.vocab.new { "b", "a", "c", "d" }
    local function fields(v, w)
      return { input = corpus:encode("t", v), output = corpus:label("class", w or letters) }
    end
    local same = neap.vocab.new { "a", "b", "c", "d" } -- of other birth, but with the same symbols
    assert.equal(2, model:score(fields(same)).n)
    raises('score: field input: expected ids of the model\'s own vocabulary, came those of another one: '
      .. 'it has "b" as symbol 1, not "a"', function() model:score(fields(turned)) end)
    raises("learn: field input: expected ids of the model's own vocabulary", function()
      model:learn(neap.batches(fields(turned), { size = 2 })(), neap.sgd { rate = 1 })
    end)
    local text = neap.language_model { vocab = words,
      net = neap.chain { neap.embed { size = 2 }, neap.gru { size = 2 } } }
    local long = neap.corpus.from({ t = { "abcdabcd" } }, { split = { t = "characters" } })
    assert.equal(7, text:score(long:encode("t", same)).n)
    raises("score: field input: expected ids of the model's own vocabulary", function()
      text:score(long:encode("t", turned))
    end)
    raises("learn: field input: expected ids of the model's own vocabulary", function()
      text:learn(neap.batches.stream(long:encode("t", turned), { batch = 1 })(), neap.sgd { rate = 1 })
    end)
    local numbers = neap.synced_seq2seq { input = words, output = 1,
      net = neap.chain { neap.embed { size = 2 }, neap.gru { size = 2 } } }
    raises("score: field output: expected numbers, came ids of a vocabulary", function()
      numbers:score { input = corpus:encode("t", words), output = corpus:encode("t", words) }
    end)
    raises("score: field output: expected ids of the model's own vocabulary, came those of another one: "
      .. "it has 3 symbols, not 2", function()
      model:score(fields(words, neap.vocab.new { "x", "y", "z" }))
    end)
  end)
end)

describe("a loaded task", function()
  local v = neap.vocab.new { start = true, stop = true, "a", "b" }
  local function net() return neap.chain { neap.embed { size = 2 }, neap.gru { size = 3 } } end
  for kind, make in pairs {
    seq2class = function() return neap.seq2class { input = v, output = v, net = net() } end,
    synced_seq2seq = function() return neap.synced_seq2seq { input = v, output = v, net = net() } end,
    async_seq2seq = function()
      return neap.async_seq2seq { input = v, output = v, encoder = net(),
        decoder = neap.decoder { embed = 2, layers = { neap.gru { size = 3 } } } }
    end,
    language_model = function() return neap.language_model { vocab = v, net = net() } end,
    forecaster = function() return neap.forecaster { net = neap.gru { size = 2 } } end,
  } do
    it("prints itself and is frozen as before: " .. kind, function()
      local path, model = temporary(kind), make()
      assert(model:save(path))
      local loaded = assert(neap.load(path))
      os.remove(path)
      assert.matches("^" .. kind, tostring(loaded))
      local name = loaded.params:names()[1]
      loaded:freeze { name }
      assert.is_true(loaded.params:frozen(name))
    end)
  end
end)

describe("a task's threads and recompute", function()
  it("change nothing of what is drawn", function()
    local v = neap.vocab.new { "a", "b", "c" }
    local function losses(change)
      local model = neap.seq2class { input = v, output = v, rng = neap.rng(4),
        net = neap.chain { neap.embed { size = 8 }, neap.dropout { rate = 0.5 }, neap.gru { size = 4 } } }
      local batch, out = neap.batches({ input = neap.corpus.from({ t = { "abc", "cab", "bb" } },
        { split = { t = "characters" } }):encode("t", v), output = { data = neap.tensor({ 0, 1, 2 }, "i32") } },
        { size = 3 })(), {}
      for i = 1, 6 do
        if i == 4 then change(model) end
        out[i] = model:learn(batch, neap.sgd { rate = 0 })
      end
      return out
    end
    local plain = losses(function() end)
    assert.not_equal(plain[1], plain[4])
    assert.same(plain, losses(function(m) m:threads(2) end))
    assert.same(plain, losses(function(m) m:threads(1):recompute(false) end))
    local again = losses(function(m) m:recompute(true) end)
    for i = 1, 6 do assert.near(plain[i], again[i], 1e-6) end
  end)
end)

describe("a decoder's embedding", function()
  local symbols = neap.vocab.new { start = true, stop = true, "a", "b", "c" }
  local function made(decoder, embed)
    return neap.async_seq2seq { input = symbols, output = symbols, rng = neap.rng(3),
      encoder = neap.chain { embed or neap.embed { size = 6 }, neap.gru { size = 5 } },
      decoder = neap.decoder(decoder) }
  end
  local corpus = neap.corpus.from({ text = { "abc", "a", "ccb" } }, { split = { text = "characters" } })
  local function batch_of(model)
    return neap.batches(model:fields(corpus, "text", "text"), { size = 3 })()
  end

  it("may be the output layer's, the encoder's, begin as a script says and stand still", function()
    local decoder = { embed = 6, layers = { neap.gru { size = 5 } }, mix = 6 }
    local names = { apart = made(decoder).params:names() }
    decoder.tied = true
    local tied = made(decoder)
    assert.equal(#names.apart - 1, #tied.params:names())
    assert.is_false(tied.params:has "decoder.output.weight")
    assert.same({ 5, 6 }, tied.params:shape "decoder.embed.weight")
    local run = tied:program "learn":run { learn = true, double = true }
    local batch = batch_of(tied)
    local function loss() return run:feed(batch):forward():item() end
    loss()
    run:backward()
    gradients(run, tied.params:names(), loss, 1e-7, 4)
    local path = temporary "tied"
    assert(tied:save(path))
    local loaded = assert(neap.load(path))
    os.remove(path)
    assert.equal(tied:loss(batch), loaded:loss(batch))
    assert.same(tied:predict { "abc" }, loaded:predict { "abc" })
    tied.mix = 0.5 -- the steps one by one
    assert.is_number(tied:learn(batch, neap.sgd { rate = 0.1 }))

    local both = neap.embed { size = 6 }
    decoder.embed = both
    local shared = made(decoder, both)
    assert.equal(#names.apart - 2, #shared.params:names())
    assert.is_false(shared.params:has "decoder.embed.weight")
    assert.is_number(shared:learn(batch, neap.sgd { rate = 0.1 }))

    local start = neap.tensor { { 1, 2, 3, 4, 5, 6 }, { 6, 5, 4, 3, 2, 1 }, { 0, 0, 0, 0, 0, 1 },
      { 1, 0, 0, 0, 0, 0 }, { -1, -2, -3, -4, -5, -6 } }
    decoder.embed, decoder.tied = neap.embed { size = 6, init = start, frozen = true }, nil
    local begun = made(decoder)
    begun:learn(batch, neap.sgd { rate = 0.1 })
    assert.equal(start:tobytes(), begun.params:get("decoder.embed.weight"):tobytes())
    assert.matches("embed frozen=true size=6", tostring(begun))
  end)

  it("says what does not fit", function()
    raises("decoder: embed: expected a width or neap.embed { size = .. }, came the layer gru", function()
      neap.decoder { embed = neap.gru { size = 2 }, layers = { neap.gru { size = 2 } } }
    end)
    raises("decoder: embed: expected an integer from 1, came 0", function()
      neap.decoder { embed = 0, layers = { neap.gru { size = 2 } } }
    end)
    raises("decoder: tied: expected true or false, came 1", function()
      neap.decoder { embed = 2, tied = 1, layers = { neap.gru { size = 2 } } }
    end)
    raises("decoder: tied: expected symbols as wide as what goes into the output layer, 5, came 6 "
      .. "(mix = 6 makes that as wide)", function()
      made({ embed = 6, tied = true, layers = { neap.gru { size = 5 } } }):parameters()
    end)
    raises("decoder: tied: expected symbols as wide as what goes into the output layer, 5, came 6",
      function()
        made({ embed = 6, tied = true, attention = false, layers = { neap.gru { size = 5 } } })
          :parameters()
      end)
  end)
end)

-- Tasks whose output layer has weights of 0: its bias says the probabilities, whatever comes in.
describe("options of the loss", function()
  local symbols = neap.vocab.new { start = true, stop = true, "a", "b", "c" }
  local corpus = neap.corpus.from({ text = { "abc", "a", "ccb" } }, { split = { text = "characters" } })
  local bias, logs, all = { 0.5, -1, 2, 0, 1 }, {}, 0
  for _, z in ipairs(bias) do all = all + math.exp(z) end
  for i, z in ipairs(bias) do logs[i] = z - math.log(all) end

  local function plain(model, name)
    local w = model.params:get(name .. ".weight")
    w:fill(0)
    model.params:set(name .. ".weight", w)
    model.params:set(name .. ".bias", neap.tensor(bias))
    return model
  end
  local cases = {
    async_seq2seq = function(options)
      options.input, options.output, options.rng = symbols, symbols, neap.rng(2)
      options.encoder = neap.chain { neap.embed { size = 2 }, neap.gru { size = 2 } }
      options.decoder = neap.decoder { embed = 2, layers = { neap.gru { size = 2 } } }
      local model = plain(neap.async_seq2seq(options), "decoder.output")
      return model, neap.batches(model:fields(corpus, "text", "text"), { size = 3 })(),
        { 3, 4, 5, 2, 3, 2, 5, 5, 4, 2 }
    end,
    language_model = function(options)
      options.vocab, options.rng = symbols, neap.rng(2)
      options.net = neap.chain { neap.embed { size = 2 }, neap.gru { size = 2 } }
      local model = plain(neap.language_model(options), "net.head")
      local batch = neap.batches.stream(corpus:encode("text", symbols), { batch = 1, steps = 20 })()
      return model, batch, { 4, 5, 3, 5, 5, 4 }
    end,
  }
  -- The mean of what `of` gives for the ids that are to come, by their weights.
  local function mean(ids, weight, of)
    local sum, n = 0, 0
    for _, id in ipairs(ids) do sum, n = sum + weight(id) * of(id), n + weight(id) end
    return sum / n
  end
  local function one() return 1 end
  local function nats(id) return -logs[id] end

  for kind, make in pairs(cases) do
    it("are formulas in " .. kind, function()
      local function loss_is(options, weight, of)
        local model, batch, ids = make(options)
        assert.near(mean(ids, weight, of), model:loss(batch), 1e-5)
        assert.is_number(model:learn(batch, neap.sgd { rate = 0.1 }))
      end
      loss_is({}, one, nats)
      loss_is({ smoothing = 0.2 }, one, function(id)
        local sum = 0
        for _, p in ipairs(logs) do sum = sum - p end
        return 0.8 * nats(id) + 0.2 * sum / #logs
      end)
      local function heavy(id) return ({ [3] = 2.5, [4] = 0 })[id] or 1 end
      loss_is({ weights = { a = 2.5, b = 0 } }, heavy, nats)
      local function focal(id) return nats(id) * (1 - math.exp(logs[id])) ^ 1.5 end
      loss_is({ focal = 1.5 }, one, focal)
      loss_is({ focal = 1.5, weights = { a = 2.5, b = 0 } }, heavy, focal)
      for text, options in pairs {
        ["smoothing: expected a number from 0 to 1, came 2"] = { smoothing = 2 },
        ["weights: expected symbols of the output and their numbers, came \"d\" = 1"] = {
          weights = { d = 1 } },
        ["focal: expected none beside smoothing, came 1"] = { focal = 1, smoothing = 0.1 },
      } do
        local ok, message = pcall(make, options)
        assert.is_false(ok)
        assert.matches(kind .. ": " .. text, message, 1, true)
      end
    end)
  end

  it("change nothing of what a language model is scored by, also loaded", function()
    local model, _, ids = cases.language_model { focal = 2, weights = { a = 3 } }
    local field = corpus:encode("text", symbols)
    local path = temporary "scored"
    assert(model:save(path))
    local loaded = assert(neap.load(path))
    os.remove(path)
    for _, m in ipairs { model, loaded } do
      local score = m:score(field)
      assert.equal(6, score.n)
      assert.near(mean(ids, one, nats), score.nats, 1e-5)
    end
  end)
end)

describe("an attention decoder of a script's own", function()
  -- Bahdanau et al. 2015 from primitive ops, the context fed into the next step
  local decoder = neap.cell {
    name = "bahdanau", context = { "memory", "mask" },
    params = function(p, c)
      p.w = { c.input + c.memory, 3 * c.size }
      p.u = { c.size, 3 * c.size }
      p.b = { 3 * c.size, init = "zeros" }
      p.keys = { c.memory, c.size }
      p.query = { c.size, c.size }
      p.score = { c.size, 1 }
    end,
    state = function(c) return { h = c.size } end,
    prepare = function(p, ctx) return { keys = op.matmul(ctx.memory, p.keys) } end,
    step = function(p, x, s, ctx, c)
      local steps = ctx.mask.dims[1] -- the longest sequence, a symbol
      local q = op.reshape(op.matmul(s.h, p.query), { 1, c.size })
      local score = op.reshape(op.matmul(op.tanh(ctx.keys + q), p.score), { steps })
      local a = op.masked_softmax(score, ctx.mask)
      local context = op.reshape(op.bmm(op.reshape(a, { 1, steps }), ctx.memory), { c.memory })
      local z = op.matmul(op.concat { x, context }, p.w) + op.matmul(s.h, p.u) + p.b
      local r, u, n = op.split(z, 3)
      local h = op.sigmoid(u) * s.h + (1 - op.sigmoid(u)) * op.tanh(n * op.sigmoid(r))
      return h, { h = h }
    end,
  }
  local layer = decoder { size = 5, memory = 4 }
  local program = neap.program(function(rec)
    local memory = rec:input("memory", { space = "S", dims = { 4 } })
    local x = rec:input("x", { space = "T", dims = { 3 } })
    local y = layer(x, nil, { memory = op.padded(memory), mask = op.padding_mask(memory) })
    return { y = y, loss = op.mse(y, y * 0 + 0.3) }
  end)
  local rng = neap.rng(9)
  local function rows(n, w)
    local flat = {}
    for i = 1, n * w do flat[i] = rng:normal() end
    return neap.tensor(flat):reshape { n, w }
  end
  local batch = {
    memory = { data = rows(7, 4), lengths = neap.tensor({ 2, 5 }, "i32") },
    x = { data = rows(6, 3), lengths = neap.tensor({ 4, 2 }, "i32") },
  }

  it("has right gradients", function()
    local run = program:run { learn = true, double = true }
    local function loss() return run:feed(batch):forward():item() end
    loss()
    run:backward()
    gradients(run, program.params:names(), loss, 1e-8)
  end)

  it("streams to the same bits as the whole sequence", function()
    local whole = neap.program(function(rec)
      local memory = rec:input("memory", { space = "S", dims = { 4 } })
      local x = rec:input("x", { space = "T", dims = { 3 } })
      return { y = layer(x, nil, { memory = op.padded(memory), mask = op.padding_mask(memory) }) }
    end, { params = program.params })
    local run = whole:run()
    run:feed(batch):forward()
    local want = run:value "y"
    local stream = whole:stream()
    stream:context_batch(2)
    local space
    for i, s in ipairs(whole.spaces) do if s.name == "S" then space = i - 1 end end
    stream:context_lengths(space, batch.memory.lengths)
    stream:context(whole.inputs.memory, batch.memory.data, "concat")
    local from = { 0, 4 }
    for t = 1, 2 do -- both rows are alive
      local x = {}
      for b = 1, 2 do
        for k = 1, 3 do x[#x + 1] = batch.x.data:get(from[b] + t, k) end
      end
      stream:input(1, x)
      stream:step()
      assert.equal(want[t]:tobytes(), stream:output(1):tobytes())
    end
  end)
end)

describe("language_model", function()
  it("carries its state, scores, generates, is saved and loaded", function()
    local text = neap.corpus.from({ text = { ("abcd"):rep(300) } }, { split = { text = "characters" } })
    local v = neap.vocab(text, "text")
    local ids = text:encode("text", v)
    local model = neap.language_model { vocab = v, rng = neap.rng(1),
      net = neap.chain { neap.embed { size = 4 }, neap.elman { size = 12 } } }
    local optim = neap.adam { rate = 2e-2, clip = 1 }
    for _ = 1, 12 do
      for batch in neap.batches.stream(ids, { batch = 8, steps = 20 }) do model:learn(batch, optim) end
    end
    local scores = model:score(ids)
    assert.equal(1199, scores.n)
    assert.is_true(scores.nats < 0.1, "nats " .. scores.nats)
    -- the state is carried: the cut into steps changes nothing but rounding
    assert.is_true(math.abs(model:score(ids, { steps = 7 }).nats - scores.nats) < 1e-5)
    assert.equal("abcdabcdabcd", model:generate("ab", 10, { temperature = 0 }))
    local path = temporary("model")
    assert.is_true(model:save(path))
    local loaded = assert(neap.load(path))
    os.remove(path)
    assert.equal(model:generate("c", 30, { rng = neap.rng(4) }), loaded:generate("c", 30, { rng = neap.rng(4) }))
    assert.same(model:predict({ "ab", "d" }, { n = 2 }), loaded:predict({ "ab", "d" }, { n = 2 }))
  end)

  local function small(vocab)
    return neap.language_model { vocab = vocab, rng = neap.rng(1),
      net = neap.chain { neap.embed { size = 4 }, neap.gru { size = 6 } } }
  end
  local letters = neap.vocab.new { "a", "b", "c" }
  local ids = letters:tensor(("abcacb"):rep(20))
  local function stream(columns) return neap.batches.stream(ids, { batch = columns, steps = 5 }) end

  it("predicts the next symbols", function()
    local model = small(letters)
    local each = model:predict { "a", "abcab", { "c", "b" } }
    assert.equal(3, #each)
    local all = model:predict({ "a", "abcab", { "c", "b" } }, { n = 3 })
    for i, list in ipairs(all) do
      assert.same(each[i], list[1])
      local total = 0
      for k, p in ipairs(list) do
        assert.equal(letters:id(p.symbol), p.id)
        total = total + p.probability
        if k > 1 then assert.is_true(p.probability <= list[k - 1].probability) end
      end
      assert.near(1, total, 1e-12)
    end
    assert.equal(3, #model:predict({ "a" }, { n = 7 })[1])
    -- the likeliest symbol is the one that is written next
    for _, text in ipairs { "a", "abcab", "cb" } do
      assert.equal(text .. model:predict({ text })[1].symbol,
        model:generate(text, 1, { temperature = 0 }))
    end
    assert.same({}, model:predict {})
    local batch = stream(2)()
    local rows = {}
    for b = 1, 2 do
      rows[b] = {}
      for t = 1, 5 do rows[b][t] = letters:symbol(batch.input:get(t, b) + 1) end
    end
    assert.same(model:predict(rows), model:predict(batch))
  end)

  it("learns alike whatever is scored, predicted or written in between", function()
    local function losses(between)
      local model, list = small(letters), {}
      local optim = neap.sgd { rate = 0.1 }
      for batch in stream(4) do
        list[#list + 1] = model:learn(batch, optim)
        between(model, batch)
      end
      return list
    end
    local alone = losses(function() end)
    assert.is_true(#alone > 3)
    assert.same(alone, losses(function(model, batch)
      model:score(ids)
      model:score(ids, { columns = 4 })
      model:loss(batch)
      model:predict { "ab" }
      model:generate("a", 3)
      -- of one row and without `first`: it stands alone, and is learned at a rate of 0
      model:learn({ input = neap.tensor({ { 0 }, { 1 } }, "i32"),
        target = neap.tensor({ { 1 }, { 2 } }, "i32") }, neap.sgd { rate = 0 })
    end))
  end)

  it("carries its state on, unless a batch starts anew", function()
    local model, optim, still = small(letters), neap.sgd { rate = 0.5 }, neap.sgd { rate = 0 }
    for batch in stream(4) do model:learn(batch, optim) end
    local pass = stream(4)
    local first, second = pass(), pass()
    local function learn(batch, anew)
      local copy = { first = anew }
      for k, v in pairs(batch) do if k ~= "first" then copy[k] = v end end
      return model:learn(copy, still)
    end
    local fresh = learn(second, true)
    assert.equal(fresh, learn(second, nil))
    learn(first, true)
    local carried = learn(second, false)
    assert.not_equal(fresh, carried)
    assert.equal(fresh, model:loss(second))
    learn(first, true)
    assert.equal(carried, learn(second, false))
    raises("learn: the batch has 2 rows, the state that it goes on from has 4: a batch that starts "
      .. "anew has first = true", function()
      local other = stream(2)
      other()
      model:learn(other(), still)
    end)
    learn(first, true)
    model:learn(stream(2)(), still) -- starts anew with other rows
  end)

  it("gives one loss for a batch, whatever ran before", function()
    local model, batch = small(letters), stream(4)()
    local loss = model:loss(batch)
    model:score(ids)
    assert.equal(loss, model:loss(batch))
    model:score(ids, { columns = 4 })
    for _ = 1, 3 do assert.equal(loss, model:loss(batch)) end
    local score = model:score(ids)
    for b in stream(4) do model:learn(b, neap.sgd { rate = 0 }) end
    assert.equal(loss, model:loss(batch))
    assert.same(score, model:score(ids))
    assert.matches("^n 119  nats [%d.]+  perplexity [%d.]+$", tostring(score))
  end)

  it("reads and writes words as they were in training", function()
    local text = neap.corpus.from({ text = { ("the cat saw the dog . "):rep(40) } },
      { split = { text = "words" } })
    local words = neap.vocab(text, "text", { unk = true })
    local model, optim = small(words), neap.adam { rate = 2e-2 }
    local all = neap.batches.stream(text:encode("text", words), { batch = 4, steps = 10 })
    for _ = 1, 20 do
      for batch in all do model:learn(batch, optim) end
    end
    local path = temporary("model")
    assert.is_true(model:save(path))
    local loaded = assert(neap.load(path))
    os.remove(path)
    for _, m in ipairs { model, loaded } do
      local function write(prompt, n) return m:generate(prompt, n, { temperature = 0 }) end
      assert.equal("saw the dog . the", write("saw the", 3))
      assert.equal("saw the dog .", write({ "saw", "the" }, 2))
      assert.equal("saw the\ndog .", write("saw the\n", 2))
      assert.equal("saw the ", write("saw the ", 0))
      assert.equal("dog", m:predict { "saw the" }[1].symbol)
    end
  end)

  it("says what is wrong", function()
    local model = small(letters)
    local function generates(text, ...)
      local values = table.pack(...)
      raises("generate: " .. text, function()
        model:generate(table.unpack(values, 1, values.n))
      end)
    end
    for _, temperature in ipairs { -1, 0 / 0, "1" } do
      generates("temperature: expected a number from 0, came", "a", 3,
        { temperature = temperature })
    end
    generates("rng: expected a source of chance such as neap.rng(17), came 5", "a", 3, { rng = 5 })
    generates("each: expected a function, came 5", "a", 3, { each = 5 })
    generates("prompt: expected a string or a list of symbols, came nil", nil, 3)
    raises("feed: the batch has none of the inputs input, target; it has first", function()
      model:forward { first = true }
    end)
    raises("score: columns: expected an integer from 1, came \"4\"", function()
      model:score(ids, { columns = "4" })
    end)
    raises("score: steps: expected an integer from 1, came 0", function()
      model:score(ids, { steps = 0 })
    end)
    raises("predict: text 2 is empty: say at least one symbol", function()
      model:predict { "a", "" }
    end)
    raises("predict: n: expected an integer from 1, came 0", function()
      model:predict({ "a" }, { n = 0 })
    end)
    raises("predict: expected a list of sequences or a batch, came \"a\"", function()
      model:predict "a"
    end)
  end)
end)

describe("synced_seq2seq of numbers", function()
  -- y_t = (0.5 x_t + 0.3 x_t-1, x_t-1)
  local rng = neap.rng(5)
  local function data(n)
    local x, y = {}, {}
    for i = 1, n do
      x[i], y[i] = {}, {}
      local before = 0
      for t = 1, 3 + rng:int(5) do
        local now = rng:uniform() - 0.5
        x[i][t], y[i][t], before = now, { 0.5 * now + 0.3 * before, before }, now
      end
    end
    return neap.corpus.from { x = x, y = y }
  end
  local train = data(60)
  local fields = { input = train:encode "x", output = train:encode "y" }
  local function made(loss)
    return neap.synced_seq2seq { input = 1, output = 2, loss = loss, rng = neap.rng(3),
      net = neap.elman { size = 8 } }
  end

  for _, loss in ipairs { "mse", "mae", "huber" } do
    it("learns them by " .. loss .. ", streams, is saved and loaded", function()
      local model = made(loss)
      local before = model:score(fields)
      assert.equal(2 * train:get("x", 1):shape()[1],
        model:score({ input = { data = train:get("x", 1),
          offsets = neap.tensor({ 0, train:get("x", 1):shape()[1] }, "i32") },
          output = { data = train:get("y", 1),
            offsets = neap.tensor({ 0, train:get("x", 1):shape()[1] }, "i32") } }).n)
      learn(model, fields, 150, 2e-2, neap.rng(1))
      local after = model:score(fields)
      assert(after.rmse < 0.2 * before.rmse, after.rmse)
      local path = temporary "numbers"
      assert(model:save(path))
      local loaded = assert(neap.load(path))
      os.remove(path)
      assert.equal(2, loaded.output)
      assert.equal(after.rmse, loaded:score(fields).rmse)
      local rows = { { 0.1 }, { 0.4 }, { -0.2 } }
      local said = loaded:predict({ rows, { { 1 } } })
      assert.same({ 3, 2 }, said[1]:shape())
      assert.same({ 1, 2 }, said[2]:shape())
      local stream = loaded:program "predict":stream()
      for t, row in ipairs(rows) do
        stream:input(1, row)
        stream:step()
        assert.equal(said[1][t]:tobytes(), stream:output(1)[1]:tobytes())
      end
      local batch = neap.batches(fields, { size = 3 })()
      assert.equal(model:loss(batch), loaded:loss(batch))
    end)
  end

  it("is fitted like any task, and answers nothing with nothing", function()
    local model = made()
    local result = neap.fit(model, { optim = neap.adam { rate = 1e-2 }, epochs = 3, key = "rmse",
      quiet = true, train = function() return neap.batches(fields, { size = 16 }) end,
      dev = function() return model:score(fields) end })
    assert.equal(3, result.epoch) -- less is better
    assert.same({ 0, 2 }, model:predict({ {} })[1]:shape())
    local nothing = model:score { input = { data = neap.zeros { 0, 1 },
      offsets = neap.tensor({ 0 }, "i32") }, output = { data = neap.zeros { 0, 2 },
      offsets = neap.tensor({ 0 }, "i32") } }
    assert.is_true(nothing.rmse ~= nothing.rmse)
  end)

  it("says what does not fit", function()
    raises('synced_seq2seq: loss: expected "mse", "mae" or "huber", as the outputs are numbers, came '
      .. '"crf"', function() made "crf" end)
    raises('synced_seq2seq: loss: expected "cross_entropy", "crf" or "ctc", came "mse"', function()
      neap.synced_seq2seq { input = 1, output = neap.vocab.new { "a" }, loss = "mse",
        net = neap.elman { size = 2 } }
    end)
    raises("synced_seq2seq: output: expected a vocabulary, or a width for numbers, came 1.5", function()
      neap.synced_seq2seq { input = 1, output = 1.5, net = neap.elman { size = 2 } }
    end)
    raises("synced_seq2seq: output: expected an integer from 1, came 0", function()
      neap.synced_seq2seq { input = 1, output = 0, net = neap.elman { size = 2 } }
    end)
    raises('synced_seq2seq: focal: an option of the loss "cross_entropy", the task\'s is "mse"',
      function() neap.synced_seq2seq { input = 1, output = 1, focal = 2, net = neap.elman { size = 2 } } end)
    raises("posteriors: expected a model of symbols, this one's outputs are numbers", function()
      made():posteriors { { { 1 } } }
    end)
    raises('predict: beam: an option of the loss "ctc"', function()
      made():predict({ { { 1 } } }, { beam = 2 })
    end)
  end)
end)

describe("synced_seq2seq", function()
  local data = neap.corpus.from(
    { words = { "a b c", "b b", "x x" }, tags = { "A B ?", "B A", "? ?" } },
    { split = { words = "words", tags = "words" } })
  local words, tags = neap.vocab(data, "words"), neap.vocab.new { "A", "B" }
  local model = neap.synced_seq2seq { input = { words = words }, output = tags, rng = neap.rng(1),
    net = function(x) return neap.embed { size = 2 }(x.words) end }

  it("leaves out of its score what the loss leaves out", function()
    local optim = neap.adam { rate = 0.1 }
    local fields = { words = data:encode("words", words),
      output = data:encode("tags", tags, { unknown = "ignore" }) }
    for _ = 1, 60 do
      for batch in neap.batches(fields) do model:learn(batch, optim) end
    end
    local right = neap.corpus.from({ words = { "a b c", "x x" }, tags = { "A B ?", "? ?" } },
      { split = { words = "words", tags = "words" } })
    local score = model:score { words = right:encode("words", words),
      output = right:encode("tags", tags, { unknown = "ignore" }) }
    assert.equal(2, score.n)
    assert.equal(1, score.accuracy)
    assert.equal(1, score.sequence_accuracy)
    score = model:score(fields) -- one of "b b" is wrong
    assert.equal(4, score.n)
    assert.equal(0.75, score.accuracy)
    assert.equal(0.5, score.sequence_accuracy)
    assert.equal("accuracy 0.7500  n 4  sequence_accuracy 0.5000", tostring(score))
    raises("score: unknown option \"sise\"; did you mean \"size\"?", function()
      model:score(fields, { sise = 3 })
    end)
    raises("score: expected a table of options, came 3", function() model:score(fields, 3) end)
  end)

  it("takes a string as in training", function()
    assert.same(model:predict { { "a", "b", "b" } }, model:predict { "a b  b" })
    assert.equal(3, #model:predict { "a b b" }[1])
  end)

  it("says which sequence of which file does not fit", function()
    local folder = help.folder()
    finally(folder.remove)
    local path = folder.write("bad.tsv", "a b\tA B\n\nb a b\tB A\na\tA\n")
    local bad = assert(neap.corpus.tsv(path, { columns = { "words", "tags" },
      split = { words = "words", tags = "words" } }))
    local optim = neap.adam { rate = 0.1 }
    for _, rng in ipairs { false, neap.rng(1), neap.rng(2) } do
      for batch in neap.batches({ words = bad:encode("words", words),
        output = bad:encode("tags", tags) }, { rng = rng or nil }) do
        raises("feed: inputs output and words are of the same sequence T, but their lengths "
          .. "differ: " .. path .. ", sequence 2 (line 3): 2 tags, 3 words", function()
          model:learn(batch, optim)
        end)
      end
    end
    raises("score: inputs and outputs differ in length: " .. path .. ", sequence 2 (line 3): "
      .. "3 words, 2 tags", function()
      model:score { words = bad:encode("words", words), output = bad:encode("tags", tags) }
    end)
  end)
end)

describe("forecaster", function()
  it("has losses that mind outliers less", function()
    local function loss(name)
      local model = neap.forecaster { rng = neap.rng(1), net = neap.gru { size = 2 }, loss = name }
      local target, run = { { 1, 2, 50, 3 } }, nil
      local batch = model:batch(target)
      local value = model:loss(batch)
      run = model:run "predict":feed { input = batch.input }:forward()
      local squares, sizes, huber = 0, 0, 0
      for t, want in ipairs { 2, 50, 3 } do
        local d = math.abs(want - run:value("next", "concat"):get(t, 1))
        squares, sizes = squares + d * d / 3, sizes + d / 3
        huber = huber + (d <= 1 and d * d / 2 or d - 0.5) / 3
      end
      return value, { mse = squares, mae = sizes, huber = huber }
    end
    for _, name in ipairs { "mse", "mae", "huber" } do
      local came, expected = loss(name)
      assert.near(expected[name], came, 1e-5 * expected[name])
    end
    assert.equal(loss(nil), loss "mse")
    raises('forecaster: loss: expected "mse", "mae" or "huber", came "l1"', function()
      neap.forecaster { net = neap.gru { size = 2 }, loss = "l1" }
    end)
  end)

  it("forecasts one step ahead and rolls out alike", function()
    local series = {}
    for t = 1, 60 do series[t] = math.sin(t / 3) end
    local model = neap.forecaster { rng = neap.rng(1), net = neap.gru { size = 12 } }
    local optim, batch = neap.adam { rate = 1e-2 }, nil
    batch = model:batch { series }
    for _ = 1, 150 do model:learn(batch, optim) end
    local before = model:score { series }
    assert.is_true(before.rmse < 0.1, "rmse " .. before.rmse)
    -- the first value rolled out is the one step ahead after the last
    local ahead = model:predict(series)
    assert.equal(60, #ahead)
    assert.equal(ahead[60], model:rollout(series, 3)[1])
    assert.matches("^n 59  rmse 0%.0%d+$", tostring(before))
    -- the same series from a corpus
    local corpus = neap.corpus.from { y = { series } }
    assert.same(ahead, model:predict(corpus:get("y", 1)))
    assert.near(before.rmse, model:score { corpus:get("y", 1) }.rmse, 1e-7) -- the series in f32
    assert.same(batch.target.data:totable(),
      model:batch { corpus:get("y", 1) }.target.data:totable())
    assert.same(model:rollout(series, 3), model:rollout(corpus:get("y", 1), 3))
  end)

  it("takes rows of numbers", function()
    local model = neap.forecaster { size = 2, rng = neap.rng(1), net = neap.gru { size = 3 } }
    local series = { { { 1, 2 }, { 3, 4 }, { 5, 6 } }, { { 7, 8 }, { 9, 10 } } }
    local batch = model:batch(series)
    assert.same({ { 1, 2 }, { 3, 4 }, { 7, 8 } }, batch.input.data:totable())
    assert.same({ { 3, 4 }, { 5, 6 }, { 9, 10 } }, batch.target.data:totable())
    assert.same({ 2, 1 }, batch.input.lengths:totable())
    assert.equal("neap.batch: 2 rows; input f32 [3,2], target f32 [3,2]", tostring(batch))
    assert.same(model:predict(series[1])[3], model:rollout(series[1], 2)[1])
    assert.equal(6, model:score(series).n)
  end)

  it("says which step of which series is wrong", function()
    local one = neap.forecaster { rng = neap.rng(1), net = neap.gru { size = 2 } }
    local two = neap.forecaster { size = 2, rng = neap.rng(1), net = neap.gru { size = 2 } }
    local nan, corpus = 0 / 0, neap.corpus.from { y = { { 1, 2 } } }
    for _, name in ipairs { "batch", "score" } do
      local function wrong(text, list)
        raises(name .. ": " .. text, function() one[name](one, list) end)
      end
      wrong("series 1, step 2: expected 1 number, came 2", { { 1, { 2, 3 } } })
      wrong("series 2, step 1: expected a finite number, came", { { 1, 2 }, { nan, 2 } })
      wrong("series 1, step 2: expected 1 number, came \"x\"", { { 1, "x" } })
      wrong("expected a list of series, came a list of numbers: one series is { series }",
        { 0.1, 0.2, 0.3 })
      wrong("expected a list of series, came corpus a script: 1 sequence; y", corpus)
      wrong("expected a list of series, came nil", nil)
      wrong("series 2: expected a list of numbers or of rows, came 5", { { 1, 2 }, 5 })
    end
    raises("batch: series 1, step 1: expected 2 numbers, came 1", function()
      two:batch { { 1, 2 }, { 3, 4 } }
    end)
    raises("batch: series 2, step 1: expected a finite number, came inf", function()
      two:batch { { { 1, 2 }, { 3, 4 } }, { { 1, 1 / 0 }, { 3, 4 } } }
    end)
    raises("batch: series 2 has 1 step, at least 2 are needed", function()
      one:batch { { 1, 2 }, { 1 } }
    end)
    raises("batch: expected at least one series, came none", function() one:batch {} end)
    raises("rollout: step 2: expected a finite number, came", function()
      one:rollout({ 1, nan, 2 }, 3)
    end)
    raises("rollout: series: expected a list of numbers or of rows, came 5", function()
      one:rollout(5, 3)
    end)
    raises("predict: step 1: expected a finite number, came", function() one:predict { nan } end)
  end)
end)

describe("files of tasks", function()
  it("refuse what they are not", function()
    local path = temporary("x")
    local f = assert(io.open(path, "wb"))
    f:write("this is no model, but it is longer than eight bytes")
    f:close()
    local m, message, code = neap.load(path)
    os.remove(path)
    assert.is_nil(m)
    assert.equal("EFORMAT", code)
    assert.matches(path, message, 1, true)
    m, message, code = neap.load(path .. ".missing")
    assert.is_nil(m)
    assert.equal("EIO", code)
    local params = core.params()
    params:add("w", { 2 })
    local archive = core.archive()
    archive:add("w", params:get "w")
    assert.is_true(archive:save(path))
    m, message, code = neap.load(path)
    os.remove(path)
    assert.is_nil(m)
    assert.equal("EFORMAT", code)
    assert.matches("carries no neap programs", message)
  end)
end)

describe("fit", function()
  it("keeps the best, stops early, follows the rate", function()
    local series = {}
    for t = 1, 30 do series[t] = math.sin(t / 3) end
    local model = neap.forecaster { rng = neap.rng(1), net = neap.elman { size = 4 } }
    local batch = model:batch { series }
    local rates, scores = {}, { 0.5, 0.7, 0.6, 0.65, 0.1 }
    local kept
    local optim = neap.sgd { rate = 0.1 }
    local epoch = 0
    local result = neap.fit(model, { optim = optim, epochs = 5, patience = 2, quiet = true,
      rate = function(e, first) return first / e end,
      train = function()
        local given = false
        return function() if not given then given = true return batch end end
      end,
      dev = function()
        epoch = epoch + 1
        rates[epoch] = optim:rate()
        if epoch == 2 then kept = model.params:get("net.head.weight"):totable()[1][1] end
        return { accuracy = scores[epoch] }
      end })
    assert.equal(4, result.epochs) -- two epochs without a better one
    assert.equal(2, result.epoch)
    assert.equal(0.7, result.best.accuracy)
    assert.equal(kept, model.params:get("net.head.weight"):totable()[1][1])
    assert.same({ 0.1, 0.05, 0.1 / 3, 0.025 }, rates)
  end)

  -- A fit of one batch an epoch, the batches one object for all of them.
  local function prepare(options)
    local model = neap.forecaster { rng = neap.rng(1), net = neap.elman { size = 4 } }
    local batch, lines = model:batch { { 1, 2, 3, 4 } }, {}
    local out = { write = function(_, ...) lines[#lines + 1] = table.concat { ... } end,
      flush = function() end }
    local given = { optim = neap.sgd { rate = 1e-3 }, epochs = 3, out = out,
      train = function()
        local done = false
        return function()
          done = not done
          return done and batch or nil
        end
      end }
    for name, value in pairs(options) do given[name] = value end
    return model, given, lines
  end
  local function fit(options)
    local model, given, lines = prepare(options)
    return neap.fit(model, given), lines
  end

  it("knows scores of which less is better, and offers no count", function()
    local model = neap.forecaster { net = neap.gru { size = 2 }, rng = neap.rng(1) }
    local function best(options)
      local epoch = 0
      options.optim, options.epochs, options.quiet = neap.sgd { rate = 0 }, 4, true
      function options.train()
        local one = { model:batch { { 1, 2, 3 } } }
        return function() return table.remove(one) end
      end
      function options.dev()
        epoch = epoch + 1
        return { rmse = ({ 3, 1, 2, 4 })[epoch], score = ({ 3, 1, 2, 4 })[epoch], n = 7 }
      end
      return neap.fit(model, options).epoch
    end
    assert.equal(2, best { key = "rmse" })
    assert.equal(4, best { key = "rmse", lower = false })
    assert.equal(4, best { key = "score" })
    assert.equal(2, best { key = "score", lower = true })
    assert.matches('came one with rmse, score: say which counts, key = "rmse"',
      select(2, pcall(best, {})), 1, true)
    assert.is_true(model:score({}).rmse ~= model:score({}).rmse) -- nothing is no best score
  end)

  it("puts the parameters back that an average stands for, if its scores fail", function()
    local model = neap.forecaster { net = neap.gru { size = 2 }, rng = neap.rng(1) }
    local own
    local ok = pcall(neap.fit, model, { optim = neap.sgd { rate = 0.1 }, epochs = 1, quiet = true,
      average = neap.average { decay = 0.9 },
      train = function()
        local n = 0
        return function()
          n = n + 1
          own = model.params:get "net.gru.weight_hh":tobytes()
          if n < 5 then return model:batch { { 1, 2, 3 } } end
        end
      end,
      dev = function()
        assert.not_equal(own, model.params:get "net.gru.weight_hh":tobytes())
        error("mine", 0)
      end })
    assert.is_false(ok)
    assert.equal(own, model.params:get "net.gru.weight_hh":tobytes())
  end)

  it("takes any number for better than NaN", function()
    for _, lower in ipairs { true, false } do
      local n = 0
      local result = fit { lower = lower, key = "x", dev = function()
        n = n + 1
        return { x = ({ 0 / 0, 0.5, 0 / 0 })[n] }
      end }
      assert.equal(2, result.epoch)
      assert.equal(0.5, result.best.x)
    end
    assert.equal(1, fit { key = "x", dev = function() return { x = 0 / 0 } end }.epoch)
  end)

  it("writes significant digits, and what it gives prints", function()
    local result, lines = fit { epochs = 1, key = "rmse", lower = true,
      dev = function() return { rmse = 0.00031234 } end }
    assert.matches("^epoch 1/1  loss %d+%.%d+  rmse 0%.0003123  rate 0.001", lines[1])
    assert.matches("^best %(rmse 0%.0003123%)  epoch 1  epochs 1  interrupted false  memory_mb %S+  seconds ",
      tostring(result))
    assert.matches("^best %(loss [%d.]+%)  epoch 2", tostring(fit { epochs = 2 }))
  end)

  it("goes through one batches object in each epoch", function()
    local letters = neap.vocab.new { "a", "b" }
    local model = neap.seq2class { input = letters, output = letters, rng = neap.rng(1),
      net = neap.chain { neap.embed { size = 2 }, neap.elman { size = 2 } } }
    local corpus = neap.corpus.from { text = { "a", "b", "a" }, class = { "a", "b", "a" } }
    local all = neap.batches({ input = corpus:encode("text", letters),
      output = corpus:label("class", letters) }, { size = 2, rng = neap.rng(1) })
    local result = neap.fit(model, { optim = neap.sgd { rate = 0.1 }, epochs = 3, quiet = true,
      train = function() return all end })
    assert.equal(3, result.epochs)
  end)

  it("says what is wrong with its options", function()
    raises("fit: optim: expected an optimizer such as neap.adam{ rate = 1e-3 }, came", function()
      neap.fit(neap.forecaster { rng = neap.rng(1), net = neap.elman { size = 4 } })
    end)
    raises("fit: expected a task, came nil", function() neap.fit() end)
    for text, options in pairs {
      ["patience: counts epochs without a better score, which needs dev, came none"] =
        { patience = 1 },
      ["minutes: expected a number from 0, came -1"] = { minutes = -1 },
      ["minutes: expected a number from 0, came \"1\""] = { minutes = "1" },
      ["rate: expected a function, came 0.1"] = { rate = 0.1 },
      ["rate: expected a function that gives a number, came one that gives nil"] =
        { rate = function() end },
      ["optim: expected an optimizer such as neap.adam{ rate = 1e-3 }, came a function"] =
        { optim = neap.adam },
      ["optim: expected an optimizer such as neap.adam{ rate = 1e-3 }, came gru"] =
        { optim = neap.gru { size = 2 } },
      ["key: expected a string, came 1"] = { key = 1 },
      ["out: expected a file, came 5"] = { out = 5 },
    } do
      local model, given = prepare(options)
      raises("fit: " .. text, function() neap.fit(model, given) end)
    end
  end)

  -- three batches an epoch, each of a second by a clock of ours, in epoch `slow` of three; what
  -- `rate` is told of the share that is over
  local clock = core.clock
  after_each(function() core.clock = clock end)
  local function shares(epochs, minutes, slow)
    local now = 0
    core.clock = function() return now end
    local model = neap.forecaster { rng = neap.rng(1), net = neap.elman { size = 4 } }
    local batch, told = model:batch { { 1, 2, 3, 4 } }, {}
    local result = neap.fit(model, { optim = neap.sgd { rate = 0.1 }, epochs = epochs, quiet = true,
      minutes = minutes,
      rate = function(_, first, done)
        told[#told + 1] = done
        return first
      end,
      train = function(epoch)
        local n = 0
        return setmetatable({}, { __len = function() return 3 end, __call = function()
          n = n + 1
          if n > 1 then now = now + (epoch == slow and 3 or 1) end
          if n <= 3 then return batch end
        end })
      end })
    return told, result.epochs
  end

  it("tells how much of the training is over, by epochs", function()
    local told = shares(2)
    assert.equal(6, #told)
    for i, done in ipairs(told) do assert.near((i - 1) / 6, done, 1e-12) end
  end)

  it("tells how much of the training is over, by the minutes if they end it first", function()
    local told, epochs = shares(1000, 10 / 60) -- 10 s have room for 3 epochs of 3 s
    assert.equal(3, epochs)
    assert.equal(0, told[1])
    for i = 2, 9 do assert.near((i - 1) / 9, told[i], 1e-12) end
  end)

  it("takes one slow epoch for what it is", function()
    local told, epochs = shares(1000, 30 / 60, 2) -- 3 s, 9 s, then 3 s each
    assert.equal(7, epochs)
    for epoch, all in ipairs { 10, 10, 5, 6, 6, 7, 7 } do
      assert.near((epoch - 1) / all, told[3 * epoch - 2], 1e-12)
    end
  end)
end)

describe("a watched layer", function()
  local vocab = neap.vocab.new { "a", "b", "c", start = true, stop = true }

  -- What f(model) gives is the same whether its layers are watched or not.
  local function same(make, f)
    local plain, watched = make(false), make(true)
    local expected = f(plain)
    assert.same(expected, f(watched))
    local path = temporary "watched"
    finally(function() os.remove(path) end)
    assert(watched:save(path))
    assert.same(expected, f(assert(neap.load(path))))
  end

  it("changes nothing of what a language model writes", function()
    same(function(watch)
      return neap.language_model { vocab = vocab, rng = neap.rng(1),
        net = neap.chain { neap.embed { size = 3 }, neap.lstm { size = #vocab, watch = watch } } }
    end, function(model) return model:generate("ab", 6, { temperature = 0 }) end)
  end)

  it("changes nothing of a forecast", function()
    same(function(watch)
      return neap.forecaster { size = 2, rng = neap.rng(2), net = neap.gru { size = 2, watch = watch } }
    end, function(model) -- a layer that is looked into is a loop: other bits
      local out = {}
      for i, row in ipairs(model:rollout({ { 1, 2 }, { 3, 4 } }, 3)) do
        out[i] = ("%.5f %.5f"):format(row[1], row[2])
      end
      return out
    end)
  end)

  it("changes nothing of what an encoder and a decoder make", function()
    same(function(watch)
      return neap.async_seq2seq { input = vocab, output = vocab, rng = neap.rng(3), max_length = 5,
        encoder = neap.chain { neap.embed { size = 3 }, neap.lstm { size = 4, watch = watch } },
        decoder = neap.decoder { embed = 3, layers = { neap.lstm { size = 4, watch = watch } } } }
    end, function(model) return model:predict({ "abca", "b" }, { beam = 2 }) end)
  end)
end)

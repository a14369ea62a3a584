-- Tagging with neighbours that count (loss = "crf") and with fewer outputs than steps (loss =
-- "ctc"): what they learn, save, answer to without Lua, and refuse.
local neap = require "neap"
local op = neap.op
local ctc = require "neap.ctc"
local help = require "data_help"
local host = require "host_help"
local raises = help.raises

local function trained(options, fields, steps, rate)
  local model, optim = neap.synced_seq2seq(options), neap.adam { rate = rate or 0.1 }
  for _ = 1, steps do
    for batch in neap.batches(fields, { size = 100 }) do model:learn(batch, optim) end
  end
  return model
end

-- Saved, loaded and asked without Lua, a model answers as it does here.
local function same_elsewhere(model, lines)
  local path, text = os.tmpname(), {}
  assert(model:save(path))
  local loaded = assert(neap.load(path))
  assert.same(model:predict(lines), loaded:predict(lines))
  for i, tags in ipairs(model:predict(lines)) do text[i] = table.concat(tags, " ") end
  local out, err, status = host.execute(("%s %s"):format(host.run_model, path),
    table.concat(lines, "\n") .. "\n")
  assert.equal("", err)
  assert.equal(0, status)
  assert.equal(table.concat(text, "\n") .. "\n", out)
  os.remove(path)
  return loaded
end

describe("a tagger", function()
  -- The first word tells the first tag; from there on tags alternate, whatever the words.
  local lines = {
    words = { "so la la la", "to la la", "so la", "to", "to la la la la", "so la la" },
    tags = { "A B A B", "B A B", "A B", "B", "B A B A B", "A B A" },
  }
  local split = { split = { words = "words", tags = "words" } }
  local data = neap.corpus.from(lines, split)
  local words, tags = neap.vocab(data, "words"), neap.vocab.new { "A", "B" }
  local fields = { words = data:encode("words", words), output = data:encode("tags", tags) }
  local function options(more)
    local out = { input = { words = words }, output = tags, rng = neap.rng(1),
      net = function(x) return neap.embed { size = 3 }(x.words) end }
    for k, v in pairs(more) do out[k] = v end
    return out
  end

  it("learns from a CRF what its network cannot see", function()
    local plain = trained(options {}, fields, 60):score(fields)
    assert(plain.accuracy < 0.8, plain.accuracy)
    local model = trained(options { loss = "crf" }, fields, 60)
    local scores = model:score(fields)
    assert.equal(1, scores.accuracy)
    assert.equal(1, scores.sequence_accuracy)
    assert.same({ { "B", "A", "B", "A" }, { "A" } }, model:predict { "to la la la", "so" })
    local a = model.params:get "net.crf.transitions"
    assert(a:get(1, 2) > a:get(1, 1) + 1 and a:get(2, 1) > a:get(2, 2) + 1)
  end)

  it("gives probabilities of tags that sum to 1, those of whole sequences", function()
    local model = trained(options { loss = "crf" }, fields, 20)
    local run = model:run "predict"
    run:feed(neap.batches({ words = data:encode("words", words) })()):forward()
    local scores = run:value("scores", "concat")
    for t = 1, scores:shape()[1] do
      assert.near(1, scores:get(t, 1) + scores:get(t, 2), 1e-5)
    end
  end)

  it("learns from what is known of a sequence alone", function()
    local some = neap.corpus.from({ words = lines.words,
      tags = { "A ? ? B", "B ? B", "? B", "B", "? A B A ?", "A ? A" } }, split)
    local model = trained(options { loss = "crf" }, { words = data:encode("words", words),
      output = some:encode("tags", tags, { unknown = "ignore" }) }, 80)
    assert.equal(1, model:score(fields).accuracy)
    local none = neap.corpus.from({ words = { "so la" }, tags = { "? ?" } }, split)
    local batch = neap.batches({ words = none:encode("words", words),
      output = none:encode("tags", tags, { unknown = "ignore" }) })()
    assert.near(0, model:learn(batch, neap.sgd { rate = 0.1 }), 1e-6)
  end)

  it("with a CRF is the same saved, loaded and without Lua", function()
    local model = trained(options { loss = "crf" }, fields, 60)
    local loaded = same_elsewhere(model, { "so la la la la la", "to", "to la" })
    assert.equal(1, loaded:score(fields).accuracy)
    local batch = neap.batches(fields, { size = 100 })()
    assert.equal(model:loss(batch), loaded:loss(batch))
    raises("stream: cannot step: crf_marginals reads later steps", function()
      loaded:program "predict":stream()
    end)
  end)

  it("has losses that weigh classes", function()
    local first = { words = data:encode("words", words), output = data:encode("tags", tags) }
    local batch = neap.batches(first, { size = 100 })()
    local plain = neap.synced_seq2seq(options {}):loss(batch)
    local only = neap.synced_seq2seq(options { weights = { A = 0 } })
    local other = neap.synced_seq2seq(options { weights = { B = 0 } })
    local many = neap.synced_seq2seq(options { weights = { A = 3, B = 3 } })
    assert.near(plain, many:loss(batch), 1e-6)
    assert.near(plain, (only:loss(batch) * 10 + other:loss(batch) * 8) / 18, 1e-5)
    assert(neap.synced_seq2seq(options { focal = 2 }):loss(batch) < plain)
    local path = os.tmpname()
    assert(only:save(path)) -- weights stay as they are when training goes on
    local loaded = assert(neap.load(path))
    os.remove(path)
    assert.equal(only:loss(batch), loaded:loss(batch))
    loaded:learn(batch, neap.sgd { rate = 1 })
    assert.same({ 0, 1 }, loaded.params:get "class_weights":totable())
  end)

  it("learns further outputs along, and answers without them", function()
    local also = { half = neap.vocab.new { "x", "y" }, quarter = neap.vocab.new { "p", "q", "r", "s" } }
    local ids = { data = fields.output.data, offsets = fields.output.offsets }
    local all = { words = fields.words, output = fields.output, half = ids, quarter = ids }
    for _, loss in ipairs { "cross_entropy", "crf" } do
      local model = neap.synced_seq2seq(options { loss = loss, also = also })
      local batch = neap.batches(all, { size = 100 })()
      model:loss(batch)
      for _, name in ipairs(model.params:names()) do
        model.params:set(name, neap.zeros(model.params:shape(name)))
      end
      assert.near(math.log(2) * (1 + (1 + 2) / 2), model:loss(batch), 1e-5) -- all answers alike
    end
    local model = trained(options { loss = "crf", also = also }, all, 60)
    assert.equal(1, model:score(fields).accuracy)
    local loaded = same_elsewhere(model, { "so la la la la la", "to", "to la" })
    local batch = neap.batches(all, { size = 100 })()
    assert.equal(model:loss(batch), loaded:loss(batch))
    assert.same({ "half", "quarter" }, { loaded.also[1].name, loaded.also[2].name })
    assert.same({ "p", "q", "r", "s" }, loaded.also[2].vocab.symbols)

    batch.half = nil
    raises("learn: the batch has no field half; it has output, quarter, words", function()
      model:learn(batch, neap.sgd { rate = 1 })
    end)
    local function refuses(message, more)
      raises("synced_seq2seq: also: " .. message, function()
        neap.synced_seq2seq(options(more))
      end)
    end
    refuses("expected names that no input or output has, came \"words\"", { also = { words = tags } })
    refuses("expected names that no input or output has, came \"output\"", { also = { output = tags } })
    refuses("expected names that no input or output has, came 1", { also = { tags } })
    refuses("half: expected a vocabulary, came 2", { also = { half = 2 } })
    refuses("outputs of each step, which the loss \"ctc\" has not", { loss = "ctc", also = also })
  end)

  it("refuses options that its loss has not", function()
    raises('synced_seq2seq: loss: expected "cross_entropy", "crf" or "ctc", came "csf"', function()
      neap.synced_seq2seq(options { loss = "csf" })
    end)
    raises('synced_seq2seq: smoothing: an option of the loss "cross_entropy", the task\'s is "crf"',
      function() neap.synced_seq2seq(options { loss = "crf", smoothing = 0.1 }) end)
    raises('synced_seq2seq: beam: an option of the loss "ctc", the task\'s is "cross_entropy"',
      function() neap.synced_seq2seq(options { beam = 3 }) end)
    raises("synced_seq2seq: zero: expected true or false, came 1", function()
      neap.synced_seq2seq(options { loss = "ctc", zero = 1 })
    end)
    raises("synced_seq2seq: beam: expected an integer from 0 to 1000, came -1", function()
      neap.synced_seq2seq(options { loss = "ctc", beam = -1 })
    end)
    raises("weights: expected symbols of the output and their numbers, came \"C\" = 1", function()
      neap.synced_seq2seq(options { weights = { C = 1 } })
    end)
    raises("synced_seq2seq: weights: A: expected a number from 0 to 1e+06, came -1", function()
      neap.synced_seq2seq(options { weights = { A = -1 } })
    end)
    raises("synced_seq2seq: focal: expected none beside smoothing, came 1", function()
      neap.synced_seq2seq(options { focal = 1, smoothing = 0.1 })
    end)
  end)
end)

describe("an empty sequence read by ctc", function()
  it("is answered with nothing, whatever the beam", function()
    local v = neap.vocab.new { "a", "b" }
    local model = neap.synced_seq2seq { input = v, output = v, loss = "ctc", rng = neap.rng(1),
      net = neap.chain { neap.embed { size = 2 }, neap.gru { size = 3 } } }
    for _, options in ipairs { {}, { beam = 0 }, { beam = 2 } } do
      local out = model:predict({ "ab", "" }, options)
      assert.same({}, out[2])
    end
    local all = model:predict({ "" }, { beam = 3, all = true })[1]
    assert.equal(1, #all)
    assert.same({}, all[1].symbols)
  end)
end)

describe("reading fewer outputs than steps", function()
  -- Each letter of the output stands in the input one to three times, with dots between equal ones
  -- and sometimes elsewhere; a dot is nothing.
  local function made(n, seed)
    local rng, input, output = neap.rng(seed), {}, {}
    for i = 1, n do
      local steps, letters = {}, {}
      for k = 1, rng:int(5) - 1 do
        letters[k] = ("xyz"):sub(rng:int(3)):sub(1, 1)
        if letters[k] == letters[k - 1] or rng:uniform() < 0.3 then steps[#steps + 1] = "." end
        for _ = 1, rng:int(3) do steps[#steps + 1] = letters[k] end
      end
      if #steps == 0 then steps[1] = "." end
      input[i], output[i] = table.concat(steps, " "), table.concat(letters, " ")
    end
    return neap.corpus.from({ input = input, output = output },
      { split = { input = "words", output = "words" } })
  end
  local data, other = made(120, 1), made(50, 2)
  local symbols, letters = neap.vocab.new { ".", "x", "y", "z" }, neap.vocab.new { "x", "y", "z" }
  local function fields(corpus)
    return { input = corpus:encode("input", symbols), output = corpus:encode("output", letters) }
  end
  local function options(more)
    local out = { input = symbols, output = letters, loss = "ctc", rng = neap.rng(1),
      net = neap.chain { neap.embed { size = 8 }, neap.gru { size = 12 } } }
    for k, v in pairs(more or {}) do out[k] = v end
    return out
  end

  it("is learned by CTC, saved, loaded and run without Lua", function()
    for _, beam in ipairs { 0, 4 } do
      local model = trained(options { beam = beam }, fields(data), 60, 0.03)
      local scores = model:score(fields(other))
      assert(scores.error_rate < 0.02, scores.error_rate)
      assert(scores.sequence_accuracy > 0.95 and scores.n > 50, tostring(scores))
      assert.same({ { "x", "y" }, {}, { "z", "z" } },
        model:predict { "xx.yyy", "..", "zz.z" })
      local loaded = same_elsewhere(model, { "x.yzz", "y", "z.z.z" })
      assert.equal(tostring(scores), tostring(loaded:score(fields(other))))
    end
  end)

  it("reads with another beam, and gives all it has left with their probabilities", function()
    local model = trained(options { beam = 4 }, fields(data), 3, 0.03) -- not sure of anything
    local batch = neap.batches({ input = other:encode("input", symbols) }, { size = 50,
      bucket = false })()
    local plain, greedy = trained(options {}, fields(data), 3, 0.03), nil
    assert.same(model:predict(batch), model:predict(batch, { beam = 4 }))
    greedy = plain:predict(batch)
    assert.same(greedy, model:predict(batch, { beam = 0 }))
    assert.not_same(greedy, model:predict(batch))
    for b, list in ipairs(model:predict(batch, { beam = 4, all = true })) do
      assert(#list <= 4)
      assert.same(model:predict(batch)[b], list[1].symbols)
      for k = 2, #list do assert(list[k].log_probability <= list[k - 1].log_probability) end
    end
    -- with room for all, they are all, and each has the probability that the loss is made of
    local sum, one = 0, "x.yz"
    for _, h in ipairs(model:predict({ one }, { beam = 1000, all = true })[1]) do
      sum = sum + math.exp(h.log_probability)
      if #h.ids > 0 then
        local pair = neap.corpus.from({ input = { "x . y z" }, output = { table.concat(h.symbols, " ") } },
          { split = { input = "words", output = "words" } })
        assert.near(-model:loss(neap.batches(fields(pair))()) * #h.ids, h.log_probability, 1e-4)
      end
    end
    assert.near(1, sum, 1e-5)
    assert.same({}, model:predict({}, { beam = 2, all = true }))
    raises("predict: all: expected a beam beside it, came nil", function()
      model:predict({ one }, { all = true })
    end)
    raises("predict: beam: expected an integer from 1 to 1000, came 0", function()
      model:predict({ one }, { beam = 0, all = true })
    end)
    raises("predict: beam: expected an integer from 0 to 1000, came 1001", function()
      model:predict({ one }, { beam = 1001 })
    end)
    local tagger = neap.synced_seq2seq { input = symbols, output = letters, rng = neap.rng(1),
      net = neap.embed { size = 4 } }
    raises('predict: beam: an option of the loss "ctc", the model\'s is "cross_entropy"', function()
      tagger:predict({ "x" }, { beam = 2 })
    end)
  end)

  it("gives the probabilities of each step, and places labels by them", function()
    local model = trained(options { beam = 4 }, fields(data), 60, 0.03)
    local p = model:posteriors { "xx.y", ".", "zz" }
    assert.same({ { 4, 4 }, { 1, 4 }, { 2, 4 } }, { p[1]:shape(), p[2]:shape(), p[3]:shape() })
    for _, row in ipairs(p[1]:totable()) do
      assert.near(1, row[1] + row[2] + row[3] + row[4], 1e-5)
    end
    local path = ctc.align(neap.op.log(p[1]):totable(), { 1, 2 })
    assert.equal(2, path[4])
    assert(path[1] == 1 or path[2] == 1)
    assert.same({}, model:posteriors {})
  end)

  it("aligns by the likeliest path", function()
    local rng = neap.rng(4)
    for _, labels in ipairs { {}, { 1 }, { 1, 2 }, { 2, 2 }, { 1, 2, 1 }, { 2, 2, 1 } } do
      local p = {}
      for t = 1, 5 do
        p[t] = {}
        for v = 1, 3 do p[t][v] = math.log(rng:uniform()) end
      end
      -- all 3^5 paths, read by the rule
      local best, total = -math.huge, 0
      for code = 0, 3 ^ 5 - 1 do
        local read, sum, last = {}, 0, nil
        for t = 1, 5 do
          local v = code // 3 ^ (t - 1) % 3 + 1
          sum = sum + p[t][v]
          if v ~= last and v ~= 3 then read[#read + 1] = math.tointeger(v) end
          last = v
        end
        if table.concat(read, " ") == table.concat(labels, " ") then
          best, total = math.max(best, sum), total + math.exp(sum)
        end
      end
      local sum, read, last = 0, {}, 0
      for t, at in ipairs(ctc.align(p, labels)) do
        sum = sum + p[t][labels[at] or 3]
        if at ~= 0 and at ~= last then read[#read + 1] = labels[at] end
        last = at
      end
      assert.near(best, sum, 1e-9)
      assert.same(labels, read)
      for _, h in ipairs(ctc.beam(p, 1000)) do
        if table.concat(h.ids, " ") == table.concat(labels, " ") then
          assert.near(math.log(total), h.log_probability, 1e-9)
          total = nil
        end
      end
      assert.is_nil(total) -- it was there
    end
    assert.is_nil(ctc.align({ { 0, 0 }, { 0, 0 } }, { 1, 1 }))
    assert.same({}, ctc.align({}, {}))
    assert.is_nil(ctc.align({}, { 1 }))
    assert.same({}, ctc.greedy {})
    raises("ctc.beam: beam: expected an integer from 1, came 0", function() ctc.beam({}, 0) end)
  end)

  it("reads what a network that folds steps gives", function()
    local model = trained(options { beam = 4, net = neap.chain { neap.embed { size = 8 },
      neap.bidir { neap.gru { size = 8 } }, neap.fold {}, neap.gru { size = 12 } } },
      fields(neap.corpus.from({ input = { ". x . . y .", "z . .", ". . . z . z z ." },
        output = { "x y", "z", "z z" } }, { split = { input = "words", output = "words" } })), 80,
      0.03)
    local lines = { ".x..y.", "z..", "...z.zz." }
    assert.same({ { "x", "y" }, { "z" }, { "z", "z" } }, model:predict(lines))
    assert.same(model:predict(lines), model:predict(lines, { beam = 4 }))
    assert.same({ 2, 4 }, model:posteriors(lines)[2]:shape())
    same_elsewhere(model, lines)
  end)

  it("names the sequence that has not steps enough, or leaves it out", function()
    local bad = neap.corpus.from({ input = { "x . y", "x y" }, output = { "x y", "x x" } },
      { split = { input = "words", output = "words" } })
    local model = neap.synced_seq2seq(options())
    local batch = neap.batches(fields(bad), { bucket = false })()
    local ok, message = pcall(model.learn, model, batch, neap.sgd { rate = 0.1 })
    assert.is_false(ok)
    assert(message:find("ctc: 2 labels, 1 of them as the one before, need 3 steps, there are 2; "
      .. "with zero such a sequence counts 0, row 2", 1, true), message)
    assert(message:find(": a script, sequence 2", 1, true), message)
    assert.matches("row 2.*: a script, sequence 2$", select(2, pcall(model.loss, model, batch)))
    model = neap.synced_seq2seq(options { zero = true })
    local both = model:loss(batch)
    local good = neap.corpus.from({ input = { "x . y" }, output = { "x y" } },
      { split = { input = "words", output = "words" } })
    -- of the same model: the sum, over the outputs of both
    assert.near(model:loss(neap.batches(fields(good))()) * 2, both * 4, 1e-5)
    model:learn(batch, neap.sgd { rate = 0.1 })
  end)
end)

describe("what has probability 0", function()
  local symbols, tags = neap.vocab.new { "a", "b", "c" }, neap.vocab.new { "X", "Y" }
  local corpus = neap.corpus.from({ input = { "ab", "abc", "abc" }, output = { { "X", "X" },
    { "X", "X", "Y" }, { "Y", "Y", "Y" } } }, { split = { input = "characters" } })
  local function model_of(loss)
    return neap.synced_seq2seq { input = symbols, output = tags, loss = loss, rng = neap.rng(1),
      net = neap.chain { neap.embed { size = 3 }, neap.gru { size = 4 } } }
  end
  local fields = { input = corpus:encode("input", symbols), output = corpus:encode("output", tags) }
  local batch = neap.batches(fields, { bucket = false })()

  it("is named by a CRF: the classes that transitions forbid, and its step", function()
    for _, low in ipairs { -math.huge, -1e30 } do
      local model = model_of "crf"
      local free = model:loss(neap.batches(fields, { bucket = false })())
      assert.is_true(free > 0 and free < 10)
      model.params:set("net.crf.transitions", neap.tensor { { 0, low }, { low, 0 } })
      local before = model.params:get("net.crf.transitions"):tobytes()
      for _, call in ipairs { function() model:loss(batch) end,
        function() model:learn(batch, neap.sgd { rate = 0.1 }) end } do
        local ok, message = pcall(call)
        assert.is_false(ok)
        assert.matches("crf.*step 3: the classes that are given have probability 0.*sequence 2$",
          message)
      end
      assert.equal(before, model.params:get("net.crf.transitions"):tobytes()) -- nothing is lost
      for _, found in ipairs(model:predict { "ab", "abc" }) do -- what is allowed goes on
        for t = 2, #found do assert.equal(found[1], found[t]) end
      end
      model.params:set("net.crf.transitions", neap.tensor { { low, low }, { low, low } })
      assert.matches("step 2: every sequence of classes has probability 0.*sequence 1$",
        select(2, pcall(model.loss, model, batch)))
    end
  end)

  it("is named by CTC: a label that no path can show", function()
    local x = neap.tensor { { 1, -1e30, 2 }, { 0, -1e30, 1 } }:reshape { 2, 1, 3 }
    local program = neap.program(function(rec)
      return op.ctc(rec:input("x", { space = "T", dims = { 3 } }),
        rec:input("y", { space = "U", dtype = "i32" }))
    end)
    local run = program:run()
    local function with(label)
      return run:feed { x = x, y = neap.tensor({ label }, "i32"):reshape { 1, 1 } }:forward()
    end
    assert.is_true(with(0):item "output" > 0)
    assert.matches("ctc.*the labels have probability 0 by these scores",
      select(2, pcall(with, 1)))
  end)
end)

-- The task modules as a script uses them: learning a small made-up task, scores, predictions, files.
local neap = require "neap"
local op = neap.op
local core = require "neap.core"

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
    assert.matches("seq2class: net: expected a layer or a function, came nil",
      message { input = chars, output = classes })
    assert.matches("pool: expected \"last\", \"mean\" or \"max\", came \"first\"",
      message { input = chars, output = classes, net = neap.lstm { size = 2 }, pool = "first" })
  end)
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

  it("refuses a vocabulary without start and stop", function()
    local ok, text = pcall(neap.async_seq2seq, { input = input, output = input,
      encoder = neap.lstm { size = 2 }, decoder = {} })
    assert.is_false(ok)
    assert.matches("needs start and stop symbols", text)
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
    local grads = {}
    for _, name in ipairs(program.params:names()) do grads[name] = run.core:param_grad(name) end
    for name, g in pairs(grads) do
      for i = 1, #g do
        run.core:param_shift(name, i, 1e-5)
        local up = loss()
        run.core:param_shift(name, i, -2e-5)
        local down = loss()
        run.core:param_shift(name, i, 1e-5)
        assert.is_true(math.abs((up - down) / 2e-5 - g[i]) < 1e-8, name .. " " .. i)
      end
    end
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
  end)
end)

describe("forecaster", function()
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

  -- three batches an epoch, each of a second by a clock of ours; what `rate` is told of the share
  -- that is over
  local clock = core.clock
  after_each(function() core.clock = clock end)
  local function shares(epochs, minutes)
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
      train = function()
        local n = 0
        return setmetatable({}, { __len = function() return 3 end, __call = function()
          n = n + 1
          if n > 1 then now = now + 1 end
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
end)

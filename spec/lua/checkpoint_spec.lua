-- Training that is cut off and goes on: the same bits as in one.
local neap = require "neap"
local help = require "data_help"
local raises = help.raises

describe("a checkpoint of neap.fit", function()
  local folder = help.folder()
  teardown(folder.remove)
  local letters, classes = neap.vocab.new { "a", "b", "c", "d" }, neap.vocab.new { "x", "y" }
  local texts, tags = {}, {}
  local draw = neap.rng(7)
  for i = 1, 60 do
    texts[i], tags[i] = {}, {}
    for t = 1, draw:int(6) do texts[i][t] = letters:symbol(draw:int(4)) end
    tags[i][1] = texts[i][1] == "a" and "x" or "y"
  end
  local corpus = neap.corpus.from { text = texts, class = tags }
  local fields = { input = corpus:encode("text", letters), output = corpus:label("class", classes) }

  -- All that a training has, as a script makes it anew each time it is started.
  local function training(how)
    local rng = neap.rng(3)
    local model = neap.seq2class { input = letters, output = classes, rng = rng,
      net = neap.chain { neap.embed { size = 4 }, neap.dropout { rate = 0.3 },
        neap.lstm { size = how.size or 5, zoneout = 0.1 } } }
    local given = { optim = how.optim(), epochs = how.epochs or 6, quiet = true, rng = rng,
      average = how.average and neap.average { decay = 0.9 } or nil, rate = how.rate,
      key = "loss", lower = true, checkpoint = how.path, patience = how.patience,
      train = function(epoch)
        local batches = neap.batches(fields, { size = 8, rng = rng })
        local n = 0
        return setmetatable({}, { __len = function() return #batches end, __call = function()
          n = n + 1
          if epoch == how.cut and n == 4 then error("interrupted!", 0) end
          return batches()
        end })
      end,
      dev = function()
        return { loss = model:loss(neap.batches(fields, { size = 60 })()) }
      end }
    for _, name in ipairs(how.without or {}) do given[name] = nil end
    local result = neap.fit(model, given)
    local bytes = {}
    for i, name in ipairs(model.params:names()) do bytes[i] = model.params:get(name):tobytes() end
    return table.concat(bytes), result, model
  end
  local n = 0
  local function fresh()
    n = n + 1
    return ("%s/%d.checkpoint"):format(folder.path, n)
  end

  local function adam() return neap.adam { rate = 0.02, clip = 1 } end
  for name, how in pairs {
    adam = { optim = adam },
    ["a schedule that looks at the scores, momentum"] = { optim = function()
      return neap.sgd { rate = 0.5, momentum = 0.9,
        schedule = neap.schedule.plateau { patience = 0, factor = 0.3, threshold = 0.2 } }
    end },
    ["an average, a rate by epoch"] = { optim = adam, average = true,
      rate = function(epoch, first) return first / epoch end },
    ["steps of several batches, groups"] = { optim = function()
      return neap.adamw { accumulate = 2, groups = { { params = { "*embed*" }, rate = 0.1 } } }
    end },
    ["no scores"] = { optim = function() return neap.adagrad { rate = 0.1 } end,
      without = { "dev", "key", "lower" } },
  } do
    it("goes on to the same bits: " .. name, function()
      how.path, how.epochs = fresh(), 6
      local whole, result = training(how)
      assert.equal(6, result.epochs)
      -- cut off within the fifth epoch: the file has four
      how.path, how.cut = fresh(), 5
      local _, cut = training(how)
      assert.is_true(cut.interrupted)
      assert.equal(4, cut.epochs)
      how.cut = nil
      local resumed, again = training(how)
      assert.equal(whole, resumed)
      assert.equal(result.epoch, again.epoch)
      assert.equal(6, again.epochs)
      assert.equal(result.best.loss, again.best.loss)
      -- over: it gives what it had; more epochs go on from there
      local done, over = training(how)
      assert.equal(whole, done)
      assert.equal(6, over.epochs)
      how.epochs = 7
      assert.equal(7, (select(2, training(how))).epochs)
    end)
  end

  it("stops for want of patience where it would have stopped", function()
    local how = { optim = function() return neap.sgd { rate = 0 } end, path = fresh(), patience = 2 }
    assert.equal(3, (select(2, training(how))).epochs)
    assert.equal(3, (select(2, training(how))).epochs)
  end)

  it("of another training is refused, and nothing has changed", function()
    local how = { optim = adam, path = fresh(), epochs = 1 }
    training(how)
    local function message(other)
      for key, value in pairs(how) do if other[key] == nil then other[key] = value end end
      local ok, text = pcall(training, other)
      assert.is_false(ok)
      assert.matches("fit: checkpoint: ", text, 1, true)
      return text
    end
    assert.matches("expected net.chain.lstm3.weight_ih [24,4], came [20,4]", message { size = 6 }, 1, true)
    assert.matches("expected the memory of sgd, came that of adam", message { optim = function()
      return neap.sgd { rate = 1 }
    end }, 1, true)
    assert.matches("expected a training with the rate 0.5, came one with 0.02", message { optim = function()
      return neap.adam { rate = 0.5 }
    end }, 1, true)
    assert.matches("expected an average, came none", message { average = true }, 1, true)
    assert.matches("expected the states of 0 generators (rng), came 1",
      message { without = { "rng" } }, 1, true)
    local file = assert(io.open(how.path, "rb"))
    local bytes = file:read "a"
    file:close()
    assert.matches("cut", message { path = folder.write("cut", bytes:sub(1, -9)) }, 1, true)
    local model = neap.seq2class { input = letters, output = classes,
      net = neap.chain { neap.embed { size = 2 }, neap.gru { size = 2 } } }
    local gathering = neap.adam { accumulate = 3 }
    gathering:gather(model.params, function() end)
    gathering:step(model.params)
    raises("adam: accumulate: 1 of 3 batches are gathered for the next step: this cannot be saved",
      function() gathering:save(nil, model.params, "") end)
    local saved = folder.path .. "/model"
    assert(model:save(saved))
    assert.matches("it is no checkpoint of a training", message { path = saved }, 1, true)
    raises("fit: checkpoint: expected a string, came 5", function()
      neap.fit(model, { optim = adam(), epochs = 1, train = print, checkpoint = 5 })
    end)
    raises("fit: rng: expected a source of chance such as neap.rng(17), came 5", function()
      neap.fit(model, { optim = adam(), epochs = 1, train = print, rng = 5 })
    end)
  end)

  it("goes on whatever the rate is by now, and for a model that was loaded", function()
    local function fit(model, optim, path, epochs, rate)
      return neap.fit(model, { optim = optim, epochs = epochs, quiet = true, checkpoint = path,
        rate = rate, train = function()
          local one = { neap.batches({ input = { data = neap.tensor({ 1, 2, 3 }):reshape { 3, 1 },
            offsets = neap.tensor({ 0, 3 }, "i32") }, output = { data = neap.tensor({ 1, 2, 3 })
            :reshape { 3, 1 }, offsets = neap.tensor({ 0, 3 }, "i32") } }, { size = 1 })() }
          return function() return table.remove(one) end
        end }).epochs
    end
    local function new()
      return neap.synced_seq2seq { input = 1, output = 1, net = neap.gru { size = 2 } }
    end
    local function falling(epoch, first) return first / epoch end
    local schedule = neap.schedule.exponential { factor = 0.5 }
    for _, how in ipairs { { {} }, { {}, falling }, { { rate = 0.1 }, falling },
      { { rate = 0.1, schedule = schedule } } } do
      local path, model, optim = fresh(), new(), neap.adam(how[1])
      assert.equal(2, fit(model, optim, path, 2, how[2]))
      assert.equal(3, fit(model, optim, path, 3, how[2])) -- the same optimizer
      assert.equal(4, fit(new(), neap.adam(how[1]), path, 4, how[2]))
      local saved = folder.path .. "/numbers"
      assert(model:save(saved))
      assert.equal(5, fit(assert(neap.load(saved)), neap.adam(how[1]), path, 5, how[2]))
    end
  end)

  it("that cannot be written is told of, and the training goes on", function()
    local _, result = training { optim = adam, path = folder.path .. "/no/where", epochs = 2 }
    assert.equal(2, result.epochs)
    assert.matches("no/where", result.unsaved, 1, true)
  end)
end)

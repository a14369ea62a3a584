-- What is saved from Lua and read back: states, programs, tensors, the tasks of model files.
local neap = require "neap"
local core = require "neap.core"
local op = neap.op
local help = require "data_help"
local fails = help.fails

describe("a state in a file", function()
  local path
  before_each(function() path = os.tmpname() end)
  after_each(function() os.remove(path) end)

  -- its first state is learned
  local program = neap.program(function(rec)
    local x = rec:input("x", { space = "T", dims = { 2 } })
    local first = rec:param("first", { 3 }, "ones")
    return { y = neap.gru { size = 3 } (x, { h = first }) }
  end)
  local function step(state, row)
    local run, x = program:run(), neap.tensor { row, row }
    run:state(state)
    run:feed { x = { data = x, lengths = neap.tensor({ 1, 1 }, "i32") } }:forward()
    return run:value("y", 1)
  end

  it("keeps which rows hold one: the others start from the learned first state", function()
    for _, rows in ipairs { {}, { 1 }, { 2 }, { 1, 2 } } do
      local state, twin = program:state(2), program:state(2)
      step(state, { 1, -1 })
      state:reset(rows)
      assert.is_true(state:save(path))
      step(twin, { 3, 4 })
      assert.is_true(twin:load(path))
      assert.same(state:held(), twin:held())
      assert.equal(step(state, { 2, 5 }):tobytes(), step(twin, { 2, 5 }):tobytes())
    end
    local fresh, twin = program:state(2), program:state(2)
    fresh:save(path)
    assert.is_true(twin:load(path))
    assert.equal(step(nil, { 2, 5 }):tobytes(), step(twin, { 2, 5 }):tobytes())
  end)

  it("is loaded as a whole or not at all", function()
    local state = program:state(2)
    step(state, { 1, -1 })
    local before = state:get(1):tobytes()
    local slot = state:slots()[1]
    local function refused(words, tensors, held)
      local a = core.archive()
      for name, t in pairs(tensors) do a:add(name, t) end
      if held then a:set_text("held", held) end
      a:save(path)
      fails("EFORMAT", words, state:load(path))
      assert.equal(before, state:get(1):tobytes())
      assert.same({ true, true }, state:held())
    end
    local good, other = neap.zeros { 2, 3 }, neap.zeros { 2, 4 }
    refused("it has no state " .. slot, { x = good })
    refused(slot .. " is f32 [2,4], expected f32 [2,3]", { [slot] = other })
    refused(slot .. " is f32 [3,3], expected f32 [2,3]", { [slot] = neap.zeros { 3, 3 } })
    refused(slot .. " is i32 [2,3], expected f32 [2,3]", { [slot] = neap.zeros({ 2, 3 }, "i32") })
    refused("came more too", { [slot] = good, more = good })
    refused("expected 0 or 1 for each of 2 rows, came \"1\"", { [slot] = good }, "1")
    refused("expected 0 or 1 for each of 2 rows, came \"12\"", { [slot] = good }, "12")
    local deep = neap.program(function(rec)
      local x = rec:input("x", { space = "T", dims = { 2 } })
      return { y = neap.gru { size = 4 } ((neap.gru { size = 3 } (x))) }
    end):state(2)
    local slots = deep:slots()
    deep:set(1, neap.zeros { 2, 3 }:fill(7))
    local a = core.archive()
    a:add(slots[1], good)
    a:add(slots[2], neap.zeros { 2, 5 })
    a:save(path)
    fails("EFORMAT", slots[2] .. " is f32 [2,5]", deep:load(path))
    assert.equal(7, deep:get(1):get(1, 1))
  end)

  it("may have a layer twice, and may come from elsewhere", function()
    local layer = neap.elman { size = 2 }
    local twice = neap.program(function(rec)
      return { y = layer(layer(rec:input("x", { space = "T", dims = { 2 } }))) }
    end)
    local state, twin = twice:state(1), twice:state(1)
    state:set(1, neap.tensor { { 1, 2 } })
    state:set(2, neap.tensor { { 3, 4 } })
    assert.is_true(state:save(path))
    assert.is_true(twin:load(path))
    assert.same({ { 1, 2 } }, twin:get(1):totable())
    assert.same({ { 3, 4 } }, twin:get(2):totable())
    local a = core.archive()
    local one = program:state(1)
    a:add(one:slots()[1], neap.tensor { { 7, 8, 9 } })
    a:save(path)
    assert.is_true(one:load(path))
    assert.same({ true }, one:held())
    assert.same({ { 7, 8, 9 } }, one:get(1):totable())
    fails("EIO", "/no/such", one:load "/no/such")
  end)
end)

describe("programs in a file", function()
  local path
  before_each(function() path = os.tmpname() end)
  after_each(function() os.remove(path) end)

  local body, head = neap.gru { size = 4 }, neap.linear { size = 2 }
  local function x(rec) return rec:input("x", { space = "T", dims = { 3 } }) end
  local one = neap.program(function(rec) return { y = head((body(x(rec)))) } end)
  local two = neap.program(function(rec) return { h = (body(x(rec))) } end, { params = one.params })
  local batch = { x = neap.tensor { { { 1, 2, 3 } }, { { -1, 0, 1 } } } }
  local function result(pr, name)
    local run = pr:run()
    run:feed(batch):forward()
    return run:value(name):tobytes()
  end

  it("come back alone as a program, several by their names", function()
    assert.is_true(one:save(path))
    local loaded, texts = assert(neap.load(path))
    assert.equal(result(one, "y"), result(loaded, "y"))
    assert.same({}, texts)
    assert.is_true(one:save(path, "encode"))
    assert.equal(tostring(one):gsub("%S+:%d+", ""), (tostring(neap.load(path)):gsub("%S+:%d+", "")))
    assert.is_true(neap.save(path, { predict = one, encode = two }, { symbols = "a b" }))
    loaded, texts = neap.load(path)
    assert.equal(result(one, "y"), result(loaded.predict, "y"))
    assert.equal(result(two, "h"), result(loaded.encode, "h"))
    assert.same({ symbols = "a b" }, texts)
    -- they still share their parameters, and learn on
    assert.equal(loaded.predict.params, loaded.encode.params)
    loaded.predict.params:set("linear.bias", neap.tensor { 5, 6 })
    assert.not_equal(result(one, "y"), result(loaded.predict, "y"))
    local on = neap.program(function(rec) return { y = head((body(x(rec)))) } end,
      { params = loaded.encode.params })
    assert.equal(result(loaded.predict, "y"), result(on, "y"))
  end)

  it("hold finite numbers only", function()
    local bias = one.params:get "linear.bias"
    for text, number in pairs { inf = math.huge, nan = 0 / 0 } do
      one.params:set("linear.bias", neap.tensor { 1, number })
      local good, message, code = neap.save(path, one)
      assert.is_nil(good)
      assert.matches("parameter linear.bias: number 2 is %-?" .. text, message)
      assert.equal("EFORMAT", code)
    end
    one.params:set("linear.bias", bias)
    assert(neap.save(path, one))
    local file = assert(io.open(path, "rb"))
    local bytes = file:read "a"
    file:close()
    file = assert(io.open(path, "wb")) -- the last number of the last tensor
    file:write(bytes:sub(1, -5), string.pack("<f", math.huge))
    file:close()
    local loaded, message, code = neap.load(path)
    assert.is_nil(loaded)
    assert.matches("model: tensor '[%w._]+': number %d+ is inf", message)
    assert.equal("EFORMAT", code)
  end)

  it("are checked where they are saved", function()
    local function raises(message, ...)
      local ok, text = pcall(...)
      assert.is_false(ok)
      assert.matches("^[^:]*files_spec.lua:%d+: ", text)
      assert.matches(message, text, 1, true)
    end
    local other = neap.program(function(rec) return { y = x(rec) * 2 } end)
    raises("save: path: expected a string, came nil", neap.save)
    raises("save: expected a program or a table of name -> program, came nil", neap.save, path)
    raises("came a table", neap.save, path, {})
    raises("came 1 = ", neap.save, path, { other })
    raises("came y = 3", neap.save, path, { y = 3 })
    raises("do not share one set of parameters", neap.save, path, { a = one, b = other })
    raises("texts: expected strings by name, came k = 3", neap.save, path, one, { k = 3 })
    raises("\"task\" is the name", neap.save, path, one, { task = "tagging" })
    raises("no program of the model uses 'linear.weight', 'linear.bias'", two.save, two, path)
    raises("save: name: expected a string, came 3", one.save, one, path, 3)
    local model = neap.forecaster { net = neap.elman { size = 2 } }
    raises("a task saves itself: task:save(path)", neap.save, path, model)
    fails("EIO", "/no/such/dir", one:save "/no/such/dir/file")
  end)
end)

describe("tensors in a file", function()
  it("come back by their names, and go into a model", function()
    local path = os.tmpname()
    local tensors = { w = neap.tensor { { 1, 2, 3 }, { 4, 5, 6 } },
      n = neap.tensor({ 7, -8 }, "i32"),
      part = neap.tensor { { 1, 2 }, { 3, 4 } }[2] }
    assert.is_true(neap.save_tensors(path, tensors))
    local loaded, texts = assert(neap.load_tensors(path))
    local count = 0
    for name, t in pairs(loaded) do
      count = count + 1
      assert.equal(tensors[name]:dtype(), t:dtype())
      assert.same(tensors[name]:totable(), t:totable())
    end
    assert.equal(3, count)
    assert.same({}, texts)
    fails("EFORMAT", "only tensors; neap.load_tensors reads them", neap.load(path))
    local layer = neap.linear { size = 2, bias = false }
    local pr = neap.program(function(rec)
      return layer(rec:input("x", { space = "B", dims = { 3 } }))
    end)
    pr.params:set("linear.weight", loaded.w)
    local run = pr:run()
    run:feed { x = neap.tensor { { 1, 1, 1 } } }:forward()
    assert.same({ { 6, 15 } }, run:value("output"):totable())
    -- a model's file is one of tensors too
    assert.is_true(pr:save(path))
    loaded, texts = neap.load_tensors(path)
    assert.same(tensors.w:totable(), loaded["linear.weight"]:totable())
    assert.equal("1", texts.neap)
    os.remove(path)
    fails("EIO", "/no/such", neap.load_tensors "/no/such")
    fails("EIO", "/no/such/dir", neap.save_tensors("/no/such/dir/file", tensors))
    help.raises("load_tensors: path: expected a string, came nil", function()
      neap.load_tensors()
    end)
    help.raises("save_tensors: expected a table of name -> tensor, came f32 [2]", function()
      neap.save_tensors(path, neap.zeros { 2 })
    end)
    help.raises("came w = a table", function() neap.save_tensors(path, { w = { 1 } }) end)
    help.raises("came 1 = f32 [2]", function() neap.save_tensors(path, { neap.zeros { 2 } }) end)
  end)
end)

describe("a task in a file", function()
  local path
  before_each(function() path = os.tmpname() end)
  after_each(function() os.remove(path) end)

  local cjson = require "cjson"
  local letters = neap.vocab.new { "a", "b", "c" }
  local words = neap.vocab.new { start = true, stop = true, "a", "b" }
  local function net() return neap.chain { neap.embed { size = 2 }, neap.gru { size = 2 } } end
  local tasks = {
    seq2class = neap.seq2class { input = letters, output = words, net = net() },
    synced_seq2seq = neap.synced_seq2seq { input = letters, output = words, net = net() },
    language_model = neap.language_model { vocab = letters, net = net() },
    hmm = neap.hmm { input = letters, output = words },
    forecaster = neap.forecaster { size = 2, net = neap.gru { size = 3 } },
    async_seq2seq = neap.async_seq2seq { input = letters, output = words, encoder = net(),
      decoder = neap.decoder { embed = 2, layers = { neap.lstm { size = 2 } } } },
    heard = neap.seq2class { input = { rate = 100, hop = 2 }, output = words,
      net = neap.gru { size = 3 } },
    wide = neap.seq2class { input = { x = 2, chars = { vocab = letters, nested = true } },
      output = words, net = function(v)
        local spelling = op.last(neap.embed { size = 2, input = 3 } (v.chars))
        return neap.gru { size = 2 } (op.concat { v.x, spelling })
      end },
  }

  -- The file of a task with its text changed: by a function, or for another one.
  local function with(name, change)
    assert.is_true(tasks[name]:save(path))
    local m, text = core.load_model(path), change
    if type(change) == "function" then
      local config = cjson.decode(m:text "task")
      change(config)
      text = cjson.encode(config)
    end
    m:set_text("task", text)
    assert(m:save(path))
    return neap.load(path)
  end

  it("is loaded where it fits", function()
    for name, task in pairs(tasks) do
      assert.is_true(task:save(path))
      assert.equal((name == "wide" or name == "heard") and "seq2class" or name,
        assert(neap.load(path)).kind)
    end
  end)

  it("is refused where its kind is another", function()
    for name in pairs(tasks) do
      for other, task in pairs(tasks) do
        if name ~= other then
          fails("EFORMAT", "the task in it, ", with(name, cjson.encode(task.config)))
        end
      end
    end
    fails("EFORMAT", "output logits", with("seq2class",
      '{"kind":"language_model","vocab":{"symbols":["a"]}}'))
  end)

  it("is refused where its vocabularies or widths are others", function()
    for _, case in ipairs {
      { "seq2class", "output scores has 4 numbers, the task's has 5", function(c)
        c.output.symbols[5] = "more"
      end },
      { "synced_seq2seq", "output scores has 4 numbers, the task's has 3", function(c)
        table.remove(c.output.symbols)
      end },
      { "hmm", "output states has 4 numbers, the task's has 3", function(c)
        table.remove(c.output.symbols)
      end },
      { "hmm", "input input has 4 symbols, their table is of 3", function(c)
        table.insert(c.input.list[1].vocab.symbols, "more")
      end },
      { "hmm", "input: expected one vocabulary of symbols", function(c)
        c.input.list[1] = { name = "input", size = 2 }
      end },
      { "seq2class", "input input has 4 symbols, their table is of 3", function(c)
        table.insert(c.input.list[1].vocab.symbols, "more")
      end },
      { "language_model", "output logits has 3 numbers, the task's has 4", function(c)
        table.insert(c.vocab.symbols, "more")
      end },
      { "async_seq2seq", "input input has 4 symbols", function(c)
        table.insert(c.input.list[1].vocab.symbols, "more")
      end },
      { "async_seq2seq", "has 4 numbers, the task's has 3", function(c)
        table.remove(c.output.symbols)
      end },
      { "async_seq2seq", "no start or no stop symbol", function(c) c.output.stop = nil end },
      { "forecaster", "input input is f32 [2], the task's is f32 [3]", function(c) c.size = 3 end },
      { "seq2class", "program predict has no input x", function(c) c.input.list[1].name = "x" end },
      { "seq2class", "input input is i32, the task's is f32 [2]", function(c)
        c.input.list[1] = { name = "input", size = 2 }
      end },
      { "heard", "rate of input input: expected a width from 1, came -8", function(c)
        c.input.list[1].rate = -8
      end },
      { "heard", "rate of input input: expected a width from 1, came \"8\"", function(c)
        c.input.list[1].rate = "8"
      end },
      { "seq2class", "input input: symbols have no rate", function(c)
        c.input.list[1].rate = 8000
      end },
      { "wide", "the task knows no input chars", function(c) table.remove(c.input.list, 1) end },
      { "wide", "input x is f32 [2], the task's is f32 [1]", function(c)
        c.input.list[2].size = 1
      end },
    } do
      fails("EFORMAT", case[2], with(case[1], case[3]))
    end
  end)

  it("is refused where its text is damaged, without an error of Lua's own", function()
    for name, task in pairs(tasks) do
      local whole = cjson.encode(task.config)
      local texts = { "", "[]", "3", "{}", '{"kind":3}', ('{"kind":"%s"}'):format(task.kind) }
      for _, value in ipairs { "null", "3", "[]", "{}", '"a"', "-1", "2.5" } do
        for key in pairs(task.config) do
          local config = cjson.decode(whole)
          config[key] = cjson.decode("[" .. value .. "]")[1]
          if key ~= "max_length" then texts[#texts + 1] = cjson.encode(config) end
        end
        if task.config.input then
          local keys = name == "heard" and { "list", "first", "name", "size" }
            or { "list", "first", "name", "vocab", "symbols" }
          for _, key in ipairs(keys) do
            local config = cjson.decode(whole)
            local v, first = cjson.decode("[" .. value .. "]")[1], config.input.list[1]
            if key == "list" then config.input.list = v
            elseif key == "first" then config.input.list[1] = v
            elseif key == "symbols" then first.vocab.symbols = v
            else first[key] = v end
            if key ~= "name" or value ~= '"a"' then texts[#texts + 1] = cjson.encode(config) end
          end
        end
      end
      for _, text in ipairs(texts) do
        local loaded, message, code = with(name, text)
        assert.is_nil(loaded, text)
        assert.equal("EFORMAT", code)
        assert.matches(path, message, 1, true)
        for _, word in ipairs { "attempt to", ".lua:", "bad argument" } do
          assert.not_matches(word, message, 1, true)
        end
      end
    end
  end)
end)

-- The Lua border: every method of every bound type with wrong arguments and closed objects,
-- finalizers that close what is in use, a full collection at every line, files that cannot be
-- loaded. Nothing crashes, and every message has the script's line.
local neap = require "neap"
local core = require "neap.core"

local here = debug.getinfo(1, "S").short_src

-- ---- one object of each type, and what their methods take ----

local function objects()
  local o = { params = core.params(), pool = core.pool(1), archive = core.archive() }
  o.params:add("w", { 8, 3 })
  o.params:add("u", { 8, 2 })
  for _, name in ipairs(o.params:names()) do o.params:init(name, "uniform", -1, 1, 4) end
  local pr = core.program(o.params)
  o.T = pr:space("T", 0)
  o.x, o.rate = pr:input("x", "f32", o.T, { 3 }), pr:scalar("rate", 0.5)
  o.y = pr:add("lstm", { o.x, pr:param "w", pr:param "u" }, {})
  pr:output("y", o.y)
  pr:output("noise", (pr:add("dropout", { o.y, o.rate }, {})))
  o.program, o.other = pr, core.program(o.params)
  o.stream = core.stream(pr, { rows = 2 })
  o.recorded = core.program(o.params) -- one that has not run
  o.recorded:space("T", 0)
  o.z = o.recorded:input("z", "f32", 1, { 3 })
  o.stepping = core.program(o.params) -- one with an open scan
  o.stepping:space("T", 0)
  o.stepping:scan_begin(1)
  o.h = o.stepping:scan_state("h", "f32", { 3 })
  o.scanned = core.program(o.params) -- one whose scan can be closed
  o.scanned:space("T", 0)
  o.scanned:scan_begin(1)
  o.scanned:scan_next(o.scanned:scan_state("h", "f32", {}), 0)
  o.lengths = neap.tensor({ 2, 1 }, "i32")
  o.data = neap.tensor { { 1, 0, 0 }, { 0, 1, 0 }, { 0, 0, 1 } }
  o.double = core.run(pr, { double = true })
  o.run = core.run(pr, { learn = true, seed = 2 })
  o.run:keep(o.y, true)
  for _, run in ipairs { o.double, o.run } do
    run:batch(2)
    run:lengths(o.T, o.lengths)
    run:input(o.x, o.data, "concat")
    run:forward()
  end
  o.learned = core.run(pr, { learn = true })
  o.learned:keep(o.y, true)
  o.learned:batch(1)
  o.learned:lengths(o.T, neap.tensor({ 1 }, "i32"))
  o.learned:input(o.x, neap.tensor { { { 1, 2, 3 } } })
  o.learned:forward()
  o.learned:backward(o.y, neap.tensor { { { 1, 1 } } })
  o.state = core.state(pr, 2)
  o.tensor = neap.tensor { { 1, 2, 3 }, { 4, 5, 6 } }
  o.model = core.model(o.params)
  o.model:add("predict", pr)
  o.optim = core.optim(o.params, "adam", { rate = 0.1 })
  o.archive:add("t", o.tensor)
  o.full = core.archive()
  o.optim:step()
  o.optim:save(o.full, "adam.")
  return o
end

-- Arguments as { kind, value }; a kind ending in ? may be left out. A method's own object where it
-- is not the usual one: `on`.
local function takes(o, path)
  local grad, row = neap.tensor { { 1, 1 }, { 1, 1 }, { 1, 1 } },
    neap.tensor { { 1, 2, 3 }, { 1, 2, 3 } }
  return {
    tensor = {
      shape = {}, rank = {}, size = {}, dtype = {}, item = { on = neap.tensor { { 7 } } },
      totable = {},
      tobytes = {}, clone = {}, get = { { "integer", 2 }, { "integer", 3 } },
      set = { { "integer", 1 }, { "integer", 1 }, { "number", 5 } },
      reshape = { { "table", { 3, 2 } } }, fill = { { "number", 1 } },
    },
    params = {
      add = { { "string", "v" }, { "table", { 2, 2 } } },
      init = { { "string", "w" }, { "string", "normal" }, { "number", 0 }, { "number?", 1 },
        { "integer?", 4 } },
      names = {}, has = { { "string", "w" } }, size = {}, shape = { { "string", "w" } },
      get = { { "string", "w" } }, grad = { { "string", "w" } },
      set = { { "string", "u" }, { "tensor", neap.zeros { 8, 2 } } }, zero_grad = {},
      touch = {},
      freeze = { { "string", "w" }, { "any", true } }, frozen = { { "string", "w" } },
      copy = { { "params", o.params:clone() } }, clone = {},
      mix = { { "params", o.params:clone() }, { "number", 0.5 } },
      pool = { { "pool?", o.pool } },
    },
    program = {
      space = { on = o.recorded, { "string", "S" }, { "integer?", 0 } },
      folded = { on = o.recorded, { "integer", 1 }, { "integer", 2 } },
      where = { on = o.recorded, { "string?", "a.lua:1" }, { "string?", "net" } },
      input = { on = o.recorded, { "string", "i" }, { "string?", "i32" }, { "integer?", 1 },
        { "table", { 2 } } },
      scalar = { on = o.recorded, { "string", "s" }, { "number", 1 } },
      param = { on = o.recorded, { "string", "w" } },
      constant = { on = o.recorded, { "number", 2 } },
      add = { on = o.recorded, { "string", "tanh" }, { "table", { o.z } }, { "table?", {} } },
      scan_begin = { on = o.recorded, { "integer", 1 } },
      scan_state = { on = o.stepping, { "string", "k" }, { "string?", "i32" }, { "table", {} },
        { "integer?", -1 } },
      scan_next = { on = o.stepping, { "integer", o.h }, { "integer", o.h } },
      scan_end = { on = o.scanned },
      output = { on = o.recorded, { "string", "o" }, { "integer", o.z } },
      type = { { "integer", o.y } }, nodes = {}, print = {}, json = {}, reads_future = {},
      inputs = {},
      outputs = {}, spaces = {}, params = {}, differ = { { "program", o.other } },
    },
    state = {
      clone = {}, rows = {}, slots = {}, get = { { "integer|string", 1 } },
      set = { { "integer|string", 1 }, { "tensor", neap.zeros { 2, 2 } } },
      held = {}, reset = { { "table?", { 1 } } },
      gather = { { "table", { 2, 2, 1 } } }, save = { { "string", path } },
      load = { { "string", path } },
    },
    pool = { threads = {} },
    run = {
      batch = { { "integer", 3 } }, lengths = { { "integer", o.T }, { "tensor", o.lengths } },
      input = { { "integer", o.x }, { "tensor", o.data }, { "string?", "concat" } },
      scalar = { { "integer", o.rate }, { "number", 0.25 } }, state = { { "state?", o.state } },
      seed = { { "integer", 3 }, { "integer?", 2 } }, drawn = {}, learning = { { "any", true } }, forward = {},
      backward = { { "integer", o.y }, { "tensor", grad }, { "string?", "concat" } },
      find_nonfinite = { { "integer", o.y } }, keep = { { "integer", o.y }, { "any", true } },
      read = { { "integer", o.y }, { "string?", "padded" } },
      grad = { on = o.learned, { "integer", o.y }, { "string?", "padded" } },
      item = { { "integer", o.rate } },
      read_doubles = { { "integer", o.y }, { "string?", "concat" } },
      param_grad = { on = o.double, { "string", "w" } },
      param_shift = { on = o.double, { "string", "w" }, { "integer", 1 }, { "number", 0.5 } },
      bytes = {}, plan = {}, whole = {}, steps = { { "integer", o.T } }, rows = { { "integer", 0 } },
      cancel = {},
    },
    stream = {
      input = { { "integer|string", 1 }, { "table|tensor", row } }, step = {},
      time_steps = { { "integer", 2 } }, steps = { { "tensor", neap.zeros { 1, 3, 2 } } },
      output = { { "integer|string", 1 } },
      scalar = { { "integer", o.rate }, { "number", 1 } }, reset = {}, state = {},
      finish = {}, latency = {}, pending = {},
      set_state = { { "state", o.state } }, context_batch = { { "integer", 2 } },
      context_lengths = { fails = "stepped along", { "integer", o.T }, { "tensor", o.lengths } },
      context = { fails = "belongs to the steps", { "integer", o.x }, { "tensor", row },
        { "string?", "concat" } },
      rows = { { "table", { 1, 2, 1 } }, { "table?", { 1, 1, 2 } } },
    },
    model = {
      add = { { "string", "again" }, { "program", o.program } },
      program = { { "string", "predict" } },
      programs = {}, params = {}, set_text = { { "string", "k" }, { "string?", "v" } },
      text = { { "string", "k" } }, texts = {}, save = { { "string", path } },
    },
    archive = {
      add = { { "string", "new" }, { "tensor", o.tensor } }, names = {},
      tensor = { { "string", "t" } },
      set_text = { { "string", "k" }, { "string?", "v" } }, text = { { "string", "k" } },
      texts = {}, save = { { "string", path } },
    },
    optim = {
      step = {}, rate = { { "number?", 0.5 } }, report = {},
      save = { { "archive", core.archive() }, { "string?", "a." } },
      load = { { "archive", o.full }, { "string?", "adam." } },
      group = { { "params", o.params }, { "table", { "w" } }, { "number", 2 }, { "number", 0 } },
    },
  }
end

local labels = { tensor = "tensor", params = "params", program = "program", state = "state",
  pool = "pool",
  run = "run", stream = "stream", model = "model", archive = "archive", optim = "optimizer" }

local function values(spec)
  local list = { n = #spec }
  for i, a in ipairs(spec) do list[i] = a[2] end
  return list
end

-- Every type and method, in order: f(type, name, object, spec, objects).
local function each_method(f, fresh)
  local path = os.tmpname()
  local o = objects()
  local all = takes(o, path)
  for _, kind in ipairs { "tensor", "params", "program", "state", "pool", "run", "stream", "model",
    "archive", "optim" } do
    local names = {}
    for name in pairs(all[kind]) do names[#names + 1] = name end
    table.sort(names)
    for _, name in ipairs(names) do
      if fresh then
        o = objects()
        all = takes(o, path)
        if kind == "state" and name == "load" then o.state:save(path) end
      end
      local spec = all[kind][name]
      f(kind, name, spec.on or o[kind], spec, o)
    end
  end
  os.remove(path)
end

-- What a value is as an argument.
local function matches(kind, value, o)
  for k in kind:gmatch "[%a]+" do
    if k == "any" or type(value) == k then return true end
    if k == "integer" and (math.tointeger(value) and type(value) == "number") then return true end
    for name in pairs(labels) do
      local same = type(value) == "userdata" and getmetatable(value) == getmetatable(o[name])
      if k == name and same then return true end
    end
  end
  return value == nil and kind:find "%?$" ~= nil
end

local called -- "file:line:" of the call below
local function call(f, ...)
  called = ("%s:%d:"):format(here, debug.getinfo(1, "l").currentline + 1)
  return pcall(f, ...)
end

local function refused(what, words, ok, message)
  assert.falsy(ok, what .. " went through")
  assert.equal("string", type(message), what)
  assert.equal(called, message:sub(1, #called), what .. ": " .. message)
  assert.truthy(message:find(words, 1, true), ("%s: %q in: %s"):format(what, words, message))
end

describe("the Lua border", function()
  it("knows every method of every type", function()
    local o = objects()
    for kind, methods in pairs(takes(o, "")) do
      local known, bound = { "close" }, {}
      for name in pairs(methods) do known[#known + 1] = name end
      for name in pairs(getmetatable(o[kind]).methods) do bound[#bound + 1] = name end
      table.sort(known)
      table.sort(bound)
      assert.same(known, bound, kind)
    end
  end)

  it("takes the right arguments, with and without those that may be left out", function()
    each_method(function(kind, name, object, spec)
      local method, args = object[name], values(spec)
      local ok, message = call(method, object, table.unpack(args, 1, args.n))
      if spec.fails then
        refused(kind .. ":" .. name, spec.fails, ok, message)
      else
        assert.truthy(ok, ("%s:%s: %s"):format(kind, name, message))
      end
    end, true)
    each_method(function(kind, name, object, spec)
      local args = values(spec)
      while args.n > 0 and spec[args.n][1]:find "%?$" do args.n = args.n - 1 end
      if args.n == #spec or name == "set_text" or spec.fails then return end
      local fits = { input = kind == "run", backward = true }
      if fits[name] then return end -- [T,B,..] is the preset, and what is given here is not that
      if kind == "program" and name == "add" then args.n = 2 end
      if kind == "optim" and name == "load" then return end -- another prefix: another test below
      local ok, message = call(object[name], object, table.unpack(args, 1, args.n))
      assert.truthy(ok, ("%s:%s: %s"):format(kind, name, message))
    end, true)
  end)

  it("refuses every wrong type for every argument at the script's line", function()
    local wrong = { n = 9, nil, true, 1.5, "text", {}, print, coroutine.create(print), core.ints(),
      io.stdout }
    local tried = 0
    each_method(function(kind, name, object, spec, o)
      for i, argument in ipairs(spec) do
        local bad = { table.unpack(wrong, 1, wrong.n) }
        local n = wrong.n
        for other in pairs(labels) do
          n = n + 1
          bad[n] = o[other]
        end
        for k = 1, n do
          if not matches(argument[1], bad[k], o) then
            local args = values(spec)
            args[i] = bad[k]
            refused(("%s:%s argument %d = %s"):format(kind, name, i, type(bad[k])), "",
              call(object[name], object, table.unpack(args, 1, args.n)))
            tried = tried + 1
          end
        end
      end
    end)
    assert.truthy(tried > 1000, tried)
    each_method(function(kind, name, object, spec) -- and everything still works
      local args = values(spec)
      if not spec.fails then assert(call(object[name], object, table.unpack(args, 1, args.n))) end
    end, true)
  end)

  it("does not fall over numbers that nobody expects", function()
    local odd = { 0, -1, -2, 2 ^ 31, -2 ^ 31, math.maxinteger, math.mininteger, 2 ^ 53, 0 / 0,
      1 / 0, 99 }
    each_method(function(kind, name, object, spec)
      for i, argument in ipairs(spec) do
        if argument[1]:find "integer" or argument[1]:find "number" then
          for _, x in ipairs(odd) do
            local args = values(spec)
            args[i] = x
            local ok, message = call(object[name], object, table.unpack(args, 1, args.n))
            if not ok then refused(("%s:%s(%s)"):format(kind, name, x), "", ok, message) end
          end
        end
      end
    end)
    local o = objects()
    for _, dims in ipairs { { 2 ^ 31, 2 ^ 31 }, { math.maxinteger, 2 }, { -1 }, { 1, 1, 1, 1, 1 },
      { 0.5 },
      { "2" }, { {} } } do
      refused("zeros", "", call(core.zeros, dims))
      refused("reshape", "", call(o.tensor.reshape, o.tensor, dims))
      refused("add", "", call(o.params.add, o.params, "big", dims))
    end
    for _, rows in ipairs { { 0 }, { 3 }, { -1 }, { 1.5 }, { "x" }, { {} }, { math.maxinteger } } do
      refused("gather", "row", call(o.state.gather, o.state, rows))
      refused("reset", "row", call(o.state.reset, o.state, rows))
      refused("rows", "row", call(o.stream.rows, o.stream, rows))
    end
    -- rows are named as they were given, from 1
    refused("reset", "state reset: row 3 is not in 1..2", call(o.state.reset, o.state, { 1, 3 }))
    refused("gather", "state gather: row 9 is not in 1..2", call(o.state.gather, o.state, { 9 }))
    refused("gather", "state gather: row 2 is x, expected a number from 1",
      call(o.state.gather, o.state, { 1, "x" }))
    refused("rows", "stream rows: source row 0 is not in 1..2",
      call(o.stream.rows, o.stream, { 0 }))
    refused("rows", "stream rows: row 3 is not in 1..2",
      call(o.stream.rows, o.stream, { 1 }, { 3 }))
    for _, frame in ipairs { {}, { 1, 2, 3, 4, 5 }, { 1, 2, 3, 4, 5, "x" },
      { 1, 2, 3, 4, 5, {} } } do
      refused("input", "input 1", call(o.stream.input, o.stream, 1, frame))
    end
    assert(o.stream:input(1, { 1, 2, 3, 4, 5, 6 }) == nil and o.stream:step() == nil)
  end)

  it("refuses another self, and a closed one, by its name", function()
    each_method(function(kind, name, object, spec, o)
      local method, label, args = object[name], labels[kind], values(spec)
      for _, self in ipairs { 5, "text", {}, kind == "tensor" and o.run or o.tensor } do
        refused(kind .. ":" .. name, "", call(method, self, table.unpack(args, 1, args.n)))
      end
      refused(kind .. ":" .. name, "", call(method))
      object:close()
      object:close()
      refused(kind .. ":" .. name, label .. " is closed",
        call(method, object, table.unpack(args, 1, args.n)))
      assert.equal("string", type(tostring(object)))
    end, true)
  end)

  it("names argument, function and what came", function()
    local o = objects()
    local function says(words, f)
      local ok, message = pcall(f)
      assert.falsy(ok)
      local line = debug.getinfo(f, "S").linedefined
      assert.equal(("%s:%d: %s"):format(here, line, words), message)
    end
    says("bad argument #1 to 'get' (string expected, got number)", function() o.params:get(5) end)
    says("there is no parameter 'ww'; did you mean 'w'?", function() o.params:get "ww" end)
    says("bad argument #2 to 'set' (tensor expected, got table)",
      function() o.params:set("w", {}) end)
    says("set: 'w' has 2 dimensions and 24 numbers, the tensor is f32 [2,3]",
      function() o.params:set("w", o.tensor) end)
    says("bad argument #2 to 'init' (constant, uniform, normal or orthogonal expected, " ..
      "got \"even\")",
      function() o.params:init("w", "even", 0) end)
    says("bad argument #3 to 'input' (padded or concat expected, got \"flat\")",
      function() o.run:input(o.x, o.data, "flat") end)
    says("bad argument #2 to 'lengths' (i32 tensor expected, got f32 [2,3])",
      function() o.run:lengths(o.T, o.tensor) end)
    says("bad argument #1 to 'batch' (-1 is out of 0..2147483647)", function() o.run:batch(-1) end)
    says("bad argument #1 to 'forward' (run expected, got neap.tensor)",
      function() local t = { forward = o.run.forward } t.forward(o.tensor) end)
    says("run: unknown option \"lern\"; did you mean \"learn\"?",
      function() core.run(o.program, { lern = true }) end)
    says("run: option pool: expected a pool, came 2",
      function() core.run(o.program, { pool = 2 }) end)
    says("stream: option rows: expected 1 or more, got 0",
      function() core.stream(o.program, { rows = 0 }) end)
    says("adam: unknown option \"rat\"; did you mean \"rate\"?",
      function() core.optim(o.params, "adam", { rat = 1 }) end)
    says("sgd: there is no parameter 'v'", function() core.optim(o.params, "sgd", {}, { "v" }) end)
    says("tanh: the program has been run: nothing more can be recorded",
      function() o.program:add("tanh", { o.y }) end)
  end)

  it("refuses wrong arguments where objects are made", function()
    local o = objects()
    local made = {
      tensor = { "table|number", "string?" }, zeros = { "table", "string?" },
      tensor_from_string = { "string", "table", "string?" }, params = {}, program = { "params" },
      state = { "program", "integer" }, op_info = { "integer" }, pool = { "integer" },
      run = { "program", "table?" }, stream = { "program", "table?" }, model = { "params" },
      load_model = { "string" }, load_model_string = { "string" }, archive = {},
      load_archive = { "string" }, optim = { "params", "string", "table?", "table?" },
      nearest = { "string", "table" }, cpu_select = { "string" }, blas_threads = { "integer" },
    }
    local good = { tensor = { { 1 } }, zeros = { { 1 } }, tensor_from_string = { "1234", { 1 } },
      params = {},
      program = { o.params }, state = { o.program, 1 }, op_info = { 1 }, pool = { 1 },
        run = { o.program, {} },
      stream = { o.program, {} }, model = { o.params }, load_model = { "/no" },
        load_model_string = { "" },
      archive = {}, load_archive = { "/no" }, optim = { o.params, "sgd", {} },
        nearest = { "a", {} },
      cpu_select = { core.cpu_level() }, blas_threads = { 1 } }
    local wrong = { n = 7, nil, true, 1.5, "text", {}, print, core.ints() }
    for name, kinds in pairs(made) do
      assert.truthy(call(core[name], table.unpack(good[name])), name)
      for i, kind in ipairs(kinds) do
        for k = 1, wrong.n + 2 do
          local bad = wrong[k]
          if k > wrong.n then bad = k > wrong.n + 1 and o.run or o.tensor end
          if not matches(kind, bad, o) and not (kind == "table?" and i == 4) then
            local args = { table.unpack(good[name]) }
            args[i] = bad
            refused(("%s argument %d = %s"):format(name, i, type(bad)), "",
              call(core[name], table.unpack(args, 1, #kinds)))
          end
        end
      end
    end
    o.program:close()
    refused("run", "program is closed", call(core.run, o.program))
    o.pool:close()
    refused("run", "pool is closed", call(core.run, o.other, { pool = o.pool }))
  end)

  it("keeps what an object needs, whatever the script closes", function()
    local o = objects()
    for _, name in ipairs { "program", "params", "pool", "model", "state", "tensor", "lengths",
      "data" } do
      o[name]:close()
    end
    collectgarbage()
    o.run:forward()
    assert.same({ 2, 2, 2 }, o.run:read(o.y):shape())
    assert.equal("table", type(o.double:param_grad "w"))
    o.stream:step()
    o.optim:step()
    assert.same({ "x", "rate" }, { next(o.recorded:params():clone():names()) and "x", "rate" })
  end)

  it("computes the same with a full collection at every line", function()
    local function train()
      local rng = neap.rng(5)
      local net = neap.chain { neap.lstm { size = 4 }, neap.linear { size = 2 } }
      local pr = neap.program(function(rec)
        local y = net(rec:input("x", { space = "T", dims = { 3 } }))
        return { y = y, loss = neap.op.mean_rows(neap.op.sum(y * y)) }
      end, { seed = 1 })
      local adam, run, pool = neap.adam { rate = 0.1 }, nil, neap.pool(2)
      run = pr:run { learn = true, pool = pool }
      for _ = 1, 3 do
        local flat = {}
        for i = 1, 12 do flat[i] = rng:normal() end
        run:feed { x = { data = neap.tensor(flat):reshape { 4, 3 },
          lengths = neap.tensor({ 1, 3 }, "i32") } }
        run:forward()
        pr.params:zero_grad()
        run:backward()
        adam:step(pr.params)
      end
      local model, path = core.model(pr.params), os.tmpname()
      local only = neap.program(function(rec)
        return { y = net(rec:input("x", { space = "T", dims = { 3 } })) }
      end, { params = pr.params })
      model:add("predict", only.core)
      assert(model:save(path))
      local loaded = assert(core.load_model(path))
      os.remove(path)
      local stream = core.stream(loaded:program "predict")
      stream:input(1, { 1, 2, 3 })
      stream:step()
      return stream:output(1):tobytes() .. run:value("y"):tobytes()
    end
    local expected = train()
    local count = 0
    debug.sethook(function()
      count = count + 1
      collectgarbage()
    end, "l")
    local ok, came = pcall(train)
    debug.sethook()
    assert(ok, came)
    assert.equal(expected, came)
    assert.truthy(count > 300, count)
    collectgarbage "generational"
    came = train()
    collectgarbage "incremental"
    assert.equal(expected, came)
  end)

  it("lets go of what nobody reaches before it piles up", function()
    local params = core.params()
    params:add("w", { 4 * 64, 64 })
    params:add("u", { 4 * 64, 64 })
    local pr = core.program(params)
    local x = pr:input("x", "f32", pr:space("T", 0), { 64 })
    pr:output("y", pr:add("lstm", { x, pr:param "w", pr:param "u" }, {}))
    local function most_of(make) -- bytes at once, of 200 things that are let go of
      make() -- what stays, such as packed weights
      collectgarbage()
      local before, most = core.memory_live(), 0
      for _ = 1, 200 do
        make()
        most = math.max(most, core.memory_live() - before)
      end
      return most
    end
    local state, stream = core.state(pr, 256), core.stream(pr, { rows = 64 })
    local data, lengths = core.zeros { 50, 8, 64 }, neap.tensor({ 50, 50, 50, 50, 50, 50, 50, 50 },
      "i32")
    for name, make in pairs {
      clone = function() return params:clone() end,
      state = function() return core.state(pr, 256) end,
      copy = function() return state:clone() end,
      stream = function() return core.stream(pr, { rows = 64 }) end,
      kept = function() return stream:state() end,
      run = function()
        local run = core.run(pr)
        run:batch(8)
        run:lengths(1, lengths)
        run:input(x, data)
        run:forward()
        return run
      end,
    } do
      collectgarbage()
      local before = core.memory_live()
      local one = make()
      local bytes = core.memory_live() - before
      one:close()
      local most = most_of(make)
      assert.is_true(most < 20 * bytes, ("%s: %d bytes, %d at once"):format(name, bytes, most))
    end
  end)

  it("survives finalizers that close what is in use", function()
    local big = core.params()
    for i = 1, 300 do big:add(("parameter %d"):format(i), { 40 }) end
    big:add("large", { 300, 300 })
    local function crowd()
      local o = objects()
      o.params = big:clone()
      for i = 1, 50 do
        o.model:add(("program %d"):format(i), o.program)
        o.model:set_text(("text %d"):format(i), "x")
        o.archive:add(("tensor %d"):format(i), o.tensor)
      end
      return o
    end
    local uses = {
      { "params", function(o) return o.params:names() end },
      { "params", function(o) return o.params:get "large" end },
      { "params", function(o) return o.params:grad "large" end },
      { "params", function(o) return o.params:clone() end },
      { "params", function(o)
        local _, message = pcall(o.params.get, o.params, "parameter")
        if message:find "is closed" then error(message, 0) end
      end },
      { "model", function(o) return o.model:programs() end },
      { "model", function(o) return o.model:texts() end },
      { "model", function(o) return o.model:program "predict" end },
      { "model", function(o) return o.model:params() end },
      { "archive", function(o) return o.archive:names() end },
      { "archive", function(o) return o.archive:tensor "t" end },
      { "program", function(o) return o.program:inputs() end },
      { "program", function(o) return o.program:spaces() end },
      { "program", function(o) return o.program:params() end },
      { "program", function(o) return core.run(o.program) end },
      { "program", function(o) return core.state(o.program, 100) end },
      { "state", function(o) return o.state:slots() end },
      { "state", function(o) return o.state:get(1) end },
      { "state", function(o) return o.state:clone() end },
      { "run", function(o) return o.run:read(o.y) end },
      { "run", function(o) return o.run:read_doubles(o.y) end },
      { "run", function(o) return o.run:input(o.x, o.data:clone(), "concat") end },
      { "stream", function(o) return o.stream:output(1) end },
      { "stream", function(o) return o.stream:state() end },
      { "tensor", function(o) return o.tensor:totable() end },
      { "tensor", function(o) return o.tensor:clone() end },
    }
    collectgarbage("incremental", 20, 400, 8)
    for i, use in ipairs(uses) do
      local o = crowd()
      setmetatable({}, { __gc = function() o[use[1]]:close() end })
      local ok, message = true, nil
      for _ = 1, 100000 do
        ok, message = pcall(use[2], o)
        if not ok then break end
      end
      assert.falsy(ok, ("%s (%d) was never closed"):format(use[1], i))
      assert.truthy(message:find(use[1] .. " is closed", 1, true), message)
    end
    collectgarbage("incremental", 200, 100, 13)
  end)

  it("gives nil, a message and a code for files that cannot be read or written", function()
    local o, path = objects(), os.tmpname()
    local function gives(code, words, ...)
      local value, message, came = ...
      assert.is_nil(value)
      assert.truthy(message:find(words, 1, true), message)
      assert.equal(code, came)
    end
    local function write(text)
      local f = assert(io.open(path, "wb"))
      f:write(text)
      f:close()
    end
    assert.equal(true, o.model:save(path))
    local file = assert(io.open(path, "rb"))
    local whole = file:read "a"
    file:close()
    assert.equal("userdata", type(core.load_model_string(whole)))
    gives("EIO", "/no/such: expected a file to read: No such file", core.load_model "/no/such")
    gives("EIO", "expected a file, came a directory", core.load_model "/tmp")
    gives("EIO", "/no/such", core.load_archive "/no/such")
    gives("EIO", "/no/such/dir", o.model:save "/no/such/dir/file")
    gives("EIO", "/no/such/dir", o.archive:save "/no/such/dir/file")
    gives("EFORMAT", "expected at least 8 bytes, came 0", core.load_model_string "")
    for _, part in ipairs { "", whole:sub(1, 7), whole:sub(1, 300), whole:sub(1, -2),
      whole .. "x" } do
      write(part)
      gives("EFORMAT", "", core.load_model(path))
      gives("EFORMAT", "", core.load_archive(path))
    end
    write((whole:gsub("lstm", "lstn", 1)))
    gives("EFORMAT", "there is no op 'lstn'; did you mean 'lstm'?", core.load_model(path))
    o.archive:save(path)
    gives("EFORMAT", "carries no neap programs, only tensors", core.load_model(path))
    gives("EFORMAT", "no state under 'no.'", o.optim:load(o.full, "no."))
    gives("EFORMAT", "it has no state", o.state:load(path))
    if io.open "/dev/full" then gives("EIO", "/dev/full", o.model:save "/dev/full") end
    for _, name in ipairs { "a\0b", "\0" } do -- C would take the part before it
      local words = ("string without zero bytes expected, got \"%s\""):format(name:match "^%Z*")
      for _, wrong in ipairs { function() o.model:save(path .. name) end,
        function() o.archive:save(path .. name) end,
        function() core.load_model(path .. name) end } do
        local ok, message = pcall(wrong)
        assert.is_false(ok)
        assert.matches("string without zero bytes expected, got \"" .. path, message, 1, true)
      end
      local ok, message = pcall(core.load_archive, name)
      assert.is_false(ok)
      assert.matches(words, message, 1, true)
    end
    assert.is_nil(io.open(path .. "a"))
    os.remove(path)
  end)
end)

-- Recording: errors that teach, what print shows, what runs refuse, with the script's own lines.
local neap = require "neap"
local help = require "data_help"
local op, raises = neap.op, help.raises
local t = neap.tensor

-- A program of f on one sequence x [T,B,2].
local function record(f)
  return neap.program(function(rec)
    return { y = f(rec:input("x", { space = "T", dims = { 2 } }), rec) }
  end)
end

-- The line it is called from, as "spec/lua/record_spec.lua:12", moved by some lines.
local function line(shift)
  local info = debug.getinfo(2, "Sl")
  return ("%s:%d"):format(info.short_src, info.currentline + (shift or 0))
end

-- f() raises a message that holds the text, at a line of this file; at one of the function `at`, if
-- given, where f goes through functions of this file that stand for a script's.
local function refuses(text, f, at)
  local ok, message = pcall(f)
  assert(not ok, "no error was raised: " .. text)
  local file, number = tostring(message):match "^(.-):(%d+): "
  local info = debug.getinfo(at or f, "S")
  assert(file == info.short_src, message)
  number = tonumber(number)
  assert(not at or number >= info.linedefined and number <= info.lastlinedefined, message)
  assert(message:find(text, 1, true), ("expected: %s\ncame: %s"):format(text, message))
end

describe("a recorded value", function()
  it("has no number to compare, count, join or look up", function()
    for _, wrong in ipairs {
      { "<: a recorded value has a shape but no number yet; use op.less(a, b) and op.where",
        function(x) return x < 1 end },
      { "<: ", function(x) return x > 0 end },
      { "<: ", function(x) return x < x end },
      { "<=: a recorded value has a shape but no number yet; use op.less_equal(a, b) and op.where",
        function(x) return x <= 1 end },
      { "#: a recorded value has a shape but no number yet; its last dimension is x.width; the "
        .. "number of steps is only known when the program runs (op.lengths)",
        function(x) return #x end },
      { "..: a recorded value has a shape but no number yet; print(x) shows its shape; "
        .. "op.watch(name, x) keeps its numbers", function(x) return "x is " .. x end },
      { "//: ", function(x) return x // 2 end },
      { "%: ", function(x) return x % 2 end },
      { "[1]: a recorded value has a shape but no number yet; op.slice and op.split take parts of "
        .. "[T,B,2], a cell takes its steps", function(x) return x[1] end },
      { "[1]: ", function(x)
        for _, v in ipairs(x) do x = v end
        return x
      end },
      { "[1] =: a recorded value, [T,B,2], cannot be written to; op.where and op.concat make",
        function(x)
          x[1] = 0
          return x
        end },
      { "mul: input 2: expected a value, a tensor or a number, came nil (as tonumber of a recorded "
        .. "value does", function(x) return x * tonumber(x) end },
    } do
      refuses(wrong[1], function() record(function(x) return (wrong[2](x)) end) end, wrong[2])
    end
  end)

  it("says where in the script: the very line", function()
    local place = line(3)
    local ok, message = pcall(record, function(x)
      local y = op.tanh(x)
      return y < 1
    end)
    assert.is_false(ok)
    assert.equal(1, message:find(place .. ": <: ", 1, true), message)
  end)

  it("is known by its shape", function()
    neap.program(function(rec)
      local x = rec:input("x", { space = "T", dims = { 2, 3 } })
      assert.matches("[T,B,2,3]", tostring(x), 1, true)
      assert.equal(3, x.width)
      local words = rec:input("w", { space = "C", parent = "T", dtype = "i32" })
      assert.matches("i32 [C,T,B]", tostring(words), 1, true)
      assert.matches("[B,max T,2]", tostring(op.padded(op.sum(x))), 1, true)
      assert.matches("[]", tostring(op.sum_rows(op.sum(op.sum(x)))), 1, true)
      return x
    end)
  end)

  it("does not meet tensors, other types, or values of another program", function()
    local w, other = t { 1, 2 }, nil
    record(function(x)
      other = x
      return x
    end)
    raises("add: input 2 is a tensor among recorded values: make it a parameter or an input of the "
      .. "program", function() record(function(x) return (x + w) end) end)
    raises("sub: input 1 is a tensor among recorded values", function()
      record(function(x) return (w - x) end)
    end)
    raises("add: input 2: expected a recorded value or a number, came \"1\"", function()
      record(function(x) return (x + "1") end)
    end)
    raises("add: input 2: expected a recorded value or a number, came a table", function()
      record(function(x) return (x + { 1 }) end)
    end)
    raises("add: input 2 was recorded in another program", function()
      record(function(x) return (x + other) end)
    end)
    raises("add: its input was recorded in another program", function()
      record(function(x) return (other + x) end)
    end)
    raises("tanh: its input was recorded in another program", function() op.tanh(other) end)
  end)
end)

describe("recording", function()
  it("refuses a function that differs the second time, with both lines", function()
    local n, first, second = 0, line(4), line(6)
    local ok, message = pcall(record, function(x)
      n = n + 1
      if n == 1 then
        x = op.tanh(x)
      else
        x = op.relu(x)
      end
      return x
    end)
    assert.is_false(ok)
    assert(message:find(("recording: the function made two different programs: tanh at %s the "
      .. "first time, relu at %s the second time"):format(first, second), 1, true), message)
    assert.matches("os.time, math.random, a counter) is frozen", message, 1, true)
    assert.matches("neap.scalar", message, 1, true)
  end)

  it("refuses numbers, loops and outputs that change between calls", function()
    local n = 0
    raises("constant 1 at spec/lua/record_spec.lua:", function()
      record(function(x)
        n = n + 1
        return (x * n)
      end)
    end)
    n = 0
    raises("nothing at its end the first time, tanh at", function()
      record(function(x)
        n = n + 1
        for _ = 1, n do x = op.tanh(x) end
        return x
      end)
    end)
    n = 0
    raises("output 'y' is input x at spec/lua/record_spec.lua:", function()
      neap.program(function(rec)
        n = n + 1
        local x = rec:input("x", { space = "T", dims = { 2 } })
        local y = op.tanh(x)
        return { y = n == 1 and x or y }
      end)
    end)
    n = 0
    raises("the second time", function()
      record(function(x)
        n = n + 1
        return op.slice(x, n, n), nil
      end)
    end)
    n = 0
    raises("param a at", function()
      neap.program(function(rec)
        n = n + 1
        return { y = op.tanh(rec:param(n == 1 and "a" or "b", { 2 })) }
      end)
    end)
    n = 0
    raises("the next state 'h' is add at spec/lua/record_spec.lua:", function()
      local cell = neap.cell { state = function() return { h = 2 } end, step = function(_, x, s)
        n = n + 1
        local h = x + s.h
        return h, { h = n == 1 and h or x }
      end }
      record(function(x) return (cell {} (x)) end)
    end)
  end)

  it("takes layers made outside or inside of the recorded function", function()
    local outside = neap.lstm { size = 2 }
    local params = record(function(x)
      local y = outside(x)
      for _ = 1, 2 do y = neap.lstm { size = 2 } (y) end
      return (neap.chain { neap.gru { size = 3, name = "top" },
        neap.bidir { neap.elman { size = 1 } } } (y))
    end).params
    local names, layers = {}, {}
    for _, name in ipairs(params:names()) do
      local path = name:match "^(.*)%."
      if not names[path] then layers[#layers + 1] = path end
      names[path] = true
    end
    assert.same({ "lstm", "lstm2", "lstm3", "chain.top", "chain.bidir2.forward",
      "chain.bidir2.backward" },
      layers)
  end)

  it("finds a layer's parameters again, and refuses one that meets other widths", function()
    local layer = neap.lstm { size = 2 }
    local pr = record(function(x) return layer(x) + layer(x * 2) end)
    assert.equal(4, #pr.params:names())
    local again = neap.program(function(rec)
      return { z = (layer(rec:input("v", { space = "T", dims = { 2 } }))) }
    end, { params = pr.params })
    assert.equal(4, #again.params:names())
    raises("parameter lstm.weight_ih is [8,2], here it would be [8,3]: a layer that is used twice "
      .. "must meet the same widths", function()
        record(function(x) return layer(x) + (layer(op.concat { x, op.sum(x, 1, true) })) end)
      end)
  end)

  it("names the nearest of what there is", function()
    raises("there is no op.tahn; did you mean op.tanh?", function()
      record(function(x) return (op.tahn(x)) end)
    end)
    raises("there is no neap.lstn; did you mean neap.lstm?", function() neap.lstn { size = 1 } end)
    raises("lstm: unknown option \"sise\"; did you mean \"size\"?",
      function() neap.lstm { sise = 1 } end)
    raises("gru: unknown option \"resett\"; did you mean \"reset\"?", function()
      neap.gru { size = 1, resett = "before" }
    end)
    raises("cell: unknown option \"parms\"; did you mean \"params\"?", function()
      neap.cell { parms = print, state = print, step = print }
    end)
    raises("program: unknown option \"sed\"; did you mean \"seed\"?", function()
      neap.program(function() end, { sed = 1 })
    end)
    raises("input x: unknown option \"spcae\"; did you mean \"space\"?", function()
      neap.program(function(rec) rec:input("x", { spcae = "T" }) end)
    end)
    raises("run: unknown option \"lern\"; did you mean \"learn\"?", function()
      record(function(x) return x end):run { lern = true }
    end)
    raises("elman: unknown activation \"tahn\"; did you mean \"tanh\"?",
      function() neap.elman { size = 1, activation = "tahn" } end)
    raises("attention: kind: expected \"dot\", \"general\" or \"additive\", came", function()
      neap.attention { kind = "aditive" }
    end)
    raises("adam: unknown option \"rat\"; did you mean \"rate\"?",
      function() neap.adam { rat = 1 } end)
  end)

  it("checks sizes, dimensions, initial values, names and results", function()
    for _, wrong in ipairs {
      { "lstm: size: expected an integer from 1, came \"x\"",
        function() neap.lstm { size = "x" } end },
      { "gru: size: expected an integer from 1, came 0", function() neap.gru { size = 0 } end },
      { "elman: size: expected an integer from 1, came nil", function() neap.elman {} end },
      { "dropout: rate: expected a number in [0,1), came 1",
        function() neap.dropout { rate = 1 } end },
      { "gru: reset: expected \"after\" or \"before\"",
        function() neap.gru { size = 1, reset = "never" } end },
      { "bidir: merge: expected \"concat\", \"sum\", \"mean\" or \"mul\", came \"ave\"", function()
        neap.bidir { neap.gru { size = 1 }, merge = "ave" }
      end },
      { "chain: layer 1: expected a layer or a function of the inputs, came 3", function()
        neap.chain { 3 }
      end },
      { "chain: expected a list of layers, chain{ a, b }, came no layer", function()
        neap.chain {}
      end },
      { "program: function: expected a function, came", function() neap.program(3) end },
      { "input: 'x' has dimension 0, expected 1 or more", function()
        neap.program(function(rec) rec:input("x", { dims = { 0 } }) end)
      end },
      { "\"f32\" or \"i32\" expected, got \"f64\"", function()
        neap.program(function(rec) rec:input("x", { dtype = "f64" }) end)
      end },
      { "input: the name 'x' is taken", function()
        neap.program(function(rec)
          rec:input "x"
          rec:input "x"
        end)
      end },
      { "parameter w: dimension 2: expected an integer from 1, came 0", function()
        neap.program(function(rec) rec:param("w", { 2, 0 }) end)
      end },
      { "init: expected zeros, ones, xavier, orthogonal, a number, a tensor or {kind, a, b}", function()
        neap.program(function(rec) rec:param("w", { 2 }, "zeroes") end)
      end },
      { "output y: expected a recorded value, came 3",
        function() record(function() return 3 end) end },
      { "lstm: expected a sequence such as [T,B,64], came [B,2]", function()
        neap.program(function(rec)
          neap.lstm { size = 1 } (rec:input("x", { space = "B", dims = { 2 } }))
        end)
      end },
      { "lstm: expected a sequence of vectors such as [T,B,64], came i32 [T,B]", function()
        neap.program(function(rec)
          neap.lstm { size = 1 } (rec:input("x", { space = "T", dtype = "i32" }))
        end)
      end },
      { "lstm: it has no state z, only h, c", function()
        record(function(x) return (neap.lstm { size = 2 } (x, { z = x })) end)
      end },
      { "h0 must be [B,3], one for each sequence of x [T,B,2], not [B,2]", function()
        record(function(x, rec)
          return (neap.lstm { size = 3 } (x, { h = rec:input("h", { space = "B", dims = { 2 } }) }))
        end)
      end },
      { "residual: the layer makes [T,B,3] from [T,B,2]: the widths must agree", function()
        record(function(x) return (neap.residual { neap.lstm { size = 3 } } (x)) end)
      end },
      { "embed: how many ids are there? say embed{ input = n }", function()
        neap.program(function(rec)
          neap.embed { size = 2 } (rec:input("x", { space = "T", dtype = "i32" }))
        end)
      end },
      { "lstm: a layer is called inside of a function that neap records", function()
        neap.lstm { size = 2 } (neap.zeros { 2, 2, 2 })
      end },
      { "scalar: only inside a function that neap records", function() neap.scalar("rate", 1) end },
    } do
      raises(wrong[1], wrong[2])
    end
  end)

  it("is over when the function raises: nothing is left open", function()
    assert.error_matches(function() record(function() error "on purpose" end) end, "on purpose")
    assert.error_matches(function() record(function(x) return (x + neap.zeros { 2 }) end) end,
      "tensor among")
    assert.same({ 2, 4 }, (t { 1, 2 } * 2):totable())
    assert.matches("tanh", tostring(record(function(x) return (op.tanh(x)) end)))
    assert.error_matches(function() neap.scalar("a", 1) end, "only inside a function")
  end)
end)

describe("a cell of the script's own", function()
  -- Records a cell with these states and step.
  local function cell(states, step, more)
    local spec = { name = "mine", state = function() return states end, step = step }
    for k, v in pairs(more or {}) do spec[k] = v end
    record(function(x) return (neap.cell(spec) {} (x)) end)
  end

  it("must return its output and every next state, in their shapes", function()
    refuses("cell mine: its step must return a recorded value and the next states, came nil",
      function()
      cell({ h = 2 }, function() end)
    end)
    refuses("a cell's step must return its output and a table of next states, came nil", function()
      cell({ h = 2 }, function(_, x) return x end)
    end)
    refuses("a cell's step must say what the state k becomes, came nil", function()
      cell({ h = 2, k = 2 }, function(_, x) return x, { h = x } end)
    end)
    refuses("a cell's step must say what the state h becomes, came 1", function()
      cell({ h = 2 }, function(_, x) return x, { h = 1 } end)
    end)
    refuses("a cell's step returns a state k, but it has only h", function()
      cell({ h = 2 }, function(_, x) return x, { h = x, k = x } end)
    end)
    refuses("state 'h' is [T,B,3], but the step makes it [T,B,2]", function()
      cell({ h = 3 }, function(_, x) return x, { h = x } end)
    end)
    refuses("state 'h' is i32 [T,B,2], but the step makes it [T,B,2]", function()
      cell({ h = { 2, dtype = "i32" } }, function(_, x) return x, { h = x } end)
    end)
    refuses("cell mine: state must give a table, came",
      function() cell(3, function(_, x) return x, {} end) end)
    refuses("cell mine: state h: dimension 1: expected an integer from 1, came 0", function()
      cell({ h = 0 }, function(_, x) return x, { h = x } end)
    end)
    refuses("cell: step: expected a function, came nil", function() cell({ h = 2 }) end)
  end)

  it("names the nearest parameter and state", function()
    refuses("the state has no hiden (did you mean hidden?); it has hidden", function()
      cell({ hidden = 2 }, function(_, x, s) return x, { hidden = s.hiden } end)
    end)
    refuses("cell mine has no parameter wieght; did you mean weight?", function()
      cell({ h = 2 }, function(p, x) return x, { h = op.matmul(x, p.wieght) } end,
        { params = function(p) p.weight = { 2, 2 } end })
    end)
    refuses("cell mine: parameter w: dimension 2: expected an integer from 1, came \"nothing\"",
      function()
      cell({ h = 2 }, function(_, x) return x, { h = x } end,
        { params = function(p) p.w = { 2, "nothing" } end })
    end)
  end)

  it("has no ops in its step that mix time, and makes no inputs there", function()
    for _, name in ipairs { "reverse", "last", "sum_time", "mean_time", "max_time", "padded",
      "lengths",
      "sum_rows", "mean_rows" } do
      raises(name .. ": mixes time steps, which a cell's step cannot: use it outside the cell (",
        function()
          cell({ h = 2 }, function(_, x)
            op[name](x)
            return x, { h = x }
          end)
        end)
    end
    raises("lstm: mixes time steps, which a cell's step cannot", function()
      cell({ h = 2 }, function(_, x) return x, { h = (neap.lstm { size = 2 } (x)) } end)
    end)
    raises("a cell's step cannot attend to its own sequence", function()
      cell({ h = 2 }, function(_, x, s) return x, { h = (op.attend_dot(s.h, x, x)) } end)
    end)
    raises("input: 'late' cannot be made inside a cell's step", function()
      neap.program(function(rec)
        local c = neap.cell { state = function() return { h = 2 } end, step = function(_, x)
          rec:input "late"
          return x, { h = x }
        end }
        c {} (rec:input("x", { space = "T", dims = { 2 } }))
      end)
    end)
  end)

  it("wants a sequence, its context and its first states as they are declared", function()
    local c = neap.cell { name = "mine", context = { "memory" },
      state = function() return { h = 2 } end,
      step = function(_, x, s) return x + s.h, { h = x } end }
    raises("mine: it needs the context memory, came nil", function()
      record(function(x) return (c {} (x)) end)
    end)
    raises("mine: it has no state k, only h", function()
      record(function(x) return (c {} (x, { k = x }, { memory = x })) end)
    end)
    raises("mine: first state h: expected a recorded value, came 0", function()
      record(function(x) return (c {} (x, { h = 0 }, { memory = x })) end)
    end)
    raises("mine: expected a sequence such as [T,B,64], came", function()
      neap.program(function(rec) c {} (rec:input("x", { space = "B", dims = { 2 } })) end)
    end)
    raises("mine: its context: expected a table, came 5", function()
      record(function(x) return (c {} (x, nil, 5)) end)
    end)
    raises("mine: first states: expected a table such as { h = value }, came 5", function()
      record(function(x) return (c {} (x, 5)) end)
    end)
  end)

  it("is declared by functions and tables of names", function()
    local function cell(more)
      local spec = { name = "mine", state = function() return { h = 2 } end,
        step = function(_, x) return x, { h = x } end }
      for k, v in pairs(more) do spec[k] = v end
      return function() record(function(x) return (neap.cell(spec) {} (x)) end) end
    end
    raises("cell: expected a table, cell{ state = .., step = .. }, came nil", function()
      neap.cell()
    end)
    for text, more in pairs {
      ["cell: params: expected a function, came \"w\""] = { params = "w" },
      ["cell: prepare: expected a function, came true"] = { prepare = true },
      ["cell: context: expected a table, came \"memory\""] = { context = "memory" },
      ["cell: context: expected a string, came 3"] = { context = { 3 } },
      ["cell: defaults: expected a table, came 1"] = { defaults = 1 },
      ["cell: name: expected a string, came 7"] = { name = 7 },
      ["cell mine: parameter w: dimension 1: expected an integer from 1, came nil"] =
        { params = function(p) p.w = { nil, 2 } end },
      ["cell mine: parameter w: unknown option \"int\"; did you mean \"init\"?"] =
        { params = function(p) p.w = { 2, int = 0 } end },
      ["cell mine: state: name: expected a string, came 1"] =
        { state = function() return { 2 } end },
      ["cell mine: state h: dtype: expected \"f32\" or \"i32\", came \"f64\""] =
        { state = function() return { h = { 2, dtype = "f64" } } end },
      ["cell mine: what prepare gives: expected a table, came 5"] =
        { prepare = function() return 5 end },
    } do
      local ok, message = pcall(cell(more))
      assert.is_false(ok)
      assert.matches(text, message, 1, true)
      assert.matches("^spec/lua/record_spec.lua:%d+: ", message)
    end
  end)

  it("reads the options that it has, and no others", function()
    local leaky = neap.cell {
      name = "leaky",
      defaults = { keep = 1, bias = false },
      params = function(p, c)
        p.w = { c.input, c.size }
        if c.bias then p.b = { c.size, init = c.start } end
      end,
      state = function(c) return { h = c.size } end,
      step = function(p, x, s, _, c)
        local h = c.keep * s.h + op.matmul(x, p.w)
        return h, { h = h }
      end,
    }
    local function using(options)
      return record(function(x) return (leaky(options) (x)) end)
    end
    assert.truthy(using { size = 3 })
    assert.truthy(using { size = 3, keep = 0.5, name = "mine" })
    assert.truthy(using { size = 3, bias = true, start = 0 })
    for text, options in pairs {
      ["cell \"leaky\": c has no field \"size\"; there are bias, input, keep, szie"] = { szie = 4 },
      ["cell \"leaky\": c has no field \"start\"; there are bias, input, keep, size"] =
        { size = 4, bias = true },
      ["unknown option \"dropout\"; dropout is a layer of its own"] = { size = 3, dropout = 0.5 },
      ["unknown option \"kept\"; did you mean \"keep\"?"] = { size = 3, kept = 0.5 },
      ["unknown option \"start\"; there are: bias, keep, name, size"] = { size = 3, start = 0 },
      ["leaky: input: the width of x is known when the layer is called"] = { size = 3, input = 2 },
      ["leaky: expected named options, came [1]"] = { 3 },
      ["leaky: name: expected a string, came 5"] = { size = 3, name = 5 },
    } do
      local ok, message = pcall(using, options)
      assert.is_false(ok)
      assert.matches(text, message, 1, true)
      assert.matches("^spec/lua/record_spec.lua:%d+: ", message)
    end
    raises("leaky: options: expected a table, came 3", function() leaky(3) end)
    raises("cell \"cell\": c has no field \"inputs\"; there are input, size", function()
      local wrong = neap.cell { params = function(p, c) p.w = { c.inputs, c.size } end,
        state = function(c) return { h = c.size } end,
        step = function(p, x) return op.matmul(x, p.w), { h = x } end }
      record(function(x) return (wrong { size = 2 } (x)) end)
    end)
    raises("jordan made at ", function()
      record(function(x) return (neap.jordan { size = 2, output = 2, ot = "tanh" } (x)) end)
    end)
    raises("jordan: out: unknown activation \"tahn\"; did you mean \"tanh\"?", function()
      record(function(x) return (neap.jordan { size = 2, output = 2, out = "tahn" } (x)) end)
    end)
  end)

  it("may give the same table of states each time", function()
    local states = { h = 2 }
    local c = neap.cell { state = function() return states end,
      step = function(_, x, s) return x + s.h, { h = x } end }
    assert.truthy(record(function(x) return (c {} (x)) end))
    assert.same({ h = 2 }, states)
  end)
end)

describe("print(program)", function()
  it("shows each node with its shape, layer and script line", function()
    local cell_line, use_line
    local cell = neap.cell {
      name = "mine",
      params = function(p, c) p.w = { c.input, 3 } end,
      state = function() return { h = 3 } end,
      step = function(p, x, s)
        cell_line = line(1)
        local h = op.tanh(op.matmul(x, p.w) + s.h)
        return h, { h = h }
      end,
    }
    local pr = neap.program(function(rec)
      local ids = rec:input("words", { space = "T", dtype = "i32" })
      use_line = line(1)
      local x = neap.embed { size = 2, input = 7, name = "letters" } (ids)
      local y = cell { name = "deep" } (x)
      return { scores = op.softmax(op.last(y)) }
    end)
    local text = tostring(pr)
    local function has(...)
      for _, part in ipairs { ... } do assert.matches(part, text, 1, true) end
    end
    has("input 'words'  i32 [T,B]", "param 'letters.weight'  [7,2]", "param 'deep.w'  [2,3]",
      "output 'scores'")
    local at = {}
    for row in text:gmatch "[^\n]+" do
      local name = row:match "= (%w+)"
      if name then at[name] = row end
    end
    assert.matches("[T,B,2]  layer letters  " .. use_line, at.embedding, 1, true)
    assert.matches("[T,B,3]  layer deep  " .. cell_line, at.matmul, 1, true)
    assert.matches("[T,B,3]  layer deep  " .. cell_line, at.tanh, 1, true)
    assert.matches("state 'h'  [T,B,3]", at.state, 1, true)
    assert.matches("[B,3]", at.softmax, 1, true)
    assert.matches("spec/lua/record_spec.lua:", at.softmax, 1, true)
    assert.is_nil(text:find("bindings/", 1, true))
  end)

  it("shows which way a layer goes", function()
    assert.matches("(fused)", tostring(neap.lstm { size = 2 }), 1, true)
    for _, options in ipairs { { peepholes = true }, { gates = { f = 1 } }, { candidate = "relu" },
      { watch = true }, { fused = false } } do
      options.size = 2
      assert.matches("(recorded)", tostring(neap.lstm(options)), 1, true)
    end
    local fused = tostring(record(function(x) return (neap.lstm { size = 2 } (x)) end))
    assert.matches("= lstm", fused, 1, true)
    local recorded = tostring(record(function(x)
      return (neap.lstm { size = 2, peepholes = true } (x))
    end))
    assert.is_nil(recorded:find("= lstm", 1, true))
    assert.matches("state 'c'", recorded, 1, true)
  end)
end)

describe("a run refuses", function()
  local embed_line
  local function program()
    return neap.program(function(rec)
      local x = rec:input("x", { space = "T", dims = { 2 } })
      local ids = rec:input("ids", { space = "T", dtype = "i32" })
      embed_line = line(1)
      local e = op.embedding(ids, rec:param("e", { 3, 2 }))
      local y = e + x * rec:scalar("rate", 0.5)
      return { y = y, z = op.last(x), loss = op.mse(y, x) }
    end)
  end
  local pr = program()
  local function n(...) return t({ ... }, "i32") end
  -- Two sequences, of 2 steps and of 1.
  local good = { x = { data = t { { 1, 2 }, { 3, 4 }, { 5, 6 } }, lengths = n(2, 1) },
    ids = { data = n(0, 1, 2), lengths = n(2, 1) } }
  local function forward(changed, options)
    local batch = { x = good.x, ids = good.ids }
    for name, field in pairs(changed) do batch[name] = field or nil end
    local run = pr:run(options)
    run:feed(batch)
    return run:forward()
  end

  it("ids out of range, naming sequence, step and line", function()
    forward {}
    refuses("embedding: id 3 is not in 0..2, sequence 1, step 2 (" .. embed_line .. ")", function()
      forward { ids = { data = n(0, 3, 2), lengths = n(2, 1) } }
    end)
    refuses("embedding: id -1 is not in 0..2, sequence 2, step 1 (" .. embed_line .. ")", function()
      forward { ids = { data = n(0, 1, -1), lengths = n(2, 1) } }
    end)
    refuses("sequence 2, step 1", function() -- with threads, too
      forward({ ids = { data = n(0, 1, 7), lengths = n(2, 1) } }, { pool = neap.pool(2) })
    end)
    forward {} -- and goes on
  end)

  it("NaN and infinity in what is fed, but for the padding, which it never reads", function()
    refuses("input 'x': NaN or infinity in sequence 2, step 1", function()
      forward { x = { data = t { { 1, 2 }, { 3, 4 }, { 5, 0 / 0 } }, lengths = n(2, 1) } }
    end)
    refuses("input 'x': NaN or infinity in sequence 1, step 2", function()
      forward { x = { data = t { { 1, 2 }, { 1 / 0, 4 }, { 5, 6 } }, lengths = n(2, 1) } }
    end)
    forward { x = { data = t { { { 1, 2 }, { 5, 6 } }, { { 3, 4 }, { 0 / 0, 1 / 0 } } },
      lengths = n(2, 1),
      padded = true } }
    refuses("scalar 'rate': expected a finite number", function() forward { rate = 0 / 0 } end)
  end)

  it("missing and unknown inputs", function()
    refuses("forward: input 'ids' is not set", function() forward { ids = false } end)
    refuses("forward: input 'x' is not set", function() forward { x = false } end)
    refuses("run: the number of rows of the batch is not set", function() pr:run():forward() end)
    refuses("the program has no input rat; did you mean rate?",
      function() pr:run():set("rat", 1) end)
    refuses("scalar: 'x' is no scalar but an input [T,B,2]", function() forward { x = 3 } end)
    refuses("input: 'rate' is no input but a scalar", function() forward { rate = t { 1 } } end)
  end)

  it("wrong lengths", function()
    refuses("feed: inputs",
      function() forward { ids = { data = n(0, 1, 2), lengths = n(1, 2) } } end)
    refuses("are of the same sequence T, but their rows differ: ids has 2, x has 3", function()
      forward { x = { data = good.x.data, lengths = n(1, 1, 1) } }
    end)
    refuses("the same sequence T, but their lengths differ: row 1: 3 ids, 2 x", function()
      forward { x = neap.zeros { 2, 2, 2 }, ids = neap.zeros({ 3, 2 }, "i32") }
    end)
    local one = record(function(x) return x end)
    local function feed(lengths, rows)
      one:run():feed { x = { data = good.x.data, lengths = lengths }, rows = rows }
    end
    refuses("lengths: expected 3 lengths for 'T', one a row of 'B', got 2",
      function() feed(n(2, 1), 3) end)
    refuses("length", function() feed(n(4, -1)) end)
    refuses("i32", function() feed(t { 2, 1 }) end)
    refuses("feed: input x: its lengths: expected an i32 tensor, came a table",
      function() feed { 2, 1 } end)
    refuses("input 'x' [T,B,2]: expected 8 elements, got 6", function() feed(n(2, 2)) end)
    refuses("feed: input x is a sequence: expected { data =, lengths = }", function()
      one:run():feed { x = { data = good.x.data } }
    end)
    refuses("feed: input x is a sequence: expected [T,B,..], came f32 [2]", function()
      one:run():feed { x = t { 1, 2 } }
    end)
    refuses("run: space 'T' has 3 rows, the most allowed are 2",
      function() forward({}, { max_rows = 2 }) end)
  end)

  it("wrong types and sizes of data", function()
    refuses("input 'ids': expected i32, got f32", function()
      forward { ids = { data = t { 0, 1, 2 }, lengths = n(2, 1) } }
    end)
    refuses("input 'x': expected f32, got i32", function()
      forward { x = { data = neap.zeros({ 3, 2 }, "i32"), lengths = n(2, 1) } }
    end)
    refuses("input 'x' [T,B,2]: expected 6 elements, got 9: a tensor [3,2], came f32 [3,3]",
      function() forward { x = { data = neap.zeros { 3, 3 }, lengths = n(2, 1) } } end)
    refuses("feed: input x: expected a tensor [2,2,2], came f32 [2,2,3]",
      function()
        forward { x = neap.zeros { 2, 2, 3 }, ids = neap.zeros({ 2, 2 }, "i32") }
      end)
    refuses("feed: expected a batch, came fields (x): neap.batches makes batches of them",
      function() forward { x = { data = good.x.data, offsets = n(0, 2, 3) } } end)
    refuses("feed: expected a batch, came neap.batches: 1 of up to 32 sequences; x: it gives "
      .. "batches one after the other, for batch in .. do", function()
        pr:run():feed(neap.batches { x = { data = good.x.data, offsets = n(0, 2, 3) } })
      end)
    refuses("feed: input x: expected a tensor, a table or a number, came \"abc\"", function()
      forward { x = "abc" }
    end)
    refuses("feed: input x: its data: expected a tensor, came a table", function()
      forward { x = { data = { { 1, 2 } }, lengths = n(2, 1) } }
    end)
  end)

  it("to read and to go back before it has run, or what was not kept", function()
    local run = pr:run { learn = true }
    run:feed(good)
    raises("read 'y': forward has not run", function() run:value "y" end)
    raises("backward: forward has not run", function() run:backward() end)
    run:forward()
    raises("the program has no output yy; did you mean y?", function() run:value "yy" end)
    raises("item: expected a single number, the value has 8", function() run:item "y" end)
    raises("backward: 'y' is [T,B,2], expected a single number", function() run:backward "y" end)
    raises("read: the gradient of 'x' was not kept", function() run:gradient "x" end)
    raises("the program has no input or output foo", function() run:want_gradient "foo" end)
    run:backward()
    run = pr:run()
    run:feed(good):forward()
    raises("backward: the run was not opened for learning", function() run:backward() end)
  end)

  it("a state of other layers or other rows, and to stream what reads the future", function()
    local lstm = record(function(x) return (neap.lstm { size = 2 } (x)) end)
    local run = lstm:run()
    raises("state: made for a program with other layers", function() run:state(pr:state(2)) end)
    raises("state: it has 3 rows, the batch has 2", function()
      run:state(lstm:state(3))
      run:feed { x = good.x }:forward()
    end)
    raises("the state has no slot 'lstm.k'; nearest: lstm.",
      function() lstm:state(1):get "lstm.k" end)
    local both = record(function(x) return (neap.bidir { neap.lstm { size = 2 } } (x)) end)
    raises("stream: cannot step: reverse of layer bidir reads later steps (spec/lua/record_spec",
      function() both:stream() end)
    assert.matches("reverse of layer bidir", both:reads_future(), 1, true)
    assert.is_nil(lstm:reads_future())
  end)

  it("parameters of other shapes and unknown names", function()
    raises("set: 'e' has 2 dimensions and 6 numbers, the tensor is f32 [2]", function()
      pr.params:set("e", t { 1, 2 })
    end)
    local lstm = record(function(x) return (neap.lstm { size = 2 } (x)) end)
    raises("there is no parameter 'lstm.weigth_ih'; did you mean 'lstm.weight_ih'?", function()
      lstm.params:get "lstm.weigth_ih"
    end)
  end)
end)

describe("a number that is not finite", function()
  local cell_line
  -- A cell called deep whose step is h = f(x, h).
  local function program(f)
    local mine = neap.cell { name = "mine", state = function() return { h = 2 } end,
      step = function(_, x, s)
        cell_line = line(1)
        local h = f(x, s.h)
        return h, { h = h }
      end }
    return record(function(x) return (mine { name = "deep" } (x)) end)
  end
  local batch = { x = { data = t { { 1, 2 }, { 3, 4 }, { 1, 1 }, { 1, -1 }, { -2, 2 } },
    lengths = t({ 2, 3 }, "i32") } }
  local function forward(pr, options) pr:run(options):feed(batch):forward() end

  it("names op, layer, sequence, step and script line", function()
    -- alone over all steps at once, and inside the loop, where the first bad step is named
    for _, f in ipairs { function(x) return (op.log(x)) end,
      function(x, h) return (op.log(x + h * 0)) end } do
      local pr = program(f)
      local info = debug.getinfo(f, "S")
      refuses(("log of layer deep: NaN came up, sequence 2, step 2 (%s:%d)"):format(info.short_src,
        info.linedefined), function() forward(pr) end)
    end
    local pr = program(op.div) -- 1 / 0
    refuses(("div of layer deep: infinity came up, sequence 2, step 1 (%s)"):format(cell_line),
      function() forward(pr) end)
    pr = program(function(x, h) return (op.exp(10 * x + 10 * h)) end)
    for _, threads in ipairs { 1, 2 } do
      refuses("exp of layer deep: infinity came up, sequence", function()
        forward(pr, { pool = neap.pool(threads) })
      end)
    end
  end)

  it("is named outside of cells and in fused layers too", function()
    local place = line(1)
    local pr = record(function(x) return (op.sum_rows(op.sqrt(x))) end)
    refuses(("sqrt: NaN came up, sequence 2, step 2 (%s)"):format(place),
      function() forward(pr) end)
    pr = record(function(x)
      return (neap.elman { size = 1, activation = "identity", name = "big" } (x))
    end)
    for _, name in ipairs { "big.weight_ih", "big.weight_hh" } do
      local w = pr.params:get(name)
      w:fill(1e30)
      pr.params:set(name, w)
    end
    refuses("elman of layer big: infinity came up, sequence ", function() forward(pr) end)
  end)

  it("in a parameter is named", function()
    local pr = record(function(x, rec) return x * rec:param("w", { 2 }) end)
    pr.params:set("w", t { 1, 0 / 0 })
    refuses("param: NaN came up in w", function() forward(pr) end)
  end)

  it("that does not reach an output is found by a run that checks", function()
    local pr = program(function(x, h) return (op.exp(-op.exp(100 * op.abs(x) + h))) end)
    forward(pr)
    refuses("exp of layer deep: infinity came up, sequence 2, step 1", function()
      forward(pr, { check = true })
    end)
  end)

  it("in the gradient is named when it is looked for, and nothing is updated", function()
    local pr = neap.program(function(rec)
      local w = rec:param("w", { 2 }, "zeros")
      return { loss = op.sum(op.sqrt(w * rec:input("x", { dims = { 2 } }))) }
    end)
    local run, optim = pr:run { learn = true }, neap.sgd { rate = 1 }
    pr.params:set("w", t { 1, 0 })
    run:feed { x = t { 1, 1 } }:forward()
    pr.params:zero_grad()
    run:backward()
    raises("w", function() optim:step(pr.params) end)
    assert.same({ 1, 0 }, pr.params:get "w":totable())
    run:feed { x = t { 1, 1 } }:forward()
    local found = run.core:find_nonfinite(pr.outputs.loss)
    assert.matches("came up in the gradient", found, 1, true)
    assert.matches("spec/lua/record_spec.lua:", found, 1, true)
  end)
end)

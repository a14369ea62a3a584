-- Promise 1: a cell that the library has never seen is trained, saved, and run by a process without
-- Lua, a step at a time and whole, to the same bits. And the two C hosts as such.
local neap = require "neap"
local core = require "neap.core"
local op = neap.op

local host = require "host_help"
local execute, bits, same_in_host = host.execute, host.bits, host.same

local run_model, with_lua = host.run_model, host.with_lua

local function quote(s) return "'" .. s:gsub("'", "'\\''") .. "'" end

-- Two memories, the slow one written at every fourth step only, which an integer state counts.
local tide = neap.cell {
  name = "tide",
  params = function(p, c)
    p.w = { c.input, c.size }
    p.u = { c.size, c.size, init = "orthogonal" }
    p.v = { c.size, c.size }
    p.b = { c.size, init = "zeros" }
  end,
  state = function(c)
    return { fast = c.size, slow = c.size, hour = { 1, dtype = "i32" } }
  end,
  step = function(p, x, s)
    local hour = op.cast(s.hour, "f32")
    local flood = op.equal(hour, 0)
    local fast = op.tanh(op.matmul(x, p.w) + op.matmul(s.fast, p.u) + p.b)
    local slow = op.where(flood, (s.slow + fast) * 0.5, s.slow)
    local y = fast + slow * op.sigmoid(op.matmul(slow, p.v))
    local later = op.where(op.greater_equal(hour, 3), hour * 0, hour + 1)
    return y, { fast = fast, slow = slow, hour = op.cast(later, "i32") }
  end,
}

local sequences = { { 1 }, {}, {}, {} }
for n, s in ipairs(sequences) do
  for t = 1, 4 * n + 1 do s[t] = { math.sin(t * n), math.cos(t / n), (t % 3 - 1) / 3 } end
end

--- Trains `net` to foretell the mean of the input's first column; gives the first and last loss.
local function train(net, steps)
  local pr = neap.program(function(rec)
    local x, y = rec:input("x", { space = "T", dims = { 3 } }), rec:input("y", { space = "T" })
    local d = op.reshape(net(x), {}) - y
    return { loss = op.mean_rows(d * d) }
  end, { seed = 3 })
  local flat, want, lengths = {}, {}, {}
  for n, s in ipairs(sequences) do
    local sum = 0
    for t, row in ipairs(s) do
      sum = sum + row[1]
      flat[#flat + 1], want[#want + 1] = row, sum / t
    end
    lengths[n] = #s
  end
  lengths = neap.tensor(lengths, "i32")
  local batch = { x = { data = neap.tensor(flat), lengths = lengths },
    y = { data = neap.tensor(want), lengths = lengths } }
  local run, adam, first = pr:run { learn = true }, neap.adam { rate = 0.02, clip = 5 }, nil
  for _ = 1, steps do
    run:feed(batch)
    run:forward()
    first = first or run:item "loss"
    pr.params:zero_grad()
    run:backward "loss"
    adam:step(pr.params)
  end
  return pr.params, first, run:item "loss"
end

describe("promise 1", function()
  it("is kept by a process without Lua", function()
    local libraries = execute("ldd " .. run_model)
    assert.truthy(libraries:find "libc")
    assert.falsy(libraries:find "liblua")
    local symbols, _, status = execute("nm " .. run_model)
    assert.equal(0, status)
    assert.truthy(symbols:find "neap_stream_step")
    assert.falsy(symbols:find " lua_")
  end)

  it("holds for a cell of the script's own, with three states, one of integers", function()
    local layer, head = tide { size = 5 }, neap.linear { size = 1 }
    local params, first, last = train(function(x) return head(layer(x)) end, 60)
    assert.truthy(last < first / 4, ("loss %g, then %g"):format(first, last))
    local pr = neap.program(function(rec)
      local y, final = layer(rec:input("x", { space = "T", dims = { 3 } }))
      return { y = head(y), inner = y }
    end, { params = params })
    assert.equal(#params:names(), 6)
    local info, lines = same_in_host(pr, sequences)
    assert.truthy(info:find("program predict: %d+ nodes, can be streamed"))
    assert.truthy(info:find("input x: f32 [T,B,3]", 1, true))
    assert.truthy(info:find("output inner: f32 [T,B,5]", 1, true))
    assert.truthy(info:find("parameters: 6, 76 numbers", 1, true))
    assert.truthy(lines:find "\ny %x%x%x%x%x%x%x%x\n")
  end)

  it("holds for a stack of LSTMs", function()
    local net = neap.chain { neap.lstm { size = 6 }, neap.dropout { rate = 0.2 },
      neap.lstm { size = 4 }, neap.linear { size = 1 } }
    local params, first, last = train(net, 60)
    assert.truthy(last < first / 2, ("loss %g, then %g"):format(first, last))
    same_in_host(neap.program(function(rec)
      return { y = net(rec:input("x", { space = "T", dims = { 3 } })) }
    end, { params = params }), sequences)
  end)

  it("holds for ids, and for a cell of one's own among the library's", function()
    local net = neap.chain { neap.embed { size = 3, input = 7 }, neap.gru { size = 4 },
      tide { size = 4 }, neap.linear { size = 7 } }
    local info = same_in_host(neap.program(function(rec)
      local y = net(rec:input("x", { space = "T", dtype = "i32" }))
      return { y = y, best = op.argmax(y) }
    end, { seed = 5 }), { { 0, 6, 2, 2, 5 }, { 3 }, { 1, 2, 3, 4, 5, 6, 0, 1, 2, 3 } })
    assert.truthy(info:find("output best: i32 [T,B]", 1, true))
  end)
end)

describe("run_model", function()
  local path = os.tmpname()
  local params = core.params()
  local function program(name, fn)
    local pr = neap.program(fn, { params = params, seed = 1 })
    return name, pr.core
  end
  local layer = neap.linear { size = 2 }
  local model = core.model(params)
  model:add(program("predict", function(rec)
    local y = layer(rec:input("x", { space = "T", dims = { 3 } }))
    return { y = y, last = op.last(y) }
  end))
  model:add(program("sum", function(rec)
    return { sum = op.sum_rows(layer(rec:input("x", { space = "T", dims = { 3 } }))) }
  end))
  model:add(program("backwards", function(rec)
    return { y = op.reverse(layer(rec:input("x", { space = "T", dims = { 3 } }))) }
  end))
  model:add(program("two", function(rec)
    local x = rec:input("x", { space = "T", dims = { 3 } })
    return { y = layer(x + rec:input("z", { space = "T", dims = { 3 } })) }
  end))
  for _, name in ipairs(params:names()) do
    local weight = name:find "weight"
    params:set(name, neap.tensor(weight and { { 1, 0, 0.5 }, { 0, 2, 0 } } or { 0, 0 }))
  end
  model:set_text("note", "kept")
  assert(model:save(path))
  teardown(function() os.remove(path) end)

  local function run(arguments, input)
    return execute(run_model .. " " .. arguments, input)
  end

  it("prints rows, and what has no rows at the end", function()
    local out, err, status = run(path, "1 2 3\n4 5 6\n\n\n0.1 0 0")
    assert.equal("", err)
    assert.equal(0, status)
    assert.equal("y 2.5 4\ny 7 10\nlast 7 10\n\n" ..
      "y 0.100000001 0\nlast 0.100000001 0\n\n", out)
    assert.equal("sum 9.5 14\n\n", (run(path .. " --program sum", "1 2 3\n4 5 6")))
    assert.truthy(run(path .. " --info"):find("text note", 1, true))
  end)

  it("answers each row as it comes when streaming", function()
    local out = run(path .. " --stream --program predict", "1 2 3\n4 5 6\n")
    assert.equal("y 2.5 4\ny 7 10\nlast 7 10\n\n", out)
  end)

  it("says what is wrong", function()
    local long = "\n1 2 3"
    for _, case in ipairs {
      { "/no/such/file", "", 1,
        "/no/such/file: expected a file to read: No such file or directory" },
      { run_model, "", 1, "no safetensors file" },
      { path, "1 2", 1, "line 1: expected 3 numbers a row, came 2" },
      { path, "1 2 3\n1 2 x", 1, "line 2: expected numbers, came something else" },
      { path, "1 2 3\n1 2 nan\n", 1, "input 'x': NaN or infinity in sequence 1, step 2" },
      { path .. " --program no", "", 1, "the model has no such program" },
      { path .. " --program two", "1 2 3", 1, "reads several inputs" },
      { path .. " --program backwards --stream", long, 1, "reads later steps" },
      { path .. " --frobnicate", "", 2, "unexpected --frobnicate" },
      { path .. " " .. path, "", 2, "unexpected " .. path },
      { "", "", 2, "expected a model file" },
    } do
      local out, err, status = run(case[1], case[2])
      assert.equal(case[3], status)
      assert.equal("run_model: ", err:sub(1, 11))
      assert.truthy(err:find(case[4], 1, true), err)
      assert.equal("", out)
    end
    local out, _, status = run "--help"
    assert.equal(0, status)
    assert.truthy(out:find "%-%-stream")
    if io.open "/dev/full" then
      local _, _, full = os.execute(("echo 1 2 3 | %s %s >/dev/full 2>/dev/null"):format(run_model,
        path))
      assert.equal(1, full)
    end
  end)
end)

describe("with_lua", function()
  local paths = ("--path %s --cpath %s "):format(quote(package.path), quote(package.cpath))

  it("has the whole of neap, goes on after an error, and says where it was", function()
    local script = os.tmpname()
    local f = assert(io.open(script, "w"))
    f:write('local neap = require "neap"\nprint(neap.tensor { 1, 2 }:size())\n',
      'local function deep() neap.lstm { sise = 3 } end\ndeep()\n')
    f:close()
    local out, err, status = execute(("%s %s %s -e 'print(require \"neap\".version)'")
      :format(with_lua, paths, script))
    os.remove(script)
    assert.equal("2\n" .. neap.version .. "\n", out)
    assert.equal(1, status)
    assert.truthy(err:find(script .. ":3:", 1, true), err)
    assert.truthy(err:find("stack traceback:", 1, true))
    assert.truthy(err:find("did you mean", 1, true))
  end)

  it("tells of errors that are no text, of missing files and wrong calls", function()
    local out, err, status = execute(with_lua .. " -e 'error {}' -e 'x =' /no/file -e 'print(1)'")
    assert.equal("1\n", out)
    assert.equal(1, status)
    assert.truthy(err:find "table: 0x" and err:find "unexpected symbol" and err:find "cannot open")
    for _, case in ipairs { { "", 2 }, { "--nonsense", 2 }, { "--help", 0 },
      { "-e 'return 1'", 0 } } do
      local _, _, code = execute(with_lua .. " " .. case[1])
      assert.equal(case[2], code)
    end
  end)
end)

describe("run_model on text", function()
  local path = os.tmpname()
  teardown(function() os.remove(path) end)
  local rng = neap.rng(7)

  --- Larger weights, so that steps and rows differ.
  local function enlarge(model)
    model:parameters()
    for _, name in ipairs(model.params:names()) do
      model.params:set(name, model.params:get(name) * (name:find "bias" and 0 or 8))
    end
  end

  --- What it answers with to lines.
  local function answers(model, lines, options)
    assert(model:save(path))
    local out, err, status = execute(("%s %s %s"):format(run_model, path, options or ""),
      table.concat(lines, "\n"))
    assert.equal("", err)
    assert.equal(0, status)
    local got = {}
    for line in out:gmatch "([^\n]*)\n" do got[#got + 1] = line end
    return got
  end

  local letters = neap.vocab.new { "a", "b", "é", "\"", "\\", "\t", unk = true }
  local phones = neap.vocab.new { "aa", "b", "iy", "t", start = true, stop = true }
  local texts = { "ab", "", "é\"b\\a", "xyz aab", "b" }

  it("classifies", function()
    local model = neap.seq2class { input = letters, rng = rng,
      output = neap.vocab.new { "up", "low tide" },
      net = neap.chain { neap.embed { size = 4 }, neap.bidir { neap.gru { size = 6 } } } }
    local expected = {}
    for i, text in ipairs(texts) do
      local guess = model:predict { text }[1]
      expected[i] = text == "" and "" or ("%s\t%.4f"):format(guess.class, guess.probability)
    end
    assert.same(expected, answers(model, texts))
  end)

  it("tags words, from themselves and from their letters", function()
    local words = neap.vocab.new { "the", "tide", "comes", unk = true, lower = true }
    local model = neap.synced_seq2seq { rng = rng, output = neap.vocab.new { "D", "N", "V" },
      input = { words = words, chars = { vocab = letters, nested = true } },
      net = (function()
        local word, char = neap.embed { size = 8, input = #words }, neap.embed { size = 8,
          input = #letters }
        local spelling, sentence = neap.gru { size = 8 }, neap.bidir { neap.gru { size = 8 } }
        return function(x)
          local _, last = spelling(char(x.chars))
          return sentence(op.concat { word(x.words), last.h })
        end
      end)() }
    enlarge(model)
    local lines = { "The tide comes", "  a\tbab   the ", "ébb TIDE abba aab tide é b" }
    local expected, seen = {}, {}
    for i, line in ipairs(lines) do
      local form = {}
      for word in line:gmatch "[^ \t]+" do form[#form + 1] = word end
      local corpus = neap.corpus.from { form = { form } }
      local tags = model:predict(neap.batches({ words = corpus:encode("form", words),
        chars = corpus:characters("form", letters) }, { size = 1 })())[1]
      for _, name in ipairs(tags) do seen[name] = true end
      expected[i] = table.concat(tags, " ")
    end
    assert.is_truthy(next(seen, (next(seen)))) -- not the same tag everywhere
    assert.same(expected, answers(model, lines))
  end)

  it("finds the best path of a hidden Markov model", function()
    local model = neap.hmm { input = neap.vocab.new { "the", "tide", "comes" }, rng = rng,
      output = neap.vocab.new { "D", "N", "V" } }
    local lines = { "the tide comes", "tide", "comes the comes tide the" }
    local expected = {}
    for i, line in ipairs(lines) do
      expected[i] = table.concat(model:decode { line }[1], " ")
    end
    assert.same(expected, answers(model, lines))
  end)

  it("writes what an encoder and a decoder make of a line", function()
    local single = neap.vocab.new { "x", "y", "z", start = true, stop = true }
    local pieces = neap.vocab.new { "x", "y z", "", start = true, stop = true, split = "pieces" }
    for _, output in ipairs { phones, single, pieces } do
      local model = neap.async_seq2seq { input = letters, output = output, rng = rng,
        max_length = 12, encoder = neap.chain { neap.embed { size = 5 },
          neap.bidir { neap.lstm { size = 6 } } },
        decoder = neap.decoder { embed = 5, layers = { neap.lstm { size = 7 } },
          attention = output == pieces and "aligned" or nil } }
      enlarge(model)
      local expected, long = {}, {}
      for i, text in ipairs(texts) do
        local symbols = text == "" and {} or model:predict { text }[1]
        expected[i] = output:text(symbols)
        long[i] = output:text(table.move(symbols, 1, 2, 1, {}))
      end
      assert.same(expected, answers(model, texts))
      assert.same(long, answers(model, texts, "--length 2"))
    end
  end)

  it("copies, and knows what it has looked at, as in the script", function()
    local words = neap.vocab.new { "the", "tide", "of", unk = true, lower = true }
    local output = neap.vocab.new { "die", "flut", start = true, stop = true, unk = true }
    local lines = { "the tide of Kjell", "Kjell kjell Kjell of Bo", "of of", "a b c d e f",
      "Bo Kjell the tide Bo" }
    local copied = 0
    for i, options in ipairs { { copy = 2 }, { coverage = true, attention = "additive" },
      { copy = 3, coverage = true, bridge = "copy" }, { copy = true, bridge = "zero",
        attention = "dot", coverage = true },
      { input_feed = true, copy = 2, coverage = true }, { input_feed = true, mix = 4 } } do
      local wide = i == 4 and 12 or 7
      options.embed = wide
      options.layers = { neap.residual { neap.lstm { size = wide } },
        neap.chain { neap.layer_norm {}, neap.lstm { size = 6 } } }
      if i == 4 then options.layers = { neap.highway { neap.gru { size = 12 } } } end
      if options.input_feed then options.layers[1] = neap.lstm { size = wide } end
      if options.bridge == "copy" then options.layers[2] = neap.lstm { size = 6 } end
      local model = neap.async_seq2seq { input = words, output = output, rng = rng, max_length = 9,
        encoder = neap.chain { neap.embed { size = 5 }, neap.lstm { size = 7 },
          neap.linear { size = 12 }, neap.lstm { size = 6 }, i == 4 and neap.linear { size = 12 }
            or nil }, decoder = neap.decoder(options) }
      enlarge(model)
      local expected = {}
      for k, text in ipairs(lines) do
        local symbols = model:predict { text }[1]
        for _, symbol in ipairs(symbols) do copied = copied + (output:has(symbol) and 0 or 1) end
        expected[k] = table.concat(symbols, " ")
      end
      assert.same(expected, answers(model, lines))
    end
    assert.is_true(copied > 0)
  end)

  it("goes on after a text as a language model does", function()
    local model = neap.language_model { vocab = letters, rng = rng,
      net = neap.chain { neap.embed { size = 5 }, neap.lstm { size = 6 } } }
    local expected = {}
    for i, text in ipairs(texts) do
      expected[i] = text == "" and "" or model:generate(text, 9, { temperature = 0 })
    end
    assert.same(expected, answers(model, texts, "--length 9"))
  end)

  it("reads numbers instead where that is asked, and says which symbol is unknown", function()
    local few = neap.vocab.new { "a", "b" }
    local model = neap.seq2class { input = few, output = few, rng = rng,
      net = neap.chain { neap.embed { size = 2 }, neap.gru { size = 2 } } }
    assert.matches("^class [01]$", answers(model, { "0 1 1" }, "--ids")[1])
    local out, err, status = execute(("%s %s"):format(run_model, path), "ab\naéb\n")
    assert.matches("^[ab]\t0.%d%d%d%d\n$", out)
    assert.equal('run_model: line 2: the model does not know "é"\n', err)
    assert.equal(1, status)
  end)
end)

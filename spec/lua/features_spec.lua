-- Features of sound: the numbers of other software, in a stream too, and in C.
local cjson = require "cjson"
local core = require "neap.core"
local corpus = require "neap.corpus"
local neap = require "neap"
local help = require "data_help"
local raises, fails = help.raises, help.fails
local features = neap.features

local build = os.getenv "NEAP_BUILD" or "build"

local function golden()
  local file <close> = assert(io.open "spec/golden/data.json")
  return cjson.decode(file:read "a").sound
end

-- Samples as [T,1,hop].
local function steps_of(samples, hop)
  return core.tensor(samples):reshape { #samples // hop, 1, hop }
end

local function program_of(layer, width)
  return neap.program(function(rec)
    return { y = (layer(rec:input("x", { space = "T", dims = { width } }))) }
  end)
end

local function numbers(n)
  local list = {}
  for i = 1, n do list[i] = i end
  return list
end

local function compute(layer, x)
  local run = program_of(layer, x:shape()[3]):run()
  run:feed { x = x }:forward()
  return run:value "y"
end

-- Is y [T,1,n] what is wanted, a list of rows?
local function near(wanted, y, tolerance)
  assert.same({ #wanted, 1, #wanted[1] }, y:shape())
  for t, row in ipairs(wanted) do
    for k, x in ipairs(row) do
      local d = math.abs(x - y:get(t, 1, k))
      assert.is_true(d <= tolerance, ("step %d, number %d: %g, not %g"):format(t, k,
        y:get(t, 1, k), x))
    end
  end
end

local slaney = { rate = 8000, filters = 20 }
local htk = { rate = 8000, filters = 12, low = 100, high = 3800, scale = "htk", shape = "hamming",
  preemphasis = 0.97, power = 1 }
local function more(options, extra)
  local all = {}
  for k, v in pairs(options) do all[k] = v end
  for k, v in pairs(extra) do all[k] = v end
  return all
end

describe("features", function()
  local g = golden()
  local x = steps_of(g.samples, 80)

  it("are librosa's", function()
    near(g.log_mel, compute(features.log_mel(slaney), x), 2e-4)
    near(g.mfcc, compute(features.mfcc(slaney), x), 1e-3)
    near(g.deltas, compute(neap.chain { features.mfcc(slaney), features.deltas() }, x), 1e-3)
  end)

  it("are the HTK Book's", function()
    near(g.htk_log_mel, compute(features.log_mel(htk), x), 2e-4)
    near(g.htk_mfcc, compute(features.mfcc(more(htk, { coefficients = 10, lifter = 22 })), x), 2e-3)
  end)

  it("do not depend on how long a step is", function()
    local y = compute(features.log_mel(slaney), x)
    local half = compute(features.log_mel(slaney), steps_of(g.samples, 40))
    for t = 1, 12 do
      for k = 1, 20 do assert.equal(y:get(t, 1, k), half:get(2 * t, 1, k)) end
    end
    -- a window of one step needs no memory
    local list = table.move(g.samples, 1, 800, 1, {})
    local whole, part = compute(features.log_mel(slaney), steps_of(list, 200)),
      compute(features.log_mel(slaney), steps_of(list, 40))
    for t = 1, 4 do
      for k = 1, 20 do assert.equal(part:get(5 * t, 1, k), whole:get(t, 1, k)) end
    end
  end)

  it("keep silence finite", function()
    local y = compute(features.log_mel { rate = 8000, power = 1, floor = 1e-5 },
      core.zeros { 3, 1, 80 })
    for t = 1, 3 do
      for k = 1, 40 do assert.is_true(math.abs(y:get(t, 1, k) - math.log(1e-5)) < 1e-5) end
    end
  end)

  it("stream to the same bits", function()
    for _, layer in ipairs { features.log_mel(slaney), features.mfcc(htk),
      features.window { steps = 3 } } do
      local program = program_of(layer, 80)
      local run, stream = program:run(), program:stream()
      run:feed { x = x }:forward()
      for t = 1, 12 do
        stream:input(1, x[t]:reshape { 80 }:totable())
        stream:step()
        assert.equal(run:value("y", t):tobytes(), stream:output(1):tobytes())
      end
    end
  end)

  it("stream with deltas, which look ahead", function()
    local layer = neap.chain { features.mfcc(slaney), features.deltas { width = 2, order = 2 } }
    local program = program_of(layer, 80)
    local run = program:run()
    run:feed { x = x }:forward()
    local ok, message = pcall(program.stream, program)
    assert.is_false(ok)
    assert.matches("deltas", message)
    for _, block in ipairs { 1, 5, 12 } do
      local stream, got = program:stream { block = block, lookahead = 4 }, {}
      for from = 1, 12, block do
        local n, rows = math.min(block, 12 - from + 1), {}
        for k = 1, n do rows[k] = x[from + k - 1]:totable() end
        got[#got + 1] = stream:steps(core.tensor(rows)):tobytes()
      end
      got[#got + 1] = stream:finish():tobytes()
      assert.equal(run:value("y"):tobytes(), table.concat(got), "block " .. block)
    end
  end)

  it("go by rows, each of its own length", function()
    local layer = neap.chain { features.log_mel(slaney), features.deltas { order = 1 },
      features.normalize() }
    local program = program_of(layer, 80)
    local run = program:run()
    local data, lengths = {}, { 12, 1, 7 }
    for _, n in ipairs(lengths) do
      for t = 1, n do data[#data + 1] = x[t][1]:totable() end
    end
    run:feed { x = { data = core.tensor(data), lengths = core.tensor(lengths, "i32") } }:forward()
    local all, at = run:value("y", "concat"), 0
    for _, n in ipairs(lengths) do
      local part = core.zeros { n, 1, 80 }
      for t = 1, n do
        for k = 1, 80 do part:set(t, 1, k, x:get(t, 1, k)) end
      end
      local alone = compute(layer, part)
      for t = 1, n do
        for k = 1, 40 do assert.equal(alone:get(t, 1, k), all:get(at + t, k)) end
      end
      at = at + n
    end
  end)

  it("window lays steps side by side", function()
    assert.same({ { { 0, 0, 1 } }, { { 0, 1, 2 } }, { { 1, 2, 3 } } },
      compute(features.window { steps = 3 }, core.tensor { { { 1 } }, { { 2 } }, { { 3 } } })
        :totable())
    assert.same({ { { 0, 0, 1, 2 } }, { { 1, 2, 3, 4 } } },
      compute(features.window { steps = 2 }, core.tensor { { { 1, 2 } }, { { 3, 4 } } }):totable())
  end)

  it("n-grams are rows of a table, by what stands in a row", function()
    local op, n, buckets = neap.op, 3, 50
    local layer = features.ngrams { size = 4, n = n, buckets = buckets, name = "grams" }
    local function recorded(rec)
      return layer(rec:input("x", { space = "T", dtype = "i32" }))
    end
    local grams = neap.program(function(rec)
      local y = recorded(rec)
      return { y = y, loss = op.sum(op.square(op.sum_rows(y))) }
    end)
    local E, sequences = grams.params:get "grams.weight", { { 7, 0, 7, 0 }, { 3 }, { 0, 7 } }
    local function row(...) -- of ids that count from 1
      return op.hash(core.tensor({ ... }, "i32"), buckets):item() + 1
    end
    local run, data, lengths = grams:run { learn = true }, core.ints(), core.ints()
    for _, s in ipairs(sequences) do
      for _, id in ipairs(s) do data:push(id) end
      lengths:push(#s)
    end
    run:feed { x = { data = data:tensor(), lengths = lengths:tensor() }, rows = 3 }:forward()
    local used = {}
    for b, s in ipairs(sequences) do
      local function id(t) return t < 1 and 0 or s[t] + 1 end
      for t = 1, #s do
        local rows = { row(id(t)), row(id(t - 1), id(t)), row(id(t - 2), id(t - 1), id(t)) }
        for j = 1, 4 do
          local sum = E:get(rows[1], j) + E:get(rows[2], j) + E:get(rows[3], j)
          assert.is_true(math.abs(run:value("y", t):get(b, j) - sum) < 1e-6)
        end
        for _, r in ipairs(rows) do used[r] = true end
      end
    end
    run:backward()
    local g, most = grams.params:grad "grams.weight", 0
    for r = 1, buckets do
      for j = 1, 4 do
        most = math.max(most, math.abs(g:get(r, j)))
        if not used[r] then assert.equal(0, g:get(r, j)) end
      end
    end
    assert.is_true(most > 0.1)
    local stream = neap.program(function(rec) return { y = recorded(rec) } end,
      { params = grams.params }):stream()
    for _, t in ipairs { 1, 2, 3, 4 } do
      stream:input(1, { sequences[1][t] })
      stream:step()
      assert.equal(core.tensor(run:value("y", t):totable()[1]):tobytes(),
        stream:output(1):tobytes())
    end
  end)

  it("n-grams say what they expect", function()
    raises("ngrams: size: expected an integer from 1, came nil",
      function() features.ngrams { n = 2 } end)
    raises("ngrams: n: expected an integer from 1 to 64, came 0",
      function() features.ngrams { size = 3, n = 0 } end)
    raises("ngrams: buckets: expected an integer from 1 to 2147483647, came 0",
      function() features.ngrams { size = 3, buckets = 0 } end)
    for came, type in pairs { ["[T,B,4]"] = { space = "T", dims = { 4 } },
      ["i32 [B]"] = { space = "B", dtype = "i32" },
      ["i32 [T,B,2]"] = { space = "T", dims = { 2 }, dtype = "i32" } } do
      raises("ngrams: expected a sequence of ids such as i32 [T,B], came " .. came, function()
        neap.program(function(rec)
          return { y = (features.ngrams { size = 3 }(rec:input("x", type))) }
        end)
      end)
    end
    raises("ngrams: expected a sequence of ids such as i32 [T,B], came nil",
      function() neap.program(function() return { y = (features.ngrams { size = 3 }(nil)) } end) end)
  end)

  it("normalize each sequence, standardize all", function()
    local odd = core.tensor { { { 1 } }, { { 3 } }, { { 5 } } }
    local y = compute(features.normalize { eps = 0 }, odd)
    local d = (8 / 3) ^ 0.5
    near({ { -2 / d }, { 0 }, { 2 / d } }, y, 1e-6)
    near({ { -2 }, { 0 }, { 2 } }, compute(features.normalize { variance = false }, odd), 0)
    local c = corpus.from { v = { { { 1, 7 }, { 3, 7 } }, { { 5, 7 } } } }
    local moments = c:moments "v"
    assert.same({ 3, 7 }, moments.mean)
    assert.is_true(math.abs(moments.deviation[1] - d) < 1e-12)
    assert.equal(0, moments.deviation[2])
    near({ { -2 / d, 0 }, { 0, 0 } }, compute(features.standardize(moments),
      core.tensor { { { 1, 7 } }, { { 3, 7 } } }), 1e-6)
  end)

  it("do not learn, and stay frozen in a file", function()
    local folder = help.folder()
    local model = neap.seq2class { input = 80, output = neap.vocab.new { "a", "b" },
      rng = neap.rng(1), net = neap.chain { features.mfcc(slaney), features.deltas(),
        features.standardize { mean = numbers(39), deviation = numbers(39) },
        neap.gru { size = 6 } } }
    local batch = { rows = 1, input = { data = x:reshape { 12, 80 },
      lengths = core.tensor({ 12 }, "i32") }, output = { data = core.tensor({ 1 }, "i32") } }
    local optim = neap.adamw { rate = 0.1, weight_decay = 0.1 }
    local function constants()
      local all = {}
      for _, name in ipairs(model.params:names()) do
        if name:find "mfcc" or name:find "standardize" then
          assert.is_true(model.params:frozen(name), name)
          all[#all + 1] = model.params:get(name):tobytes()
        else
          assert.is_false(model.params:frozen(name), name)
        end
      end
      assert.equal(5, #all)
      return table.concat(all)
    end
    local loss = model:learn(batch, optim)
    local before = constants()
    assert.is_true(model:learn(batch, optim) < loss)
    assert.equal(before, constants())
    assert(model:save(folder.path .. "/m"))
    model = assert(neap.load(folder.path .. "/m"))
    assert.equal(before, constants())
    model:learn(batch, neap.adamw { rate = 0.1, weight_decay = 0.1 })
    assert.equal(before, constants())
    folder.remove()
  end)

  it("are computed in C from samples, whole and step by step", function()
    local folder = help.folder()
    local program = program_of(neap.chain { features.mfcc(htk), neap.gru { size = 4 } }, 80)
    assert(program:save(folder.path .. "/m"))
    local run, lines = program:run(), {}
    run:feed { x = x }:forward()
    for t = 1, 12 do
      local row = {}
      for k = 1, 80 do row[k] = ("%.9g"):format(x:get(t, 1, k)) end
      lines[t] = table.concat(row, " ")
    end
    folder.write("in", table.concat(lines, "\n") .. "\n")
    local wanted = {}
    for t = 1, 12 do
      local row = { "y" }
      for k = 1, 4 do
        row[k + 1] = ("%08x"):format(string.unpack("<I4", run:value("y", t):tobytes(), 4 * k - 3))
      end
      wanted[t] = table.concat(row, " ")
    end
    for _, how in ipairs { "", " --stream" } do
      local pipe = assert(io.popen(("env -u LD_PRELOAD %s/embed/run_model %s/m --hex%s <%s/in")
        :format(build, folder.path, how, folder.path)))
      assert.equal(table.concat(wanted, "\n") .. "\n\n", pipe:read "a")
      pipe:close()
    end
    folder.remove()
  end)

  it("have gradients that flow on to what is below", function()
    local scale = neap.cell { name = "scale", params = function(p) p.w = { 80, init = 1 } end,
      state = function() return { n = 1 } end,
      step = function(p, v, s) return v * p.w, s end }
    local report = neap.gradcheck(neap.chain { scale {}, features.mfcc(slaney),
      features.deltas { order = 1 }, features.normalize() }, { T = 4, B = 2, input = 80 })
    assert.matches("good, under", tostring(report))
  end)

  it("refuse what they cannot do", function()
    raises("log_mel: rate: expected a number from 1, came nil", function() features.log_mel {} end)
    raises("log_mel: unknown option \"filter\"; did you mean \"filters\"?", function()
      features.log_mel { rate = 8000, filter = 3 }
    end)
    raises("log_mel: scale: expected \"htk\", \"slaney\", came \"slany\"; did you mean \"slaney\"?",
      function() features.log_mel { rate = 8000, scale = "slany" } end)
    raises("mfcc: shape: expected \"hamming\", \"hann\", \"rectangle\", came \"kaiser\"", function()
      features.mfcc { rate = 8000, shape = "kaiser" }
    end)
    raises("log_mel: window: expected at least 2 samples, came 0.0001 s, which are 1 at a rate of "
      .. "8000", function() features.log_mel { rate = 8000, window = 1e-4 } end)
    raises("log_mel: fft: expected an integer from 200, came 128", function()
      features.log_mel { rate = 8000, fft = 128 }
    end)
    raises("log_mel: high: expected more than low = 4000, came 4000", function()
      features.log_mel { rate = 8000, low = 4000 }
    end)
    raises("log_mel: high: expected a number from 0 to 4000, came 8000", function()
      features.log_mel { rate = 8000, high = 8000 }
    end)
    raises("log_mel: filters: filter 1 of 200 lies between two lines of the spectrum, 31.25 Hz "
      .. "apart", function() features.log_mel { rate = 8000, filters = 200 } end)
    raises("mfcc: coefficients: expected an integer from 1 to 20, came 21", function()
      features.mfcc { rate = 8000, filters = 20, coefficients = 21 }
    end)
    raises("log_mel: its window of 200 samples is shorter than the 400 samples of a", function()
      neap.program(function(rec)
        return features.log_mel(slaney)(rec:input("x", { space = "T", dims = { 400 } }))
      end)
    end)
    raises("log_mel: expected a sequence of vectors such as [T,B,64], came", function()
      neap.program(function(rec)
        return features.log_mel(slaney)(rec:input("x", { space = "T", dtype = "i32" }))
      end)
    end)
    raises("deltas: width: expected an integer from 1 to 12, came 13", function()
      features.deltas { width = 13 }
    end)
    raises("window: steps: expected an integer from 1, came nil", function() features.window() end)
    raises("standardize: mean: expected a table, came nil", function() features.standardize {} end)
    raises("standardize: expected a mean and a deviation of each column, came 2 and 1", function()
      features.standardize { mean = { 1, 2 }, deviation = { 1 } }
    end)
    raises("standardize: deviation[1]: expected a number from 0, came -1", function()
      features.standardize { mean = { 1 }, deviation = { -1 } }
    end)
    raises("standardize: expected rows of 1 numbers, came", function()
      neap.program(function(rec)
        return features.standardize { mean = { 1 }, deviation = { 1 } }(rec:input("x",
          { space = "T", dims = { 2 } }))
      end)
    end)
    raises("normalize: variance: expected true or false, came 1", function()
      features.normalize { variance = 1 }
    end)
    raises("chain: layer 1: expected a layer or a function of the inputs, got the constructor "
      .. "neap.features.deltas", function() neap.chain { features.deltas } end)
  end)
end)

describe("sound", function()
  local folder
  setup(function() folder = help.folder() end)
  teardown(function() folder.remove() end)

  local function chunk(name, text)
    return name .. string.pack("<I4", #text) .. text .. (#text % 2 == 1 and "\0" or "")
  end
  local function format(tag, channels, rate, bits)
    local frame = channels * bits // 8
    return chunk("fmt ", string.pack("<I2I2I4I4I2I2", tag, channels, rate, rate * frame, frame,
      bits))
  end
  local function wav(...)
    local body = table.concat { "WAVE", ... }
    return "RIFF" .. string.pack("<I4", #body) .. body
  end
  local function read(text, options)
    return neap.audio.read(folder.write("x.wav", text), options)
  end
  local function samples_of(text, options) return assert(read(text, options)):totable() end

  it("is read from WAV of each kind", function()
    assert.same({ 0.5, -1, 0 }, samples_of(wav(format(1, 1, 8000, 16), chunk("data",
      string.pack("<i2i2i2", 16384, -32768, 0)))))
    assert.same({ -1, 0, 0.5 }, samples_of(wav(format(1, 1, 8000, 8), chunk("data", "\0\128\192"))))
    assert.same({ 0.5, -0.25 }, samples_of(wav(format(1, 1, 8000, 24), chunk("data",
      "\0\0\x40" .. "\0\0\xE0"))))
    assert.same({ 0.5, -1 }, samples_of(wav(format(1, 1, 8000, 32), chunk("data",
      string.pack("<i4i4", 1 << 30, -1 << 31)))))
    assert.same({ 0.25, -3 }, samples_of(wav(format(3, 1, 8000, 32), chunk("data",
      string.pack("<ff", 0.25, -3)))))
    assert.same({ 0.25, -3 }, samples_of(wav(format(3, 1, 8000, 64), chunk("data",
      string.pack("<dd", 0.25, -3)))))
    local extensible = chunk("fmt ", string.pack("<I2I2I4I4I2I2I2I2I4I2", 0xFFFE, 1, 8000, 16000, 2,
      16, 22, 16, 4, 1) .. ("\0"):rep(14))
    local t, rate = read(wav(chunk("LIST", "odd"), extensible, chunk("data",
      string.pack("<i2", 8192)), "junk"))
    assert.same({ { 0.25 }, 8000 }, { t:totable(), rate })
    assert.equal(0, #samples_of(wav(format(1, 1, 8000, 16), chunk("data", ""))))
  end)

  it("of several channels is their mean, or one of them", function()
    local two = wav(format(1, 2, 8000, 16), chunk("data", string.pack("<i2i2i2i2", 16384, 0, 0,
      -16384)))
    assert.same({ 0.25, -0.25 }, samples_of(two))
    assert.same({ 0.5, 0 }, samples_of(two, { channel = 1 }))
    assert.same({ 0, -0.5 }, samples_of(two, { channel = 2 }))
    fails("EFORMAT", "x.wav: expected a channel 3, came a file of 2", read(two, { channel = 3 }))
  end)

  it("names what is wrong with a file", function()
    local good = format(1, 1, 8000, 16)
    fails("EFORMAT", folder.path .. "/x.wav: ends without samples", read(wav(good)))
    fails("EFORMAT", "x.wav: ends without a format", read(wav()))
    fails("EFORMAT", "x.wav: its samples come before their format", read(wav(chunk("data", ""))))
    fails("EFORMAT", "x.wav: ends within its format", read(wav(good):sub(1, 30)))
    fails("EFORMAT", "x.wav: its format takes 4 bytes, expected 16",
      read(wav(chunk("fmt ", "abcd"))))
    fails("EFORMAT", "x.wav: its format takes 16 bytes, expected 40",
      read(wav(format(0xFFFE, 1, 8000, 16))))
    fails("EFORMAT", "x.wav: ends after 4 of 10 bytes of samples",
      read(wav(good, "data", string.pack("<I4", 10), "abcd")))
    fails("EFORMAT", "x.wav: ends after 5 of 10 bytes of samples",
      read(wav(good, "data", string.pack("<I4", 10), "abcde")))
    fails("EFORMAT", "x.wav: its header says 0 channels and 8000 samples a second",
      read(wav(format(1, 0, 8000, 16))))
    fails("EFORMAT", "x.wav: its header says 3 bytes for 1 channels of 16 bits", read(wav(
      chunk("fmt ", string.pack("<I2I2I4I4I2I2", 1, 1, 8000, 16000, 3, 16)))))
    fails("EFORMAT", "x.wav: expected 16000 samples a second, came 8000 (sox IN -r 16000 OUT.wav",
      read(wav(good, chunk("data", "")), { rate = 16000 }))
    fails("EFORMAT", "x.wav: sample 2 is no finite number",
      read(wav(format(3, 1, 8000, 32), chunk("data", string.pack("<ff", 0, 0 / 0)))))
    fails("EFORMAT", "x.wav", read("RIFF...."))
    fails("EFORMAT", "x.wav", read("no sound at all"))
    fails("EFORMAT", "x.wav: nothing in it", read(""))
    fails("EIO", "No such file", neap.audio.read(folder.path .. "/none.wav"))
    fails("EIO", "directory", neap.audio.read(folder.path))
    raises("audio.read: unknown option \"rat\"; did you mean \"rate\"?", function()
      neap.audio.read("x", { rat = 1 })
    end)
    raises("audio.read: channel: expected an integer from 1, came 0", function()
      neap.audio.read("x", { channel = 0 })
    end)
    raises("audio.read: path: expected a string, came nil", function() neap.audio.read() end)
  end)

  it("is never taken from a damaged header", function()
    local good = wav(format(1, 2, 8000, 16), chunk("data", ("\1\2"):rep(20)))
    for at = 1, 44 do
      for _, byte in ipairs { 0, 1, 127, 255 } do
        local t, message = read(good:sub(1, at - 1) .. string.char(byte) .. good:sub(at + 1))
        assert.is_true(t ~= nil or type(message) == "string")
      end
      assert.is_nil((read(good:sub(1, at - 1))))
    end
  end)

  it("is read by libsndfile where that is there", function()
    local au = ".snd" .. string.pack(">I4I4I4I4I4", 24, 8, 3, 8000, 2)
      .. string.pack(">i2i2i2i2", 16384, 0, -32768, 0)
    local ulaw = wav(format(7, 1, 8000, 8), chunk("data", "\xFF\x80\0\x7F"))
    if not core.has_sound_library() then
      fails("EFORMAT", "x.wav: no WAV file; with libsndfile (Debian: libsndfile1) other files are "
        .. "read too", read(au))
      return pending "libsndfile is not there"
    end
    assert.same({ 0.25, -0.5 }, samples_of(au))
    assert.same({ 0.5, -1 }, samples_of(au, { channel = 1 }))
    fails("EFORMAT", "x.wav: expected 16000 samples a second, came 8000",
      read(au, { rate = 16000 }))
    local t = samples_of(ulaw)
    assert.equal(4, #t)
    assert.is_true(math.abs(t[2] - 32124 / 32768) < 1e-6 and t[3] == -t[2])
    -- both ways to the same samples
    local plain = wav(format(1, 2, 8000, 16), chunk("data", string.pack("<i2i2i2i2", 1, -2, 300,
      -32768)))
    local file, rate, channels = core.sound(folder.write("y.wav", plain))
    local bytes = file:read()
    assert.same({ 8000, 2 }, { rate, channels })
    assert.equal(core.tensor(samples_of(plain, { channel = 2 })):tobytes(),
      bytes:sub(5, 8) .. bytes:sub(13, 16))
    assert.is_nil(file:read())
  end)

  it("is written as WAV", function()
    local path = folder.path .. "/w.wav"
    assert.is_true(neap.audio.write(path, core.tensor { 0, 0.5, -1, 2, -2 }, 8000))
    local t, rate = neap.audio.read(path)
    assert.same({ { 0, 0.5, -1, 32767 / 32768, -1 }, 8000 }, { t:totable(), rate })
    fails("EIO", "cannot open", neap.audio.write(folder.path .. "/no/w.wav", {}, 8000))
    raises("audio.write: samples: entry 1: expected a number, came \"x\"", function()
      neap.audio.write(path, { "x" }, 8000)
    end)
    raises("audio.write: rate: expected an integer from 1", function()
      neap.audio.write(path, {}, 0)
    end)
  end)

  it("is brought to another rate", function()
    local function tone(pitch, rate, n)
      local x = {}
      for t = 1, n do x[t] = math.sin(2 * math.pi * pitch * (t - 1) / rate) end
      return x
    end
    -- within the band the curve is the same, beyond it nothing is left
    for _, r in ipairs { { 16000, 8000 }, { 8000, 16000 }, { 11025, 8000 }, { 44100, 8000 },
      { 8000, 44100 } } do
      local from, to = r[1], r[2]
      for _, pitch in ipairs { 100, 1000, 0.38 * math.min(from, to), 0.55 * to } do
        if pitch < from / 2 then
          local y = neap.audio.resample(tone(pitch, from, from // 4), from, to)
          assert.equal(math.ceil(from // 4 * to / from), #y)
          local truth = tone(pitch, to, #y)
          for t = 300, #y - 300 do
            local d = math.abs(y:get(t) - (pitch < to / 2 and truth[t] or 0))
            assert.is_true(d < 2e-3, ("%d to %d, %g Hz, at %d: off by %g"):format(from, to, pitch, t,
              d))
          end
        end
      end
    end
    -- by the formula, short ones and their ends too
    for _, n in ipairs { 1, 2, 7, 300 } do
      local x, c = tone(900, 12000, n), 0.95 * 8000 / 12000
      x[1] = 0.5
      local y = neap.audio.resample(core.tensor(x), 12000, 8000)
      assert.equal(math.ceil(n * 2 / 3), #y)
      for i = 0, #y - 1 do
        local sum = 0
        for k = 0, n - 1 do
          local t = c * (i * 1.5 - k)
          if math.abs(t) < 16 then
            sum = sum + x[k + 1] * c * (t == 0 and 1 or math.sin(math.pi * t) / (math.pi * t))
              * math.cos(math.pi * t / 32) ^ 2
          end
        end
        assert.near(sum, y:get(i + 1), 1e-6)
      end
    end
    assert.same({ 1, 2 }, neap.audio.resample({ 1, 2 }, 8000, 8000):totable())
    raises("audio.resample: expected rates in a ratio of smaller numbers, came 7919 and 8000",
      function() neap.audio.resample({ 1, 2 }, 7919, 8000) end)
    raises("audio.resample: to: expected an integer from 1, came 0", function()
      neap.audio.resample({ 1, 2 }, 8000, 0)
    end)

    local path = folder.path .. "/fast.wav"
    assert(neap.audio.write(path, tone(500, 16000, 1600), 16000))
    local x, rate = neap.audio.read(path, { rate = 8000, resample = true })
    assert.same({ 800, 8000 }, { #x, rate })
    assert.same(neap.audio.resample(neap.audio.read(path), 16000, 8000):totable(), x:totable())
    local c = assert(corpus.from({ file = { path } }):sounds("file", { hop = 1, rate = 8000,
      resample = true }))
    assert.equal(800, c:length("sound", 1))
    assert(neap.audio.write(path, { 1 }, 7919))
    fails("EFORMAT", "fast.wav: expected a rate in a ratio of smaller numbers to 8000, came 7919",
      neap.audio.read(path, { rate = 8000, resample = true }))
    raises("audio.read: resample: expected true or false, came 1", function()
      neap.audio.read(path, { resample = 1 })
    end)
  end)

  describe("of a corpus", function()
    local c
    before_each(function()
      neap.audio.write(folder.path .. "/a.wav", { 0.5, 0.25, -0.5 }, 8000)
      neap.audio.write(folder.path .. "/b.wav", { 0.125, 0.5 }, 8000)
      c = assert(corpus.tsv(folder.write("index.tsv", "a.wav\tyes\n\nb.wav\tno\n"),
        { columns = { "file", "word" } }))
    end)

    it("is a field of steps", function()
      local s = assert(c:sounds("file", { folder = folder.path, hop = 2 }))
      assert.same({ "file", "sound", "word" }, s:names())
      assert.same({ { 0.5, 0.25 }, { -0.5, 0 } }, s:get("sound", 1):totable())
      assert.same({ { 0.125, 0.5 } }, s:get("sound", 2):totable())
      assert.same({ "file", "word" }, c:names())
      s = assert(c:sounds("file", { folder = folder.path, hop = 1, as = "x", rate = 8000 }))
      assert.equal(3, s:length("x", 1))
      local named, rate = corpus.from({ file = { folder.path .. "/b.wav", "a.wav" } }):sounds("file",
        { folder = folder.path, hop = 1 })
      assert.same({ 2, 3, 8000 }, { named:length("sound", 1), named:length("sound", 2), rate })
      assert.same({ 0, 3, 5 }, s:encode("x").offsets:totable())
    end)

    it("goes through a layer once", function()
      local s = assert(c:sounds("file", { folder = folder.path, hop = 2 }))
      for _, size in ipairs { 1, 64 } do
        local y = s:compute("sound", features.window { steps = 2 }, { as = "wide", size = size })
        assert.same({ "file", "sound", "wide", "word" }, y:names())
        assert.same({ { 0, 0, 0.5, 0.25 }, { 0.5, 0.25, -0.5, 0 } }, y:get("wide", 1):totable())
        assert.same({ { 0, 0, 0.125, 0.5 } }, y:get("wide", 2):totable())
      end
      raises("corpus:compute: as: expected a string, came nil", function()
        s:compute("sound", features.deltas(), {})
      end)
      raises("corpus:compute: field word: expected a field of numbers, came one of symbols",
        function() s:compute("word", features.deltas(), { as = "x" }) end)
      raises("corpus:compute: expected a layer that makes rows [T,B,width], came [B,2]", function()
        s:compute("sound", function(v) return neap.op.last(v) end, { as = "x" })
      end)
      raises("corpus:compute: expected a layer or a function of the inputs, came 3", function()
        s:compute("sound", 3, { as = "x" })
      end)
    end)

    it("names the file and the line that named it", function()
      local index = folder.write("bad.tsv", "a.wav\n\nnone.wav\n")
      local bad = assert(corpus.tsv(index, { columns = { "file" } }))
      local none, message, code = bad:sounds("file", { folder = folder.path, hop = 2 })
      assert.is_nil(none)
      assert.equal("EIO", code)
      assert.equal(("audio: cannot open %s/none.wav: No such file or directory (%s, sequence 2 "
        .. "(line 3))"):format(folder.path, index), message)
      neap.audio.write(folder.path .. "/none.wav", { 0 }, 16000)
      fails("EFORMAT", "expected 8000 samples a second, came 16000",
        bad:sounds("file", { folder = folder.path, hop = 2 }))
      bad = assert(corpus.tsv(index, { columns = { "file" }, split = { file = "characters" } }))
      fails("EFORMAT", "sequence 1 (line 1): expected one file in field file, came 5",
        bad:sounds("file", { hop = 2 }))
      raises("corpus:sounds: hop: expected an integer from 1, came nil", function()
        c:sounds("file", {})
      end)
      raises("corpus:sounds: no field \"flie\"; did you mean \"file\"?", function()
        c:sounds("flie", { hop = 1 })
      end)
      raises("corpus:moments: field word: expected a field of numbers", function()
        c:moments "word"
      end)
    end)

    it("holds the spoken digits", function()
      local path = help.shared "fsdd/dev.tsv"
      if not path then return pending "the data sets are not there" end
      local d = assert(corpus.tsv(path, { columns = { "file", "digit", "speaker", "samples" } }))
      d = assert(d:sounds("file", { folder = path:match "^(.*)/", rate = 8000, hop = 1 }))
      for i = 1, #d do assert.equal(tonumber(d:string("samples", i)), d:length("sound", i)) end
    end)
  end)
end)

-- neap apply: what it answers to lines of text. Where run_model of C reads the same text, it has to
-- answer alike.
local neap = require "neap"
local help = require "data_help"
local op = neap.op

local build = os.getenv "NEAP_BUILD" or "build"
local run_model = build .. "/embed/run_model"

--- Output, error output and exit status of a command that gets `input`.
local function execute(command, input)
  local paths, texts = { os.tmpname(), os.tmpname(), os.tmpname() }, {}
  local file = assert(io.open(paths[1], "w"))
  file:write(input or "")
  file:close()
  local _, _, status = os.execute(("%s <%s >%s 2>%s"):format(command, table.unpack(paths)))
  for i, path in ipairs(paths) do
    local f <close> = assert(io.open(path))
    texts[i] = f:read "a"
    os.remove(path)
  end
  return texts[2], texts[3], status
end

local rng = neap.rng(5)
local letters = neap.vocab.new { "a", "b", "c", "é", unk = true }

--- Larger weights, so that steps and rows differ.
local function enlarge(model)
  model:parameters()
  for _, name in ipairs(model.params:names()) do
    model.params:set(name, model.params:get(name) * (name:find "bias" and 0 or 8))
  end
  return model
end

local function some_class(input)
  return enlarge(neap.seq2class { input = input or letters, rng = rng,
    output = neap.vocab.new { "up", "low tide" },
    net = neap.chain { neap.embed { size = 4 }, neap.gru { size = 5 } } })
end

describe("neap apply", function()
  local path = os.tmpname()
  teardown(function() os.remove(path) end)

  local function apply(arguments, input)
    return execute(("scripts/neap apply %s %s"):format(path, arguments or ""), input)
  end

  --- What it answers to lines that all fit.
  local function answers(model, input, arguments)
    assert(model:save(path))
    local out, err, status = apply(arguments, input)
    assert.equal("", err)
    assert.equal(0, status)
    return out
  end

  local function as_in_c(input, arguments)
    local out, err = execute(("%s %s %s"):format(run_model, path, arguments or ""), input)
    assert.equal("", err)
    return out
  end

  local texts = "ab\n\ncab\r\nébxa\nb\n\naab" -- no end of line at the end

  it("classifies", function()
    local model = some_class()
    local expected = {}
    for i, text in ipairs { "ab", "", "cab", "ébxa", "b", "", "aab" } do
      local guess = model:predict { text }[1]
      expected[i] = (text == "" and "" or ("%s\t%.4f"):format(guess.class, guess.probability)) .. "\n"
    end
    local out = answers(model, texts)
    assert.equal(table.concat(expected), out)
    assert.matches("up\t", out)
    assert.matches("low tide\t", out)
    assert.equal(as_in_c(texts), out)
    for _, more in ipairs { "--batch 1", "--batch 2 --threads 2", "--batch 7", "- --batch 8" } do
      assert.equal(out, answers(model, texts, more))
    end
    assert.equal("", answers(model, ""))
  end)

  it("tags words, from themselves and from their letters", function()
    local words = neap.vocab.new { "the", "tide", "comes", unk = true, lower = true }
    local word, char = neap.embed { size = 6, input = #words }, neap.embed { size = 6,
      input = #letters }
    local spelling, sentence = neap.gru { size = 6 }, neap.bidir { neap.gru { size = 6 } }
    local model = enlarge(neap.synced_seq2seq { rng = rng, output = neap.vocab.new { "D", "N", "V" },
      input = { words = words, chars = { vocab = letters, nested = true } },
      net = function(x)
        local _, last = spelling(char(x.chars))
        return sentence(op.concat { word(x.words), last.h })
      end })
    local lines = "The tide comes\n  a\tbab   the \n\nébb TIDE abba aab tide é b\n"
    local out = answers(model, lines)
    assert.matches("^%u %u %u\n%u %u %u\n\n%u %u %u %u %u %u %u\n$", out)
    assert.equal(as_in_c(lines), out)
  end)

  it("writes sequences, greedily and with a beam", function()
    for _, of in ipairs { { "aa", "b", "iy", "t" }, { "x", "y", "z" } } do
      of.start, of.stop = true, true
      local output = neap.vocab.new(of)
      local model = enlarge(neap.async_seq2seq { input = letters, output = output, rng = rng,
        max_length = 9, encoder = neap.chain { neap.embed { size = 5 }, neap.gru { size = 6 } },
        decoder = neap.decoder { embed = 5, layers = { neap.gru { size = 7 } } } })
      local out = answers(model, texts)
      assert.equal(as_in_c(texts), out)
      local short = answers(model, texts, "--length 2")
      assert.equal(as_in_c(texts, "--length 2"), short)
      assert.not_equal(out, short)
      local found = model:predict({ "ab", "cab" }, { beam = 3 })
      assert.equal(output:text(found[1]) .. "\n" .. output:text(found[2]) .. "\n",
        answers(model, "ab\ncab\n", "--beam 3"))
    end
  end)

  it("writes down symbols of the line, as a C host does", function()
    local model = neap.async_seq2seq { input = neap.vocab.new { "x", "y" },
      output = neap.vocab.new { start = true, stop = true, unk = true, "x" },
      rng = neap.rng(3), max_length = 4,
      encoder = neap.chain { neap.embed { size = 2 }, neap.gru { size = 3 } },
      decoder = neap.decoder { embed = 2, copy = 2, layers = { neap.gru { size = 3 } } } }
    model.params:set("decoder.generate.bias", neap.tensor { -20 }) -- what is looked at is copied
    local out = answers(model, "yx\nx\n")
    assert.matches("y", out)
    assert.equal(out, as_in_c "yx\nx\n")
  end)

  it("hears sound files, as a C host does", function()
    local folder = help.folder()
    local names, few = {}, {}
    for i = 1, 5 do
      local samples = {}
      for t = 1, 300 + 77 * i do samples[t] = 0.4 * math.sin(t * i / 5) end
      names[i] = ("%s/%d.wav"):format(folder.path, i)
      assert(neap.audio.write(names[i], samples, 8000))
      few[i] = { file = names[i], samples = samples }
    end
    local net = neap.chain { neap.features.log_mel { rate = 8000, filters = 8 },
      neap.gru { size = 6 } }
    local word = enlarge(neap.seq2class { input = { rate = 8000, hop = 50 }, rng = rng,
      output = neap.vocab.new { "yes", "no" }, net = net })
    local words = enlarge(neap.synced_seq2seq { input = { rate = 8000, hop = 50 }, rng = rng,
      output = neap.vocab.new { "yes", "no" }, loss = "ctc", beam = 3, net = net })
    local corpus = assert(neap.corpus.from({ file = names }):sounds("file", { hop = 50 }))
    local batch = neap.batches({ input = corpus:encode "sound" }, { bucket = false })()
    local lines = table.concat(names, "\n") .. "\n"
    local out = {}
    for i, guess in ipairs(word:predict(batch)) do
      out[i] = ("%s\t%.4f\n"):format(guess.class, guess.probability)
    end
    assert.equal(table.concat(out), answers(word, lines))
    assert.equal(table.concat(out), answers(word, lines, "--batch 2"))
    assert.equal(table.concat(out), as_in_c(lines))
    assert.equal(out[2], answers(word, "", names[2])) -- the file itself
    assert.equal(8000, assert(neap.load(path)).inputs[1].rate)
    for i, said in ipairs(words:predict(batch)) do out[i] = table.concat(said, " ") .. "\n" end
    assert.equal(table.concat(out), answers(words, lines))
    assert.equal(table.concat(out), as_in_c(lines))

    local other, none = folder.path .. "/other.wav", folder.path .. "/none.wav"
    assert(neap.audio.write(other, few[1].samples, 16000))
    local text, err, status = apply("", names[1] .. "\n\n" .. other .. "\n" .. none .. "\n" .. names[2])
    assert.equal(1, status)
    assert.equal(out[1] .. "\n\n\n" .. out[2], text)
    assert.equal(("neap: line 3: audio: %s: expected 8000 samples a second, came 16000 (sox IN -r "
      .. "8000 OUT.wav changes that)\nneap: line 4: audio: cannot open %s: No such file or directory\n")
      :format(other, none), err)
    text, err, status = apply(none)
    assert.same({ "\n", 1 }, { text, status })
    assert.equal(("neap: audio: cannot open %s: No such file or directory\n"):format(none), err)

    local function refuses(name, message)
      local _, said, code = execute(("%s %s"):format(run_model, path), name .. "\n")
      assert.equal(1, code)
      assert.equal(("run_model: line 1: %s: %s\n"):format(name, message), said)
    end
    refuses(other, "expected 8000 samples a second, came 16000")
    refuses(none, "cannot be read")
    local shape = "expected a WAV file of 16 bits and one channel"
    refuses(folder.write("text", "RIFF"), shape)
    refuses(folder.write("two.wav", "RIFF\0\0\0\0WAVEfmt \16\0\0\0\1\0\2\0" .. ("\0"):rep(99)), shape)
    assert(neap.audio.write(other, {}, 8000))
    refuses(other, "no samples in it")
    local file <close> = assert(io.open(names[3], "rb"))
    local wav = file:read "a"
    for n = 0, 60 do -- cut short, it never reads beyond
      local _, _, code = execute(("%s %s"):format(run_model, path), folder.write("cut", wav:sub(1, n)))
      assert.equal(1, code)
    end
    folder.remove()
  end)

  it("reads and writes subwords", function()
    local words = { "low", "lower", "newest", "widest", "lowest", "éé" }
    for _, bytes in ipairs { true, false } do
      local input = neap.vocab.bpe(words, { merges = 9, bytes = bytes, lower = true })
      local output = neap.vocab.bpe(words, { merges = 5, bytes = bytes, start = true, stop = true })
      local model = enlarge(neap.async_seq2seq { input = input, output = output, rng = neap.rng(8),
        max_length = 12, encoder = neap.chain { neap.embed { size = 5 }, neap.gru { size = 6 } },
        decoder = neap.decoder { embed = 5, layers = { neap.gru { size = 7 } } } })
      local lines = "lowest LOW éQ 日x\n newest\tnew \n\nwidest low low"
      local out = answers(model, lines)
      assert.equal(as_in_c(lines), out)
      local written, asked = {}, { "lowest LOW éQ 日x", " newest\tnew ", "widest low low" }
      for i, symbols in ipairs(model:predict(asked)) do written[i] = output:text(symbols) end
      table.insert(written, 3, "")
      assert.equal(table.concat(written, "\n") .. "\n", out)
      local goes_on = enlarge(neap.language_model { vocab = output, rng = neap.rng(8),
        net = neap.chain { neap.embed { size = 5 }, neap.lstm { size = 6 } } })
      out = answers(goes_on, lines, "--length 9")
      assert.matches("^lowest LOW éQ 日x .", out)
      assert.equal(as_in_c(lines, "--length 9"), out)
    end
  end)

  it("goes on from a line, and scores it", function()
    local with_end = neap.vocab.new { "a", "b", "c", "é", "\n", unk = true }
    local model = enlarge(neap.language_model { vocab = with_end, rng = rng,
      net = neap.chain { neap.embed { size = 5 }, neap.lstm { size = 6 } } })
    local out = answers(model, texts, "--length 9")
    assert.equal(as_in_c(texts, "--length 9"), out)
    assert.matches("^ab[^\n]+\n\ncab", out) -- it does go on
    local expected = {}
    for i, text in ipairs { "ab", "cabéx" } do
      expected[i] = ("%.4f\n"):format(model:score(with_end:tensor(text)).nats)
    end
    assert.not_equal(expected[1], expected[2])
    assert.equal(table.concat(expected, "\n"), answers(model, "ab\n\ncabéx"))
    local err, status = select(2, apply("", "ab\nb\n"))
    assert.equal("neap: line 2: expected at least 2 symbols, of which the second is scored, "
      .. "came 1\n", err)
    assert.equal(1, status)
  end)

  it("goes on by n-grams, and scores by them", function()
    local v = neap.vocab.new { "a", "b", "c", "\n" }
    local model = neap.ngram { vocab = v, order = 2 }
    model:fit(v:tensor "abc\nabc\nabc\n")
    assert.equal("abc\nc\n", answers(model, "a\nc\n", "--length 9 --threads 2"))
    assert.equal(("%.4f\n"):format(model:score(v:tensor "abca").nats), answers(model, "abca\n"))
    local err, status = select(2, apply("", "abx\n"))
    assert.matches('expected symbols that the model knows, came "x"', err, 1, true)
    assert.equal(1, status)
  end)

  it("ends what it goes on with at the end of the line", function()
    for _, case in ipairs { { "a", "b", "a\na\n" }, { "go", "on", "go\ngo\n" } } do
      local v = neap.vocab.new { case[1], case[2], "\n",
        split = #case[1] > 1 and "words" or "characters" }
      local model = neap.language_model { vocab = v, rng = rng,
        net = neap.chain { neap.embed { size = 2 }, neap.gru { size = 2 }, neap.linear {} } }
      model:parameters()
      for _, name in ipairs(model.params:names()) do -- nothing but the end of the line
        local last = name:find "linear3.bias"
        model.params:set(name, last and neap.tensor { 0, 0, 9 } or model.params:get(name) * 0)
      end
      assert.equal(case[3], answers(model, case[3], "--length 3"))
    end
  end)

  it("forecasts numbers", function()
    local one = neap.forecaster { net = neap.gru { size = 4 }, rng = rng }
    local ahead = one:rollout({ 0.5, -1, 2 }, 3)
    local line = ("%.9g\t%.9g\t%.9g\n"):format(table.unpack(ahead))
    assert.equal(line .. "\n" .. line,
      answers(one, "0.5 -1 2\n\n 0.5,-1,\t2e0\n", "--length 3"))
    assert.equal(("%.9g\n"):format(ahead[1]), answers(one, "0.5 -1 2"))
    local two = neap.forecaster { size = 2, net = neap.gru { size = 4 }, rng = rng }
    ahead = two:rollout({ { 1, 2 }, { 3, 4 } }, 2)
    assert.equal(("%.9g %.9g\t%.9g %.9g\n"):format(ahead[1][1], ahead[1][2], ahead[2][1],
      ahead[2][2]), answers(two, "1 2 3 4", "--length 2"))
    local out, err, status = apply("", "1 2 3\n1 2\n1 x\n1 1e39\n1 nan\n")
    assert.matches("^\n[%d. e-]+\n\n\n\n$", out)
    assert.equal([[
neap: line 1: expected 2 numbers for each step, came 3 in all
neap: line 3: expected finite numbers with blanks or commas between, came "x"
neap: line 4: expected finite numbers with blanks or commas between, came "1e39"
neap: line 5: expected finite numbers with blanks or commas between, came "nan"
]], err)
    assert.equal(1, status)
  end)

  it("gives numbers for each step, as a C host does", function()
    local model = neap.synced_seq2seq { input = 1, output = 2, rng = neap.rng(3),
      net = neap.gru { size = 4 } }
    local said = model:predict({ { { 0.5 }, { -1 }, { 2 } } })[1]:totable()
    local rows = {}
    for t, row in ipairs(said) do rows[t] = ("%.9g %.9g"):format(row[1], row[2]) end
    assert.equal(table.concat(rows, "\t") .. "\n", answers(model, "0.5 -1 2\n"))
    for _, how in ipairs { "", "--stream" } do
      assert.equal("y " .. table.concat(rows, "\ny ") .. "\n\n", as_in_c("0.5\n-1\n2\n", how))
    end
  end)

  it("classifies rows of numbers", function()
    local model = neap.seq2class { input = 2, output = neap.vocab.new { "x", "y" }, rng = rng,
      net = neap.gru { size = 3 } }
    local guess = model:predict { { { 1, 2 }, { 3, 4 } } }[1]
    assert.equal(("%s\t%.4f\n"):format(guess.class, guess.probability), answers(model, "1 2, 3 4"))
  end)

  it("answers the other lines where some do not fit", function()
    local model = some_class(neap.vocab.new { "a", "b" })
    local good = answers(model, "ab\nb\n")
    local first, second = good:match "^(.-\n)(.*)$"
    local file = os.tmpname()
    finally(function() os.remove(file) end)
    local f = assert(io.open(file, "w"))
    f:write "ab\naéb\n\xff\nb\n"
    f:close()
    for _, batch in ipairs { "", "--batch 1", "--batch 2" } do
      local out, err, status = apply(file .. " " .. batch)
      assert.equal(first .. "\n\n" .. second, out)
      assert.equal(("neap: %s: line 2: expected symbols that the model knows, came \"é\"\n"
        .. "neap: %s: line 3: expected text in UTF-8, came other bytes\n"):format(file, file), err)
      assert.equal(1, status)
    end
  end)

  it("answers a batch before it reads the next", function()
    assert(some_class():save(path))
    local fifo, out = os.tmpname(), os.tmpname()
    finally(function() os.remove(fifo) os.remove(out) end)
    -- the last line is written once the first two have been answered
    local answered = ("until [ \"$(wc -l <%s)\" = 2 ]; do sleep 0.05; done"):format(out)
    local command = ("rm %s && mkfifo %s && { timeout 60 scripts/neap apply %s --batch 2 <%s >%s & "
      .. "timeout 60 sh -c 'exec 3>%s; echo ab >&3; echo b >&3; %s; echo a >&3' && wait; }")
      :format(fifo, fifo, path, fifo, out, fifo, answered)
    assert.is_true((os.execute(command)))
    local f <close> = assert(io.open(out))
    assert.equal(3, select(2, f:read "a":gsub("\n", "\n")))
  end)

  it("says what is wrong with the model, the file and the options", function()
    local model = some_class()
    assert(model:save(path))
    local text, programs = os.tmpname(), os.tmpname()
    finally(function() os.remove(text) os.remove(programs) end)
    assert(neap.program(function(rec)
      return { y = neap.linear { size = 1 }(rec:input("x", { space = "T", dims = { 2 } })) }
    end):save(programs))
    for _, case in ipairs {
      { "no/such", 1, "no/such: expected a file to read: No such" },
      { text, 1, text .. ": expected at least 8 bytes, came 0" },
      { programs, 1, "expected the model of a task, came programs without one" },
      { path .. " no/such", 1, "no/such: No such file" },
      { path .. " spec", 1, "spec: the input cannot be read: Is a directory" },
      { path .. " --beam 2", 1, "--beam is not for its task, seq2class" },
      { path .. " --length 2", 1, "--length is not for its task, seq2class" },
      { path .. " --batch 0", 2, "apply: --batch: expected an integer from 1 to 1000000, came 0" },
      { path .. " --threads two", 2, "apply: --threads: expected an integer from 1" },
      { path .. " --lenght 2", 2, "Did you mean '--length'?" },
      { "", 2, "apply: expected a model file" },
    } do
      local out, err, status = execute("scripts/neap apply " .. case[1], "ab\n")
      assert.equal("", out)
      assert.matches("^neap: ", err)
      assert.matches(case[3], err, 1, true)
      assert.equal(case[2], status, case[1])
    end
    local full = ("sh -c 'exec scripts/neap apply %s >/dev/full'"):format(path)
    local _, err, status = execute(full, "ab\n")
    assert.matches("^neap: the output cannot be written: No space", err)
    assert.equal(1, status)
    local mixed = neap.synced_seq2seq { output = letters, rng = rng, input = { a = letters, b = 2 },
      net = function(x)
        return neap.gru { size = 2 }(op.concat { neap.embed { size = 2, input = 5 }(x.a), x.b })
      end }
    assert(mixed:save(path))
    assert.matches("it reads numbers beside other inputs", (select(2, apply "")), 1, true)
  end)

  it("explains itself with an example", function()
    local out, _, status = execute "scripts/neap apply --help"
    assert.equal(0, status)
    assert.matches("echo sean | neap apply g2p.safetensors", out, 1, true)
    for _, kind in ipairs { "seq2class", "synced_seq2seq", "async_seq2seq", "language_model",
      "forecaster", "hmm", "ngram" } do
      assert.matches("\n   " .. kind .. " ", out, 1, true)
    end
  end)
end)

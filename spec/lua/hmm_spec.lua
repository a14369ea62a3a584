-- Hidden Markov models: every number against an enumeration of all paths, known parameters found
-- again, counting, files, and what is said of what cannot be. Rows 54 to 56 of the notes.
local neap = require "neap"
local gradients = require "run_help".gradients
local help = require "data_help"

local symbols = neap.vocab.new { "a", "b", "c" }

-- A model of random probabilities, some of them 0, as plain tables too.
local function random_model(n, seed, share_of_zeros)
  local rng = neap.rng(seed)
  local function row(width)
    local p, sum = {}, 0
    for i = 1, width do
      p[i] = rng:uniform() < share_of_zeros and 0 or rng:uniform()
      sum = sum + p[i]
    end
    if sum == 0 then p[1], sum = 1, 1 end
    for i = 1, width do p[i] = p[i] / sum end
    return p
  end
  local p = { start = row(n), transition = {}, emission = {} }
  for i = 1, n do p.transition[i], p.emission[i] = row(n), row(#symbols) end
  local model = neap.hmm { input = symbols, output = n, rng = rng }
  model:probabilities(p)
  return model, p, rng
end

-- All paths of states, one after the other: P(path and symbols) of each; their sum; the best; and
-- by step and state, by pair of states, what share of the sum goes through them.
local function enumerate(p, ids)
  local n, T = #p.start, #ids
  local out = { total = 0, best = 0, at = {}, pairs = {} }
  for t = 1, T do
    out.at[t] = {}
    for i = 1, n do out.at[t][i] = 0 end
  end
  for i = 1, n do
    out.pairs[i] = {}
    for j = 1, n do out.pairs[i][j] = 0 end
  end
  local path = {}
  local function go(t, probability)
    if t > T then
      out.total = out.total + probability
      if probability > out.best then
        out.best, out.path = probability, table.move(path, 1, T, 1, {})
      end
      for k = 1, T do
        out.at[k][path[k]] = out.at[k][path[k]] + probability
        if k > 1 then
          local row = out.pairs[path[k - 1]]
          row[path[k]] = row[path[k]] + probability
        end
      end
      return
    end
    for i = 1, n do
      path[t] = i
      go(t + 1, probability * (t == 1 and p.start[i] or p.transition[path[t - 1]][i])
        * p.emission[i][ids[t]])
    end
  end
  go(1, 1)
  return out
end

local function near(expected, came, tolerance)
  assert.is_true(math.abs(expected - came) <= (tolerance or 1e-5),
    ("expected %.9g, came %.9g"):format(expected, came))
end

local function random_text(rng, n)
  local text = {}
  for t = 1, n do text[t] = symbols:symbol(rng:int(3)) end
  return table.concat(text)
end

describe("an HMM", function()
  it("row 55: gives what an enumeration of all paths gives: forward, Viterbi, posteriors", function()
    local possible, impossible = 0, 0
    for seed = 1, 24 do
      local n = 1 + seed % 4
      local model, p, rng = random_model(n, seed, seed % 3 == 0 and 0.3 or 0)
      local texts = {}
      for k = 1, 4 do texts[k] = random_text(rng, 1 + rng:int(6)) end
      local paths, scores = model:decode(texts, { zero = "skip" })
      for k, text in ipairs(texts) do
        local ids = symbols:encode(text)
        local right = enumerate(p, ids)
        if right.total == 0 then
          impossible = impossible + 1
          assert.is_false(paths[k])
          assert.equal(-math.huge, scores[k])
        else
          possible = possible + 1
          near(math.log(right.total), -model:score({ text }).nats * #text, 2e-5)
          near(math.log(right.best), scores[k], 2e-5)
          local product = 1 -- of two paths that are equally good either will do
          for t, state in ipairs(paths[k]) do
            local i, before = tonumber(state), tonumber(paths[k][t - 1])
            product = product * (before and p.transition[before] or p.start)[i]
              * p.emission[i][ids[t]]
          end
          near(1, product / right.best)
          local posteriors = model:posteriors({ text })[1]
          assert.same({ #text, n }, posteriors:shape())
          for t = 1, #text do
            for i = 1, n do near(right.at[t][i] / right.total, posteriors:get(t, i)) end
          end
        end
      end
    end
    assert.is_true(possible > 60 and impossible > 3, possible .. " " .. impossible)
  end)

  it("re-estimates with the expected counts of all paths", function()
    for seed = 1, 6 do
      local n = 2 + seed % 2
      local model, p, rng = random_model(n, seed, 0)
      local texts = {}
      for k = 1, 5 do texts[k] = random_text(rng, 2 + rng:int(4)) end
      local start, transition, emission = {}, {}, {}
      for i = 1, n do
        start[i], transition[i], emission[i] = 0, {}, { 0, 0, 0 }
        for j = 1, n do transition[i][j] = 0 end
      end
      for _, text in ipairs(texts) do
        local ids = symbols:encode(text)
        local e = enumerate(p, ids)
        for i = 1, n do
          start[i] = start[i] + e.at[1][i] / e.total
          for j = 1, n do transition[i][j] = transition[i][j] + e.pairs[i][j] / e.total end
          for t, id in ipairs(ids) do
            emission[i][id] = emission[i][id] + e.at[t][i] / e.total
          end
        end
      end
      local report = model:fit(texts, { iterations = 1 })
      assert.equal(1, report.iterations)
      local came = model:probabilities()
      local function compare(counts, row)
        local sum = 0
        for _, x in ipairs(counts) do sum = sum + x end
        for k, x in ipairs(counts) do near(x / sum, row[k]) end
      end
      compare(start, came.start)
      for i = 1, n do
        compare(transition[i], came.transition[i])
        compare(emission[i], came.emission[i])
      end
    end
  end)

  it("has gradients that finite differences confirm", function()
    local model = random_model(3, 5, 0)
    local run = model:program "learn":run { double = true, learn = true }
    local function total()
      run:feed { input = symbols:tensor "abcab":reshape { 5, 1 } }
      return run:forward():item "total"
    end
    total()
    run:backward "total"
    gradients(run, { "start", "transition", "emission" }, total, 1e-8)
  end)

  it("row 56: is no worse after each iteration, and finds the probabilities that made the data",
    function()
    local start, transition = { 0.7, 0.2, 0.1 }, { { 0.8, 0.15, 0.05 }, { 0.1, 0.8, 0.1 },
      { 0.2, 0.1, 0.7 } }
    local emission = { { 0.8, 0.1, 0.1 }, { 0.1, 0.7, 0.2 }, { 0.05, 0.15, 0.8 } }
    local source, rng = neap.hmm { input = symbols, output = 3 }, neap.rng(7)
    source:probabilities { start = start, transition = transition, emission = emission }
    local texts, states = {}, {}
    for i = 1, 1000 do texts[i], states[i] = source:sample(20, { rng = rng }) end

    -- near enough to keep the names of the states
    local model, before = neap.hmm { input = symbols, output = 3 }, math.huge
    model:probabilities { emission = { { 0.5, 0.2, 0.3 }, { 0.3, 0.5, 0.2 }, { 0.2, 0.3, 0.5 } },
      start = { 0.4, 0.3, 0.3 },
      transition = { { 0.4, 0.3, 0.3 }, { 0.3, 0.4, 0.3 }, { 0.3, 0.3, 0.4 } } }
    local report = model:fit(texts, { iterations = 100, size = 1000, each = function(_, nats)
      assert.is_true(nats <= before + 1e-6)
      before = nats
    end })
    assert.is_true(report.iterations > 5 and report.nats <= before + 1e-6)
    assert.is_true(report.nats <= source:score(texts).nats)
    local came = model:probabilities()
    for i = 1, 3 do
      near(start[i], came.start[i], 0.06)
      for j = 1, 3 do
        near(transition[i][j], came.transition[i][j], 0.05)
        near(emission[i][j], came.emission[i][j], 0.05)
      end
    end

    -- the states being known, they are counted: nearer still
    local corpus = neap.corpus.from { text = texts, state = states }
    local counted = neap.hmm { input = symbols, output = 3 }
    local fields = { input = corpus:encode("text", symbols),
      output = corpus:encode("state", counted.output) }
    assert.equal(0, counted:fit(fields).iterations)
    came = counted:probabilities()
    for i = 1, 3 do
      near(start[i], came.start[i], 0.04)
      for j = 1, 3 do
        near(transition[i][j], came.transition[i][j], 0.02)
        near(emission[i][j], came.emission[i][j], 0.02)
      end
    end
    local right, n = 0, 0
    for b, path in ipairs((counted:decode(texts))) do
      for t, state in ipairs(path) do
        n, right = n + 1, right + (state == states[b][t] and 1 or 0)
      end
    end
    local scores = counted:score(fields, { size = 7 })
    near(right / n, scores.accuracy, 1e-12)
    assert.is_true(scores.accuracy > 0.75 and scores.sequence_accuracy < 0.5)
    near(math.exp(scores.nats), scores.perplexity, 1e-9)
    assert.equal(20000, scores.n)
  end)

  it("row 56: counts what it is told, with smoothing and without", function()
    local model = neap.hmm { input = symbols, output = neap.vocab.new { "X", "Y" } }
    local corpus = neap.corpus.from { s = { { "a", "b", "a" }, { "b", "c" }, { "a" } },
      y = { { "X", "Y", "X" }, { "Y", "?" }, { "X" } } }
    local fields = { input = corpus:encode("s", symbols),
      output = corpus:encode("y", model.output, { unknown = "ignore" }) }
    model:fit(fields) -- the step whose state is not known counts nowhere
    local p = model:probabilities()
    assert.same({ { 1, 0, 0 }, { 0, 1, 0 } }, p.emission:totable())
    assert.same({ { 0, 1 }, { 1, 0 } }, p.transition:totable())
    near(2 / 3, p.start[1], 1e-6)
    model:fit(fields, { smoothing = { emission = 1 } })
    p = model:probabilities()
    near(4 / 6, p.emission:get(1, 1), 1e-6)
    near(1 / 6, p.emission:get(1, 3), 1e-6)
    near(1, p.transition:get(1, 2), 1e-6)
    model:fit(fields, { smoothing = 0.5 })
    near(1.5 / 2, model:probabilities().transition:get(2, 1), 1e-6)
    near(2.5 / 4, model:probabilities().start[1], 1e-6)
  end)

  it("row 54: is a Markov chain where each state shows itself", function()
    local letters = neap.vocab.new { "a", "b" }
    local model = neap.hmm { input = letters, output = letters }
    local corpus = neap.corpus.from({ t = { "aabba", "ab" } }, { split = { t = "characters" } })
    local field = corpus:encode("t", letters)
    model:fit { input = field, output = field }
    local p = model:probabilities()
    near(1 / 3, p.transition:get(1, 1), 1e-6)
    near(0.5, p.transition:get(2, 2), 1e-6)
    near(-math.log((2 / 3) * 0.5), 3 * model:score { "abb" }.nats, 1e-5)
  end)

  it("takes sequences of any length without losing what is small", function()
    local model, p = random_model(3, 11, 0)
    local rng = neap.rng(3)
    local text = random_text(rng, 20000)
    -- the forward recursion of Rabiner (1989), scaled, in double
    local alpha, sum = nil, 0
    for _, id in ipairs(symbols:encode(text)) do
      local now, all = {}, 0
      for j = 1, 3 do
        local x = alpha and 0 or p.start[j]
        for i = 1, alpha and 3 or 0 do x = x + alpha[i] * p.transition[i][j] end
        now[j] = x * p.emission[j][id]
        all = all + now[j]
      end
      for j = 1, 3 do now[j] = now[j] / all end
      alpha, sum = now, sum - math.log(all)
    end
    near(sum / 20000, model:score { text }.nats, 1e-6)
    assert.equal(20000, #model:decode { text }[1])
  end)

  it("gives the same for a row alone and among others, with one thread and with two", function()
    local model, _, rng = random_model(4, 9, 0)
    local texts = {}
    for k = 1, 9 do texts[k] = random_text(rng, rng:int(30)) end
    local paths, scores = model:decode(texts)
    for k, text in ipairs(texts) do
      local one, score = model:decode { text }
      assert.same(paths[k], one[1])
      assert.equal(scores[k], score[1])
    end
    local both = model:score(texts).nats
    model:threads(2)
    local again, other = model:decode(texts)
    assert.same(paths, again)
    assert.same(scores, other)
    assert.equal(both, model:score(texts).nats)
    assert.same({}, (model:decode {}))
    assert.same({ {} }, (model:decode { "" }))
  end)

  it("streams what it thinks of the present state", function()
    local model, p = random_model(3, 2, 0)
    local stream, text = model:program "filter":stream(), "abcca"
    for t = 1, #text do
      stream:input(1, { symbols:id(text:sub(t, t)) - 1 })
      stream:step()
      local e = enumerate(p, symbols:encode(text:sub(1, t)))
      for i = 1, 3 do near(e.at[t][i] / e.total, stream:output(1):get(1, i)) end
    end
  end)

  it("row 55: draws sequences, and none of what has probability 0", function()
    local model, p = random_model(3, 13, 0.4)
    local seen, rng = {}, neap.rng(1)
    for _ = 1, 300 do
      local shown, states = model:sample(5, { rng = rng })
      assert.equal(5, #shown)
      for t, symbol in ipairs(shown) do
        local i, before = tonumber(states[t]), tonumber(states[t - 1])
        assert.is_true(p.emission[i][symbols:id(symbol)] > 0)
        assert.is_true((before and p.transition[before] or p.start)[i] > 0)
        seen[i] = true
      end
    end
    assert.is_truthy(next(seen))
    assert.same({ {}, {} }, { model:sample(0) })
    assert.same({ model:sample(9) }, { model:sample(9) })
  end)

  it("is saved, loaded, and refused where the file is damaged", function()
    local model = random_model(3, 4, 0.2)
    local folder = help.folder()
    local path = folder.path .. "/hmm"
    assert(model:save(path))
    local again = assert(neap.load(path))
    assert.equal("hmm", again.kind)
    assert.same(model:probabilities().emission:totable(), again:probabilities().emission:totable())
    local text = "abbc"
    local options = { zero = "skip" }
    assert.same({ model:decode({ text }, options) }, { again:decode({ text }, options) })
    assert.equal(model:score({ text, "a" }, options).nats, again:score({ text, "a" }, options).nats)
    again:fit({ text, "ab" }, { iterations = 2, smoothing = 0.1 })
    folder.remove()
  end)
end)

describe("what an HMM cannot do", function()
  -- from X only to Y, and Y shows no "a"
  local function strict()
    local model = neap.hmm { input = symbols, output = neap.vocab.new { "X", "Y" } }
    model:probabilities { start = { 1, 0 }, transition = { { 0, 1 }, { 0, 1 } },
      emission = { { 0.5, 0.5, 0 }, { 0, 0.5, 0.5 } } }
    return model
  end

  it("is said, with the row and the step", function()
    local model = strict()
    local message = 'sequence 2 has probability 0: no state that can be reached shows symbol 2, '
      .. '"a" (fit with smoothing leaves no zeros)'
    for name, call in pairs {
      decode = function() model:decode { "abb", "aab" } end,
      predict = function() model:predict { "abb", "aab" } end,
      score = function() model:score { "abb", "aab" } end,
      fit = function() model:fit { "abb", "aab" } end,
      posteriors = function() model:posteriors { "abb", "aab" } end,
    } do
      help.raises(message, call)
      assert.is_string(name)
    end
    help.raises('sequence 1 has probability 0: no state that can be reached shows symbol 1, "c"',
      function() model:score { "c" } end)
    local corpus = neap.corpus.from({ t = { "ab", "aab" }, y = { { "X", "Y" }, { "X", "X", "Y" } } },
      { split = { t = "characters" } })
    local fields = { input = corpus:encode("t", symbols), output = corpus:encode("y", model.output) }
    help.raises("sequence 2 has probability 0", function() model:score(fields) end)

    local paths, scores = model:decode({ "abb", "aab", "b" }, { zero = "skip" })
    assert.same({ { "X", "Y", "Y" }, false, { "X" } }, paths)
    assert.equal(-math.huge, scores[2])
    near(math.log(0.5 * 0.5 * 0.5), scores[1])
    local left = model:score({ "abb", "aab" }, { zero = "skip" })
    assert.equal(1, left.skipped)
    assert.equal(3, left.n)
    near(-scores[1] / 3, left.nats)
    local counted = model:score(fields, { zero = "skip" })
    assert.equal(1, counted.accuracy)
    assert.equal(1, counted.skipped)
    near(-scores[1] / 3, model:score { "abb" }.nats) -- it goes on as before
  end)

  it("is refused where it is given", function()
    local model = strict()
    local v = neap.vocab.new { "X" }
    local raises = help.raises
    raises("hmm: input: expected a vocabulary, came nil", function() neap.hmm {} end)
    raises("hmm: output: expected a vocabulary of states, or how many there are, came nil",
      function() neap.hmm { input = v } end)
    raises("hmm: output: expected an integer from 1 to 10000, came 0",
      function() neap.hmm { input = v, output = 0 } end)
    raises("hmm: input: the vocabulary is empty",
      function() neap.hmm { input = neap.vocab.new {}, output = 2 } end)
    raises("hmm: unknown option \"states\"",
      function() neap.hmm { input = v, output = 2, states = 2 } end)
    raises("hmm: rng: expected a source of chance", function()
      neap.hmm { input = v, output = 2, rng = 5 }
    end)
    raises("hmm:probabilities: transition: expected [2,2] numbers, came f32 [2]",
      function() model:probabilities { transition = { 0.5, 0.5 } } end)
    raises("hmm:probabilities: transition: row 2: expected a sum of 1, came 0.8",
      function() model:probabilities { transition = { { 1, 0 }, { 0.4, 0.4 } } } end)
    raises("hmm:probabilities: start: row 1, column 2: expected a number from 0 to 1, came -1.0",
      function() model:probabilities { start = { 1, -1 } } end)
    raises("hmm:probabilities: unknown option \"starts\"; did you mean \"start\"?",
      function() model:probabilities { starts = { 1, 0 } } end)
    assert.same({ 1, 0 }, model:probabilities().start:totable()) -- nothing has changed

    raises("hmm:fit: smoothing: expected a number from 0, came -1",
      function() model:fit({ "ab" }, { smoothing = -1 }) end)
    raises("hmm:fit: smoothing: emission: expected a number from 0, came \"x\"",
      function() model:fit({ "ab" }, { smoothing = { emission = "x" } }) end)
    raises("hmm:fit: smoothing: unknown option \"pi\"",
      function() model:fit({ "ab" }, { smoothing = { pi = 1 } }) end)
    raises("hmm:fit: iterations: expected an integer from 1, came 0",
      function() model:fit({ "ab" }, { iterations = 0 }) end)
    raises("hmm:fit: tolerance: expected a number from 0, came -1",
      function() model:fit({ "ab" }, { tolerance = -1 }) end)
    raises("hmm:fit: each: expected a function, came 5",
      function() model:fit({ "ab" }, { each = 5 }) end)
    raises("hmm:fit: expected at least one sequence, came none", function() model:fit {} end)
    raises("hmm:fit: expected symbols, came empty sequences", function() model:fit { "" } end)
    raises("hmm:fit: expected a list of sequences or a batch, came 5",
      function() model:fit(5) end)
    raises("decode: zero: expected \"error\" or \"skip\", came \"x\"",
      function() model:decode({ "ab" }, { zero = "x" }) end)
    raises("sample: n: expected an integer from 0, came -1", function() model:sample(-1) end)
    raises("its probabilities are not learned by steps", function()
      model:learn({}, neap.adam {})
    end)
  end)

  it("is said where the data tells nothing of a state, or does not fit", function()
    local model = strict()
    local function fields(s, y)
      local corpus = neap.corpus.from { s = s, y = y }
      return { input = corpus:encode("s", symbols),
        output = corpus:encode("y", model.output, { unknown = "ignore" }) }
    end
    local raises, before = help.raises, model:probabilities().transition:totable()
    raises('nothing tells the transition probabilities of state "Y": it never stands before '
      .. "another; with smoothing they are all alike", function()
      model:fit(fields({ { "a", "b" } }, { { "X", "Y" } }))
    end)
    raises('nothing tells the transition probabilities of state "X": it never stands before '
      .. "another", function()
      model:fit(fields({ { "a" } }, { { "X" } }), { smoothing = { emission = 1 } })
    end)
    raises("nothing tells the start probabilities; with smoothing", function()
      model:fit(fields({ { "a", "b" } }, { { "?", "X" } }))
    end)
    raises("hmm:fit: inputs and outputs differ in length: a script, sequence 1: 2 s, 1 y", function()
      model:fit(fields({ { "a", "b" } }, { { "X" } }))
    end)
    raises("score: inputs and outputs differ in length: a script, sequence 1: 2 s, 1 y", function()
      model:score(fields({ { "a", "b" } }, { { "X" } }))
    end)
    raises("hmm:fit: sequence 1, step 2: expected one of 3 symbols and of 2 states, from 0, came "
      .. "7 and 0", function()
      local offsets = neap.tensor({ 0, 2 }, "i32")
      model:fit { input = { data = neap.tensor({ 0, 7 }, "i32"), offsets = offsets },
        output = { data = neap.tensor({ 0, 0 }, "i32"), offsets = offsets } }
    end)
    assert.same(before, model:probabilities().transition:totable())
  end)
end)

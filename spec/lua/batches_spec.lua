-- Batches: every sequence exactly once, nothing padded, like lengths together.
local batches = require "neap.batches"
local core = require "neap.core"
local corpus = require "neap.corpus"
local rng = require "neap.rng"
local vocab = require "neap.vocab"
local help = require "data_help"
local raises = help.raises

local function i32(list) return core.tensor(list, "i32") end

--- Sequences of lengths 0..n-1 in a mixed order, sequence i holding i over and over; a second field
-- of length 2; labels i.
local function fields(n)
  local data, offsets, label, pair = core.ints(), core.ints():push(0), {}, {}
  for i = 1, n do
    for _ = 1, i * 7 % n do data:push(i) end
    offsets:push(#data)
    label[i] = i
    pair[i] = 2 * (i - 1)
  end
  pair[n + 1] = 2 * n
  local rows = {}
  for i = 1, 2 * n do rows[i] = { (i + 1) // 2, 0.5 } end
  return { input = { data = data:tensor(), offsets = offsets:tensor() },
    rows2 = { data = core.tensor(rows), offsets = i32(pair) },
    label = { data = i32(label) } }
end

--- Goes through all batches; gives how often each sequence came and the batches.
local function through(all, n)
  local came, list = {}, {}
  for i = 1, n do came[i] = 0 end
  for b in all do
    list[#list + 1] = b
    assert.equal(b.rows, #b.order)
    local at, at2 = 1, 1
    for k, i in ipairs(b.order) do
      came[i] = came[i] + 1
      assert.equal(i, b.label.data[k])
      for _ = 1, b.input.lengths[k] do
        assert.equal(i, b.input.data[at])
        at = at + 1
      end
      for _ = 1, b.rows2.lengths[k] do
        assert.equal(i, b.rows2.data:get(at2, 1))
        at2 = at2 + 1
      end
    end
    assert.equal(at - 1, #b.input.data)
    assert.equal(at2 - 1, #b.rows2.data)
  end
  return came, list
end

describe("batches", function()
  local n = 23
  local once = {}
  for i = 1, n do once[i] = 1 end

  it("have every sequence exactly once", function()
    for _, options in ipairs{ {}, { size = 5 }, { size = 5, rng = rng(1) }, { size = 100 },
      { size = 1, rng = rng(2) }, { size = 5, bucket = false }, { size = 4, bucket = "input" },
      { size = 5, bucket = false, rng = rng(3) }, { size = 5, rng = rng(3), shuffle = false } } do
      local all = batches(fields(n), options)
      local count = #all
      local came, list = through(all, n)
      assert.same(once, came)
      assert.equal(count, #list)
    end
  end)

  it("put like lengths together", function()
    local previous = 0
    for b in batches(fields(n), { size = 5 }) do
      for k = 1, b.rows do
        assert.is_true(b.input.lengths[k] >= previous)
        previous = b.input.lengths[k]
      end
    end
    local spread = 0
    for b in batches(fields(n), { size = 5, rng = rng(1) }) do
      spread = math.max(spread, b.input.lengths[b.rows] - b.input.lengths[1])
    end
    assert.equal(4, spread)
    local order = {}
    for b in batches(fields(n), { size = 5, bucket = false }) do
      for _, i in ipairs(b.order) do order[#order + 1] = i end
    end
    for i = 1, n do assert.equal(i, order[i]) end
  end)

  it("sort by the first name, then by the second", function()
    local f = { a = { data = i32{ 1, 1, 1, 1, 1, 1 }, offsets = i32{ 0, 2, 3, 4, 6 } },
      b = { data = i32{ 1, 1, 1, 1, 1, 1 }, offsets = i32{ 0, 1, 3, 4, 6 } } }
    local function order(bucket)
      return batches(f, { bucket = bucket })().order
    end
    assert.same({ 3, 2, 1, 4 }, order{ "a", "b" })
    assert.same({ 3, 1, 2, 4 }, order{ "b", "a" })
    assert.same({ 3, 2, 1, 4 }, order(nil))
    assert.same({ 2, 3, 1, 4 }, order "a")
  end)

  it("come in the generator's order", function()
    local function orders(seed)
      local list = {}
      for b in batches(fields(n), { size = 4, rng = rng(seed) }) do list[#list + 1] = b.order end
      return list
    end
    assert.same(orders(1), orders(1))
    assert.not_same(orders(1), orders(2))
    local r = rng(1)
    local first = batches(fields(n), { size = 4, rng = r })().order
    assert.not_same(first, batches(fields(n), { size = 4, rng = r })().order)
  end)

  it("begin again in each loop, in the order that batches made anew would have", function()
    local seed, again = rng(1), rng(1)
    local all = batches(fields(n), { size = 4, rng = seed })
    for pass = 1, 3 do
      local fresh = batches(fields(n), { size = 4, rng = again })
      assert.equal(#fresh, #all)
      local count = 0
      for b in all do
        count = count + 1
        assert.same(fresh().order, b.order)
      end
      assert.equal(#fresh, count, "pass " .. pass)
    end
    local came = through(all, n)
    assert.same(once, came)
  end)

  it("begin again after a loop that was left, and after their end", function()
    local all, first = batches(fields(n), { size = 10 }), nil
    for b in all do
      first = b.order
      break
    end
    for b in all do
      assert.same(first, b.order)
      break
    end
    all()
    assert.equal(3, all().rows)
    assert.is_nil(all())
    assert.same(first, all().order)
    local none = batches(fields(3), { size = 5, drop_last = true })
    assert.is_nil(none())
    assert.is_nil(none())
  end)

  it("print", function()
    assert.equal("neap.batches: 3 of up to 10 sequences; input, label, rows2",
      tostring(batches(fields(n), { size = 10 })))
    assert.equal("neap.batch: 2 rows; input i32 [5], label i32 [2], rows2 f32 [4,2]",
      tostring(batches(fields(4), { size = 2, bucket = false })()))
    assert.equal("neap.batch: 4 rows; input i32 [3,4], target i32 [3,4]",
      tostring(batches.stream(core.zeros({ 40 }, "i32"), { batch = 4, steps = 3 })()))
  end)

  it("leave out what they are told to", function()
    local _, list = through(batches(fields(n), { size = 5, drop_last = true }), n)
    assert.equal(4, #list)
    for _, b in ipairs(list) do assert.equal(5, b.rows) end
    raises("sequence 2 of field input has 14 steps, max_length is 10", function()
      batches(fields(n), { max_length = 10 })
    end)
    local came = through(batches(fields(n), { max_length = 10, long = "drop" }), n)
    for i = 1, n do assert.equal(i * 7 % n <= 10 and 1 or 0, came[i]) end
    came, list = through(batches(fields(n), { max_length = 10, long = "cut", size = n }), n)
    assert.same(once, came)
    for k, i in ipairs(list[1].order) do
      assert.equal(math.min(i * 7 % n, 10), list[1].input.lengths[k])
    end
    assert.equal(0, #batches(fields(3), { size = 5, drop_last = true }))
  end)

  it("keep to a budget of tokens", function()
    for _, options in ipairs { { tokens = 40 }, { tokens = 25, rng = rng(1) },
      { tokens = 60, bucket = false, rng = rng(2) }, { tokens = 40, size = 3 } } do
      local all = batches(fields(n), options)
      local count = #all
      local came, list = through(all, n)
      assert.same(once, came)
      assert.equal(count, #list)
      local full = 0
      for _, b in ipairs(list) do
        local sum = 0
        for k = 1, b.rows do sum = sum + math.max(b.input.lengths[k], 2) end
        assert.is_true(sum <= options.tokens)
        assert.is_true(b.rows <= (options.size or n))
        if sum > options.tokens // 2 then full = full + 1 end
      end
      assert.is_true(options.size ~= nil or full >= #list // 2)
    end
    assert.equal("neap.batches: 8 of up to 40 tokens; input, label, rows2",
      tostring(batches(fields(n), { tokens = 40 })))
    -- long sequences count as far as they are taken
    local came = through(batches(fields(n), { tokens = 10, max_length = 10, long = "drop" }), n)
    for i = 1, n do assert.equal(i * 7 % n <= 10 and 1 or 0, came[i]) end
    assert.equal(n, #batches(fields(n), { tokens = 2, max_length = 2, long = "cut" }))
    raises("sequence 3 has 21 steps, tokens is 20", function()
      batches(fields(n), { tokens = 20 })
    end)
    raises("drop_last: batches of so many tokens are never quite full", function()
      batches(fields(n), { tokens = 40, drop_last = true })
    end)
    raises("tokens: expected a field with lengths, came none", function()
      batches({ label = fields(n).label }, { tokens = 40 })
    end)
    raises("tokens: expected an integer from 1, came 0", function()
      batches(fields(n), { tokens = 0 })
    end)
  end)

  it("name the line of a sequence that is too long", function()
    local folder = help.folder()
    local path = folder.write("a.tsv", "ab\n\nabcd\n")
    local c = assert(corpus.tsv(path, { columns = { "x" }, split = { x = "characters" } }))
    folder.remove()
    local f = { x = c:encode("x", vocab(c, "x")) }
    local where = ("(%s, sequence 2 (line 3)) has 4 steps, "):format(path)
    raises("sequence 2 of field x " .. where .. "max_length is 3", function()
      batches(f, { max_length = 3 })
    end)
    raises("sequence 2 " .. where .. "tokens is 3", function() batches(f, { tokens = 3 }) end)
  end)

  describe("of parts", function()
    local folder, path
    setup(function()
      folder = help.folder()
      local lines = {}
      for i = 1, 40 do lines[i] = ("%s\tw%d\n"):format(("a"):rep(i % 9 + 1), i) end
      path = folder.write("big.tsv", table.concat(lines))
    end)
    teardown(function() folder.remove() end)

    local names
    local function parts(bytes)
      local all = assert(corpus.parts(path, function(part)
        return corpus.tsv(part, { columns = { "x", "name" }, split = { x = "characters" } })
      end, { bytes = bytes or 100 }))
      names = names or vocab(all, "name")
      return all
    end
    local letters = vocab.new { "a" }
    local function maker(chance)
      return function(c)
        return batches({ x = c:encode("x", letters), name = c:label("name", names) },
          { size = 3, rng = chance })
      end
    end
    local function order_of(all)
      local order, n = {}, 0
      for b in all do
        n = n + 1
        for k = 1, b.rows do order[#order + 1] = names:symbol(b.name.data[k] + 1) end
      end
      return order, n
    end

    it("have every sequence once, in the order of the seed", function()
      local all = parts()
      assert.is_true(#all > 3)
      local function pass(seed)
        local chance = rng(seed)
        local order, n = order_of(batches.parts(all, maker(chance), { rng = chance }))
        local seen = {}
        for _, name in ipairs(order) do seen[name] = (seen[name] or 0) + 1 end
        for i = 1, 40 do assert.equal(1, seen["w" .. i]) end
        assert.equal(40, #order)
        return table.concat(order, " "), n
      end
      local one, two = pass(1), pass(2)
      assert.equal(one, (pass(1)))
      assert.not_equal(one, two)
      local plain = order_of(batches.parts(all, maker()))
      local first = #assert(all:read(1))
      for i = first + 1, 40 do -- parts in their order, sequences by their lengths
        assert.is_true(tonumber(plain[i]:sub(2)) > first)
      end
    end)

    it("begin again in each loop, and count themselves", function()
      local chance = rng(3)
      local all = batches.parts(parts(), maker(chance), { rng = chance })
      local guess = #all
      local first, n = order_of(all)
      assert.is_true(math.abs(guess - n) <= 0.3 * n, guess)
      assert.equal(n, #all)
      local second = order_of(all)
      assert.equal(40, #second)
      assert.not_same(first, second)
      for b in all do
        assert.is_true(b.rows > 0)
        break
      end
      assert.equal(40, #order_of(all))
      assert.equal("neap.batches.parts: " .. tostring(parts()), tostring(all))
    end)

    it("may be streams of text", function()
      local text = folder.write("t.txt", ("abab\n"):rep(30))
      local pieces = assert(corpus.parts(text, corpus.text, { bytes = 50 }))
      local v, steps = vocab(pieces, "text"), 0
      for b in batches.parts(pieces, function(c)
        return batches.stream(c:encode("text", v), { batch = 2, steps = 7 })
      end) do steps = steps + b.steps * b.rows end
      assert.equal(3 * (50 - 2), steps)
    end)

    it("refuse wrong use, and raise what is wrong with the file", function()
      raises("batches.parts: parts: expected what neap.corpus.parts gives, came \"x\"", function()
        batches.parts("x", print)
      end)
      raises("batches.parts: make: expected a function, came nil", function()
        batches.parts(parts())
      end)
      raises("batches.parts: rng: expected a source of chance", function()
        batches.parts(parts(), print, { rng = 1 })
      end)
      raises("batches.parts: expected a function that makes neap.batches of a corpus, came one "
        .. "that gives nil", function() batches.parts(parts(), function() end)() end)
      local bad = folder.write("bad.tsv", ("a\tb\n"):rep(30) .. "a\n")
      local broken = assert(corpus.parts(bad, function(part)
        return corpus.tsv(part, { columns = { "x", "name" } })
      end, { bytes = 50 }))
      raises("batches.parts: corpus: " .. bad .. ":31: expected 2 columns (x, name), came 1",
        function()
          for _ in batches.parts(broken, function(c)
            return batches({ x = c:encode("x", letters) })
          end) do end
        end)
    end)
  end)

  it("carry sequences of sequences", function()
    local c = corpus.from({ form = { "to be", "or", "not too bad" } },
      { split = { form = "words" } })
    local chars = vocab.count(c, "form", { characters = true })
    local function spell(b)
      local text, at, word = {}, 1, 1
      for k = 1, b.rows do
        local words = {}
        for _ = 1, b.chars.outer[k] do
          local letters = {}
          for _ = 1, b.chars.inner[word] do
            letters[#letters + 1] = chars:symbol(b.chars.data[at] + 1)
            at = at + 1
          end
          words[#words + 1] = table.concat(letters)
          word = word + 1
        end
        text[k] = table.concat(words, " ")
      end
      assert.equal(at - 1, #b.chars.data)
      assert.equal(word - 1, #b.chars.inner)
      return text
    end
    local f = { chars = c:characters("form", chars), form = c:encode("form", vocab(c, "form")) }
    assert.same({ "or", "to be", "not too bad" }, spell(batches(f)()))
    assert.same({ "to", "or", "not" },
      spell(batches(f, { bucket = false, max_length = 1, long = "cut" })()))
    assert.same({ "to be", "or" },
      spell(batches(f, { bucket = false, max_length = 2, long = "drop" })()))
    for b in batches(f, { size = 2, rng = rng(1) }) do
      for k, text in ipairs(spell(b)) do assert.equal(c:string("form", b.order[k]), text) end
    end
  end)

  it("refuse wrong use", function()
    local f = fields(3)
    raises("batches: unknown option \"sise\"; did you mean \"size\"?", function()
      batches(f, { sise = 3 })
    end)
    raises("size: expected an integer from 1, came 0", function() batches(f, { size = 0 }) end)
    raises("shuffle needs an rng", function() batches(f, { shuffle = true }) end)
    raises("expected at least one field", function() batches{} end)
    raises("a batch has that already", function() batches{ rows = f.input } end)
    raises("expected { data, offsets }", function() batches{ x = { offsets = i32{ 0 } } } end)
    raises("expected { data, offsets }", function()
      batches{ x = { data = i32{ 0 }, inner = i32{ 0 } } }
    end)
    raises("batches: field x: data: expected a tensor, came 5", function()
      batches{ x = { data = 5 } }
    end)
    raises("batches: field x: data: expected rows, came f32 []", function()
      batches{ x = { data = core.zeros{} } }
    end)
    raises("batches: field x: offsets: expected an i32 tensor, came a table", function()
      batches{ x = { data = i32{ 0 }, offsets = { 0, 1 } } }
    end)
    raises("batches: field x: offsets: expected an i32 tensor, came f32 [2]", function()
      batches{ x = { data = i32{ 0 }, offsets = core.tensor{ 0, 1 } } }
    end)
    raises("batches: field x: offsets: expected one number more than sequences, came i32 [0]",
      function() batches{ x = { data = i32{ 0 }, offsets = core.zeros({ 0 }, "i32") } } end)
    raises("batches: bucket: expected true, false, a field's name or a list of names, came 5",
      function() batches(f, { bucket = 5 }) end)
    raises("batches: bucket: no field \"inptu\" with lengths", function()
      batches(f, { bucket = { "inptu" } })
    end)
    raises("2 sequences in field y, 1 in x", function()
      batches{ x = { data = i32{ 1 } }, y = { data = i32{ 1, 2 } } }
    end)
    raises("bucket: no field \"label\" with lengths", function()
      batches(f, { bucket = "label" })
    end)
    raises("offset 2 is 1 after 2", function()
      batches{ x = { data = i32{ 1, 2 }, offsets = i32{ 2, 1 } } }
    end)
    raises("long: expected \"error\", \"drop\" or \"cut\", came \"crop\"", function()
      batches(f, { long = "crop" })
    end)
  end)

  it("live through collections at each line", function()
    local f = fields(6)
    help.collecting(function()
      local n_rows = 0
      for b in batches(f, { size = 2, rng = rng(1) }) do
        n_rows = n_rows + b.rows
      end
      assert(n_rows == 6)
    end)
  end)
end)

describe("a stream of batches", function()
  it("cuts a text into columns and goes on where it was", function()
    local ids = {}
    for i = 1, 47 do ids[i] = i end -- 4 columns of 11
    local seen, n = {}, 0
    local all = batches.stream(i32(ids), { batch = 4, steps = 3 })
    assert.equal(4, #all)
    for b in all do
      n = n + 1
      assert.equal(n == 1, b.first)
      assert.equal(4, b.rows)
      assert.equal(n == 4 and 1 or 3, b.steps)
      assert.same({ b.steps, 4 }, b.input:shape())
      assert.same({ b.steps, b.steps, b.steps, b.steps }, b.lengths:totable())
      for t = 1, b.steps do
        for k = 1, 4 do
          assert.equal(11 * (k - 1) + 3 * (n - 1) + t, b.input:get(t, k))
          assert.equal(b.input:get(t, k) + 1, b.target:get(t, k))
          seen[b.target:get(t, k)] = true
        end
      end
    end
    assert.equal(4, n)
    for i = 1, 44 do assert.equal((i - 1) % 11 ~= 0, seen[i] == true) end
  end)

  it("begins again in each loop", function()
    local all = batches.stream(core.zeros({ 12 }, "i32"), { batch = 1, steps = 5 })
    for _ = 1, 2 do
      local firsts = {}
      for b in all do firsts[#firsts + 1] = b.first end
      assert.same({ true, false, false }, firsts)
    end
    all()
    for b in all do
      assert.is_true(b.first)
      break
    end
    assert.equal("neap.batches.stream: 3 of up to 5 steps of 1 rows", tostring(all))
  end)

  it("takes an encoded text", function()
    local c = corpus.from({ text = { "abab" } }, { split = { text = "characters" } })
    local all = batches.stream(c:encode("text", vocab(c, "text")), { batch = 1 })
    local b = all()
    assert.same({ { 0 }, { 1 }, { 0 } }, b.input:totable())
    assert.same({ { 1 }, { 0 }, { 1 } }, b.target:totable())
    assert.is_nil(all())
  end)

  it("has a length that is the number of its batches", function()
    for length = 2, 12 do
      for steps = 1, 5 do
        local all = batches.stream(core.zeros({ length }, "i32"), { batch = 1, steps = steps })
        local wanted, n = #all, 0
        for _ in all do n = n + 1 end
        assert.equal(wanted, n)
      end
    end
  end)

  it("refuses wrong use", function()
    raises("7 ids do not make 4 columns of at least 2", function()
      batches.stream(core.zeros({ 7 }, "i32"), { batch = 4 })
    end)
    raises("i32 tensor expected, got f32 [8]", function()
      for _ in batches.stream(core.zeros{ 8 }, { batch = 1 }) do return end
    end)
    raises("expected an i32 tensor or an encoded field, came nil", function() batches.stream() end)
  end)
end)

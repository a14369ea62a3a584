-- Losses beside PyTorch's (golden/make_losses.py), what they cannot align, and their cost.
local core = require "neap.core"
local neap = require "neap"
local data_help = require "data_help"
local help = require "run_help"
local op, raises = neap.op, data_help.raises

local golden = assert(core.load_archive "spec/golden/losses.st")
local function tensor(name) return assert(golden:tensor(name), name) end

-- A program of ctc: the sum of factor * loss, which is what goes back.
local function ctc_program(classes, options)
  return neap.program(function(rec)
    local x = rec:input("x", { space = "T", dims = { classes } })
    local y = rec:input("y", { space = "U", dtype = "i32" })
    local factor = rec:input("factor", { space = "B" })
    local rows = op.ctc(x, y, options)
    return { rows = rows, loss = op.reshape(op.sum_rows(op.reshape(rows * factor, { 1 })), {}) }
  end)
end

local function ctc_batch(prefix)
  return {
    x = { data = tensor(prefix .. "x"), lengths = tensor(prefix .. "lengths"), padded = true },
    y = { data = tensor(prefix .. "labels"), lengths = tensor(prefix .. "counts") },
    factor = tensor(prefix .. "factor"),
  }
end

describe("ctc beside PyTorch's:", function()
  for name in golden:text "ctc":gmatch "[^\n]+" do
    local prefix = "ctc." .. name .. "."
    local x = tensor(prefix .. "x")
    local classes, blank = x:shape()[3], tensor(prefix .. "blank")[1] + 1

    it(name .. ", zero where nothing fits", function()
      for threads = 1, 2 do
        local run = ctc_program(classes, { blank = blank, zero = true }):run { learn = true,
          pool = threads > 1 and core.pool(threads) or nil }
        run:want_gradient "x"
        run:feed(ctc_batch(prefix)):forward():backward()
        help.near(run:value "rows", tensor(prefix .. "loss_zero"), 2e-6, name .. ": loss")
        help.near(run:gradient "x", tensor(prefix .. "grad"), 1e-5, name .. ": gradient")
      end
    end)

    it(name .. ", an error where nothing fits", function()
      local run, bad = ctc_program(classes, { blank = blank }):run()
      local expected = help.flat(tensor(prefix .. "loss"))
      for row, loss in ipairs(expected) do if loss == math.huge then bad = bad or row end end
      if bad then
        local ok, message = pcall(function() run:feed(ctc_batch(prefix)):forward() end)
        assert.is_false(ok)
        assert(message:find("ctc: 3 labels, 0 of them as the one before, need 3 steps, there are 2"
          .. "; with zero such a sequence counts 0, row " .. bad, 1, true), message)
      else
        run:feed(ctc_batch(prefix)):forward()
        help.near(run:value "rows", expected, 2e-6, name .. ": loss")
      end
    end)
  end

  it("takes only labels that are classes, and not the blank", function()
    local run = ctc_program(4, { blank = 2 }):run()
    for id, text in pairs { [4] = "label 2: id 4 is not in 0..3, row 1",
      [-1] = "label 2: id -1 is not in 0..3, row 1", [1] = "label 2 is 1, the blank, row 1" } do
      local ok, message = pcall(function()
        run:feed({ x = { data = neap.zeros { 5, 4 }, lengths = neap.tensor({ 5 }, "i32") },
          y = { data = neap.tensor({ 0, id }, "i32"), lengths = neap.tensor({ 2 }, "i32") },
          factor = neap.tensor { 1 } }):forward()
      end)
      assert.is_false(ok)
      assert(message:find(text, 1, true), message)
    end
    neap.program(function(rec)
      local x = rec:input("x", { space = "T", dims = { 4 } })
      local y = rec:input("y", { space = "U", dtype = "i32" })
      raises("ctc: blank: expected an integer from 1 to 4, came 5", function()
        op.ctc(x, y, { blank = 5 })
      end)
      raises("ctc: zero: expected true or false, came 1", function() op.ctc(x, y, { zero = 1 }) end)
      raises("ctc_decode: beam: expected an integer from 0 to 1000, came 1001", function()
        op.ctc_decode(x, { beam = 1001 })
      end)
      return { y = op.ctc_decode(x) }
    end)
  end)

  it("works with thousands of classes: gradients of each step sum to 0, memory is that of labels",
    function()
      local classes, steps, rng = 5000, 40, neap.rng(4)
      local run = ctc_program(classes, { blank = 1 }):run { learn = true }
      run:want_gradient "x"
      local labels = {}
      for i = 1, 15 do labels[i] = 1 + rng:int(classes - 2) end
      run:feed { x = { data = help.normal(rng, { steps, classes }, 2),
        lengths = neap.tensor({ steps }, "i32") },
        y = { data = neap.tensor(labels, "i32"), lengths = neap.tensor({ 15 }, "i32") },
        factor = neap.tensor { 1 } }
      run:forward():backward()
      local g = help.flat(run:gradient "x")
      for t = 0, steps - 1 do
        local sum, size = 0, 0
        for i = 1, classes do
          sum, size = sum + g[t * classes + i], size + math.abs(g[t * classes + i])
        end
        assert(size > 0.1 and math.abs(sum) < 1e-5, sum)
      end
      -- x and its gradient, and little else
      assert(run:bytes() < 1.5 * 2 * 4 * steps * classes, run:bytes())
    end)
end)

-- A prefix beam search on lists, as Hannun et al. 2014 write it.
local function beam_search(steps, blank, beam)
  local function both(a, b)
    local top = math.max(a, b)
    return top == -math.huge and top or top + math.log(math.exp(a - top) + math.exp(b - top))
  end
  local none = -math.huge
  local now = { { labels = {}, blank = 0, label = none } }
  for _, line in ipairs(steps) do
    local norm = none
    for _, v in ipairs(line) do norm = both(norm, v) end
    local found = {}
    local function add(labels, kind, p)
      local key = table.concat(labels, " ")
      local e = found[key] or { labels = labels, blank = none, label = none }
      found[key] = e
      e[kind] = both(e[kind], p)
    end
    for _, e in ipairs(now) do
      local all, last = both(e.blank, e.label), e.labels[#e.labels]
      for class, v in ipairs(line) do
        local p, longer = v - norm, table.move(e.labels, 1, #e.labels, 1, {})
        longer[#longer + 1] = class - 1
        if class == blank then
          add(e.labels, "blank", all + p)
        elseif class - 1 == last then
          add(e.labels, "label", e.label + p)
          add(longer, "label", e.blank + p)
        else
          add(longer, "label", all + p)
        end
      end
    end
    now = {}
    for _, e in pairs(found) do now[#now + 1] = e end
    table.sort(now, function(a, b) return both(a.blank, a.label) > both(b.blank, b.label) end)
    for i = #now, beam + 1, -1 do now[i] = nil end
  end
  return now[1].labels
end

describe("ctc_decode", function()
  it("keeps the prefixes that a search over lists keeps", function()
    local rng, differ = neap.rng(12), 0
    for round = 1, 12 do
      local classes, blank = 2 + rng:int(6), 1
      local lengths = { rng:int(14), 1, 0, rng:int(14) }
      local total = lengths[1] + 1 + lengths[4]
      local x, greedy = help.normal(rng, { total, classes }, 1.5)
      for _, beam in ipairs { 0, 1, 2, 3, 8 } do
        local pr = neap.program(function(rec)
          return { y = op.ctc_decode(rec:input("x", { space = "T", dims = { classes } }),
            { blank = blank, beam = beam }) }
        end)
        local got = pr:run():feed { x = { data = x, lengths = neap.tensor(lengths, "i32") } }
          :forward():value("y", "concat")
        if beam == 0 then
          greedy = help.flat(got)
        else
          local at = 0
          for _, n in ipairs(lengths) do
            local steps = {}
            for t = 1, n do
              steps[t] = {}
              for i = 1, classes do steps[t][i] = x:get(at + t, i) end
            end
            local want = beam_search(steps, blank, beam)
            for t = 1, n do
              assert.equal(want[t] or -1, got[at + t], ("round %d, beam %d"):format(round, beam))
              if greedy[at + t] ~= got[at + t] then differ = differ + 1 end
            end
            at = at + n
          end
        end
      end
    end
    assert(differ > 20) -- or the search would show nothing
  end)
end)

describe("losses beside PyTorch's:", function()
  local ids, weights = tensor "ids", tensor "weights"
  local logits, flat = tensor "logits", help.flat(ids)
  for name, options in pairs { smoothing = { smoothing = 0.15 }, weights = { weights = true },
    focal = { focal = 2 }, focal_half = { focal = 0.5 } } do
    it(name, function()
      local value, gradient = neap.grad(function(x, y, w)
        return op.cross_entropy(x, op.cast(y, "i32"), { smoothing = options.smoothing,
          focal = options.focal, weights = options.weights and w })
      end, logits, op.cast(ids, "f32"), weights)
      help.near({ value }, tensor(("class.%s.loss"):format(name)), 2e-6, name .. ": loss")
      help.near(gradient, tensor(("class.%s.grad"):format(name)), 1e-5, name .. ": gradient")
    end)
  end
  local target = tensor "target"
  for name, fn in pairs { mse = op.mse, mae = op.mae, huber = op.huber,
    huber_third = function(x, y) return op.huber(x, y, { delta = 0.3 }) end } do
    it(name, function()
      local value, gradient = neap.grad(fn, tensor "given", target)
      help.near({ value }, tensor(("number.%s.loss"):format(name)), 2e-6, name .. ": loss")
      help.near(gradient, tensor(("number.%s.grad"):format(name)), 1e-5, name .. ": gradient")
    end)
  end

  it("rows weigh as their classes do", function()
    local rows = help.flat(op.cross_entropy(logits, ids, { rows = true, weights = weights }))
    local plain = help.flat(op.cross_entropy(logits, ids, { rows = true }))
    for i, id in ipairs(flat) do
      assert.near(id < 0 and 0 or plain[i] * weights[id + 1], rows[i], 1e-6)
    end
  end)

  it("weighs rows that are hard to tell as their classes do", function()
    local plain = help.flat(op.cross_entropy(logits, ids, { rows = true }))
    local rows = help.flat(op.cross_entropy(logits, ids, { rows = true, weights = weights,
      focal = 2 }))
    local sum, all = 0, 0
    for i, id in ipairs(flat) do
      local w = id < 0 and 0 or weights[id + 1]
      local one = w * plain[i] * (1 - math.exp(-plain[i])) ^ 2
      assert.near(one, rows[i], 1e-5)
      sum, all = sum + one, all + w
    end
    assert.near(sum / all, op.cross_entropy(logits, ids, { weights = weights, focal = 2 }):item(), 1e-5)
  end)

  it("refuse what they cannot use", function()
    raises("huber: delta: expected a number above 0, came 0", function()
      op.huber(target, target, { delta = 0 })
    end)
    raises("cross_entropy: focal: expected none beside smoothing, came 2", function()
      op.cross_entropy(logits, ids, { focal = 2, smoothing = 0.1 })
    end)
    raises("cross_entropy: focal: expected a number from 0 to 100, came -1", function()
      op.cross_entropy(logits, ids, { focal = -1 })
    end)
  end)
end)

describe("crf", function()
  local function program(classes)
    return neap.program(function(rec)
      local x = rec:input("x", { space = "T", dims = { classes } })
      local y = rec:input("y", { space = "T", dtype = "i32" })
      local a = rec:param("a", { classes, classes }, { "normal", 0, 1 })
      local rows = op.crf(x, y, a)
      return { rows = rows, loss = op.reshape(op.sum_rows(op.reshape(rows, { 1 })), {}) }
    end)
  end

  it("names the sequence and the step of an id that is none", function()
    local run = program(3):run()
    for _, id in ipairs { 3, -2 } do
      local ok, message = pcall(function()
        local n = neap.tensor({ 1, 2 }, "i32")
        run:feed({ x = { data = neap.zeros { 3, 3 }, lengths = n },
          y = { data = neap.tensor({ 0, 1, id }, "i32"), lengths = n } }):forward()
      end)
      assert.is_false(ok)
      local text = ("crf: step 2: id %d is not in 0..2, nor -1 for any, row 2"):format(id)
      assert(message:find(text, 1, true), message)
    end
  end)

  it("keeps its digits over long sequences, and counts nothing where nothing is known", function()
    local classes, steps, rng = 4, 3000, neap.rng(6)
    local run = program(classes):run { learn = true }
    run:want_gradient "x"
    local known, unknown = {}, {}
    for t = 1, steps do known[t], unknown[t] = rng:int(classes) - 1, -1 end
    local x = { data = help.normal(rng, { steps, classes }, 3),
      lengths = neap.tensor({ steps }, "i32") }
    local a = run.program.params:get "a"
    -- the same in doubles: ln sum e^(all) - score
    local alpha, score = {}, 0
    for t = 1, steps do
      local new = {}
      for j = 1, classes do
        local sum, top = 0, -math.huge
        for i = 1, t > 1 and classes or 0 do top = math.max(top, alpha[i] + a:get(j, i)) end
        for i = 1, t > 1 and classes or 0 do sum = sum + math.exp(alpha[i] + a:get(j, i) - top) end
        new[j] = x.data:get(t, j) + (t > 1 and top + math.log(sum) or 0)
      end
      alpha = new
      score = score + x.data:get(t, known[t] + 1)
      if t > 1 then score = score + a:get(known[t] + 1, known[t - 1] + 1) end
    end
    local top, sum = math.max(table.unpack(alpha)), 0
    for _, v in ipairs(alpha) do sum = sum + math.exp(v - top) end
    run:feed { x = x, y = { data = neap.tensor(known, "i32"), lengths = x.lengths } }:forward()
    help.near({ run:item() }, { top + math.log(sum) - score }, 1e-6, "loss of 3000 steps")
    run:feed { x = x, y = { data = neap.tensor(unknown, "i32"), lengths = x.lengths } }
    run.program.params:zero_grad()
    run:forward():backward()
    assert.near(0, run:item(), 1e-6)
    for _, g in ipairs(help.flat(run:gradient "x")) do assert.near(0, g, 1e-6) end
    for _, g in ipairs(help.flat(run.program.params:grad "a")) do assert.near(0, g, 1e-4) end
  end)

  it("gives the same bits with any number of threads", function()
    local rng, bytes = neap.rng(2), {}
    local x = help.normal(rng, { 60, 20 }, 1)
    local ids = {}
    for i = 1, 60 do ids[i] = rng:int(20) - 1 end
    local n = neap.tensor({ 5, 1, 0, 9, 20, 3, 2, 2, 2, 7, 9 }, "i32")
    local pr = program(20)
    for threads = 1, 3 do
      local run = pr:run { learn = true, pool = threads > 1 and core.pool(threads) or nil }
      run:want_gradient "x"
      run:feed { x = { data = x, lengths = n },
        y = { data = neap.tensor(ids, "i32"), lengths = n } }
      pr.params:zero_grad()
      run:forward():backward()
      bytes[threads] = run:value "rows":tobytes() .. run:gradient "x":tobytes()
        .. pr.params:grad "a":tobytes()
    end
    assert(bytes[1] == bytes[2] and bytes[1] == bytes[3])
  end)
end)

describe("a sequence among others", function()
  it("has the bits that it has alone", function()
    local rng, classes = neap.rng(9), 6
    local pr = neap.program(function(rec)
      local x = rec:input("x", { space = "T", dims = { classes } })
      local y = rec:input("y", { space = "U", dtype = "i32" })
      local z = rec:input("z", { space = "T", dtype = "i32" })
      local a = rec:param("a", { classes, classes }, { "normal", 0, 1 })
      return { ctc = op.ctc(x, y, { zero = true }), greedy = op.ctc_decode(x),
        beam = op.ctc_decode(x, { beam = 3 }), crf = op.crf(x, z, a),
        marginals = op.crf_marginals(x, a), viterbi = op.viterbi(x, a) }
    end)
    local steps, labels = { 9, 2, 0, 14, 7 }, { 3, 1, 2, 5, 0 }
    local rows, count, x, y, z = {}, 0, {}, {}, {}
    local function ids(n, most)
      local out = {}
      for i = 1, n do out[i] = rng:int(most) - 1 end
      return out
    end
    for b, n in ipairs(steps) do
      local numbers = {}
      for i = 1, n * classes do numbers[i] = rng:normal() end
      rows[b] = { x = numbers, y = ids(labels[b], classes - 1), z = ids(n, classes) }
      table.move(numbers, 1, #numbers, #x + 1, x)
      table.move(rows[b].y, 1, labels[b], #y + 1, y)
      table.move(rows[b].z, 1, n, #z + 1, z)
      count = count + n
    end
    local function values(x_, y_, z_, lengths, counts)
      local n, m = neap.tensor(lengths, "i32"), neap.tensor(counts, "i32")
      local function of(list, dtype)
        return #list > 0 and neap.tensor(list, dtype) or neap.zeros({ 0 }, dtype)
      end
      local run = pr:run():feed { x = { data = of(x_):reshape { #x_ // classes, classes },
        lengths = n }, y = { data = of(y_, "i32"), lengths = m },
        z = { data = of(z_, "i32"), lengths = n } }:forward()
      local out = {}
      for name in pairs(pr.outputs) do out[name] = run:value(name, "concat"):tobytes() end
      return out
    end
    local all, alone = values(x, y, z, steps, labels), {}
    for b, r in ipairs(rows) do
      for name, bytes in pairs(values(r.x, r.y, r.z, { steps[b] }, { labels[b] })) do
        alone[name] = (alone[name] or "") .. bytes
      end
    end
    for name, bytes in pairs(all) do
      assert(#bytes == (name == "marginals" and classes * count or (name == "ctc" or name == "crf")
        and #steps or count) * 4)
      assert(bytes == alone[name], name)
    end
  end)
end)

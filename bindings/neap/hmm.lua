--- Hidden Markov models: a chain of states that nobody sees, each of which shows a symbol (Rabiner
-- 1989, "A tutorial on hidden Markov models", whose names A, B and pi stand below).
--
-- It has the face of @{neap.synced_seq2seq}: symbols go in, as many states come out, and `score`,
-- `predict` and `save` are called alike; but it is not learned by gradient steps: `fit` counts
-- where the states are known, and re-estimates (Baum-Welch) where they are hidden.
--
-- All sums are of logarithms of probabilities, with the most likely term taken out before e is
-- raised to the rest; what a sequence's past has in common is taken out after each step, so that
-- sequences may be of any length. Forward and Viterbi are recorded loops like those of any other
-- model and run in C, also from a file in a host without Lua; the backward recursion is the
-- gradient of the forward one (Eisner 2016, "Inside-outside and forward-backward algorithms are
-- just backprop").
--
-- The programs, N states, V symbols, inputs `input`, ids [T,B]:
--
-- - `predict`: Viterbi: `tags` [T,B] the states of the best path, `score` [B] the logarithm of
--   the path's and the symbols' probability
-- - `filter`: `states` [T,B,N], P(state | symbols up to here). It can be streamed
-- - `learn`: `nats` [B], -ln P(symbols); `loss`, their mean over all symbols
--
-- Parameters are logarithms: `start` [N] (pi), `transition` [N,N] (A, a row for each state before),
-- `emission` [V,N] (B, a row for each symbol). A probability of 0 is a logarithm of -1e30.
-- @module neap.hmm
local core = require "neap.core"
local check = require "neap.check"
local batches = require "neap.batches"
local metrics = require "neap.metrics"
local op = require "neap.op"
local program = require "neap.program"
local rng = require "neap.rng"
local vocab = require "neap.vocab"
local task = require "neap.task"

local class = {}

local LOW = -1e30        -- stands for ln 0: sums of it stay finite
local IMPOSSIBLE = -1e29 -- what is below has probability 0

-- ---- the recursions ----

-- ln of the sum of e^x over an axis.
local function log_sum(x, axis)
  local top = op.stop_gradient(op.max(x, axis, true))
  return top + op.log(op.sum(op.exp(x - top), axis, true))
end

local function log_probability(x) return x > 0 and math.log(x) or LOW end

-- The three parameters and ln P(symbol | state) at each step.
local function record_input(rec, n, v)
  local x = rec:input("input", { space = "T", dtype = "i32" })
  local emission = rec:param("emission", { v, n })
  return x.space, rec:param("start", { n }), rec:param("transition", { n, n }),
    op.embedding(x, emission)
end

-- Forward: ln P(state | symbols so far) [T,B,N] and ln P(symbol | symbols before) [T,B,1]. The
-- state of the loop is ln P(state | symbols before).
local function forward(rec, n, v)
  local space, start, transition, shown = record_input(rec, n, v)
  local gain
  local now = rec:scan(space, { before = { dims = { n }, init = start } }, { "before" }, function(s)
    local joint = s.before + shown
    gain = log_sum(joint, 1)
    local now = joint - gain
    local onward = log_sum(op.reshape(now, { n, 1 }) + transition, 1)
    return now, { before = op.reshape(onward, { n }) }
  end)
  return now, op.reshape(gain, {}), shown
end

-- The same with the largest term in place of the sum; `from` tells each state its best predecessor,
-- by which a second loop goes back from the best last state.
local function viterbi(rec, n, v)
  local space, start, transition, shown = record_input(rec, n, v)
  local now, gain
  local states = { before = { dims = { n }, init = start }, from = { dims = { n } } }
  local from = rec:scan(space, states, { "before", "from" }, function(s)
    local joint = s.before + shown
    gain = op.max(joint, 1, true)
    now = joint - gain
    local onward = op.reshape(now, { 1, n }) + op.transpose(transition)
    return s.from, { before = op.max(onward, 2), from = op.cast(op.argmax(onward), "f32") }
  end)
  local back = op.reverse(from)
  local tag = { dims = {}, dtype = "i32", init = op.argmax(op.last(now)) }
  local tags = rec:scan(space, { tag = tag }, { "tag" }, function(s)
    return s.tag, { tag = op.cast(op.gather(back, s.tag), "i32") }
  end)
  gain = op.reshape(gain, {})
  return { tags = op.reverse(tags), score = op.sum_time(gain), gains = gain }
end

-- ---- making one ----

local shapes = { "start", "transition", "emission" }

local function set_up(self, input, output)
  self.inputs, self.output, self.symbols = input, output, input[1].vocab
  return self
end

--- Makes a model with states that are likely by chance, for `fit` or @{probabilities} to change.
-- @function hmm
-- @tab options
--
-- - `input`: the vocabulary of symbols
-- - `output`: the vocabulary of states; or how many there are, which are called "1", "2", ..
-- - `rng`: where the first probabilities come from; `threads`
local function new(_, options)
  options = check.options("hmm", options, { "input", "output", "rng", "threads" })
  local input = task.inputs("hmm", task.vocab("hmm", "input", options.input))
  local output = options.output
  if type(output) == "number" then
    local names = { split = "words" }
    for i = 1, check.integer("hmm", "output", output, 1, 10000) do names[i] = tostring(i) end
    output = vocab.new(names)
  end
  task.vocab("hmm", "output", output, "a vocabulary of states, or how many there are")
  local n, v = #output, #options.input
  local self = task.new(class, {
    kind = "hmm", rng = options.rng, options = options,
    config = { kind = "hmm", input = task.plain_inputs(input), output = output:plain() },
    builders = {
      learn = function(rec)
        local _, gain, shown = forward(rec, n, v)
        local nats = -op.sum_time(gain)
        return { loss = -op.mean_rows(gain), nats = nats, total = op.sum_rows(nats),
          gains = gain, shown = shown }
      end,
      filter = function(rec) return { states = op.exp((forward(rec, n, v))) } end,
      predict = function(rec) return viterbi(rec, n, v) end,
    },
  })
  set_up(self, input, output)
  local chance = rng.new(self.seed)
  local function row(width)
    local p, sum = {}, 0
    for i = 1, width do
      p[i] = -math.log(1 - chance:uniform()) -- any distribution is as likely as any other
      sum = sum + p[i]
    end
    for i = 1, width do p[i] = p[i] / sum end
    return p
  end
  local transition, emission = {}, {}
  for i = 1, n do transition[i], emission[i] = row(n), row(v) end
  self:probabilities { start = row(n), transition = transition, emission = emission }
  return self
end

function class.restore(config, parts)
  local self = task.new(class, { kind = "hmm", params = parts.params, programs = parts.programs,
    config = config })
  return set_up(self, task.restore_inputs(config.input), assert(vocab.from(config.output)))
end

-- The dimensions of the probabilities, as people have them.
local function dims(self)
  local n, v = #self.output, #self.symbols
  return { start = { n }, transition = { n, n }, emission = { n, v } }
end

-- Writes rows of probabilities that sum to 1.
local function write(self, name, rows)
  local logs = {}
  for i, row in ipairs(rows) do
    logs[i] = {}
    for k, p in ipairs(row) do logs[i][k] = log_probability(p) end
  end
  local t = core.tensor(name == "start" and logs[1] or logs)
  self.params:set(name, name == "emission" and op.transpose(t) or t)
end

--- The probabilities; with an argument, some of them are set before.
-- @tab[opt] given any of `start` (pi) [N], `transition` (A) [N,N]: from state i to state j,
--   `emission` (B) [N,V]: of symbol k in state i; tables or tensors, each row with a sum of 1
-- @treturn tab all three, tensors
function class:probabilities(given)
  given = check.options("hmm:probabilities", given, shapes)
  local all = {}
  for name, value in pairs(given) do
    local d = dims(self)[name]
    local t = type(value) == "table" and core.tensor(value) or value
    local shape = type(t) == "userdata" and t:dtype() == "f32" and table.concat(t:shape(), ",")
    if shape ~= table.concat(d, ",") then
      check.fail("hmm:probabilities: %s: expected [%s] numbers, came %s", name,
        table.concat(d, ","), check.came(t))
    end
    all[name] = name == "start" and { t:totable() } or t:totable()
    for i, row in ipairs(all[name]) do
      local sum = 0
      for k, p in ipairs(row) do
        check.number("hmm:probabilities", ("%s: row %d, column %d"):format(name, i, k), p, 0, 1)
        sum = sum + p
      end
      if math.abs(sum - 1) > 1e-4 then
        check.fail("hmm:probabilities: %s: row %d: expected a sum of 1, came %g", name, i, sum)
      end
    end
  end
  self:program "learn" -- makes the parameters
  for name, rows in pairs(all) do write(self, name, rows) end
  local out = {}
  for _, name in ipairs(shapes) do out[name] = op.exp(self.params:get(name)) end
  out.emission = op.transpose(out.emission)
  return out
end

-- ---- rows that cannot be ----

-- What a caller wants of sequences that have probability 0.
local function zero_option(who, options)
  local zero = options.zero == nil and "error" or options.zero
  if zero ~= "error" and zero ~= "skip" then
    check.fail("%s: zero: expected \"error\" or \"skip\", came %s", who, check.came(zero))
  end
  return zero
end

local function place(batch, row)
  local i, from = batch.order and batch.order[row] or row, batch.input.from
  return from and from.corpus:place(i) or "sequence " .. i
end

-- The logarithm of each row's probability, from the gain of each step. A row of probability 0 is
-- refused, with the step where that is first seen, or has no number.
local function add_up(self, who, run, batch, zero)
  local gains, sums, at = run:value("gains", "concat"), {}, 0
  for b = 1, #batch.input.lengths do
    local sum = 0
    for t = 1, batch.input.lengths[b] do
      local gain = gains[at + t]
      if gain < IMPOSSIBLE and zero == "error" then
        check.fail("%s: %s has probability 0: no state that can be reached shows symbol %d, %s "
          .. "(fit with smoothing leaves no zeros)", who, place(batch, b), t,
          check.came(self.symbols:symbol(batch.input.data[at + t] + 1)))
      end
      sum = sum + gain
    end
    sums[b] = sum >= IMPOSSIBLE and sum or nil
    at = at + batch.input.lengths[b]
  end
  return sums
end

-- The best path of each row of probability above 0, and its logarithm.
local function run_viterbi(self, who, batch, zero)
  local run = self:run("predict", false):feed(batch):forward()
  local scores, list, at = add_up(self, who, run, batch, zero), {}, 0
  local tags = run:value("tags", "concat")
  for b = 1, #batch.input.lengths do
    local length = batch.input.lengths[b]
    local path = scores[b] and {}
    for t = 1, path and length or 0 do path[t] = tags[at + t] end
    list[b] = path and { path = path, score = scores[b], from = at }
    at = at + length
  end
  return list
end

-- ---- data ----

-- A list of sequences, or fields that batches takes.
local function fields_of(self, who, data)
  if type(data) == "table" and not getmetatable(data) and data.input ~= nil then
    task.encoded_for(self, who, "input", data.input)
    return data
  end
  local batch = task.batch(who, self.inputs, data)
  if not batch then check.fail("%s: expected at least one sequence, came none", who) end
  return { input = { data = batch.input.data, offsets = core.offsets(batch.input.lengths) } }
end

-- How much is added to each count.
local function smoothing_of(given)
  local out = {}
  if type(given) ~= "table" then
    for _, name in ipairs(shapes) do out[name] = given or 0 end
  else
    check.options("hmm:fit: smoothing", given, shapes)
    for _, name in ipairs(shapes) do out[name] = given[name] or 0 end
  end
  for name, x in pairs(out) do
    check.number("hmm:fit", type(given) == "table" and "smoothing: " .. name or "smoothing", x, 0)
  end
  return out
end

-- ---- fitting ----

-- Rows of counts to rows of probabilities. A row without a count stays as `old` has it; without
-- that, it is said which.
local function normalise(self, name, counts, smoothing, old)
  for i, row in ipairs(counts) do
    local sum = 0
    for k = 1, #row do
      row[k] = row[k] + smoothing
      sum = sum + row[k]
    end
    if sum <= 0 and not old then
      check.fail("hmm:fit: nothing tells the %s probabilities%s; with smoothing they are all alike",
        name, name == "start" and "" or (" of state %s: it %s"):format(
          check.came(self.output:symbol(i)), name == "transition" and "never stands before another"
          or "is never seen"))
    end
    for k = 1, #row do row[k] = sum > 0 and row[k] / sum or old[i][k] end
  end
  return counts
end

local function zeros(rows, columns)
  local out = {}
  for i = 1, rows do
    out[i] = {}
    for k = 1, columns do out[i][k] = 0 end
  end
  return out
end

-- Counts where the states are known (-1: not). Section VI of Rabiner (1989) has the same ratios
-- with expected counts.
local function count(self, fields, smoothing)
  local n, v = #self.output, #self.symbols
  local counts = { start = zeros(1, n), transition = zeros(n, n), emission = zeros(n, v) }
  for batch in batches(fields, { size = 256, bucket = false }) do
    local x, y = batch.input, batch.output
    local problem = program.difference(batch, "input", "output")
    if not y.lengths or problem ~= "" then
      check.fail("hmm:fit: inputs and outputs differ in length%s", problem)
    end
    local symbols, states, at = x.data:totable(), y.data:totable(), 0
    for b = 1, batch.rows do
      local before
      for t = 1, x.lengths[b] do
        at = at + 1
        local state, symbol = states[at] + 1, symbols[at] + 1
        if state < 0 or state > n or symbol < 1 or symbol > v then
          check.fail("hmm:fit: %s, step %d: expected one of %d symbols and of %d states, from 0, "
            .. "came %d and %d", place(batch, b), t, v, n, symbol - 1, state - 1)
        end
        if state > 0 then
          local shown = counts.emission[state]
          shown[symbol] = shown[symbol] + 1
          local row = t == 1 and counts.start[1] or before and counts.transition[before]
          if row then row[state] = row[state] + 1 end
        end
        before = state > 0 and state or nil
      end
    end
  end
  for _, name in ipairs(shapes) do normalise(self, name, counts[name], smoothing[name]) end
  for _, name in ipairs(shapes) do write(self, name, counts[name]) end
end

-- The expected counts: the gradient of ln P(symbols) with respect to the logarithm of a probability
-- is how often it is expected to be used. Gives -ln P of all.
local function expect(self, list)
  self.params:zero_grad()
  local run, total = self:run("learn", true), 0
  for _, batch in ipairs(list) do
    run:feed(batch):forward()
    for _, sum in ipairs(add_up(self, "hmm:fit", run, batch, "error")) do total = total - sum end
    run:backward "total"
  end
  return total
end

local function re_estimate(self, smoothing)
  local old = self:probabilities()
  local new = {}
  for _, name in ipairs(shapes) do
    local counts, was = op.neg(self.params:grad(name)), old[name]:totable()
    if name == "emission" then counts = op.transpose(counts) end
    counts = counts:totable()
    if name == "start" then counts, was = { counts }, { was } end
    new[name] = normalise(self, name, counts, smoothing[name], was)
  end
  for _, name in ipairs(shapes) do write(self, name, new[name]) end
end

--- Fits the probabilities. Where the states are known they are counted; where they are hidden,
-- Baum-Welch goes on from the present probabilities, which @{probabilities} can set, to a maximum that is
-- near: other starts may find a better one.
-- @tab data fields as for @{neap.batches}: `input` and, if the states are known, `output` (-1 where
-- one is not); or a list of strings or lists of symbols
-- @tab[opt] options
--
-- - `smoothing`: what is added to each count (0), a number, or a table of numbers by name: `start`,
--   `transition`, `emission`. What is never seen has a share then too
-- - `iterations`: of Baum-Welch, at most (100); `tolerance`: it ends when the mean -ln P of a symbol
--   falls by less (1e-6); `size`: sequences at a time (64)
-- - `each`: function(iteration, nats) called after each, nats that mean before it
-- @treturn tab `{ nats = at the end, n = symbols, iterations = how many (0: counted) }`
function class:fit(data, options)
  options = check.options("hmm:fit", options, { "smoothing", "iterations", "tolerance", "size",
    "each" })
  local smoothing = smoothing_of(options.smoothing)
  local iterations = check.integer("hmm:fit", "iterations", options.iterations or 100, 1)
  local tolerance = check.number("hmm:fit", "tolerance", options.tolerance or 1e-6, 0)
  local size = check.integer("hmm:fit", "size", options.size or 64, 1)
  if options.each ~= nil then check.type("hmm:fit", "each", options.each, "function") end
  local fields = fields_of(self, "hmm:fit", data)
  if fields.output ~= nil then
    count(self, { input = fields.input, output = fields.output }, smoothing)
    return metrics.scores { iterations = 0, n = #fields.input.data,
      nats = self:score({ input = fields.input }, { zero = "skip" }).nats }
  end
  local list, n = {}, 0
  for batch in batches({ input = fields.input }, { size = size }) do
    list[#list + 1], n = batch, n + #batch.input.data
  end
  if n == 0 then check.fail("hmm:fit: expected symbols, came empty sequences") end
  local before, made = math.huge, 0
  for i = 1, iterations do
    local nats = expect(self, list) / n
    re_estimate(self, smoothing)
    made = i
    if options.each then options.each(i, nats) end
    if before - nats < tolerance then break end
    before = nats
  end
  return metrics.scores { iterations = made, n = n,
    nats = self:score({ input = fields.input }).nats }
end

--- An HMM is fitted: learning by gradient steps is not for it.
function class.learn()
  check.fail("hmm: its probabilities are not learned by steps: model:fit(fields) fits them")
end

-- ---- what it is asked ----

--- How well it fits: the mean -ln P of a symbol and, where the states are known, the share that
-- Viterbi finds, as @{neap.synced_seq2seq} has it: states of -1 are left out.
-- @tab data fields or a list of sequences, as for @{fit}
-- @tab[opt] options `{ size = 64, zero = "error" }`; "skip": sequences of probability 0 are left
--   out, not an error
-- @treturn tab `{ nats, perplexity, n = symbols, skipped = sequences }` and, where the states are
--   known, `{ accuracy, sequence_accuracy }`
function class:score(data, options)
  options = check.options("score", options, { "size", "zero" })
  local size = check.integer("score", "size", options.size or 64, 1)
  local zero = zero_option("score", options)
  local fields = fields_of(self, "score", data)
  local known = fields.output ~= nil
  local run = self:run("learn", false)
  local sum, n, skipped = 0, 0, 0
  local steps, right, whole, sequences = 0, 0, 0, 0
  for batch in batches({ input = fields.input, output = fields.output }, { size = size }) do
    run:feed(batch):forward()
    local lengths, sums = batch.input.lengths, add_up(self, "score", run, batch, zero)
    for b = 1, batch.rows do
      if sums[b] then
        sum, n = sum - sums[b], n + lengths[b]
      else
        skipped = skipped + 1
      end
    end
    local want = known and batch.output.data
    local problem = known and program.difference(batch, "input", "output") or ""
    if problem ~= "" then check.fail("score: inputs and outputs differ in length%s", problem) end
    for _, found in pairs(known and run_viterbi(self, "score", batch, zero) or {}) do
      local here, same = 0, 0
      for t, state in ipairs(found.path) do
        local wanted = want[found.from + t]
        if wanted >= 0 then here = here + 1 end
        if wanted == state then same = same + 1 end
      end
      steps, right = steps + here, right + same
      if here > 0 then sequences = sequences + 1 end
      if here > 0 and same == here then whole = whole + 1 end
    end
  end
  local nats = n > 0 and sum / n or 0
  return metrics.scores { nats = nats, perplexity = math.exp(nats), n = n, skipped = skipped,
    accuracy = known and (steps > 0 and right / steps or 0) or nil,
    sequence_accuracy = known and (sequences > 0 and whole / sequences or 0) or nil }
end

--- The most likely states of each sequence (Viterbi 1967). `predict` is another name for it.
-- @tab sequences a list of strings or lists of symbols; or a batch
-- @tab[opt] options `{ zero = "error" }`; "skip": a sequence of probability 0 is no error, it has
--   false in place of states, and -math.huge as its logarithm
-- @treturn tab for each sequence a list of states
-- @treturn tab for each the logarithm of its and its states' probability
function class:decode(sequences, options)
  options = check.options("decode", options, { "zero" })
  local zero = zero_option("decode", options)
  local batch = task.batch("decode", self.inputs, sequences)
  if not batch then return {}, {} end
  local out, scores = {}, {}
  local list = run_viterbi(self, "decode", batch, zero)
  for b = 1, #batch.input.lengths do
    local found = list[b]
    out[b], scores[b] = found and found.path or false, found and found.score or -math.huge
    for t, state in ipairs(out[b] or {}) do out[b][t] = self.output:symbol(state + 1) end
  end
  return out, scores
end
class.predict = class.decode

--- P(state | the whole sequence) at each step, by the forward and the backward recursion.
-- @tab sequences a list of strings or lists of symbols; or a batch
-- @treturn tab for each sequence a tensor [T,N]
function class:posteriors(sequences)
  local batch = task.batch("posteriors", self.inputs, sequences)
  if not batch then return {} end
  local run = self:run("learn", true)
  run:want_gradient "shown"
  run:feed(batch):forward()
  add_up(self, "posteriors", run, batch, "error")
  run:backward "total"
  local all, out, at = op.neg(run:gradient("shown", "concat")), {}, 0
  local bytes, width, lengths = all:tobytes(), 4 * #self.output, batch.input.lengths
  for b = 1, #lengths do
    local to = at + lengths[b] * width
    out[b] = core.tensor_from_string(bytes:sub(at + 1, to), { lengths[b], #self.output })
    at = to
  end
  return out
end

--- Draws a sequence.
-- @int n how long
-- @tab[opt] options `{ rng = neap.rng(1) }`
-- @treturn tab its symbols
-- @treturn tab the states that showed them
function class:sample(n, options)
  check.integer("sample", "n", n, 0)
  options = check.options("sample", options, { "rng" })
  local chance = check.rng("sample", options.rng) or rng.new(1)
  local p = self:probabilities()
  for _, name in ipairs(shapes) do p[name] = p[name]:totable() end
  local function draw(row)
    local sum = 0
    for _, x in ipairs(row) do sum = sum + x end
    local u, last = chance:uniform() * sum, nil
    for i, x in ipairs(row) do
      if x > 0 then
        last, u = i, u - x
        if u < 0 then break end
      end
    end
    return last
  end
  local symbols, states, state = {}, {}, nil
  for t = 1, n do
    state = draw(state and p.transition[state] or p.start)
    states[t] = self.output:symbol(state)
    symbols[t] = self.symbols:symbol(draw(p.emission[state]))
  end
  return symbols, states
end

return setmetatable(class, { __call = new })

--- Language model: at each step the distribution of the next symbol; truncated back-propagation with
-- the state carried; generation.
--
-- Learning carries a state from batch to batch: a batch with `first = false`, as all but the first
-- of a pass of @{neap.batches.stream} have it, goes on from where the one learned before it ended.
-- A batch with `first = true` starts anew, from zeros. One without `first` stands alone: it starts
-- from zeros and leaves the carried state as it is. So do `score`, `predict`, `generate` and
-- `loss`: each call starts from zeros, whatever ran before.
-- @module neap.language_model
local check = require "neap.check"
local core = require "neap.core"
local batches = require "neap.batches"
local metrics = require "neap.metrics"
local op = require "neap.op"
local layer = require "neap.layer"
local program = require "neap.program"
local search = require "neap.search"
local vocab = require "neap.vocab"
local task = require "neap.task"

local class = {}

--- Makes the task.
-- @function language_model
-- @tab options
--
-- - `vocab`: the symbols
-- - `net`: a layer or function: ids [T,B] -> y [T,B,H]; where H is not the number of symbols, a linear
--   layer follows
-- - `rng`, `threads`, `recompute` (see @{neap.program})
-- - `smoothing`, `weights` (`{ symbol = number, .. }`, 1 for the others), `focal`: of the
--   cross-entropy that it learns by, see @{neap.op.cross_entropy}; `score` is without them
local function new(_, options)
  options = check.options("language_model", options, { "vocab", "net", "rng", "threads",
    "recompute", table.unpack(task.class_loss) })
  local v = options.vocab
  if type(v) ~= "table" or not v.symbols then
    check.fail("language_model: vocab: expected a vocabulary, came %s", check.came(v))
  end
  local net = task.network("language_model", options.net)
  local head = layer.linear { name = "head" }
  local function logits(rec)
    local x = rec:input("input", { space = "T", dtype = "i32" })
    return rec:within("net", function()
      local y = task.call("language_model", net, x)
      return y.width == #v and y or head(y)
    end)
  end
  local function learn(rec, loss_options)
    local z = logits(rec)
    local y = rec:input("target", { space = "T", dtype = "i32" })
    return { loss = task.cross_entropy(rec, loss_options, v, z, y) }
  end
  local altered
  for _, name in ipairs(task.class_loss) do altered = altered or options[name] ~= nil end
  local self = task.new(class, {
    kind = "language_model", rng = options.rng, causal = true, net = net, options = options,
    hints = { input_size = #v, output_size = #v },
    config = { kind = "language_model", vocab = v:plain() },
    builders = {
      learn = function(rec) return learn(rec, options) end,
      score = altered and function(rec) return learn(rec, {}) end or nil,
      predict = function(rec) return { logits = logits(rec) } end,
    },
  })
  self.vocab = v
  return self
end

function class.restore(config, parts)
  local self = task.new(class, { kind = "language_model", params = parts.params,
    programs = parts.programs, config = config })
  self.vocab = assert(vocab.from(config.vocab))
  return self
end

--- Runs the loss of a batch for learning. What carries the state on is said at the top.
-- @tab batch of @{neap.batches.stream}; or `{ input, target, first }`
-- @return run
function class:forward(batch)
  local run, state = self:run("learn", true), nil
  local rows = type(batch) == "table" and batch.first ~= nil
    and (batch.rows or program.shapes(run, batch))
  if rows then
    state = self.carried
    if batch.first or not state then
      state = self:program "learn":state(rows)
    elseif state:rows() ~= rows then
      check.fail("learn: the batch has %d rows, the state that it goes on from has %d: a batch "
        .. "that starts anew has first = true", rows, state:rows())
    end
    self.carried = state
  end
  run:state(state)
  return task.forward(run, batch)
end

--- The loss of a batch without learning (dropout off), from a state of zeros.
-- @tab batch
-- @treturn number
function class:loss(batch)
  local run = self:run("learn", false)
  run:state(nil)
  return task.forward(run, batch):item()
end

--- Mean negative log-probability of a text, the state carried through it.
-- @param ids encoded field or i32 tensor, ids from 0
-- @tab[opt] options `{ columns = 1 (cut into so many that run side by side: faster, each starts
--   anew), steps = 500 }`
-- @treturn tab `{ nats, perplexity, n }`
function class:score(ids, options)
  options = check.options("score", options, { "columns", "steps" })
  local columns = check.integer("score", "columns", options.columns or 1, 1)
  local steps = check.integer("score", "steps", options.steps or 500, 1)
  local all = batches.stream(ids, { batch = columns, steps = steps })
  task.encoded_for(self, "score", "input", all)
  local name = (self.builders or self.programs).score and "score" or "learn"
  local run = self:run(name, false)
  run:state(self:program(name):state(columns))
  local sum, n = 0, 0
  for batch in all do
    run:feed(batch):forward()
    local count = batch.target:size()
    sum, n = sum + run:item() * count, n + count
  end
  run:state(nil)
  return metrics.scores { nats = sum / n, perplexity = math.exp(sum / n), n = n }
end

--- ln P of each symbol of a text but the first, after all before it, the state carried through it.
-- @param ids encoded field or i32 tensor, ids from 0
-- @tab[opt] options `{ steps = 500 }`: so many at a time
-- @treturn tensor f32 [n-1]
function class:log_probabilities(ids, options)
  options = check.options("log_probabilities", options, { "steps" })
  local steps = check.integer("log_probabilities", "steps", options.steps or 500, 1)
  local all, out = batches.stream(ids, { batch = 1, steps = steps }), core.floats()
  task.encoded_for(self, "log_probabilities", "input", all)
  local run = self:run("predict", false)
  run:state(self:program "predict":state(1))
  for batch in all do
    run:feed { rows = 1, input = { data = batch.input, lengths = batch.lengths, padded = true } }
      :forward()
    local logs = op.log_softmax(run:value("logits", "concat"))
    for t = 1, batch.steps do out:push(logs:get(t, batch.target:get(t, 1) + 1)) end
  end
  run:state(nil)
  return out:tensor()
end

--- The likeliest next symbols after each text.
-- @tab texts a list of strings or lists of symbols, each of at least one; or a batch
-- @tab[opt] options `{ n = how many symbols }`
-- @treturn tab for each text `{ symbol, id = from 1, probability }`; with `n` a list of n of them,
--   the likeliest first
function class:predict(texts, options)
  options = check.options("predict", options, { "n" })
  local n = check.integer("predict", "n", options.n or 1, 1)
  local batch = task.batch("predict", { { name = "input", vocab = self.vocab } }, texts)
  if not batch then return {} end
  local run = self:run("predict", false)
  run:feed(batch):forward()
  local z, lengths, at, out = run:value("logits", "concat"), batch.input.lengths, 0, {}
  local steps = not lengths and batch.input:shape()[1]
  for b = 1, lengths and #lengths or batch.input:shape()[2] do
    local length = steps or lengths[b]
    if length == 0 then check.fail("predict: text %d is empty: say at least one symbol", b) end
    at = at + length
    local best = search.likeliest(self.vocab, z[at]:totable(), n)
    out[b] = options.n and best or best[1]
  end
  return out
end

-- How it writes: step(ids) takes a symbol for each row; then log_probabilities() [R,V] of what may
-- follow, and best() [R], the likeliest; select(sequences, rows) as in @{neap.search.run}.
function class:writer()
  local stream = self:program "predict":stream()
  return {
    step = function(ids)
      stream:input(1, ids)
      stream:step()
    end,
    log_probabilities = function() return op.log_softmax(stream:output(1)) end,
    best = function() return op.argmax(stream:output(1)) end,
    select = function(sequences, rows) stream:rows(sequences, rows) end,
  }
end

-- What @{neap.search} writes on after these ids: by one or several models.
local function source_of(models, ids, limit, stop)
  local writers = {}
  for k, model in ipairs(models) do writers[k] = model:writer() end
  local function step(list)
    for _, writer in ipairs(writers) do writer.step(list) end
  end
  for i = 1, #ids - 1 do step { ids[i] - 1 } end
  return {
    n = 1, first = ids[#ids] - 1, limit = limit, stop = stop,
    step = function(list)
      step(list)
      local scores = {}
      for k, writer in ipairs(writers) do scores[k] = writer.log_probabilities() end
      return search.mean(scores), not writers[2] and writers[1].best() or nil
    end,
    select = function(sequences, rows)
      for _, writer in ipairs(writers) do writer.select(sequences, rows) end
    end,
  }
end

--- Writes on.
-- @param prompt a string, or a list of symbols
-- @int n symbols to write, at most
-- @tab[opt] options those of @{neap.search} but `prefix`, which the prompt is, and
--   `coverage_penalty`; `temperature` is 1 unless a `beam` is given; and
--
-- - `stop`: a symbol that ends it and is not written itself
-- - `all`: also all hypotheses, as many as the beam has (false)
-- - `each`: function called with each symbol as it is written; not with a beam above 1
-- @treturn string the prompt and what follows: characters side by side, words with blanks between
-- @treturn[opt] tab with `all`: a list of `{ text = what follows, symbols, ids, score,
--   log_probability, stopped }`, the best first
function class:generate(prompt, n, options)
  local allowed = { "stop", "all", "each" }
  for _, name in ipairs(search.names) do
    if name ~= "prefix" and name ~= "coverage_penalty" then allowed[#allowed + 1] = name end
  end
  options = check.options("generate", options, allowed)
  if type(prompt) ~= "string" and type(prompt) ~= "table" then
    check.fail("generate: prompt: expected a string or a list of symbols, came %s",
      check.came(prompt))
  end
  check.integer("generate", "n", n, 0)
  local how = search.options("generate", options, self.vocab, 1)
  local models = search.ensemble("generate", self, options.ensemble, function(model)
    return { vocabulary = model.vocab }
  end)
  local each, stop = options.each, options.stop
  if each ~= nil then check.type("generate", "each", each, "function") end
  if each and how.beam > 1 then
    check.fail("generate: each: a beam of %d knows its symbols only in the end", how.beam)
  end
  if stop ~= nil then
    if type(stop) ~= "string" or not self.vocab:has(stop) then
      check.fail("generate: stop: expected a symbol of the vocabulary, came %s", check.came(stop))
    end
    stop = self.vocab:id(stop) - 1
  end
  local ids = self.vocab:encode(prompt)
  if #ids == 0 then check.fail("generate: the prompt is empty: say at least one symbol") end
  local source = source_of(models, ids, n, stop)
  source.each = each
  local found = search.run(source, how)[1]
  for _, h in ipairs(found) do
    h.symbols = self.vocab:decode(h.ids)
    h.text = self.vocab:text(h.symbols)
  end
  local before = type(prompt) == "string" and prompt or self.vocab:text(prompt)
  local text = #found[1].ids > 0 and self.vocab:join(before, found[1].text) or before
  if options.all then return text, found end
  return text -- alone: print shows no nil
end

return setmetatable(class, { __call = new })

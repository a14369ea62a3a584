--- Synchronous sequence to sequence: an output for every step, as many as inputs, symbols (tagging)
-- or numbers (what an effect makes of sound, what a sensor should say); or, read by connectionist
-- temporal classification, fewer outputs than steps (speech).
-- @module neap.synced_seq2seq
local check = require "neap.check"
local core = require "neap.core"
local ctc = require "neap.ctc"
local op = require "neap.op"
local layer = require "neap.layer"
local vocab = require "neap.vocab"
local batches = require "neap.batches"
local metrics = require "neap.metrics"
local program = require "neap.program"
local task = require "neap.task"

local class = {}

local function total(x) return op.sum_rows(op.reshape(x, { 1 })) end

-- The sum of losses over how many outputs there are.
local function for_each(losses, outputs)
  return op.reshape(total(losses) / op.maximum(total(op.greater_equal(outputs, 0)), 1), {})
end

-- A chain's scores: of transitions (to, from), of the first class, of the last one.
local function chain(rec, n)
  return rec:within("net", function()
    return rec:param("crf.transitions", { n, n }, "zeros"), rec:param("crf.start", { n }, "zeros"),
      rec:param("crf.stop", { n }, "zeros")
  end)
end

-- Of numbers: the loss of what is said and what is wanted.
local function of_numbers(loss)
  return { more = 0, space = "T", numbers = true,
    learn = function(_, z, y) return loss(z, y) end,
    predict = function(_, z) return { y = z } end }
end

-- What an option `loss` chooses: how many scores each step has beside those of the symbols, the
-- sequence that the outputs are, the loss of scores z and outputs y, and the answer from z.
local losses = {
  mse = of_numbers(op.mse), mae = of_numbers(op.mae), huber = of_numbers(op.huber),
  cross_entropy = {
    more = 0, space = "T",
    learn = function(rec, z, y, output, options)
      return task.cross_entropy(rec, options, output, z, y)
    end,
    predict = function(_, z) return { scores = op.softmax(z), tags = op.argmax(z) } end,
  },
  crf = {
    more = 0, space = "T",
    learn = function(rec, z, y, output)
      return for_each(op.crf(z, y, chain(rec, #output)), y)
    end,
    predict = function(rec, z, output)
      local a, start, stop = chain(rec, #output)
      return { scores = op.crf_marginals(z, a, start, stop), tags = op.viterbi(z, a, start, stop) }
    end,
  },
  ctc = {
    more = 1, space = "U",
    learn = function(_, z, y, _, options)
      return for_each(op.ctc(z, y, { zero = options.zero }), y)
    end,
    predict = function(_, z, _, options)
      return { scores = op.softmax(z), tags = op.ctc_decode(z, { beam = options.beam }) }
    end,
  },
}

-- Which options belong to one loss alone.
local belongs = { smoothing = "cross_entropy", weights = "cross_entropy", focal = "cross_entropy",
  zero = "ctc", beam = "ctc" }

local function loss_of(options)
  local numbers = math.type(options.output) == "integer"
  local name = options.loss
  if name == nil then name = numbers and "mse" or "cross_entropy" end
  if not losses[name] or (losses[name].numbers or false) ~= numbers then
    check.fail("synced_seq2seq: loss: expected %s, came %s", numbers
      and "\"mse\", \"mae\" or \"huber\", as the outputs are numbers"
      or "\"cross_entropy\", \"crf\" or \"ctc\"", check.came(name))
  end
  for option, loss in pairs(belongs) do
    if options[option] ~= nil and loss ~= name then
      check.fail("synced_seq2seq: %s: an option of the loss %q, the task's is %q", option, loss,
        name)
    end
  end
  check.boolean("synced_seq2seq", "zero", options.zero)
  if options.beam ~= nil then check.integer("synced_seq2seq", "beam", options.beam, 0, 1000) end
  return name
end

-- Further outputs, as a list of { name, vocab }.
local function further(given, inputs, loss)
  if given == nil then return {} end
  local list, taken = {}, { output = true }
  for _, input in ipairs(inputs) do taken[input.name] = true end
  for name, v in pairs(check.table("synced_seq2seq", "also", given)) do
    if type(name) ~= "string" or taken[name] then
      check.fail("synced_seq2seq: also: expected names that no input or output has, came %s",
        check.came(name))
    end
    list[#list + 1] = { name = name, vocab = task.vocab("synced_seq2seq", "also: " .. name, v) }
  end
  if #list > 0 and loss == "ctc" then
    check.fail("synced_seq2seq: also: outputs of each step, which the loss \"ctc\" has not")
  end
  table.sort(list, function(a, b) return a.name < b.name end)
  return list
end

--- Makes the task.
-- @function synced_seq2seq
-- @tab options
--
-- - `input`: a vocabulary, a width, or several by name, as in @{neap.task.inputs}
-- - `output`: the vocabulary of outputs; or a width: so many numbers at each step
-- - `net`: a layer or function: x [T,B,..] -> y [T,B,H]; where H is not the number of outputs, a linear
--   layer follows
-- - `loss`: of numbers "mse" (the preset), "mae" or "huber" (@{neap.op.huber}); of symbols
--   "cross_entropy" of each step; "crf": of the whole sequence of outputs, whose neighbours
--   are scored too (Lafferty et al. 2001), answers by Viterbi; "ctc": of all ways to read the
--   outputs from the steps (Graves et al. 2006): they are fewer then, a class for the blank comes
--   last, and repeats are dropped
-- - `smoothing`, `weights` (`{ symbol = number, .. }`, 1 for the others), `focal`: of the
--   cross-entropy, see @{neap.op.cross_entropy}
-- - `also`: further outputs of each step, which teach the network what the main ones do not say
--   (Caruana 1997): `{ name = vocabulary, .. }`, fields of the batches that it learns from. Each has
--   a linear layer of its own on what the network gives; the mean of their cross-entropies is added
--   to the loss. No answer depends on these layers. The task has the vocabularies as `task.also`, a
--   list of `{ name =, vocab = }`
-- - `zero`, `beam`: of ctc, see @{neap.op.ctc}, @{neap.op.ctc_decode}
-- - `rng`, `threads`, `recompute` (see @{neap.program})
local function new(_, options)
  options = check.options("synced_seq2seq", options, { "input", "output", "net", "rng", "threads",
    "recompute", "loss", "also", "zero", "beam", table.unpack(task.class_loss) })
  local inputs = task.inputs("synced_seq2seq", options.input)
  local output = options.output
  if math.type(output) == "integer" then
    check.integer("synced_seq2seq", "output", output, 1)
  else
    task.vocab("synced_seq2seq", "output", output, "a vocabulary, or a width for numbers")
  end
  local net = task.network("synced_seq2seq", options.net)
  local name = loss_of(options)
  local loss = losses[name]
  local width = loss.numbers and output or #output + loss.more
  local also = further(options.also, inputs, name)
  local head = layer.linear { name = "head", size = width }
  local function logits(rec)
    local x = task.record_inputs(rec, inputs)
    return rec:within("net", function()
      local y = task.call("synced_seq2seq", net, x)
      if y.space < 1 then
        check.fail("synced_seq2seq: the network must give a value for each step, came %s", y:shape())
      end
      return y.width ~= width and head(y) or y, y
    end)
  end
  -- What the further outputs add to the loss, y being what the network gives.
  local function added(rec, y)
    local sum
    for _, field in ipairs(also) do
      local ids = rec:input(field.name, { space = "T", dtype = "i32" })
      local z = rec:within("also", layer.linear { name = field.name, size = #field.vocab }, y)
      local one = op.cross_entropy(z, ids)
      sum = sum and sum + one or one
    end
    return sum / #also
  end
  local self = task.new(class, {
    kind = "synced_seq2seq", rng = options.rng, net = net, options = options,
    hints = { input_size = inputs[1].vocab and #inputs[1].vocab, output_size = width },
    config = { kind = "synced_seq2seq", input = task.plain_inputs(inputs),
      output = loss.numbers and output or output:plain(), loss = name,
      also = #also > 0 and task.plain_inputs(also) or nil },
    builders = {
      learn = function(rec)
        local z, given = logits(rec)
        local y = rec:input("output", loss.numbers and { space = loss.space, dims = { width } }
          or { space = loss.space, dtype = "i32" })
        local sum = loss.learn(rec, z, y, output, options)
        return { loss = #also > 0 and sum + added(rec, given) or sum }
      end,
      predict = function(rec) return loss.predict(rec, (logits(rec)), output, options) end,
    },
  })
  self.inputs, self.output, self.loss_name, self.also = inputs, output, name, also
  return self
end

function class.restore(config, parts)
  local self = task.new(class, { kind = "synced_seq2seq", params = parts.params,
    programs = parts.programs, config = config })
  self.inputs = task.restore_inputs(config.input)
  self.output = math.tointeger(config.output) or assert(vocab.from(config.output))
  self.loss_name = config.loss or "cross_entropy"
  self.also = config.also and task.restore_inputs(config.also) or {}
  return self
end

-- How many steps each sequence of a batch has for the network's output, which may have folded them.
local function steps_of(self, run, batch)
  local first, pr = batch[self.inputs[1].name], run.program
  local given, lengths = first.outer or first.lengths, {}
  local _, space = pr.core:type(pr.outputs.scores or pr.outputs.y)
  local factor = pr.spaces[space + 1].factor
  for b = 1, #given do lengths[b] = (given[b] + factor - 1) // factor end
  return lengths
end

-- An output of rows of numbers, sequence by sequence: tensors [T,width].
local function parts(run, name, lengths)
  local all, out, at = run:value(name, "concat"), {}, 0
  local bytes, width = all:tobytes(), all:shape()[2]
  for b, n in ipairs(lengths) do
    out[b] = core.tensor_from_string(bytes:sub(at + 1, at + 4 * n * width), { n, width })
    at = at + 4 * n * width
  end
  return out
end

-- The ids that a run answers with, sequence by sequence; those of ctc end before the steps do.
local function answers(run, lengths)
  local got, out, at = run:value("tags", "concat"), {}, 0
  for b = 1, #lengths do
    out[b] = {}
    for _ = 1, lengths[b] do
      at = at + 1
      if got[at] >= 0 then table.insert(out[b], got[at]) end
    end
  end
  return out
end

-- Outputs of their own lengths: edits over their number, and how many sequences are right.
local function score_labels(self, fields, size)
  local run = self:run("predict", false)
  local edits, n, whole, sequences = 0, 0, 0, 0
  for batch in batches(fields, { size = size }) do
    run:feed(batch):forward()
    local got, at = answers(run, steps_of(self, run, batch)), 0
    for b = 1, batch.rows do
      local want = {}
      for u = 1, batch.output.lengths[b] do want[u] = batch.output.data[at + u] end
      at = at + #want
      local distance = metrics.edit_distance(got[b], want)
      edits, n, sequences = edits + distance, n + #want, sequences + 1
      if distance == 0 then whole = whole + 1 end
    end
  end
  return metrics.scores { error_rate = edits / n, -- NaN where there is nothing
    sequence_accuracy = sequences > 0 and whole / sequences or 0, n = n }
end

-- Numbers: the root of the mean square of what is missed.
local function score_numbers(self, fields, size)
  local run, sum, n = self:run("predict", false), 0, 0
  for batch in batches(fields, { size = size }) do
    local problem = program.difference(batch, self.inputs[1].name, "output")
    if problem ~= "" then check.fail("score: inputs and outputs differ in length%s", problem) end
    run:feed(batch):forward()
    local y = run:value("y", "concat")
    sum, n = sum + op.mse(y, batch.output.data):item() * y:size(), n + y:size()
  end
  return metrics.scores { rmse = (sum / n) ^ 0.5, n = n }
end

--- The share of right outputs over all steps, and of sequences right as a whole. Steps whose output
-- is -1 are left out, as by the loss, and so are sequences of no other steps. With the loss "ctc",
-- whose outputs have lengths of their own, edits over the number of outputs instead of accuracy. Of
-- numbers the root of the mean square of what is missed, over all of them.
-- @tab fields as for neap.batches: the inputs and `output`
-- @tab[opt] options `{ size = 64 }`
-- @treturn tab `{ accuracy, sequence_accuracy, n }`, `{ error_rate, sequence_accuracy, n }` or `{ rmse,
--   n }`
function class:score(fields, options)
  task.fields("score", self, fields)
  options = check.options("score", options, { "size" })
  if self.loss_name == "ctc" then
    return score_labels(self, fields, options.size == nil and 64 or options.size)
  end
  if losses[self.loss_name].numbers then
    return score_numbers(self, fields, options.size == nil and 64 or options.size)
  end
  local run = self:run("predict", false)
  local right, n, whole, sequences = 0, 0, 0, 0
  for batch in batches(fields, { size = options.size == nil and 64 or options.size }) do
    local problem = program.difference(batch, self.inputs[1].name, "output")
    if problem ~= "" then check.fail("score: inputs and outputs differ in length%s", problem) end
    run:feed(batch):forward()
    local got, want, at = run:value("tags", "concat"), batch.output.data, 0
    for b = 1, batch.rows do
      local here, same = 0, 0
      for _ = 1, batch.output.lengths[b] do
        at = at + 1
        if want[at] >= 0 then here = here + 1 end
        if want[at] == got[at] then same = same + 1 end
      end
      n, right = n + here, right + same
      if here > 0 then sequences = sequences + 1 end
      if here > 0 and same == here then whole = whole + 1 end
    end
  end
  return metrics.scores { accuracy = n > 0 and right / n or 0,
    sequence_accuracy = sequences > 0 and whole / sequences or 0, n = n }
end

--- The outputs of each sequence.
-- @tab sequences a list of strings or lists of symbols (of lists of rows of numbers, or tensors
--   [T,width]); or a batch
-- @tab[opt] options of the loss "ctc": `beam`: so many prefixes are kept, instead of what the model
--   says; 0: the likeliest class of each step; `all`: all that the beam has left (false)
-- @treturn tab a list of symbols, or a tensor [T,width] of numbers, for each sequence; with `all` the
--   list of its hypotheses, the best first: `{ symbols, ids (from 1), log_probability }`
function class:predict(sequences, options)
  options = check.options("predict", options, { "beam", "all" })
  local beam, all = options.beam, check.boolean("predict", "all", options.all)
  for name in pairs(options) do
    if self.loss_name ~= "ctc" then
      check.fail("predict: %s: an option of the loss \"ctc\", the model's is %q", name,
        self.loss_name)
    end
  end
  if beam ~= nil then check.integer("predict", "beam", beam, all and 1 or 0, 1000) end
  if all and not beam then check.fail("predict: all: expected a beam beside it, came nil") end
  local run, batch = self:run("predict", false), task.batch("predict", self.inputs, sequences)
  if not batch then return {} end
  local lengths, out = steps_of(self, run:feed(batch):forward(), batch), nil
  if losses[self.loss_name].numbers then return parts(run, "y", lengths) end
  if not beam then
    out = answers(run, lengths)
    for _, ids in ipairs(out) do
      for t, id in ipairs(ids) do ids[t] = self.output:symbol(id + 1) end
    end
    return out
  end
  out = parts(run, "scores", lengths)
  for b, p in ipairs(out) do
    local log_p = lengths[b] > 0 and op.log(p):totable() or {}
    local list = beam == 0 and { { ids = ctc.greedy(log_p) } } or ctc.beam(log_p, beam)
    for _, h in ipairs(list) do h.symbols = self.output:decode(h.ids) end
    out[b] = all and list or list[1].symbols
  end
  return out
end

--- P(output | the whole sequence) at each step. With the loss "ctc" the last one is the blank, and a
-- network that folds steps has fewer of them.
-- @tab sequences a list of strings or lists of symbols (of lists of rows of numbers, or tensors
--   [T,width]); or a batch
-- @treturn tab for each sequence a tensor [T,outputs]
function class:posteriors(sequences)
  if losses[self.loss_name].numbers then
    check.fail("posteriors: expected a model of symbols, this one's outputs are numbers")
  end
  local run, batch = self:run("predict", false), task.batch("posteriors", self.inputs, sequences)
  if not batch then return {} end
  return parts(run, "scores", steps_of(self, run:feed(batch):forward(), batch))
end

return setmetatable(class, { __call = new })

--- Synchronous sequence to sequence: an output for every step, as many as inputs (tagging).
-- @module neap.synced_seq2seq
local check = require "neap.check"
local op = require "neap.op"
local layer = require "neap.layer"
local vocab = require "neap.vocab"
local batches = require "neap.batches"
local metrics = require "neap.metrics"
local program = require "neap.program"
local task = require "neap.task"

local class = {}

--- Makes the task.
-- @function synced_seq2seq
-- @tab options
--
-- - `input`: a vocabulary, a width, or several by name, as in @{neap.task.inputs}
-- - `output`: the vocabulary of outputs
-- - `net`: a layer or function: x [T,B,..] -> y [T,B,H]; where H is not the number of outputs, a linear
--   layer follows
-- - `rng`, `threads`, `recompute` (see @{neap.program}), `smoothing` (of the cross-entropy)
local function new(_, options)
  options = check.options("synced_seq2seq", options, { "input", "output", "net", "rng", "threads",
    "recompute", "smoothing" })
  local inputs = task.inputs("synced_seq2seq", options.input)
  local output = task.vocab("synced_seq2seq", "output", options.output)
  local net = task.network("synced_seq2seq", options.net)
  local head = layer.linear { name = "head" }
  local function logits(rec)
    local x = task.record_inputs(rec, inputs)
    return rec:within("net", function()
      local y = task.call("synced_seq2seq", net, x)
      if y.space < 1 then
        check.fail("synced_seq2seq: the network must give a value for each step, came %s", y:shape())
      end
      if y.width ~= #output then y = head(y) end
      return y
    end)
  end
  local self = task.new(class, {
    kind = "synced_seq2seq", rng = options.rng, net = net, options = options,
    hints = { input_size = inputs[1].vocab and #inputs[1].vocab, output_size = #output },
    config = { kind = "synced_seq2seq", input = task.plain_inputs(inputs), output = output:plain() },
    builders = {
      learn = function(rec)
        local z = logits(rec)
        local y = rec:input("output", { space = "T", dtype = "i32" })
        return { loss = op.cross_entropy(z, y, { smoothing = options.smoothing }) }
      end,
      predict = function(rec)
        local z = logits(rec)
        return { scores = op.softmax(z), tags = op.argmax(z) }
      end,
    },
  })
  self.inputs, self.output = inputs, output
  return self
end

function class.restore(config, parts)
  local self = task.new(class, { kind = "synced_seq2seq", params = parts.params,
    programs = parts.programs, config = config })
  self.inputs, self.output = task.restore_inputs(config.input), assert(vocab.from(config.output))
  return self
end

--- The share of right outputs over all steps, and of sequences right as a whole. Steps whose output
-- is -1 are left out, as by the loss, and so are sequences of no other steps.
-- @tab fields as for neap.batches: the inputs and `output`
-- @tab[opt] options `{ size = 64 }`
-- @treturn tab `{ accuracy, sequence_accuracy, n }`
function class:score(fields, options)
  task.fields("score", self.inputs, fields)
  options = check.options("score", options, { "size" })
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
-- @tab sequences a list of strings or lists of symbols; or a batch
-- @treturn tab a list of symbols for each sequence
function class:predict(sequences)
  local run, batch = self:run("predict", false), task.batch("predict", self.inputs, sequences)
  if not batch then return {} end
  run:feed(batch):forward()
  local got, out, at = run:value("tags", "concat"), {}, 0
  local first = batch[self.inputs[1].name]
  local lengths = first.outer or first.lengths
  for b = 1, #lengths do
    out[b] = {}
    for t = 1, lengths[b] do
      at = at + 1
      out[b][t] = self.output:symbol(got[at] + 1)
    end
  end
  return out
end

return setmetatable(class, { __call = new })

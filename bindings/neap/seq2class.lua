--- Sequence to class: y = g(pooled hidden states), one class for each sequence.
-- @module neap.seq2class
local check = require "neap.check"
local op = require "neap.op"
local record = require "neap.record"
local layer = require "neap.layer"
local vocab = require "neap.vocab"
local batches = require "neap.batches"
local metrics = require "neap.metrics"
local task = require "neap.task"

local class = {}

-- The pooled state [B,H] of what the network gave.
local function pooled(how, y, s)
  if y.space == 0 then return y end
  if how == "mean" then return op.mean_time(y) end
  if how == "max" then return op.max_time(y) end
  -- a recurrent layer's own last state: in a bidirectional one, each direction's
  if type(s) == "table" and record.is_value(s.h) then return s.h end
  return op.last(y)
end

--- Makes the task.
-- @function seq2class
-- @tab options
--
-- - `input`: a vocabulary, a width, or several by name, as in @{neap.task.inputs}
-- - `output`: the vocabulary of classes
-- - `net`: a layer or function: x [T,B,..] -> y [T,B,H] and, if recurrent, last states; or y [B,H]
-- - `pool`: what stands for the sequence: "last" (a recurrent layer's own last state, or the last valid
--   step), "mean" or "max" over the valid steps
-- - `head`: layer of that, [B,H] -> [B,classes] (`neap.linear {}`)
-- - `rng`, `threads`, `recompute` (see @{neap.program}); of the cross-entropy `smoothing`,
--   `weights` (`{ symbol = number, .. }`, 1 for the others), `focal` (see @{neap.op.cross_entropy})
local function new(_, options)
  options = check.options("seq2class", options, { "input", "output", "net", "pool", "head", "rng",
    "threads", "recompute", table.unpack(task.class_loss) })
  local inputs = task.inputs("seq2class", options.input)
  local output = task.vocab("seq2class", "output", options.output, "a vocabulary of classes")
  local how = options.pool == nil and "last" or options.pool
  if how ~= "last" and how ~= "mean" and how ~= "max" then
    check.fail("seq2class: pool: expected \"last\", \"mean\" or \"max\", came %s", check.came(how))
  end
  local net = task.network("seq2class", options.net)
  local head = options.head == nil and layer.linear {}
    or layer.check("seq2class: head", options.head)
  local function logits(rec)
    local x = task.record_inputs(rec, inputs)
    return rec:within("net", function()
      return task.call("seq2class", head, pooled(how, task.call("seq2class", net, x)))
    end)
  end
  local self = task.new(class, {
    kind = "seq2class", rng = options.rng, net = net, options = options,
    hints = { input_size = inputs[1].vocab and #inputs[1].vocab, output_size = #output },
    config = { kind = "seq2class", input = task.plain_inputs(inputs), output = output:plain() },
    builders = {
      learn = function(rec)
        local z = logits(rec)
        local y = rec:input("output", { space = "B", dtype = "i32" })
        return { loss = task.cross_entropy(rec, options, output, z, y) }
      end,
      predict = function(rec)
        local z = logits(rec)
        return { scores = op.softmax(z), class = op.argmax(z) }
      end,
    },
  })
  self.inputs, self.output = inputs, output
  return self
end

function class.restore(config, parts)
  local inputs = task.restore_inputs(config.input)
  local self = task.new(class, { kind = "seq2class", params = parts.params, programs = parts.programs,
    config = config })
  self.inputs, self.output = inputs, assert(vocab.from(config.output))
  return self
end

--- Accuracy and the like on held-out data. A row whose class is -1, one that the model does not have
-- (`corpus:label` with `unknown = "ignore"`), is no right answer, whatever comes; the confusion and
-- macro-F1 are without it.
-- @tab fields as for neap.batches: the inputs and `output`
-- @tab[opt] options `{ size = 256 }`
-- @treturn tab `{ accuracy, macro_f1, confusion, n }`
function class:score(fields, options)
  task.fields("score", self, fields)
  options = check.options("score", options, { "size" })
  local run = self:run("predict", false)
  local confusion = metrics.confusion(self.output.symbols)
  local right, n = 0, 0
  for batch in batches(fields, { size = options.size == nil and 256 or options.size }) do
    run:feed(batch):forward()
    local got, want = run:value "class", batch.output.data
    for b = 1, batch.rows do
      n = n + 1
      if want[b] == got[b] then right = right + 1 end
      if want[b] >= 0 then
        confusion:add(want[b] + 1, got[b] + 1)
      end
    end
  end
  return metrics.scores { accuracy = n > 0 and right / n or 0, macro_f1 = confusion:macro_f1(),
    confusion = confusion, n = n }
end

--- The class of each sequence.
-- @tab sequences a list of strings, of lists of symbols, or of lists of rows of numbers or tensors
--   [T,width]; or a batch
-- @treturn tab list of `{ class = symbol, id = from 1, probability = number }`
function class:predict(sequences)
  local run, batch = self:run("predict", false), task.batch("predict", self.inputs, sequences)
  if not batch then return {} end
  run:feed(batch):forward()
  local ids, scores, out = run:value "class", run:value "scores", {}
  for b = 1, #ids do
    out[b] = { class = self.output:symbol(ids[b] + 1), id = ids[b] + 1,
      probability = scores:get(b, ids[b] + 1) }
  end
  return out
end

return setmetatable(class, { __call = new })

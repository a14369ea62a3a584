--- Language model: at each step the distribution of the next symbol; truncated back-propagation with
-- the state carried; generation.
-- @module neap.language_model
local check = require "neap.check"
local op = require "neap.op"
local layer = require "neap.layer"
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
-- - `rng`, `threads`
local function new(_, options)
  options = check.options("language_model", options, { "vocab", "net", "rng", "threads" })
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
  local self = task.new(class, {
    kind = "language_model", rng = options.rng, net = net, options = options,
    hints = { input_size = #v, output_size = #v },
    config = { kind = "language_model", vocab = v:plain() },
    builders = {
      learn = function(rec)
        local z = logits(rec)
        local y = rec:input("target", { space = "T", dtype = "i32" })
        return { loss = op.cross_entropy(z, y) }
      end,
      predict = function(rec) return { logits = logits(rec) } end,
    },
  })
  self.vocab = v
  if options.threads then self:threads(options.threads) end
  return self
end

function class.restore(config, parts)
  local self = task.new(class, { kind = "language_model", params = parts.params,
    programs = parts.programs, config = config })
  self.vocab = assert(vocab.from(config.vocab))
  return self
end

-- The run with a state of as many rows as the batch; a first batch starts anew.
local function carried(self, key, learn, batch)
  local run = self:run("learn", learn)
  self.states = self.states or {}
  local s = self.states[key]
  if not s or s:rows() ~= batch.rows then
    s = self:program "learn":state(batch.rows)
    self.states[key] = s
  end
  if batch.first then s:reset() end
  run:state(s)
  return run
end

--- Runs the loss of a batch of @{neap.batches.stream}, the state carried on from the one before.
function class:forward(batch)
  return carried(self, "learn", true, batch):feed(batch):forward()
end

--- Mean negative log-probability of a text, the state carried through it.
-- @param ids encoded field or i32 tensor, ids from 0
-- @tab[opt] options `{ columns = 1 (cut into so many that run side by side: faster, each starts
--   anew), steps = 500 }`
-- @treturn tab `{ nats, perplexity, n }`
function class:score(ids, options)
  options = check.options("score", options, { "columns", "steps" })
  local batches = require "neap.batches"
  local sum, n = 0, 0
  for batch in batches.stream(ids, { batch = options.columns or 1, steps = options.steps or 500 }) do
    local run = carried(self, "score", false, batch)
    run:feed(batch):forward()
    local count = batch.target:size()
    sum, n = sum + run:item() * count, n + count
  end
  return { nats = sum / n, perplexity = math.exp(sum / n), n = n }
end

--- Writes on.
-- @string prompt
-- @int n symbols to write
-- @tab[opt] options `{ temperature = 1 (0: always the likeliest), rng = neap.rng(1), each = function
--   called with each symbol }`
-- @treturn string the prompt and what follows (symbols joined; characters without blanks)
function class:generate(prompt, n, options)
  options = check.options("generate", options, { "temperature", "rng", "each" })
  check.integer("generate", "n", n, 0)
  local temperature = options.temperature or 1
  local rng = options.rng or require "neap.rng".new(1)
  local ids = self.vocab:encode(prompt)
  if #ids == 0 then check.fail("generate: the prompt is empty: say at least one symbol") end
  local stream = self:program "predict":stream()
  local out = {}
  local function step(id)
    stream:input(1, { id - 1 })
    stream:step()
  end
  for _, id in ipairs(ids) do step(id) end
  for k = 1, n do
    local z = stream:output(1)[1]:totable()
    local best, id = -math.huge, 1
    for i, x in ipairs(z) do if x > best then best, id = x, i end end
    if temperature > 0 then
      local total = 0
      for i, x in ipairs(z) do
        z[i] = math.exp((x - best) / temperature)
        total = total + z[i]
      end
      local u = rng:uniform() * total
      id = #z
      for i, p in ipairs(z) do
        u = u - p
        if u < 0 then id = i break end
      end
    end
    out[k] = self.vocab:symbol(id)
    if options.each then options.each(out[k]) end
    step(id)
  end
  return (type(prompt) == "string" and prompt or table.concat(prompt)) .. table.concat(out)
end

return setmetatable(class, { __call = new })

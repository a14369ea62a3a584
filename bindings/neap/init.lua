--- neap: recurrent sequence models. `local neap = require "neap"`.
--
-- Its fields: the layers of @{neap.layer} and @{neap.recurrent}, the optimizers of @{neap.optim};
-- `op` (@{neap.op}), `cell` (@{neap.cell}), `program`, `grad`, `gradcheck`, `save`, `load_tensors` and `save_tensors`
-- (@{neap.program}); and, loaded when first asked for, `vocab`, `corpus`, `batches`, `rng`,
-- `progress`, `metrics`, `jordan`, `seq2class`, `synced_seq2seq`, `async_seq2seq`,
-- `language_model`, `forecaster`, `hmm`, `fit`, `load`, `show`, `debug`, `features`, `audio`,
-- `schedule`, `average`, `vectors`, `series`, `ngram`.
-- @module neap
local core = require "neap.core"
local check = require "neap.check"
local record = require "neap.record"
local layer = require "neap.layer"
local recurrent = require "neap.recurrent"
local program = require "neap.program"
local optim = require "neap.optim"

-- Scripts are hosts of ours: OpenBLAS shall not start threads beside those of a pool.
core.blas_threads(1)

local neap = { version = core.version(), op = require "neap.op", cell = require "neap.cell" }

for _, name in ipairs { "embed", "linear", "dropout", "layer_norm", "activation", "chain", "bidir",
  "residual", "highway", "fold", "attention" } do
  neap[name] = layer[name]
end
for _, name in ipairs { "elman", "lstm", "gru" } do neap[name] = recurrent[name] end
for _, name in ipairs(optim.kinds) do neap[name] = optim[name] end

neap.program, neap.grad, neap.gradcheck = program.new, program.grad, program.gradcheck
neap.save, neap.load_tensors, neap.save_tensors = program.save, program.load_tensors,
  program.save_tensors

--- A tensor. It has `shape`, `rank`, `size`, `dtype`, `get(i, j, ..)`, `set(i, j, .., number)`, `item`,
-- `totable`, `tobytes`, `clone`, `reshape(dims)` (a copy), `fill(number)`. `#t` is how many parts
-- it has along its first dimension, `t[i]` the i-th: a number, or a tensor in the same memory
-- (`t[1][2] = 5` writes into t; `t[1]:clone()` stands apart). `ipairs(t)` goes through them.
-- @function tensor
-- @param numbers a number or nested tables
-- @string[opt="f32"] dtype "f32" or "i32"
-- @treturn tensor
neap.tensor = core.tensor

--- A tensor of zeros.
-- @function zeros
-- @tab dims
-- @string[opt="f32"] dtype "f32" or "i32"
-- @treturn tensor
neap.zeros = core.zeros

-- print shows what they hold.
local empty = core.params()
for _, object in ipairs { core.zeros {}, empty, core.state(core.program(empty), 0) } do
  getmetatable(object).__tostring = function(x) return require "neap.show"(x) end
end

--- Threads for runs.
-- @function pool
-- @int n counts the calling thread
neap.pool = core.pool
--- The kernels in use: "avx512", "avx2", "neon" or "generic".
-- @function cpu_level
-- @treturn string
neap.cpu_level = core.cpu_level

--- Where op.uniform and op.sample begin when they run at once, on tensors; a program draws from the
-- seed of its run.
-- @function seed
-- @int n
neap.seed = neap.op.seed

--- A number of the program that is being recorded, to be changed between runs.
-- @string name
-- @number preset
function neap.scalar(name, preset) return record.current("scalar"):scalar(name, preset) end

--- A parameter of the layer or function that is being recorded.
-- @string name
-- @tab dims
-- @param[opt] init "xavier", "zeros", "ones", "orthogonal", a number, { kind, a, b } or a tensor
function neap.param(name, dims, init) return record.current("param"):param(name, dims, init) end

--- A decoder for neap.async_seq2seq.
-- @tab options
-- @see neap.async_seq2seq
function neap.decoder(options) return require "neap.async_seq2seq".decoder(options) end

-- Modules that are loaded when first asked for.
local lazy = {
  vocab = "neap.vocab", corpus = "neap.corpus", batches = "neap.batches", rng = "neap.rng",
  progress = "neap.progress", metrics = "neap.metrics", jordan = "neap.jordan",
  seq2class = "neap.seq2class", synced_seq2seq = "neap.synced_seq2seq",
  async_seq2seq = "neap.async_seq2seq", language_model = "neap.language_model",
  forecaster = "neap.forecaster", fit = "neap.fit", load = "neap.load", show = "neap.show",
  debug = "neap.debug", features = "neap.features", audio = "neap.audio",
  schedule = "neap.schedule", average = "neap.average", hmm = "neap.hmm", vectors = "neap.vectors",
  series = "neap.series", ngram = "neap.ngram",
  ctc = "neap.ctc",
}

return setmetatable(neap, { names = { lazy }, __index = function(t, name)
  local module = lazy[name]
  if not module then
    local names = {}
    for k in pairs(t) do names[#names + 1] = k end
    for k in pairs(lazy) do names[#names + 1] = k end
    table.sort(names)
    local near = core.nearest(tostring(name), names)
    check.fail("there is no neap.%s%s", tostring(name), near and "; did you mean neap." .. near .. "?"
      or "")
  end
  local m = require(module)
  rawset(t, name, m)
  return m
end })

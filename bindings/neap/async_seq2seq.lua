--- Asynchronous sequence to sequence: an encoder f1 reads the input, a decoder f2 writes an output of
-- another length, symbol by symbol, with its own symbols as input (Cho et al. 2014; Sutskever et al.
-- 2014), looking back at the encoder through attention (Bahdanau et al. 2015; Luong et al. 2015).
-- The output begins with the vocabulary's `start` and ends with its `stop` symbol.
-- @module neap.async_seq2seq
local core = require "neap.core"
local check = require "neap.check"
local op = require "neap.op"
local record = require "neap.record"
local layer = require "neap.layer"
local vocab = require "neap.vocab"
local metrics = require "neap.metrics"
local search = require "neap.search"
local task = require "neap.task"

local class = {}

-- Names of options with those of the search.
local function names(list) return table.move(search.names, 1, #search.names, #list + 1, list) end
local per_sequence = { prefix = true, filter = true }

-- ---- the library's decoder ----

local decoder_meta = { __name = "neap.decoder" }
function decoder_meta:__tostring() return self.describe() end

-- Does a layer, or one of its layers, learn its first states?
local function learns_first(l)
  if not layer.is_layer(l) then return false end
  local found = l.options.first == "learned"
  for _, part in ipairs(l.layers or {}) do found = found or learns_first(part) end
  return found
end

-- What goes from the encoder's last states to the decoder's first ones: kind, activation.
local bridges = { "dense", "copy", "zero" }
local function bridge_of(given)
  if given == nil or given == true then given = "dense" elseif given == false then given = "zero" end
  local kind, activation = given, nil
  if type(given) == "table" and not getmetatable(given) then
    kind, activation = given[1], given.activation
    for key in pairs(given) do
      if key ~= 1 then check.options("decoder: bridge", { [key] = true }, { "activation" }) end
    end
  end
  if kind ~= "dense" and kind ~= "copy" and kind ~= "zero" then
    local near = type(kind) == "string" and core.nearest(kind, bridges)
    check.fail("decoder: bridge: expected \"dense\", \"copy\" or \"zero\", came %s%s",
      check.came(kind), near and ("; did you mean %q?"):format(near) or "")
  elseif activation ~= nil and kind ~= "dense" then
    check.fail("decoder: bridge: activation: only the dense one has it, came %s",
      check.came(activation))
  end
  return kind, layer.activation_of("decoder: bridge: activation", activation, "tanh")
end

-- Attention that is spread over the memory.
local spread = { general = true, dot = true, additive = true }

-- States as text: "c [B,8], h [B,8]".
local function shapes_text(states)
  local names, out = {}, {}
  for name in pairs(states) do names[#names + 1] = name end
  table.sort(names)
  for i, name in ipairs(names) do out[i] = name .. " " .. states[name]:shape() end
  return #out > 0 and table.concat(out, ", ") or "no state"
end

-- The states of a decoder as those of a loop, and their order.
local function scanned(list, first)
  local states, order = {}, {}
  for i, s in ipairs(list) do
    order[i] = s.name
    states[s.name] = { dims = s.dims or { s.size }, dtype = s.dtype, init = first[s.name] }
  end
  return states, order
end

--- A decoder: embedding, recurrent layers, attention over the encoder's outputs after the last of
-- them, and o = tanh(M [h; context]) before the output layer (Luong et al. 2015).
-- @tab options
--
-- - `embed`: width of the symbols, or `neap.embed { size = .. }` with a start of its own; the encoder's
--   own layer where both have one vocabulary
-- - `tied`: the output layer has the embedding's weight (false; Press and Wolf 2017). What goes into
--   it has to be as wide as a symbol
-- - `layers`: a list of layers that step: `neap.elman`, `neap.lstm`, `neap.gru`, `neap.jordan`,
--   cells of the script's own, without context; those without states; and these in `neap.residual`,
--   `neap.highway` and `neap.chain`
-- - `attention`: "general", "dot", "additive" or false; or "aligned": step t looks at step t of the
--   encoder's outputs and nowhere else, at zeros after the last one. For outputs of one symbol for
--   each of the input, such as the pieces that `corpus:align` makes (Yao and Zweig 2015,
--   "Sequence-to-sequence neural net models for grapheme-to-phoneme conversion", section 3): then
--   what is looked at is known beforehand, and goes into the first layer too
-- - `coverage`: the attention is told what it has attended to so far (See et al. 2017), and how often
--   it returns there is added to the loss, `coverage_loss` times (1); the number is the run's
--   "decoder.coverage_loss" (false)
-- - `copy`: symbols of the input may be written down as they are, also unknown ones (See et al. 2017,
--   the pointer-generator network; Gu et al. 2016): P(w) = p P_vocabulary(w) + (1 - p) times the
--   attention to the steps that show w, with p = sigmoid(W [context; h; x] + b). true, or how many
--   different unknown symbols of an input can be written (16)
-- - `input_feed`: o goes into the first layer at the next step, beside the symbol (Luong et al. 2015,
--   section 3.3; 0 at the first), so that the layers know what was looked at before; learning then
--   goes step by step through attention too, which takes longer (false)
-- - `dropout`: of the layers' inputs and of o (0)
-- - `mix`: width of o (that of the last layer)
-- - `bridge`: how its first states come from the encoder's last ones. "dense": tanh(W s + b), where
--   s are all states of the encoder's last recurrent layer side by side (of one without states the
--   mean of what it gave), for each state that is a vector of floats; others of a cell begin with zeros.
--   `{ "dense", activation = "relu" }`: with another activation. "copy": those of the encoder's
--   recurrent layers, one for each layer here, as they are; their names and shapes have to be the
--   same. "zero": zeros or, where a layer has `first = "learned"`, what it learnt. (true and false
--   are "dense" and "zero")
-- @treturn tab `{ teacher, step, states, first, prepare }`, what a decoder of the script's own must
--   have too: see @{async_seq2seq}
function class.decoder(options)
  options = check.options("decoder", options, { "embed", "layers", "attention", "dropout", "mix",
    "bridge", "coverage", "coverage_loss", "copy", "input_feed", "tied" })
  local symbols = options.embed
  if not layer.is_layer(symbols) then
    symbols = layer.embed { size = check.integer("decoder", "embed", symbols, 1) }
  elseif symbols.kind ~= "embed" then
    check.fail("decoder: embed: expected a width or neap.embed { size = .. }, came the layer %s",
      symbols.kind)
  end
  local width, tied = symbols.options.size, check.boolean("decoder", "tied", options.tied)
  local layers = options.layers
  if type(layers) ~= "table" or layer.is_layer(layers) or next(layers) == nil then
    check.fail("decoder: layers: expected a list of at least one layer, such as { neap.gru "
      .. "{ size = 64 } }, came %s", check.came(layers))
  end
  for i in pairs(layers) do
    local l = layers[i]
    if math.type(i) ~= "integer" or i < 1 or i > #layers then
      check.fail("decoder: layers: expected a list, came [%s] = %s", tostring(i), check.came(l))
    elseif not (layer.is_layer(l) and l.states and l.step) then
      check.fail("decoder: layers: %d: expected a layer that steps (elman, lstm, gru, a cell of "
        .. "one's own, or these in residual, highway and chain), came %s", i, check.came(l))
    end
  end
  local kind = options.attention
  if kind == nil then kind = "general" end
  local coverage = check.boolean("decoder", "coverage", options.coverage)
  local penalty = options.coverage_loss == nil and 1
    or check.number("decoder", "coverage_loss", options.coverage_loss, 0, 1e6)
  local copy = options.copy
  if copy == true then copy = 16 end
  if copy == false then copy = nil end
  if copy ~= nil then check.integer("decoder", "copy", copy, 1, 65536) end
  local feeds = check.boolean("decoder", "input_feed", options.input_feed)
  local aligned = kind == "aligned"
  if kind and not aligned and not spread[kind] then
    local near = type(kind) == "string" and core.nearest(kind, { "general", "dot", "additive",
      "aligned" })
    check.fail("decoder: attention: expected \"general\", \"dot\", \"additive\", \"aligned\" or "
      .. "false, came %s%s", check.came(kind), near and ("; did you mean %q?"):format(near) or "")
  end
  for _, name in ipairs { "coverage", "copy", "input_feed" } do
    if options[name] and not spread[kind] then
      check.fail("decoder: %s: it is about attention%s, came attention = %s", name,
        aligned and " that is spread" or "", aligned and "\"aligned\"" or "false")
    end
  end
  if options.coverage_loss ~= nil and not coverage then
    check.fail("decoder: coverage_loss: expected none without coverage, came %s",
      check.came(options.coverage_loss))
  end
  local attention = kind and not aligned and layer.attention { kind = kind,
    coverage = coverage or nil }
  local rate = options.dropout or 0
  if type(rate) ~= "number" or not (rate >= 0 and rate < 1) then
    check.fail("decoder: dropout: expected a number in [0,1), came %s", check.came(rate))
  end
  if options.mix ~= nil then check.integer("decoder", "mix", options.mix, 1) end
  local bridge, act = bridge_of(options.bridge)
  for i, l in ipairs(layers) do
    if bridge ~= "zero" and learns_first(l) then
      check.fail("decoder: layers: %d: it learns its first states, but the bridge computes them: "
        .. "bridge = \"zero\"", i)
    end
  end
  local function drop(rec, x) return rate > 0 and op.dropout(x, rec:scalar("decoder.rate", rate)) or x end

  -- For each layer the states, { name, dims, dtype }, and the width of its output, on such an input.
  local function measured(input)
    local list = {}
    for i, l in ipairs(layers) do
      local states = l.states(l, input)
      list[i] = { states = {} }
      for k, s in ipairs(states) do
        list[i].states[k] = { name = s.name, dims = s.dims or { s.size }, dtype = s.dtype or "f32" }
      end
      -- the library's own layers give their first state
      input = states[1] and states[1].size
        or layer.output_width(record.current "decoder", l, l.kind, input)
      list[i].width = input
    end
    return list
  end

  -- The width of what the last layer gives; the layers get no parameters yet.
  local function last_width()
    local rec, width_ = record.current "decoder", nil
    record.program(function(probe)
      width_ = measured(width)[#layers].width
      return probe:input("x", { space = "T", dims = { 1 } })
    end, core.params(), rec.seed, rec.hints)
    return width_
  end

  local shapes, fed -- fed: the width of what goes into the first layer beside the symbol
  local function measure(memory)
    if not shapes then
      fed = feeds and (options.mix or last_width()) or aligned and memory.y.width
      shapes = measured(width + (fed or 0))
    end
    return shapes
  end

  local decoder = setmetatable({ copy = copy }, decoder_meta)

  function decoder.describe()
    local lines = { "decoder" }
    local function add(...) lines[#lines + 1] = "  " .. string.format(...):gsub("\n", "\n  ") end
    add("%s%s", tostring(symbols), tied and " tied=true" or "")
    for i, l in ipairs(layers) do add("%d %s", i, tostring(l)) end
    add("%s", attention and tostring(attention) or aligned and "attention kind=aligned"
      or "no attention")
    for _, name in ipairs { "copy", "input_feed", "dropout", "mix" } do
      if options[name] ~= nil then add("%s=%s", name, tostring(options[name])) end
    end
    add("bridge=%s", bridge)
    return table.concat(lines, "\n")
  end

  local function embed(rec, ids)
    local hints = rec.hints
    rec.hints = { input_size = hints.output_size, output_size = hints.output_size }
    local x = symbols(ids)
    rec.hints = hints
    return x
  end

  -- What stays the same over the steps.
  local function prepare(rec, memory)
    if not memory.still then
      memory.still = {}
      for i, l in ipairs(layers) do memory.still[i] = l:still() end
    end
    local last = measure(memory)[#layers]
    if attention and not memory.keys then
      memory.keys = attention:inside(attention.prepare, attention, rec, memory.y, last.width)
    end
  end

  -- What stands at a step of the memory, counted from 0.
  local function seen(memory, at)
    return op.attend_at(op.cast(op.reshape(at, {}), "i32"), memory.y)
  end

  -- Of what the layers gave, h, on x: the logits, the attention's weights, more, and o. Aligned, with
  -- what it looks at; of one step, with the coverage before it: fifth, that after it.
  local function logits(rec, x, h, memory, context, covered)
    local o, weights, after, loss = h, nil, nil, nil
    local more = {}
    if attention then
      if covered then
        context, weights, loss, after = attention:inside(attention.cover, attention, rec, h,
          memory.keys, covered)
      else
        context, weights, loss = attention:inside(attention.attend, attention, rec, h, memory.y,
          memory.keys)
      end
      if loss then more.loss = loss * rec:scalar("decoder.coverage_loss", penalty) end
      if copy then
        local all = op.concat { context, h, x }
        local k = 1 / all.width ^ 0.5
        more.generates = op.linear(all, rec:param("generate.weight", { 1, all.width },
          { "uniform", -k, k }), rec:param("generate.bias", { 1 }, "zeros"))
      end
    end
    if context then
      o = op.concat { h, context }
      local n = options.mix or h.width
      local k = 1 / o.width ^ 0.5
      o = op.tanh(op.linear(o, rec:param("mix.weight", { n, o.width }, { "uniform", -k, k }),
        rec:param("mix.bias", { n }, "zeros")))
    end
    o = drop(rec, o)
    local v, k = rec.hints.output_size, 1 / o.width ^ 0.5
    local function weight(name)
      return rec:param(name, { v, o.width }, { "uniform", -k, k })
    end
    if tied and o.width ~= width then
      check.fail("decoder: tied: expected symbols as wide as what goes into the output layer, %d, "
        .. "came %d%s", o.width, width,
        context and (" (mix = %d makes that as wide)"):format(width) or "")
    end
    return op.linear(o, tied and symbols:inside(weight, "weight") or weight "output.weight",
      rec:param("output.bias", { v }, "zeros")), weights, more, o, after
  end

  function decoder.states(memory)
    local list, all = {}, measure(memory)
    if coverage and memory then
      list[1] = { name = "coverage", dims = memory.keys.mask.dims }
    end
    if aligned and memory then list[1] = { name = "at", dims = { 1 } } end
    if feeds and memory then list[#list + 1] = { name = "fed", dims = { fed } } end
    for i, shape in ipairs(all) do
      for _, s in ipairs(shape.states) do
        list[#list + 1] = { name = s.name .. i, dims = s.dims, dtype = s.dtype }
      end
    end
    return list
  end

  -- What each layer has learned.
  local function learned(summary)
    local out = {}
    for i, l in ipairs(layers) do
      for name, v in pairs(l:learned_first()) do
        out[name .. i] = op.apply("spread", { v }, { space = summary.space })
      end
    end
    return out
  end

  -- The encoder's states as they are, layer by layer.
  local function copied(last)
    local out, at = {}, 0
    for i, shape in ipairs(measure()) do
      if #shape.states > 0 then
        at = at + 1
        local from = last[at] or {}
        for _, s in ipairs(shape.states) do
          local v = from[s.name]
          if not v or v.dtype ~= s.dtype or table.concat(v.dims, ",") ~= table.concat(s.dims, ",")
          then
            check.fail("decoder: bridge: copy: layer %d begins with %s [B,%s], the encoder's "
              .. "recurrent layer %d of %d ends with %s: bridge = \"dense\" makes one from the other",
              i, s.name, table.concat(s.dims, ","), at, #last, shapes_text(from))
          end
          out[s.name .. i] = v
        end
      end
    end
    if at < #last then
      check.fail("decoder: bridge: copy: it has %d recurrent layers, the encoder has %d, the last of "
        .. "which ends with %s: bridge = \"dense\" makes one from the other", at, #last,
        shapes_text(last[#last]))
    end
    return out
  end

  -- All states that are vectors from those of the encoder's last recurrent layer.
  local function dense(rec, summary, last)
    local names, list = {}, {}
    for name, v in pairs(last[#last] or {}) do
      if #v.dims == 1 and v.dtype == "f32" then names[#names + 1] = name end
    end
    table.sort(names)
    for i, name in ipairs(names) do list[i] = last[#last][name] end
    local s = #list > 1 and op.concat(list) or list[1] or summary
    local out, k = {}, 1 / s.width ^ 0.5
    for _, state in ipairs(decoder.states()) do
      if #state.dims == 1 and state.dtype == "f32" then
        local n = state.dims[1]
        out[state.name] = act(op.linear(s,
          rec:param("bridge." .. state.name .. ".weight", { n, s.width }, { "uniform", -k, k }),
          rec:param("bridge." .. state.name .. ".bias", { n }, "zeros")))
      end
    end
    return out
  end

  function decoder.first(rec, summary, last, memory)
    measure(memory)
    if bridge == "zero" then return learned(summary) end
    if bridge == "copy" then return copied(last) end
    return dense(rec, summary, last)
  end

  function decoder.teacher(rec, previous, first, memory)
    prepare(rec, memory)
    if feeds then
      local states, order = scanned(decoder.states(memory), first)
      local weights, more
      local z = rec:scan(previous.space, states, order, function(s)
        local z, after
        z, after, weights, more = decoder.step(rec, previous, s, memory)
        return z, after
      end)
      return z, weights, more
    end
    local symbol = drop(rec, embed(rec, previous))
    local x, context = symbol, nil
    if aligned then
      local at = rec:scan(previous.space, { at = { dims = { 1 } } }, { "at" }, function(s)
        return s.at, { at = s.at + 1 }
      end)
      context = seen(memory, at)
      x = op.concat { symbol, drop(rec, context) }
    end
    for i, l in ipairs(layers) do
      local init = {}
      for _, s in ipairs(measure()[i].states) do init[s.name] = first[s.name .. i] end
      if i > 1 then x = drop(rec, x) end
      x = l(x, init) -- only the first of what it gives
    end
    local z, weights, more = logits(rec, symbol, x, memory, context)
    return z, weights, more
  end

  function decoder.step(rec, previous, states, memory)
    local symbol, out = drop(rec, embed(rec, previous)), {}
    local context = aligned and seen(memory, states.at) or nil
    local x = feeds and op.concat { symbol, states.fed }
      or aligned and op.concat { symbol, drop(rec, context) } or symbol
    for i, l in ipairs(layers) do
      local own = {}
      for _, s in ipairs(measure()[i].states) do own[s.name] = states[s.name .. i] end
      if i > 1 then x = drop(rec, x) end
      local next_states
      x, next_states = l:at_step(x, own, memory.still[i])
      for name, v in pairs(next_states) do out[name .. i] = v end
    end
    local z, weights, more, o, after = logits(rec, symbol, x, memory, context,
      coverage and states.coverage)
    out.coverage = after
    if aligned then out.at = states.at + 1 end
    if feeds then out.fed = o end
    return z, out, weights, more
  end

  decoder.prepare = prepare
  return decoder
end

-- ---- the task ----

local parts = { "teacher", "step", "states", "first", "prepare" }

--- Makes the task.
--
-- A decoder of the script's own is a table of five functions. They are called while neap records,
-- in the path "decoder", with the recorder `rec` (`rec:param`, `rec.hints.output_size`, the number
-- of symbols). `memory.y` is what the encoder gave, [S,B,M]; the decoder may keep more in `memory`.
--
-- - `states(memory)`: a list of `{ name = "h", dims = { 64 } }` (or `size = 64`; `dtype = "i32"` for
--   integers), what is carried from step to step
-- - `first(rec, summary, last, memory)`: a table of first states by name, from the encoder's last
--   state h, [B,M'] (the mean of what it gave if it has none), or from `last`, a list of the last
--   states of its recurrent layers, each a table by name; a state that is not in it begins with zeros
-- - `prepare(rec, memory)`: computes what is the same at every step, into `memory`; called before
--   steps are recorded
-- - `teacher(rec, previous, first, memory)`: all steps at once: ids [T,B] and the table of first
--   states -> logits [T,B,V] and, if it has any, weights of attention [T,B,longest S]; third, if
--   wished, a table: `loss` [T,B] is added to the loss; `generates` [T,B,1]: with a field `copy` of
--   the decoder (see there), the value before the sigmoid of p. It is what predicts too, streamed: no
--   step may see later ones
-- - `step(rec, previous, states, memory)`: one step: ids [B] and the table of states -> logits
--   [B,V], the table of next states, weights and table as of `teacher`; for learning from its own
--   symbols (`mix`)
-- @tab options
--
-- - `input`: vocabulary (or width, or named inputs as in @{neap.task.inputs})
-- - `output`: vocabulary with `start` and `stop`
-- - `encoder`: layer or function: x [S,B,..] -> y [S,B,M] and, if recurrent, last states by name;
--   third, if it has several recurrent layers, a list of those of each, as a chain gives; with
--   @{neap.layer.fold} in it, a pyramid, y has fewer steps
-- - `decoder`: @{decoder}, or a table of the script's own, see above
-- - `max_length`: most symbols that are written (100)
-- - `rng`, `threads`, `recompute` (see @{neap.program}); of the cross-entropy `smoothing`,
--   `weights` (`{ symbol = number, .. }`, 1 for the others), `focal` (see @{neap.op.cross_entropy}),
--   none of them where symbols are copied
function class.new(options)
  options = check.options("async_seq2seq", options, { "input", "output", "encoder", "decoder", "rng",
    "threads", "recompute", "max_length", table.unpack(task.class_loss) })
  local inputs = task.inputs("async_seq2seq", options.input)
  local output = options.output
  if type(output) ~= "table" or not output.symbols then
    check.fail("async_seq2seq: output: expected a vocabulary, came %s", check.came(output))
  end
  if not output.start or not output.stop then
    check.fail("async_seq2seq: output: the vocabulary needs start and stop symbols: "
      .. "neap.vocab(corpus, field, { start = true, stop = true })")
  end
  local max_length = check.integer("async_seq2seq", "max_length", options.max_length or 100, 1)
  local encoder = task.network("async_seq2seq", options.encoder, "encoder")
  local decoder = options.decoder
  local own = type(decoder) == "table" and not layer.is_layer(decoder)
  for _, name in ipairs(parts) do
    if not own or type(decoder[name]) ~= "function" then
      check.fail("async_seq2seq: decoder: expected neap.decoder{..} or a table of one's own with "
        .. "the functions %s, came %s%s", table.concat(parts, ", "), check.came(decoder),
        own and " without " .. name or "")
    end
  end

  local size, copy = #output, decoder.copy
  if copy then
    if #inputs > 1 or not inputs[1].vocab or inputs[1].nested or inputs[1].vocab.merges
      or output.merges then
      check.fail("async_seq2seq: decoder: copy: expected one input of symbols, and an output, that "
        .. "are not subwords")
    elseif not output.unk then
      check.fail("async_seq2seq: decoder: copy: the output's vocabulary needs unk: unk = true")
    end
    for _, name in ipairs(task.class_loss) do
      local given = options[name]
      if given and given ~= 0 then
        check.fail("async_seq2seq: %s: expected none where symbols are copied, came %s", name,
          check.came(given))
      end
    end
  end

  -- Symbols that only the input has are unk to what reads them.
  local function known(ids)
    if not copy then return ids end
    return op.cast(op.where(op.less(ids, size), op.cast(ids, "f32"), output.unk - 1), "i32")
  end

  -- The probabilities [V + copy] of what is written, also of the unknown symbols of the input.
  local function probabilities(rec, z, weights, more, memory)
    local p = op.sigmoid(more.generates)
    return op.concat { op.softmax(z) * p, layer.fill(rec, copy, 0) }
      + op.scatter(weights * (1 - p), memory.source, size + copy)
  end

  -- -ln P of each row: from ln p - cross-entropy and ln (1 - p) * attention.
  local function copy_loss(z, target, weights, more, memory)
    local known_one = op.less(target, size)
    local ids = op.cast(op.cast(target, "f32") * known_one, "i32")
    local written = op.where(known_one, -op.softplus(-more.generates) - op.reshape(
      op.cross_entropy(z, ids, { rows = true }), { 1 }), -80)
    local shown = op.equal(memory.source, op.reshape(target, { 1 }))
    local copied = op.sum(weights * shown, { keep = true })
    local other = op.log(copied + 1e-30) - op.softplus(more.generates)
    return -(written + op.softplus(other - written)) -- ln (e^a + e^b)
  end

  -- The last states of the encoder's recurrent layers, a list of tables of values.
  local function last_states(s, all)
    if all == nil or record.is_value(all) then all = { s } end
    for i, states in ipairs(check.table("async_seq2seq", "encoder: its third value", all)) do
      local name = ("encoder: the last states of layer %d"):format(i)
      for key, v in pairs(check.table("async_seq2seq", name, states)) do
        if not record.is_value(v) then
          check.fail("async_seq2seq: %s: %s: expected a recorded value, came %s", name,
            tostring(key), check.came(v))
        end
      end
    end
    return all
  end

  -- The encoder's outputs, its summary [B,M'] and the decoder's first states.
  local function encode(rec)
    local x = task.record_inputs(rec, inputs, "S")
    local y, s, all = rec:within("encoder", function()
      return task.call("async_seq2seq", encoder, x)
    end)
    if y.space < 1 then
      check.fail("async_seq2seq: the encoder must give a value for each step, came %s", y:shape())
    end
    if type(s) ~= "table" or record.is_value(s) then s = nil end
    local summary = s and record.is_value(s.h) and s.h or op.mean_time(y)
    local memory = { y = y }
    local first = rec:within("decoder", decoder.first, rec, summary, last_states(s, all), memory)
    for name in pairs(rec.watched) do
      if name == "memory" or name == "source" or tostring(name):find "^first_" then
        check.fail("async_seq2seq: watch: %q is the task's own name, as \"memory\", \"source\" and "
          .. "those that begin with \"first_\" are", name)
      end
    end
    if copy then
      local ids = rec:input("source", { space = "S", dtype = "i32" })
      if y.space ~= ids.space then
        check.fail("async_seq2seq: decoder: copy: the encoder must give a value for each symbol, "
          .. "came %s", y:shape())
      end
      memory.ids, memory.source = ids, op.padded(ids)
    end
    return memory, first
  end
  local function loss(rec, z, weights, more, memory)
    local target = rec:input("output", { space = "T", dtype = "i32" })
    local valid = op.reshape(op.greater_equal(target, 0), { 1 })
    local sum = copy
      and op.reshape(op.mean_rows(copy_loss(z, target, weights, more, memory), valid), {})
      or task.cross_entropy(rec, options, output, z, target)
    if more and more.loss then
      sum = sum + op.reshape(op.mean_rows(op.reshape(more.loss, { 1 }), valid), {})
    end
    return { loss = sum }
  end

  local self
  self = task.new(class, {
    kind = "async_seq2seq", rng = options.rng,
    shown = { { "encoder", encoder }, { "decoder", decoder } }, options = options, main = "learn",
    hints = { input_size = inputs[1].vocab and #inputs[1].vocab, output_size = #output },
    config = { kind = "async_seq2seq", input = task.plain_inputs(inputs), output = output:plain(),
      max_length = max_length, copy = copy },
    builders = {
      -- teacher forcing
      learn = function(rec)
        local memory, first = encode(rec)
        rec:sequence "T"
        local previous = rec:input("previous", { space = "T", dtype = "i32" })
        local z, weights, more = rec:within("decoder", decoder.teacher, rec, known(previous), first,
          memory)
        return loss(rec, z, weights, more, memory)
      end,
      -- each symbol is the right one or, with probability `mix`, the decoder's own (Bengio et al. 2015)
      mixed = function(rec)
        local memory, first = encode(rec)
        local space = rec:sequence "T"
        local previous = rec:input("previous", { space = "T", dtype = "i32" })
        local mix = rec:scalar("mix", 0.25)
        local weights, more
        local z = rec:within("decoder", function()
          decoder.prepare(rec, memory)
          local states, order = scanned(decoder.states(memory), first)
          order[#order + 1] = "own" -- the symbol written last
          states.own = { dims = {}, dtype = "i32" }
          order[#order + 1] = "begun"
          states.begun = { dims = {} }
          local coin = op.less(op.uniform(op.cast(previous, "f32")), mix)
          return (rec:scan(space, states, order, function(s)
            local id = op.where(coin * s.begun, s.own, previous)
            local z, next_states
            z, next_states, weights, more = decoder.step(rec, known(id), s, memory)
            next_states.own = op.argmax(copy and probabilities(rec, z, weights, more, memory) or z)
            next_states.begun = s.begun * 0 + 1
            return z, next_states
          end))
        end)
        return loss(rec, z, weights, more, memory)
      end,
      encode = function(rec)
        local memory, first = encode(rec)
        local out = { memory = memory.y, source = memory.ids and op.cast(memory.ids, "f32") }
        for name, v in pairs(first) do out["first_" .. name] = v end
        return out
      end,
      -- the decoder alone: streamed, its memory given as a context
      decode = function(rec)
        local encoded = self:program "encode"
        local _, space = encoded.core:type(encoded.outputs.memory)
        local seen = encoded.spaces[space + 1] -- what the encoder gives may have fewer steps
        local source = rec:sequence "S"
        if seen.factor > 1 then rec:folded(source, seen.factor) end
        rec:sequence "T"
        local function context(name, space)
          local _, _, dims = encoded.core:type(encoded.outputs[name])
          return rec:input(name, { space = space, dims = dims })
        end
        local memory, first = { y = context("memory", seen.name) }, {}
        for name in pairs(encoded.outputs) do
          local state = name:match "^first_(.*)"
          if state then first[#first + 1] = state end
        end
        table.sort(first)
        for _, state in ipairs(first) do first[state] = context("first_" .. state, "B") end
        if copy then memory.source = op.padded(op.cast(context("source", "S"), "i32")) end
        local previous = rec:input("previous", { space = "T", dtype = "i32" })
        local z, weights, more = rec:within("decoder", decoder.teacher, rec, known(previous), first,
          memory)
        if not copy then
          return { scores = op.log_softmax(z), best = op.argmax(z), attention = weights }
        end
        local p = probabilities(rec, z, weights, more, memory)
        return { scores = op.log(op.maximum(p, 1e-30)), best = op.argmax(p), attention = weights }
      end,
    },
  })
  self.inputs, self.output, self.max_length, self.copy = inputs, output, max_length, copy
  return self
end

function class.restore(config, parts)
  local self = task.new(class, { kind = "async_seq2seq", params = parts.params,
    programs = parts.programs, config = config, main = "learn" })
  self.inputs, self.output = task.restore_inputs(config.input), assert(vocab.from(config.output))
  self.max_length = math.tointeger(config.max_length) or 100
  self.copy = config.copy and math.tointeger(config.copy)
  return self
end

-- The symbols of an input as ids, from 0, of what may be written: the output's own, and after them
-- those that it does not know, each once, as long as there is room. Second, their names; third, their
-- ids by name.
local function copies(self, symbols)
  local ids, names, at = {}, {}, {}
  for i, symbol in ipairs(symbols) do
    if self.output:has(symbol) then
      ids[i] = self.output:id(symbol) - 1
    else
      if not at[symbol] and #names < self.copy then
        names[#names + 1] = symbol
        at[symbol] = #self.output + #names - 1
      end
      ids[i] = at[symbol] or self.output.unk - 1
    end
  end
  return ids, names, at
end

--- The fields of a corpus that learning takes.
-- @param corpus
-- @string source field of the input
-- @string target field of the output
-- @treturn tab `{ input, previous (with the start symbol before), output (with the stop symbol after)
--   }`; where the decoder copies, `source` too: the input as ids of what may be written
function class:fields(corpus, source, target)
  if type(corpus) ~= "table" or type(corpus.encode) ~= "function" then
    check.fail("fields: expected a corpus and two of its fields, came %s first", check.came(corpus))
  end
  local fields = { input = corpus:encode(source, self.inputs[1].vocab),
    previous = corpus:encode(target, self.output, { start = true }),
    output = corpus:encode(target, self.output, { stop = true }) }
  if not self.copy then return fields end
  local shown, written = core.ints(), core.ints()
  for i = 1, #corpus do
    local ids, _, at = copies(self, corpus:get(source, i))
    for _, id in ipairs(ids) do shown:push(id) end
    for _, symbol in ipairs(corpus:get(target, i)) do
      written:push(not self.output:has(symbol) and at[symbol] or self.output:id(symbol) - 1)
    end
    written:push(self.output.stop - 1)
  end
  fields.source = { data = shown:tensor(), offsets = fields.input.offsets, from = fields.input.from }
  fields.output = { data = written:tensor(), offsets = fields.output.offsets,
    from = fields.output.from }
  return fields
end

--- Runs the loss of a batch. `self.mix`, or `batch.mix`, is the share of the decoder's own symbols that
-- it gets as input: 0 is teacher forcing, 1 free running.
function class:forward(batch)
  local mix = type(batch) == "table" and batch.mix or self.mix or 0
  if type(mix) ~= "number" or not (mix >= 0 and mix <= 1) then
    check.fail("async_seq2seq: mix: expected a number from 0 to 1, came %s", check.came(mix))
  end
  if mix == 0 then return task.forward(self:run("learn", true), batch) end
  local run = self:run("mixed", true)
  run:set("mix", mix)
  return task.forward(run, batch)
end

-- How many steps the encoder gives for so many of its input.
local function memory_lengths(self, lengths)
  local decoding = self:program "decode"
  local factor = decoding.spaces[decoding.types.memory.space + 1].factor
  local fewer = {}
  for b = 1, #lengths do fewer[b] = (lengths[b] + factor - 1) // factor end
  return fewer
end

-- Encodes a batch and gives the decoder's stream its memory. The stream is kept for later calls, but
-- not while it is in use: a script's filter may call the model again.
local function begin(self, batch)
  local encoded, decoding = self:run("encode", false), self:program "decode"
  encoded:feed(batch):forward()
  local stream = self.stream or decoding:stream { seed = self.seed }
  self.stream = nil
  local first = batch[self.inputs[1].name]
  local lengths = first.outer or first.lengths
  stream:context_batch(#lengths)
  local space
  for i, s in ipairs(decoding.spaces) do if s.name == "S" then space = i - 1 end end
  stream:context_lengths(space, lengths)
  for name in pairs(encoded.program.outputs) do
    local taken = decoding.inputs[name] -- what a script watches is not
    if taken then stream:context(taken, encoded:value(name, "concat"), "concat") end
  end
  return stream, memory_lengths(self, lengths)
end

-- What @{neap.search} writes on: the decoders of one or several models. Attention is the first's.
local function source_of(models, batch, limit, look)
  local streams, lengths = {}, nil
  for k = #models, 1, -1 do streams[k], lengths = begin(models[k], batch) end
  local vocabulary = models[1].output
  return {
    n = #lengths, lengths = lengths, limit = limit, first = vocabulary.start - 1,
    stop = vocabulary.stop - 1,
    step = function(ids)
      local scores = {}
      for k, stream in ipairs(streams) do
        stream:input("previous", ids)
        stream:step()
        scores[k] = stream:output "scores"
      end
      return search.mean(scores), not streams[2] and streams[1]:output "best":reshape { #ids } or nil
    end,
    select = function(sequences, rows)
      for _, stream in ipairs(streams) do stream:rows(sequences, rows) end
    end,
    look = look and function() return streams[1]:output "attention" end,
    done = function()
      for k, model in ipairs(models) do model.stream = streams[k] end
    end,
  }
end

-- The vocabularies that models of an ensemble have to share.
local function vocabs(self)
  local list = { output = self.output }
  for _, input in ipairs(self.inputs) do list["input " .. input.name] = input.vocab end
  return list
end

-- Adds to a batch what may be copied, and to the search how it is called.
local function name_copies(self, batch, sequences, how)
  if sequences == batch then
    check.fail("predict: a model that copies needs the symbols themselves: expected a list of "
      .. "sequences, came a batch")
  end
  local data, names, v = core.ints(), {}, self.inputs[1].vocab
  for b, sequence in ipairs(sequences) do
    local ids
    ids, names[b] = copies(self, v:cut(sequence))
    for _, id in ipairs(ids) do data:push(id) end
  end
  batch.source = { data = data:tensor(), lengths = batch[self.inputs[1].name].lengths }
  function how.name(b, id) -- what there is no symbol for has no probability, but a wide beam may try it
    return self.output.symbols[id] or names[b][id - #self.output]
      or self.output:symbol(self.output.unk)
  end
end

-- Each sequence's symbols as they stand there, one for each step that attention sees.
local function shown_symbols(self, batch, sequences, steps)
  local v, out = self.inputs[1].vocab, {}
  if sequences == batch or not v or v.merges then
    check.fail("predict: replace_unk: expected a list of sequences of symbols that are not subwords, "
      .. "came %s", sequences == batch and "a batch" or v and "subwords" or "numbers")
  end
  for b, sequence in ipairs(sequences) do
    out[b] = v:cut(sequence)
    if #out[b] ~= steps[b] then
      check.fail("predict: replace_unk: the encoder gives %d steps for %d symbols", steps[b], #out[b])
    end
  end
  return out
end

-- The first of the steps that have the largest weight, of packed floats; none of no steps.
local function most_looked_at(weights)
  local best, most = nil, -1
  for s = 1, #weights // 4 do
    local x = string.unpack("f", weights, 4 * s - 3)
    if x > most then best, most = s, x end
  end
  return best
end

--- What the model writes for each sequence.
-- @tab sequences a list of strings, of lists of symbols, or of rows of numbers; or a batch
-- @tab[opt] options those of @{neap.search}: the likeliest symbol at each step, a beam, or symbols
--   drawn by chance; and
--
-- - `max_length`: most symbols that are written (that of the model)
-- - `all`: all hypotheses of each sequence, the best first, as many as the beam has (false)
-- - `attention`: also what it looked at (false)
-- - `replace_unk`: in the place of the output's `unk` stands the symbol of the input that it looked
--   at most (Luong et al. 2015, "Addressing the rare word problem"; OpenNMT's option of that name), as
--   it is there (false)
-- @treturn tab a list of symbols for each sequence; with `all` a list of `{ symbols, ids, score,
--   log_probability, stopped, attention }`
-- @treturn[opt] tab with `attention`: for each sequence a tensor [symbols written, steps of the
--   input], whose row i has the weights over the input with which symbol i was written; each row's
--   sum is 1
function class:predict(sequences, options)
  options = check.options("predict", options,
    names { "max_length", "all", "attention", "replace_unk" })
  local limit = check.integer("predict", "max_length", options.max_length or self.max_length, 1)
  local replace = check.boolean("predict", "replace_unk", options.replace_unk)
  local look = check.boolean("predict", "attention", options.attention)
  local how = search.options("predict", options, self.output, 0)
  local models = search.ensemble("predict", self, options.ensemble, vocabs)
  local seen = self:program "decode".outputs.attention
  if not seen and (look or replace or how.coverage_penalty > 0) then
    check.fail("predict: %s: the model's decoder has none", look and "attention"
      or replace and "replace_unk: attention" or "coverage_penalty: attention")
  end
  local batch = task.batch("predict", self.inputs, sequences)
  if not batch then return {}, look and {} or nil end
  for i, model in ipairs(models) do
    if model.copy ~= self.copy then
      check.fail("predict: ensemble: %d: it copies %s unknown symbols, the first model %s", i - 1,
        model.copy or "no", self.copy or "no")
    end
  end
  if self.copy then name_copies(self, batch, sequences, how) end
  local source = source_of(models, batch, limit, look or replace or how.coverage_penalty > 0)
  local shown = replace and shown_symbols(self, batch, sequences, source.lengths)
  local out, weights = {}, look and {} or nil
  local found = search.run(source, how)
  source.done()
  for b, list in ipairs(found) do
    for _, h in ipairs(list) do
      h.symbols = {}
      for i, id in ipairs(h.ids) do
        local unknown = replace and id == self.output.unk
        h.symbols[i] = unknown and shown[b][most_looked_at(h.looks[i])] or how.name(b, id)
      end
      if look then
        h.attention = core.tensor_from_string(table.concat(h.looks), { #h.ids, source.lengths[b] })
      end
      h.looks = nil
    end
    out[b] = options.all and list or list[1].symbols
    if look then weights[b] = list[1].attention end
  end
  return out, weights
end

local function is_list(x) return type(x) == "table" and not getmetatable(x) end

--- Error rates against references: the share of sequences that equal none of theirs (for spelling to
-- phonemes the word error rate), and edits to the closest one over its length.
-- @tab sequences inputs, each once
-- @tab references for each input a list of right outputs (lists of symbols; of words where the
--   output's symbols are subwords; of pieces, or what they are made of, where they are pieces)
-- @tab[opt] options as for @{predict}, but for `all`, `attention`, `prefix` and `filter`, and `size =
--   256`, how many at a time
-- @treturn tab `{ wer, per, n, hypotheses }`
function class:score(sequences, references, options)
  local allowed = {}
  for _, name in ipairs(names { "size", "max_length", "replace_unk" }) do
    if not per_sequence[name] then allowed[#allowed + 1] = name end
  end
  options = check.options("score", options, allowed)
  local size = check.integer("score", "size", options.size or 256, 1)
  local how = {}
  for name, value in pairs(options) do how[name] = name ~= "size" and value or nil end
  if not is_list(sequences) or not is_list(references) or #sequences ~= #references then
    check.fail("score: expected a list of sequences and as many references, came %s and %s",
      is_list(sequences) and #sequences or check.came(sequences),
      is_list(references) and #references or check.came(references))
  end
  for i, right in ipairs(references) do
    local bad = not (is_list(right) and #right > 0) and right
    for _, one in ipairs(bad and {} or right) do bad = bad or not is_list(one) and one end
    if bad then
      check.fail("score: references: entry %d: expected a list of right outputs, each a list of "
        .. "symbols, such as { { \"a\", \"b\" } }, came %s", i, check.came(bad))
    end
  end
  if self.output.split == "pieces" then
    local whole = { from = references.from }
    for i, right in ipairs(references) do
      whole[i] = {}
      for k, one in ipairs(right) do whole[i][k] = self.output:words(one) end
    end
    references = whole
  end
  local hypotheses = {}
  for from = 1, #sequences, size do
    local part = table.move(sequences, from, math.min(from + size - 1, #sequences), 1, {})
    for _, h in ipairs((self:predict(part, how))) do
      hypotheses[#hypotheses + 1] = self.output:words(h)
    end
  end
  local n, wer, per = #sequences, 0 / 0, 0 / 0 -- of nothing
  if n > 0 then
    wer = metrics.sequence_error_rate(hypotheses, references)
    per = metrics.symbol_error_rate(hypotheses, references)
  end
  return metrics.scores { wer = wer, per = per, n = n, hypotheses = hypotheses }
end

return setmetatable(class, { __call = function(_, options) return class.new(options) end })

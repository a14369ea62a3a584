--- Errors that point at the script: what the other modules check their arguments with.
-- @module neap.check
local core = require "neap.core"

-- Lines of the files beside this one are never named; the script's line that led there is.
local library = debug.getinfo(1, "S").source:match("^.*/") or "@check.lua"
core.library(library)

local check = {}

--- Is the function at that level of the stack, 1 being the caller, one of a script in Lua?
function check.is_script(level)
  local at = debug.getinfo(level + 1, "S")
  return at ~= nil and at.what ~= "C" and at.source:sub(1, #library) ~= library
end

-- "f32 [2,3]"
local function tensor_type(t) return ("%s [%s]"):format(t:dtype(), table.concat(t:shape(), ",")) end

--- A tensor?
function check.is_tensor(value)
  local meta = getmetatable(value)
  return type(value) == "userdata" and type(meta) == "table" and meta.__name == "neap.tensor"
end

--- A value in one line, for messages.
-- @param value
-- @treturn string
function check.came(value)
  local kind, meta = type(value), getmetatable(value)
  if kind == "string" then
    if #value > 40 then value = value:sub(1, (utf8.offset(value, 0, 38) or 38) - 1) .. ".." end
    return (("%q"):format(value):gsub("\\\n", "\\n"))
  elseif kind == "userdata" and meta and meta.__name == "neap.tensor" then
    local open, text = pcall(tensor_type, value)
    return open and text or "a closed tensor"
  elseif kind == "table" or kind == "userdata" then
    local name = type(meta) == "table" and meta.__name
    if not (meta and meta.__tostring) then return name or "a " .. kind end
    local ok, text = pcall(tostring, value)
    text = ok and text or name or "a " .. kind
    return text:match "[^\n]*"
  elseif kind == "function" then
    return "a function"
  end
  return tostring(value)
end

--- Raises at the script's line.
-- @string format as for `string.format`: *who: what was expected, what came, where*
-- @param ... its values
function check.fail(format, ...)
  local where = core.where()
  error((where and where .. ": " or "") .. format:format(...), 0)
end

-- What other libraries call our options; of several, the first that is known counts.
local usual = {}
for ours, theirs in pairs {
  rate = "lr learning_rate p prob dropout_rate sr sample_rate", size = "hidden hidden_size hidden_dim units "
    .. "num_units dim features out_features embedding_dim embed_dim embedding_size width "
    .. "batch_size max_size",
  activation = "nonlinearity act activation_fn", bias = "use_bias", eps = "epsilon",
  candidate = "cell_activation", gate = "recurrent_activation gate_activation inner_activation",
  forget_bias = "unit_forget_bias", reset = "reset_after linear_before_reset",
  peepholes = "use_peepholes peephole", projection = "proj_size num_proj", coupled = "input_forget",
  recurrent_dropout = "dropout_hh variational_dropout", layer_norm = "layernorm use_layer_norm",
  weight_decay = "l2 wd", clip = "cell_clip clip_norm grad_clip max_norm max_grad_norm clipnorm",
  clip_value = "clipvalue", decay = "rho alpha", merge = "merge_mode mode", params = "parameters",
  net = "network model layer layers", rng = "seed random_state",
  input = "vocab vocabulary num_embeddings vocab_size input_size input_dim in_features",
  output = "classes labels targets target", threads = "num_threads",
  init = "initializer kernel_initializer recurrent_initializer", first = "initial_state",
  state = "states", axis = "dim",
  keep = "keepdim keepdims", tokens = "max_tokens batch_tokens", merges = "num_merges",
  filters = "n_mels num_mel_bins mels nfilt", fft = "n_fft nfft", window = "win_length winlen",
  low = "fmin low_freq lowfreq", high = "fmax high_freq highfreq", hop = "hop_length winstep",
  coefficients = "n_mfcc num_ceps numcep", shape = "window_type winfunc",
  preemphasis = "preemph", order = "max_ngram_order n_gram", smoothing = "label_smoothing smooth_method",
  separator = "sep delimiter", missing = "na_values", samples = "n_resamples n_boot",
  level = "confidence_level", season = "m sp seasonality", folder = "dir root directory",
} do
  for name in theirs:gmatch "%S+" do
    usual[name] = usual[name] or {}
    table.insert(usual[name], ours)
  end
end

-- What is no option here, but a layer of its own.
local elsewhere = {
  layers = "layers one after the other are neap.chain { a, b }",
  dropout = "dropout is a layer of its own, neap.dropout { rate = .. }",
  bidirectional = "both directions are neap.bidir { layer }",
  return_sequences = "a layer gives y of all steps and its last states",
}
elsewhere.num_layers, elsewhere.n_layers, elsewhere.depth = elsewhere.layers, elsewhere.layers,
  elsewhere.layers
elsewhere.return_state = elsewhere.return_sequences

-- What a message about an unknown name ends with.
local function instead(name, names, known)
  for _, ours in ipairs(usual[name] or {}) do
    if known[ours] then return ("; here it is called \"%s\""):format(ours) end
  end
  if elsewhere[name] and known.size then return "; " .. elsewhere[name] end
  local near = core.nearest(name, names)
  if near then return ("; did you mean \"%s\"?"):format(near) end
  return #names > 0 and "; there are: " .. table.concat(names, ", ") or "; there are none"
end

--- Options by name: an unknown one raises and names the nearest known one.
-- @string who the function, for the message
-- @tab[opt] options
-- @tab names the known ones
-- @treturn tab options, or a new empty table
function check.options(who, options, names)
  if options == nil then return {} end
  if type(options) ~= "table" then
    check.fail("%s: expected a table of options, came %s", who,
      check.came(options))
  end
  local known = {}
  for _, name in ipairs(names) do known[name] = true end
  for name in pairs(options) do
    if type(name) ~= "string" then
      check.fail("%s: expected named options, came [%s]", who, tostring(name))
    elseif not known[name] then
      check.fail("%s: unknown option \"%s\"%s", who, name, instead(name, names, known))
    end
  end
  return options
end

--- An argument or option of a certain type.
-- @string who the function
-- @string name the argument
-- @param value
-- @string expected what `type` shall say
-- @return value
function check.type(who, name, value, expected)
  if type(value) ~= expected then
    check.fail("%s: %s: expected a %s, came %s", who, name, expected,
      check.came(value))
  end
  return value
end

--- A table that is no object: no layer, vocabulary or the like.
-- @string who the function
-- @string name the argument
-- @param value
-- @treturn tab value
function check.table(who, name, value)
  if type(value) ~= "table" or getmetatable(value) then
    check.fail("%s: %s: expected a table, came %s", who, name, check.came(value))
  end
  return value
end

--- A number from low to high: no NaN.
-- @string who the function
-- @string name the argument
-- @param value
-- @number[opt] low
-- @number[opt] high
-- @treturn number
function check.number(who, name, value, low, high)
  if type(value) ~= "number" or value - value ~= 0 or (low and value < low)
    or (high and value > high) then
    check.fail("%s: %s: expected a number%s%s, came %s", who, name,
      low and (" from %g"):format(low) or "", high and (" to %g"):format(high) or "",
      check.came(value))
  end
  return value
end

--- An option that is true or false.
-- @string who the function
-- @string name the option
-- @param value
-- @bool[opt] preset what nil stands for
-- @treturn bool
function check.boolean(who, name, value, preset)
  if value == nil then return preset or false end
  if type(value) ~= "boolean" then
    check.fail("%s: %s: expected true or false, came %s", who, name, check.came(value))
  end
  return value
end

--- An integer from low to high.
-- @string who the function
-- @string name the argument
-- @param value
-- @int[opt] low
-- @int[opt] high
-- @treturn int
function check.integer(who, name, value, low, high)
  local whole = type(value) == "number" and math.tointeger(value)
  if not whole or (low and whole < low) or (high and whole > high) then
    check.fail("%s: %s: expected an integer%s%s, came %s", who, name,
      low and (" from %d"):format(low) or "", high and (" to %d"):format(high) or "",
      check.came(value))
  end
  return whole
end

--- The first nil in a list before something that is none.
-- @tab list
-- @treturn ?int where it is; nil if there is none
-- @treturn ?int what is next behind it
function check.hole(list)
  if getmetatable(list) then return nil end
  local n, after = 0, nil
  for i in ipairs(list) do n = i end
  if n == #list and next(list, n > 0 and n or nil) == nil then return nil end
  for key in next, list do
    if math.type(key) == "integer" and key > n and (not after or key < after) then after = key end
  end
  return after and n + 1, after
end

--- A list without a hole: what stands behind a nil would be passed over.
-- @string who the function and what the list is
-- @tab list
-- @treturn tab list
function check.list(who, list)
  local hole, after = check.hole(list)
  if hole then check.fail("%s: [%d] is nil, but there is a [%d]", who, hole, after) end
  return list
end

--- Raises if what a method is called on is not of its kind: a dot for a colon.
-- @string kind of the objects: the metatable's `__name` is "neap." and that
-- @string name of the method
-- @param self
-- @string[opt=kind] object what it is called in a script
function check.self(kind, name, self, object)
  local meta = getmetatable(self)
  if type(meta) ~= "table" or meta.__name ~= "neap." .. kind then
    check.fail("%s.%s: expected %s %s first, came %s: call it with a colon, %s:%s(..)", kind, name,
      kind:find "^[aeiouhn]" and "an" or "a", kind, check.came(self), object or kind, name)
  end
end

--- A method that checks so.
-- @string kind
-- @string name
-- @func method
-- @string[opt=kind] object
-- @treturn func
function check.method(kind, name, method, object)
  local full = "neap." .. kind
  return function(self, ...)
    local meta = getmetatable(self)
    if type(meta) ~= "table" or meta.__name ~= full then check.self(kind, name, self, object) end
    return method(self, ...)
  end
end

--- Makes each function of a table such a method.
-- @string kind
-- @tab methods name -> function
-- @tab[opt] but names of those that see to it themselves, because they are called symbol by symbol
function check.methods(kind, methods, but)
  for name, method in pairs(methods) do
    if type(method) == "function" and not (but and but[name]) then
      methods[name] = check.method(kind, name, method)
    end
  end
end

--- A source of chance, if there is one; or there must be one.
-- @string who
-- @param rng
-- @bool[opt] needed
function check.rng(who, rng, needed)
  if (needed or rng ~= nil) and (type(rng) ~= "table" or type(rng.shuffle) ~= "function") then
    check.fail("%s: rng: expected a source of chance such as neap.rng(17), came %s", who,
      check.came(rng))
  end
  return rng
end

return check

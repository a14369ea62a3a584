--- What the probabilities of connectionist temporal classification read as, with several answers and
-- their scores, and where in time the labels are. (The program of a model has `op.ctc_decode`, which
-- gives one answer, also without Lua.)
--
-- All take log_p, ln P of the classes at each step: a list of lists, of which the last class is the
-- blank. Labels are classes, from 1.
-- @module neap.ctc
local check = require "neap.check"

local ctc = {}

local NONE = -math.huge

-- ln(e^a + e^b)
local function both(a, b)
  local top, low = math.max(a, b), math.min(a, b)
  return top > NONE and top + math.log(1 + math.exp(low - top)) or NONE
end

--- The likeliest class of each step, read: repeats are dropped, then blanks.
-- @tab log_p
-- @treturn {int,...} labels
function ctc.greedy(log_p)
  local labels, last = {}, nil
  for _, row in ipairs(log_p) do
    local best = 1
    for v = 2, #row do
      if row[v] > row[best] then best = v end
    end
    if best ~= last and best ~= #row then labels[#labels + 1] = best end
    last = best
  end
  return labels
end

--- Prefix beam search (Graves 2012, section 7.5; Hannun et al. 2014).
-- @tab log_p
-- @int beam how many prefixes are kept, from 1
-- @treturn tab the prefixes that are left, the likeliest first: `{ ids, log_probability }`; with a
--   beam that leaves none out, ln P is that of all ways to read the labels: -op.ctc
function ctc.beam(log_p, beam)
  check.integer("ctc.beam", "beam", beam, 1)
  -- a prefix: its last label and the prefix before it; ln P of the paths that read so and end in a
  -- blank, in the label, of both; `next`: what it becomes by a label, once made
  local root = { length = 0, next = {} }
  local now = { root }
  root.blank, root.label, root.total = 0, NONE, 0
  for _, row in ipairs(log_p) do
    local blank, sums, order, least = #row, {}, {}, math.huge
    local function add(prefix, in_blank, in_label)
      local sum = sums[prefix]
      if not sum then
        sum = { NONE, NONE }
        sums[prefix], order[#order + 1] = sum, prefix
      end
      sum[1], sum[2] = both(sum[1], in_blank), both(sum[2], in_label)
    end
    for _, prefix in ipairs(now) do -- as they are: a blank, or the last label again
      local in_blank, in_label = prefix.total + row[blank],
        prefix.id and prefix.label + row[prefix.id] or NONE
      add(prefix, in_blank, in_label)
      least = math.min(least, both(in_blank, in_label))
    end
    if #now < beam then least = NONE end -- what is less likely than all of these has no place
    for _, prefix in ipairs(now) do -- longer by a label
      for id = 1, blank - 1 do
        local p = (id == prefix.id and prefix.blank or prefix.total) + row[id]
        local longer = prefix.next[id]
        if p > least or p > NONE and longer and sums[longer] then
          if not longer then
            longer = { id = id, before = prefix, length = prefix.length + 1, next = {} }
            prefix.next[id] = longer
          end
          add(longer, NONE, p)
        end
      end
    end
    for k, prefix in ipairs(order) do
      prefix.place, prefix.blank, prefix.label = k, table.unpack(sums[prefix])
      prefix.total = both(prefix.blank, prefix.label)
    end
    table.sort(order, function(a, b)
      if a.total ~= b.total then return a.total > b.total end
      return a.place < b.place
    end)
    now = table.move(order, 1, math.min(beam, #order), 1, {})
  end
  local out = {}
  for k, prefix in ipairs(now) do
    local ids, at = {}, prefix
    while at.id do ids[at.length], at = at.id, at.before end
    out[k] = { ids = ids, log_probability = prefix.total }
  end
  return out
end

--- Where labels are in time: the likeliest of all paths that read as them (by Viterbi).
-- @tab log_p
-- @tab labels
-- @treturn ?{int,...} of each step which of the labels, from 1, it is in; 0: in none. nil where no path
--   reads so: there are too few steps, or the probability is 0
function ctc.align(log_p, labels)
  local states, best, from = 2 * #labels + 1, {}, {}
  for s = 1, states do best[s] = s == 1 and 0 or NONE end
  for t, row in ipairs(log_p) do
    local was = best
    best, from[t] = {}, {}
    for s = 1, states do
      local label = s % 2 == 0 and labels[s // 2]
      local top = s
      if s > 1 and was[s - 1] > was[top] then top = s - 1 end
      if s > 2 and label and label ~= labels[s // 2 - 1] and was[s - 2] > was[top] then
        top = s - 2
      end
      if t == 1 then top = s == 2 and 1 or s end
      best[s], from[t][s] = was[top] + row[label or #row], top
    end
  end
  local s = states > 1 and best[states - 1] > best[states] and states - 1 or states
  if best[s] == NONE then return nil end
  local path = {}
  for t = #log_p, 1, -1 do
    path[t] = s % 2 == 0 and s // 2 or 0
    s = from[t][s]
  end
  return path
end

return ctc

--- Alignment of two sequences of which one is written from the other, symbol by symbol: which
-- phonemes each letter of a word stands for. Each symbol of the source gives a piece of the target,
-- 0 to `most` symbols that stand side by side; P(piece | symbol) is learned from pairs alone, by
-- expectation and maximization over all ways to cut the target (Dempster et al. 1977; Ristad and
-- Yianilos 1998; Jiampojamarn et al. 2007, "Applying many-to-many alignments and hidden Markov
-- models to letter-to-phoneme conversion"). What @{neap.corpus} aligns with.
-- @module neap.align
local align = {}

--- A pair of which the lengths of both, multiplied, are more is left out: it would take too much memory.
align.cells = 1 << 20

-- A pair is { x, y }, lists of numbers from 1. The piece of y that begins after place j and has k
-- symbols is a number too: its symbols as digits to the base `base`; 0 is the empty piece.
local function pieces_of(y, most, base)
  local pieces = {}
  for j = 0, #y do
    local row, piece = { [0] = 0 }, 0
    for k = 1, math.min(most, #y - j) do
      piece = piece * base + y[j + k]
      row[k] = piece
    end
    pieces[j] = row
  end
  return pieces
end

-- Can it be cut at all, and in a table of a size that any machine has?
local function fits(pair, most)
  local n, m = #pair[1], #pair[2]
  return m <= most * n and n * m <= align.cells
end

-- The places 0..#y where piece i of x can end so that all of y is used.
local function band(i, n, m, most)
  return math.max(0, m - most * (n - i)), math.min(m, most * i)
end

-- ln P(y | x), nil if that is 0; expected counts of the pieces are added to `counts`. Rabiner's
-- forward and backward recursion over the places, each row of both over the sum c(i) of the forward
-- one, so that no length is too long for floats (Rabiner 1989, section V.A); a place whose share is
-- less than `least` is not passed, which keeps b in their range too:
-- a(i,j) ~ P(y_1..y_j | x_1..x_i), b(i,j) ~ P(y_j+1.. | x_i+1..), ln P = sum of ln c(i).
local least = 1e-200
local function expect(pair, p, most, base, counts)
  local x, y = pair[1], pair[2]
  local n, m = #x, #y
  local pieces, a, c, log = pieces_of(y, most, base), { [0] = { [0] = 1 } }, {}, 0
  for i = 1, n do
    local row, of, before, all = {}, p[x[i]], a[i - 1], 0
    local low, high = band(i, n, m, most)
    for j = low, high do
      local sum = 0
      for k = 0, math.min(most, j) do
        local v = before[j - k]
        if v then sum = sum + v * (of[pieces[j - k][k]] or 0) end
      end
      row[j], all = sum, all + sum
    end
    if all <= 0 then return end
    for j = low, high do row[j] = row[j] > least * all and row[j] / all or 0 end
    a[i], c[i], log = row, all, log + math.log(all)
  end
  local after = { [m] = 1 }
  for i = n, 1, -1 do
    local row, of, before, count = {}, p[x[i]], a[i - 1], counts[x[i]]
    local low, high = band(i - 1, n, m, most)
    for j = low, high do
      local sum, v, own = 0, before[j], pieces[j]
      for k = 0, v > 0 and math.min(most, m - j) or -1 do
        local b = after[j + k]
        if b then
          local piece = own[k]
          local share = (of[piece] or 0) * b / c[i]
          sum = sum + share
          count[piece] = (count[piece] or 0) + v * share
        end
      end
      row[j] = sum
    end
    after = row
  end
  return log
end

-- The likeliest way to cut y, as the lengths of the pieces; nil if there is none (Viterbi 1967). Of
-- ways that are as likely, such as whose the sound of a double letter is, that in which pieces come
-- as early as they can, in every word alike: what differs by rounding alone is as likely.
local function best(pair, logs, most, base)
  local x, y = pair[1], pair[2]
  local n, m = #x, #y
  local pieces, before, back = pieces_of(y, most, base), { [0] = 0 }, {}
  for i = 1, n do
    local row, from, of = {}, {}, logs[x[i]]
    local low, high = band(i, n, m, most)
    for j = low, high do
      for k = 0, math.min(most, j) do
        local v, l = before[j - k], of[pieces[j - k][k]]
        if v and l and (not row[j] or v + l > row[j] + 1e-9) then row[j], from[j] = v + l, k end
      end
    end
    before, back[i] = row, from
  end
  if not before[m] then return end
  local lengths, j = {}, m
  for i = n, 1, -1 do
    lengths[i] = back[i][j]
    j = j - lengths[i]
  end
  return lengths
end

-- At first all lengths of a piece are as likely, and all pieces of a length.
local function even(most, base)
  local shares = {}
  for k = 0, most do shares[k] = 1 / (most + 1) / (base - 1) ^ k end
  return setmetatable({}, { __index = function(_, piece)
    local k = 0
    while piece > 0 do k, piece = k + 1, piece // base end
    return shares[k]
  end })
end

--- Learns the probabilities and cuts each target.
-- @tab list a list of `{ x, y }`, lists of ids from 1
-- @tab options `sources`, `targets`: how many symbols there are; `most`; `iterations`;
--   `sequences`: learn from so many at most, spread evenly; `each(done, all)`: called with how many
--   pairs, of all passes together, are done
-- @treturn tab for each pair the lengths of its pieces, or false where there is no way to cut it
-- @treturn ?number mean -ln P of a target that it learned from, before the last change
function align.fit(list, options)
  local most, base = options.most, options.targets + 1
  local p = {}
  for s = 1, options.sources do p[s] = even(most, base) end
  local every = math.max(1, (#list + options.sequences - 1) // options.sequences)
  local done, all = 0, options.iterations * ((#list + every - 1) // every) + #list
  local function one_more()
    done = done + 1
    options.each(done, all)
  end
  local nats
  for _ = 1, options.iterations do
    local counts, total, n = {}, 0, 0
    for s = 1, options.sources do counts[s] = {} end
    for i = 1, #list, every do
      local pair = list[i]
      if fits(pair, most) then
        local l = expect(pair, p, most, base, counts)
        if l then total, n = total - l, n + 1 end
      end
      one_more()
    end
    nats = n > 0 and total / n or nil
    for _, count in ipairs(counts) do
      local sum = 0
      for _, c in pairs(count) do sum = sum + c end
      for piece, c in pairs(count) do count[piece] = c > 0 and c / sum or nil end
    end
    p = counts
  end
  -- A pair that it did not learn from may need a piece that it has not seen, but for a thousandth
  -- of a millionth of the chances.
  local logs, unseen = {}, math.log(1e-9)
  for s, of in ipairs(p) do
    logs[s] = setmetatable({}, { __index = function() return unseen end })
    for piece, q in pairs(of) do logs[s][piece] = math.log(q) end
  end
  local out = {}
  for i, pair in ipairs(list) do
    out[i] = fits(pair, most) and best(pair, logs, most, base) or false
    one_more()
  end
  return out, nats
end

return align

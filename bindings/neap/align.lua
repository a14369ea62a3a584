--- Alignment of two sequences of which one is written from the other, symbol by symbol: which
-- phonemes each letter of a word stands for. Each symbol of the source gives a piece of the target,
-- 0 to `most` symbols that stand side by side; P(piece | symbol) is learned from pairs alone, by
-- expectation and maximization over all ways to cut the target (Dempster et al. 1977; Ristad and
-- Yianilos 1998; Jiampojamarn et al. 2007, "Applying many-to-many alignments and hidden Markov
-- models to letter-to-phoneme conversion"). What @{neap.corpus} aligns with.
-- @module neap.align
local align = {}

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

-- The places 0..#y where piece i of x can end so that all of y is used.
local function band(i, n, m, most) return math.max(0, m - most * (n - i)), math.min(m, most * i) end

-- ln P(y | x); expected counts of the pieces are added to `counts`. Rabiner's forward and backward
-- recursion over the places: a(i,j) = P(y_1..y_j | x_1..x_i), b(i,j) = P(y_j+1.. | x_i+1..).
local function expect(pair, p, most, base, counts)
  local x, y = pair[1], pair[2]
  local n, m = #x, #y
  local pieces, a = pieces_of(y, most, base), { [0] = { [0] = 1 } }
  for i = 1, n do
    local row, of, before = {}, p[x[i]], a[i - 1]
    local low, high = band(i, n, m, most)
    for j = low, high do
      local sum = 0
      for k = 0, math.min(most, j) do
        local v = before[j - k]
        if v then sum = sum + v * (of[pieces[j - k][k]] or 0) end
      end
      row[j] = sum
    end
    a[i] = row
  end
  local whole = a[n][m]
  if whole <= 0 then return end -- nothing is left of it in floats, either
  local after = { [m] = 1 }
  for i = n, 1, -1 do
    local row, of, before, count = {}, p[x[i]], a[i - 1], counts[x[i]]
    local low, high = band(i - 1, n, m, most)
    for j = low, high do
      local sum, v, own = 0, before[j] / whole, pieces[j]
      for k = 0, math.min(most, m - j) do
        local b = after[j + k]
        if b then
          local piece = own[k]
          local share = (of[piece] or 0) * b
          sum = sum + share
          count[piece] = (count[piece] or 0) + v * share
        end
      end
      row[j] = sum
    end
    after = row
  end
  return math.log(whole)
end

-- The likeliest way to cut y, as the lengths of the pieces; nil if there is none (Viterbi 1967).
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
        if v and l and (not row[j] or v + l > row[j]) then row[j], from[j] = v + l, k end
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
-- @tab options `sources`, `targets`: how many symbols there are; `most`; `iterations`; `sequences`:
--   learn from about so many, spread evenly; `each(done)`: called with how many pairs, of all
--   passes together, are done
-- @treturn tab for each pair the lengths of its pieces, or false where there is no way to cut it
-- @treturn number -ln P of the targets that it learned from, per pair, before the last change
function align.fit(list, options)
  local most, base = options.most, options.targets + 1
  local p = {}
  for s = 1, options.sources do p[s] = even(most, base) end
  local every = math.max(1, #list // options.sequences)
  local done, nats = 0, nil
  local function one_more()
    done = done + 1
    options.each(done)
  end
  for _ = 1, options.iterations do
    local counts, total, n = {}, 0, 0
    for s = 1, options.sources do counts[s] = {} end
    for i = 1, #list, every do
      local pair = list[i]
      if #pair[2] <= most * #pair[1] then
        local l = expect(pair, p, most, base, counts)
        if l then total, n = total - l, n + 1 end
      end
      one_more()
    end
    nats = n > 0 and total / n or 0
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
    out[i] = #pair[2] <= most * #pair[1] and best(pair, logs, most, base) or false
    one_more()
  end
  return out, nats
end

return align

--- Subwords by byte pair encoding (Sennrich, Haddow and Birch 2016, "Neural machine translation of
-- rare words with subword units"): a word begins as its characters and a blank, its end; the pair
-- of symbols that comes most often in the data becomes one symbol, again and again. A word is cut
-- by the same merges in the same order. What vocabularies are made of; see @{neap.vocab.bpe}.
-- @module neap.bpe
local bpe = {}

--- The symbol that ends a word. It is in no word, and it is what stands between two in a text.
bpe.stop = " "

-- A pair of ids as one number.
local function pair(a, b) return a << 31 | b end

--- Strings by their bytes, whatever the locale.
-- @string a
-- @string b
-- @treturn bool a comes first
function bpe.before(a, b)
  local n = math.min(#a, #b)
  for i = 1, n do
    local x, y = a:byte(i), b:byte(i)
    if x ~= y then return x < y end
  end
  return #a < #b
end

-- A heap of { count, pair }, first what comes first.
local function heap(first)
  local counts, pairs_of, n = {}, {}, 0
  local self = {}
  function self.push(count, key)
    n = n + 1
    local i = n
    while i > 1 do
      local up = i >> 1
      if not first(count, key, counts[up], pairs_of[up]) then break end
      counts[i], pairs_of[i] = counts[up], pairs_of[up]
      i = up
    end
    counts[i], pairs_of[i] = count, key
  end
  function self.pop()
    if n == 0 then return end
    local top, top_pair = counts[1], pairs_of[1]
    local count, key, i = counts[n], pairs_of[n], 1
    counts[n], pairs_of[n] = nil, nil
    n = n - 1
    while n > 0 do
      local down = 2 * i
      if down > n then break end
      if down < n and first(counts[down + 1], pairs_of[down + 1], counts[down], pairs_of[down]) then
        down = down + 1
      end
      if not first(counts[down], pairs_of[down], count, key) then break end
      counts[i], pairs_of[i] = counts[down], pairs_of[down]
      i = down
    end
    if n > 0 then counts[i], pairs_of[i] = count, key end
    return top, top_pair
  end
  return self
end

--- Finds the merges. Of pairs that come as often, the one whose first symbol, then whose second,
-- comes first by its bytes. Counts are kept up to date: a merge costs what the words with its pair
-- do.
-- @tab symbols a list that begins with all characters of the words; what is merged is appended
-- @tab words lists of ids into it, from 1; they are changed
-- @tab times how often each word comes
-- @tab limits `merges`: so many at most; `size`: symbols at most; `min`: a pair comes at least so
--   often
-- @treturn {int,...} first and second id of each merge, one after the other
function bpe.learn(symbols, words, times, limits)
  local ids = {}
  for id, symbol in ipairs(symbols) do ids[symbol] = id end
  local byte_order = os.setlocale(nil, "collate") == "C" and function(a, b) return a < b end
    or bpe.before
  local counts, where, known = {}, {}, {}
  local waiting = heap(function(count, key, other, other_key)
    if count ~= other then return count > other end
    local a, b = symbols[key >> 31], symbols[other_key >> 31]
    if a ~= b then return byte_order(a, b) end
    return byte_order(symbols[key & 0x7FFFFFFF], symbols[other_key & 0x7FFFFFFF])
  end)
  -- Counts the pairs of a word, by times 1 or -1; new: a set that takes those that came.
  local function count(w, by, new)
    local word, n = words[w], by * times[w]
    for i = 1, #word - 1 do
      local key = pair(word[i], word[i + 1])
      counts[key] = (counts[key] or 0) + n
      if new then
        local list = where[key]
        if not list then
          list = {}
          where[key] = list
        end
        list[w] = true
        new[key] = true
      end
    end
  end
  -- What has grown goes into the heap; what has shrunk is found there too high, and goes back.
  local function wait(new)
    for key in pairs(new) do
      if counts[key] > (known[key] or 0) then
        known[key] = counts[key]
        waiting.push(counts[key], key)
      end
    end
  end

  local new = {}
  for w in ipairs(words) do count(w, 1, new) end
  wait(new)
  local merges = {}
  while #merges < 2 * (limits.merges or math.huge) do
    local most, key = waiting.pop()
    if not key then break end
    local now = counts[key]
    if now < limits.min then
      known[key] = 0
    elseif now < most then -- it shrank
      known[key] = now
      waiting.push(now, key)
    elseif known[key] == now then -- else it came twice
      local a, b = key >> 31, key & 0x7FFFFFFF
      local text = symbols[a] .. symbols[b]
      if not ids[text] then
        if limits.size and #symbols >= limits.size then break end
        symbols[#symbols + 1] = text
        ids[text] = #symbols
      end
      merges[#merges + 1], merges[#merges + 2] = a, b
      local made
      new, made = {}, ids[text]
      for w in pairs(where[key]) do
        count(w, -1)
        local word, out, i = words[w], {}, 1
        while i <= #word do
          if word[i] == a and word[i + 1] == b then
            out[#out + 1] = made
            i = i + 2
          else
            out[#out + 1] = word[i]
            i = i + 1
          end
        end
        words[w] = out
        count(w, 1, new)
      end
      where[key], known[key] = nil, 0
      wait(new)
    end
  end
  return merges
end

local KEPT = 1 << 16 -- words that a cutter remembers

--- Cuts words into symbols.
-- @tab symbols
-- @tab index symbol -> id
-- @tab merges as @{learn} gives them
-- @func unknown(character) gives a list of ids for what is no symbol
-- @treturn func of a word, which may be no UTF-8: gives a list of ids, not to be changed
function bpe.cutter(symbols, index, merges, unknown)
  local rank, made = {}, {}
  for k = 1, #merges, 2 do
    local key = pair(merges[k], merges[k + 1])
    if not rank[key] then
      rank[key], made[key] = k, index[symbols[merges[k]] .. symbols[merges[k + 1]]]
    end
  end
  local cache, kept = {}, 0
  return function(word)
    local out = cache[word]
    if out then return out end
    out = {}
    local i = 1
    while i <= #word do
      local valid = utf8.len(word, i, i, true)
      local stop = valid and utf8.offset(word, 2, i) or i + 1
      local id = index[word:sub(i, stop - 1)]
      if id then
        out[#out + 1] = id
      else
        for _, one in ipairs(unknown(word:sub(i, stop - 1))) do out[#out + 1] = one end
      end
      i = stop
    end
    out[#out + 1] = index[bpe.stop]
    while true do
      local best, key
      for k = 1, #out - 1 do
        local here = pair(out[k], out[k + 1])
        local r = rank[here]
        if r and (not best or r < best) then best, key = r, here end
      end
      if not best then break end
      local a, b, joined, k = key >> 31, key & 0x7FFFFFFF, {}, 1
      while k <= #out do
        if out[k] == a and out[k + 1] == b then
          joined[#joined + 1] = made[key]
          k = k + 2
        else
          joined[#joined + 1] = out[k]
          k = k + 1
        end
      end
      out = joined
    end
    if kept == KEPT then cache, kept = {}, 0 end
    cache[word], kept = out, kept + 1
    return out
  end
end

return bpe

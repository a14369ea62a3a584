--- The only source of chance: the same seed gives the same numbers on every machine.
-- xoshiro256** (Blackman and Vigna 2021, "Scrambled linear pseudorandom number generators"), its
-- state filled by SplitMix64 (Steele, Lea and Flood 2014).
-- @module neap.rng
local check = require "neap.check"

local rng = {}
local methods = {}
local meta = { __index = methods, __name = "neap.rng" }

local function splitmix(x)
  x = x + 0x9e3779b97f4a7c15
  local z = (x ~ (x >> 30)) * 0xbf58476d1ce4e5b9
  z = (z ~ (z >> 27)) * 0x94d049bb133111eb
  return x, z ~ (z >> 31)
end

local function seeded(seed)
  local self = {}
  for i = 1, 4 do seed, self[i] = splitmix(seed) end
  return setmetatable(self, meta)
end

local function draw(self)
  local a, b, c, d = self[1], self[2], self[3], self[4]
  local x = b * 5
  x = ((x << 7) | (x >> 57)) * 9
  c = c ~ a
  d = d ~ b
  self[1], self[2] = a ~ d, b ~ c
  self[3], self[4] = c ~ (b << 17), (d << 45) | (d >> 19)
  return x
end

--- A generator.
-- @int seed any integer
-- @treturn rng
function rng.new(seed)
  return seeded(check.integer("rng", "seed", seed))
end

--- A whole number, each equally likely.
-- @int n at least 1
-- @treturn int 1 to n
function methods:int(n)
  n = check.integer("rng:int", "n", n, 1)
  local mask = n - 1
  for shift = 0, 5 do mask = mask | (mask >> (1 << shift)) end
  local x
  repeat x = (draw(self) >> 1) & mask until x < n
  return x + 1
end

--- A number in [0,1), a multiple of 2^-53.
-- @treturn number
function methods:uniform()
  return (draw(self) >> 11) * 0x1p-53
end

--- A normally distributed number, mean 0, deviation 1 (Box and Muller 1958).
-- @treturn number
function methods:normal()
  local radius = math.sqrt(-2 * math.log(1 - self:uniform()))
  return radius * math.cos(2 * math.pi * self:uniform())
end

--- Puts a list into random order, in place (Fisher and Yates).
-- @tab list
-- @treturn tab the same list
function methods:shuffle(list)
  check.type("rng:shuffle", "list", list, "table")
  for i = #list, 2, -1 do
    local j = self:int(i)
    list[i], list[j] = list[j], list[i]
  end
  return list
end

--- A fresh 64-bit integer, for what draws its own numbers.
-- @treturn int
function methods:seed()
  return draw(self)
end

--- A generator of its own for a part of the work. Depends on the present state and the name, and
-- leaves this generator as it was: parts may come and go without changing each other's numbers.
-- @string name
-- @treturn rng
function methods:fork(name)
  check.type("rng:fork", "name", name, "string")
  local hash = 0xcbf29ce484222325 -- FNV-1a, 64 bits
  for i = 1, #name do hash = (hash ~ name:byte(i)) * 0x100000001b3 end
  for i = 1, 4 do
    local _, mixed = splitmix(hash ~ self[i])
    hash = mixed
  end
  return seeded(hash)
end

--- The state, to go on from later.
-- @treturn string 64 hexadecimal digits
function methods:state()
  return ("%016x%016x%016x%016x"):format(self[1], self[2], self[3], self[4])
end

--- Goes back to a state.
-- @string state what `state` gave
-- @treturn rng itself
function methods:restore(state)
  if type(state) ~= "string" or #state ~= 64 or state:find("%X") or not state:find("[^0]") then
    check.fail("rng:restore: expected 64 hexadecimal digits, came %s", check.came(state))
  end
  for i = 1, 4 do self[i] = math.tointeger(tonumber(state:sub(16 * i - 15, 16 * i), 16)) end
  return self
end

function meta:__tostring() return "rng " .. self:state() end

return setmetatable(rng, { __call = function(_, seed) return rng.new(seed) end })

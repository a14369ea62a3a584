--- Jordan network (Jordan 1986): the state is the previous output. A cell of the library's own,
-- written as a script would write it.
-- @module neap.jordan
local check = require "neap.check"
local op = require "neap.op"
local activation = require "neap.layer".activation_of

--- h = act(W x + U y' + b), y = out(V h + d).
-- @function jordan
-- @tab options `{ size = hidden units, output = width of y, activation = "tanh", out = "sigmoid",
--   bias = true }`
return require "neap.cell" {
  name = "jordan",
  defaults = { activation = "tanh", out = "sigmoid", bias = true },
  params = function(p, c)
    check.boolean("jordan", "bias", c.bias)
    p.weight_ih = { c.size, c.input }
    p.weight_oh = { c.size, c.output }
    p.weight_ho = { c.output, c.size }
    if c.bias then
      p.bias_h = { c.size, init = "zeros" }
      p.bias_o = { c.output, init = "zeros" }
    end
  end,
  state = function(c) return { y = c.output } end,
  step = function(p, x, s, _, c)
    local act = activation("jordan: activation", c.activation)
    local out = activation("jordan: out", c.out)
    local h = act(op.linear(x, p.weight_ih, c.bias and p.bias_h) + op.linear(s.y, p.weight_oh))
    local y = out(op.linear(h, p.weight_ho, c.bias and p.bias_o))
    return y, { y = y }
  end,
}

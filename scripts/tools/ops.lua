-- Prints docs/ops.md: the table of ops as the C library has it.
local core = require "neap.core"
local written = getmetatable(require "neap.op").written

local function cell(text) return (text:gsub("|", "\\|"):gsub("[*_]", "\\%0")) end

print [[
# The ops

Made by `make docs` from the library's own table.

On recorded values an op appends a node; on tensors and numbers it runs at once. Operators do the
same: `a + b`, `a - b`, `a * b`, `a / b`, `a ^ b`, `-a`. Operands are broadcast against each other:
the last dimensions are aligned, and a dimension of 1 is repeated.

The options are the library's, and so they stand in C and in `print(program)`. In Lua they follow
the inputs, or stand by name in a last table: `op.slice(x, 2, 3)` or
`op.slice(x, { from = 2, to = 3 })`. There axes, `from` and `to` count from 1: this takes the
elements 2 and 3. Switches (`keep`, `transpose_a`, `reset_before`) are true or false, and false if
left out. An op without a form in Lua here takes its inputs and nothing else.

h' is the state of the step before. *time*: mixes time steps, so that it cannot stand inside a
cell's step. *future*: reads later steps, so that a program with it cannot be streamed. *no
gradient*: none flows back.

| op | inputs | options | in Lua | computes | |
|---|---|---|---|---|---|]]

for i = 1, math.huge do
  local op = core.op_info(i)
  if not op then break end
  local inputs = op.min_inputs == op.max_inputs and tostring(op.min_inputs)
    or ("%d to %d"):format(op.min_inputs, op.max_inputs)
  local notes = {}
  if op.mixes_time then notes[#notes + 1] = op.reads_future and "time, future" or "time" end
  if not op.differentiable then notes[#notes + 1] = "no gradient" end
  local lua = written[op.name]
  lua = lua and ("`op.%s(%s, %s)`"):format(op.name, table.concat(lua.inputs, ", "),
    table.concat(lua.options, ", ")) or ""
  print(("| `%s` | %s | %s | %s | %s | %s |"):format(op.name, inputs,
    cell(table.concat(op.attrs, ", ")), lua, cell(op.formula), table.concat(notes, ", ")))
end

print [[

On top of these, [neap.op](../bindings/neap/op.lua) has `op.cross_entropy`, `op.mse`, `op.mae`,
`op.huber` and `op.binary_cross_entropy`, which average over all rows that count, `op.affine`,
`op.scaled_tanh`, `op.thresholded_relu`, `op.split`, and `op.watch`.]]

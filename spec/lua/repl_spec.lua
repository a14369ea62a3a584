-- The prompt with the library: what it shows, and that it goes on after whatever happens.

local function shell(command)
  local pipe = assert(io.popen("{ " .. command .. "; } 2>&1", "r"))
  local text = pipe:read "a"
  local _, _, status = pipe:close()
  return text, status
end

--- What the prompt prints for lines of input through a pipe: output, errors.
local function feed(input)
  local path = os.tmpname()
  local file = assert(io.open(path, "w"))
  file:write(input)
  file:close()
  local err_path = os.tmpname()
  local out = shell(("scripts/neap <%s 2>%s"):format(path, err_path))
  file = assert(io.open(err_path))
  local err = file:read "a"
  file:close()
  os.remove(path)
  os.remove(err_path)
  return out, err
end

describe("the prompt", function()
  it("computes on tensors at once and shows them", function()
    local out, err = feed [[
op.tanh(neap.tensor{{1,2}})
t = neap.tensor{1, 2} * 2 + 1
t, #t
print(t)
neap.grad(function(x) return op.sum(x * x) end, t)
]]
    assert.equal("", err)
    assert.equal([[
f32 [1,2]
  0.7616  0.9640
f32 [2]
  3  5
2
f32 [2]
  3  5
34.0
f32 [2]
   6  10
]], out)
  end)

  it("shows layers, programs, tasks, tables", function()
    local out, err = feed [[
neap.chain{ neap.embed{ size = 3 }, neap.bidir{ neap.gru{ size = 2 } } }
neap.program(function(rec) return op.tanh(rec:input("x", { space = "T", dims = { 2 } })) end)
{ loss = 0.5, list = { 1, "two" } }
neap.vocab.new{ "a", "b", unk = true }
v = neap.vocab.new{ "a", "b" }
net = neap.chain{ neap.embed{ size = 2 }, neap.elman{ size = 1 } }
neap.seq2class{ input = v, output = v, net = net }
]]
    assert.equal("", err)
    assert.equal([[
chain
  1 embed size=3
  2 bidir
    1 gru size=2 (fused)
    2 gru size=2 (fused)
%0 = input 'x'  [T,B,2]  stdin:1
%1 = tanh %0  [T,B,2]
output 'output' %1
{ list = { 1, "two" }, loss = 0.5 }
vocab of 3 symbols: unk <unk>
seq2class
  net: chain
    1 embed size=2
    2 elman size=1 (fused)
  net.chain.embed1.weight                  [2,2]
  net.chain.elman2.weight_ih               [1,2]
  net.chain.elman2.weight_hh               [1,1]
  net.chain.elman2.bias_ih                 [1]
  net.chain.elman2.bias_hh                 [1]
  net.linear.weight                        [2,1]
  net.linear.bias                          [2]
  13 parameters
]], out)
  end)

  it("tells errors in the user's own lines and goes on", function()
    local out, err = feed [[
neap.lstm{ sise = 3 }
function f() local l = neap.lstm{ size = "big" } return l end
f()
neap.ltsm
op.matmul(neap.tensor{{1,2}}, neap.tensor{{1,2}})
neap.tensor{1,2}[4]
"alive"
]]
    assert.equal('"alive"\n', out)
    assert.matches('lstm: unknown option "sise"; did you mean "size"?\n', err, 1, true)
    assert.matches('stdin:1: lstm: size: expected an integer from 1, came "big"\n'
      .. "stack traceback:\n\tstdin:1: in function 'f'\n", err, 1, true)
    assert.matches("there is no neap.ltsm; did you mean neap.lstm?\n", err, 1, true)
    assert.matches("matmul: inner widths differ", err, 1, true)
    assert.matches("index 1: 4 is out of 1..2 in f32 [2]\n", err, 1, true)
    assert.is_nil(err:find("bindings/neap", 1, true))
  end)

  it("ends a run in C on Ctrl-C and can use it again", function()
    local out, err = feed [[
net = neap.lstm{ size = 512 }
function build(rec) return { y = net(rec:input("x", { space = "T", dims = { 1 } })) } end
pr = neap.program(build)
run = pr:run():feed{ x = neap.zeros{ 10000, 1, 1 } }
function press() io.popen("(sleep 0.2; kill -INT $PPID) &"):close() end
function go() press() run:forward() return "not stopped" end
go()
run:feed{ x = neap.zeros{ 3, 1, 1 } }:forward():value("y"):shape()
]]
    assert.equal("{ 3, 1, 512 }\n", out)
    assert.matches("stdin:1: interrupted!\nstack traceback:\n\tstdin:1: in function 'go'\n", err,
      1, true)
    assert.is_nil(err:find("canceled", 1, true))
  end)

  it("works on a terminal: Ctrl-C at the prompt, in a loop, in half a chunk", function()
    if not os.execute "script -qec true /dev/null >/dev/null 2>&1 </dev/null" then
      return pending "no program script here, or no pseudo-terminals"
    end
    local home = os.tmpname()
    os.remove(home)
    local text = shell(("mkdir %s && (sleep 0.5; printf 'while true do end\\n'; sleep 1; "
      .. "printf '\\003'; sleep 0.3; printf 'for i = 1, 2 do\\n'; sleep 0.3; printf '\\003'; "
      .. "sleep 0.3; printf '20 + 3\\nneap.tens\\t{7}\\n'; sleep 0.5; printf '\\004') | "
      .. "env TERM=xterm HOME=%s XDG_STATE_HOME= script -qec scripts/neap /dev/null; rm -r %s")
      :format(home, home, home))
    assert.matches("stdin:1: interrupted!\r\nstack traceback:\r\n\tstdin:1: in main chunk\r\n",
      text, 1, true)
    assert.matches("\n23\r\n", text, 1, true)
    assert.matches("\nf32 [1]\r\n  7\r\n", text, 1, true)
  end)
end)

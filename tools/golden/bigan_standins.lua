-- Stand-ins for what the official Lua code takes from Torch7, over tensors and modules of PyTorch.
-- `python` holds functions of tools/golden/bigan.py; `checkout` is the folder of the official code.

package.path = checkout .. "/?.lua"
for _, name in ipairs({"torch", "image", "nngraph", "util.InstanceNormalization"}) do
  package.preload[name] = function() end
end

local classes = {}
package.preload["class"] = function()
  return function(name, parent)
    local made = {}
    made.__index = made
    classes[name] = setmetatable(made, {
      __index = classes[parent],
      __call = function(_, ...)
        local object = setmetatable({}, made)
        object:__init(...)
        return object
      end,
    })
    return made
  end
end

-- Biases are not reset, see the recorder.
paths = {dofile = function() return {BiasZero = function() end} end}

local Tensor = {}

function tensor(value)
  return setmetatable({value = value}, Tensor)
end

-- x[{{}, {first, last}, {}, {}}] is a view of some channels.
function Tensor.__index(self, key)
  if type(key) ~= "table" then return Tensor[key] end
  return tensor(python.channels(self.value, key[2][1], key[2][2]))
end

function Tensor:size(axis) return python.size(self.value, axis) end
function Tensor:clone() return tensor(python.clone(self.value)) end
function Tensor:copy(other) python.copy(self.value, other.value) return self end
function Tensor:fill(number) python.fill(self.value, number) return self end
function Tensor:zero() return self:fill(0) end

torch = {Tensor = function(...) return tensor(python.zeros(...)) end}

local Module = {}
Module.__index = Module

function Module:add(other) python.append(self.value, other.value) return self end
function Module:apply() end -- weights are given later
function Module:forward(x) return tensor(python.forward(self.value, x.value)) end
function Module:backward(x, gradient) return tensor(python.backward(self.value, gradient.value)) end
function Module:updateGradInput(x, gradient) return tensor(python.input_gradient(self.value, gradient.value)) end
function Module:getParameters()
  local flat = python.parameters(self.value)
  return tensor(flat.weights), tensor(flat.gradients)
end

-- Nodes of nngraph, which here always follow each other.
function Module.__unm(self) return setmetatable({self}, {__sub = Module.__sub}) end
function Module.__sub(node, module)
  local longer = setmetatable({unpack(node)}, {__sub = Module.__sub})
  table.insert(longer, module)
  return longer
end

nn = setmetatable({}, {
  __index = function(_, kind)
    return function(...) return setmetatable({value = python.module(kind, ...)}, Module) end
  end,
})

function nn.gModule(_, outputs)
  local whole = nn.Sequential()
  for _, module in ipairs(outputs[1]) do whole:add(module) end
  return whole
end

function nn.MSECriterion()
  return {
    forward = function(_, x, label) return python.squared_error(x.value, label.value) end,
    backward = function(_, x, label) return tensor(python.squared_error_gradient(x.value, label.value)) end,
  }
end

optim = {
  adam = function(evaluate, x, state)
    local _, gradient = evaluate(x)
    python.adam(x.value, gradient.value, state)
  end,
}

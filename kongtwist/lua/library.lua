-- Functions of Lua's library that work in C, beyond the reach of a hook: bounded by their work, or told to the guard as instructions.

local guard, limits, patterns = ...
local charge, safe = guard.charge, guard.safe
local string, table, error, type, tostring, tonumber, select, os = string, table, error, type, tostring, tonumber, select, os
local rep, sub = string.rep, string.sub
local reverse, upper, lower, byte, char, format = string.reverse, string.upper, string.lower, string.byte, string.char, string.format
local insert, remove, sort, concat, maxn = table.insert, table.remove, table.sort, table.concat, table.maxn

local function text(value, place, name)
  local kind = type(value)
  if kind == "string" then return value end
  if kind == "number" then return tostring(value) end
  error("bad argument #" .. place .. " to '" .. name .. "' (string expected, got " .. (value == nil and "no value" or kind) .. ")", 3)
end

-- Steps a pattern may take on a text of `size` bytes: each quantifier may try every length, an unanchored pattern every start.
local function steps(pattern, size)
  local power, at = sub(pattern, 1, 1) == "^" and 0 or 1, 1
  if power == 0 then at = 2 end
  while at <= #pattern do
    local c = byte(pattern, at)
    if c == 37 then -- %
      local following = byte(pattern, at + 1)
      if following == 98 then power = power + 1; at = at + 3 -- %b
      else at = at + 1 end
    elseif c == 91 then -- [
      at = at + 1
      if byte(pattern, at) == 94 then at = at + 1 end
      repeat
        if byte(pattern, at) == 37 then at = at + 1 end
        at = at + 1
      until at > #pattern or byte(pattern, at) == 93
    elseif c == 42 or c == 43 or c == 45 or c == 63 then -- * + - ?
      power = power + 1
    end
    at = at + 1
  end
  return (size + 2) ^ power + size + #pattern
end

-- C's function where it cannot take long, else ours, whose instructions are counted.
local function chosen(name, quick)
  local slow = patterns[name]
  return function(subject, pattern, ...)
    subject, pattern = text(subject, 1, name), text(pattern, 2, name)
    if name == "find" and select(2, ...) then
      charge(#subject * (#pattern + 1) / 16)
      return quick(subject, pattern, ...)
    end
    local cost = steps(pattern, #subject)
    if cost > limits.pattern_steps then return slow(subject, pattern, ...) end
    charge(cost / 8)
    return quick(subject, pattern, ...)
  end
end

local safe_string = {
  byte = byte, char = char, len = string.len,
  find = chosen("find", string.find),
  match = chosen("match", string.match),
  gmatch = chosen("gmatch", string.gmatch),
  gsub = chosen("gsub", string.gsub),
  sub = function(subject, ...)
    local part = sub(subject, ...)
    if #part > 1000 then charge(#part / 16) end
    return part
  end,
  format = function(form, ...)
    local made = format(form, ...)
    if #made > 1000 then charge(#made / 4) end
    return made
  end,
  rep = function(subject, times, between)
    subject = text(subject, 1, "rep")
    local each = #subject + (type(between) == "string" and #between or 0)
    if type(times) == "number" and times > 0 then
      if each * times > limits.text then error("not enough memory", 2) end
      if each == 0 then return "" end
      charge(each * times / 16)
    end
    return rep(subject, times, between)
  end,
}
for name, call in pairs { reverse = reverse, upper = upper, lower = lower } do
  safe_string[name] = function(subject)
    subject = text(subject, 1, name)
    charge(#subject / 16)
    return call(subject)
  end
end

local function sized(value)
  if type(value) ~= "table" then return 0 end
  safe.check(value)
  return #value
end

local safe_table = {
  maxn = function(t) charge(sized(t)); return maxn(t) end,
  concat = function(t, ...) charge(sized(t)); return concat(t, ...) end,
  insert = function(t, ...)
    local size = sized(t)
    if select("#", ...) > 1 then charge(size / 4) end
    return insert(t, ...)
  end,
  remove = function(t, ...)
    local size = sized(t)
    if select("#", ...) > 0 then charge(size / 4) end
    return remove(t, ...)
  end,
  sort = function(t, ...) charge(sized(t) * 10); return sort(t, ...) end,
}

local safe_math = {}
for _, name in ipairs {
  "abs", "acos", "asin", "atan", "atan2", "ceil", "cos", "cosh", "deg", "exp", "floor", "fmod", "frexp", "huge", "ldexp", "log", "log10",
  "max", "min", "modf", "pi", "pow", "rad", "random", "sin", "sinh", "sqrt", "tan", "tanh",
} do safe_math[name] = math[name] end

-- The metatable of all texts: ("x"):rep finds what string.rep is.
local texts = debug.getmetatable("")
texts.__index = safe_string
texts.__metatable = false

local coroutines = {
  create = safe.coroutine.create, resume = safe.coroutine.resume, wrap = safe.coroutine.wrap,
  running = coroutine.running, status = coroutine.status, yield = coroutine.yield,
}

local function number(value, base)
  if type(value) == "string" and #value > 1000 then charge(#value / 4) end
  return tonumber(value, base)
end

local function date(form, ...)
  if type(form) == "string" and #form > 1000 then error("the format is too long", 2) end
  return os.date(form, ...)
end

-- Kong 3.9.3, kong/tools/kong-lua-sandbox.lua: what a chunk finds.
return {
  _VERSION = _VERSION, assert = assert, error = error, ipairs = ipairs, next = next, pairs = pairs, pcall = safe.pcall,
  select = select, tonumber = number, tostring = tostring, type = type, unpack = unpack, xpcall = safe.xpcall,
  coroutine = coroutines,
  math = safe_math,
  os = { clock = os.clock, date = date, difftime = os.difftime, time = os.time },
  string = safe_string,
  table = safe_table,
}

-- Functions of Lua's library that work in C, beyond the reach of a hook: bounded by their work, or told to the guard as instructions.

local guard, limits = ...
local charge, safe = guard.charge, guard.safe
local string, table, error, type, tostring, select = string, table, error, type, tostring, select
local find, match, gmatch, gsub, rep, sub = string.find, string.match, string.gmatch, string.gsub, string.rep, string.sub
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

local function bounded(subject, pattern)
  local cost = steps(pattern, #subject)
  if cost > limits.pattern_steps then
    error("the pattern may take too many steps on " .. #subject .. " bytes; make it simpler, or anchor it with ^", 3)
  end
  charge(cost / 8)
end

local function found(name, call)
  return function(subject, pattern, init, plain)
    subject, pattern = text(subject, 1, name), text(pattern, 2, name)
    if plain and name == "find" then charge(#subject * (#pattern + 1) / 16) else bounded(subject, pattern) end
    return call(subject, pattern, init, plain)
  end
end

local safe_string = {
  byte = byte, char = char, format = format, len = string.len, sub = sub,
  find = found("find", find),
  match = found("match", match),
  gmatch = function(subject, pattern)
    subject, pattern = text(subject, 1, "gmatch"), text(pattern, 2, "gmatch")
    bounded(subject, pattern)
    return gmatch(subject, pattern)
  end,
  gsub = function(subject, pattern, replacement, most)
    subject, pattern = text(subject, 1, "gsub"), text(pattern, 2, "gsub")
    bounded(subject, pattern)
    return gsub(subject, pattern, replacement, most)
  end,
  rep = function(subject, times)
    subject = text(subject, 1, "rep")
    if type(times) == "number" and times > 0 then
      if #subject * times > limits.text then error("not enough memory", 2) end
      if #subject == 0 then return "" end
      charge(#subject * times / 16)
    end
    return rep(subject, times)
  end,
}
for name, call in pairs { reverse = reverse, upper = upper, lower = lower } do
  safe_string[name] = function(subject)
    subject = text(subject, 1, name)
    charge(#subject / 16)
    return call(subject)
  end
end

local function sized(value) return type(value) == "table" and #value or 0 end

local safe_table = {
  maxn = function(t) charge(sized(t)); return maxn(t) end,
  concat = function(t, ...) charge(sized(t)); return concat(t, ...) end,
  insert = function(t, ...)
    if select("#", ...) > 1 then charge(sized(t) / 4) end
    return insert(t, ...)
  end,
  remove = function(t, ...)
    if select("#", ...) > 0 then charge(sized(t) / 4) end
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

-- Kong 3.9.3, kong/tools/kong-lua-sandbox.lua: what a chunk finds.
return {
  _VERSION = _VERSION, assert = assert, error = error, ipairs = ipairs, next = next, pairs = pairs, pcall = safe.pcall,
  select = select, tonumber = tonumber, tostring = tostring, type = type, unpack = unpack, xpcall = safe.xpcall,
  coroutine = coroutines,
  math = safe_math,
  os = { clock = os.clock, date = os.date, difftime = os.difftime, time = os.time },
  string = safe_string,
  table = safe_table,
}

-- What chunks find: the environment, and how code becomes a function.

local guard, library, limits = ...
local loadstring, load, type, pairs, error, rawget, setfenv = loadstring, load, type, pairs, error, rawget, setfenv
local read_only, byte, gmatch = guard.read_only, string.byte, string.gmatch
local globals = _G
local load_module = require

-- Nothing of Python: lupa has put it there.
globals.python = nil
package.loaded.python = nil

-- Tables of tables, all read-only. Those with metatables are as the guard has made them.
local function sealed(table, name)
  local copy = {}
  for key, value in pairs(table) do
    if type(value) == "table" and getmetatable(value) == nil then value = sealed(value, name .. "." .. key) end
    copy[key] = value
  end
  return read_only(copy, name)
end

local function merge(into, from)
  for key, value in pairs(from) do
    if type(value) == "table" and type(into[key]) == "table" and getmetatable(value) == nil then merge(into[key], value)
    else into[key] = value end
  end
end

local function look_up(path)
  local value = globals
  for name in gmatch(path, "[^.]+") do
    if type(value) ~= "table" then return nil end
    value = rawget(value, name)
  end
  return value
end

local function requirer(names)
  local allowed = {}
  for _, name in ipairs(names) do allowed[name] = true end
  return function(name)
    if not allowed[name] then error("require '" .. tostring(name) .. "' not allowed within sandbox", 2) end
    return load_module(name)
  end
end

local function environment(trust, offered, requires, names)
  local found = {}
  if trust == "on" then
    for key, value in pairs(globals) do found[key] = value end
    found._G, found.debug = nil, { traceback = debug.traceback }
    found.os = {}
    for key, value in pairs(os) do found.os[key] = value end
    found.os.exit = nil
    for _, key in ipairs { "load", "loadstring", "loadfile", "dofile", "setfenv", "getfenv", "collectgarbage", "newproxy", "jit" } do
      found[key] = nil
    end
    found.package = nil
    merge(found, library)
    found.require = load_module
  else
    merge(found, library)
    found.require = requirer(requires)
  end
  for _, path in ipairs(names) do
    local value, into, last = look_up(path), found, nil
    for name in gmatch(path, "[^.]+") do
      if last then
        if type(rawget(into, last)) ~= "table" then into[last] = {} end
        into = into[last]
      end
      last = name
    end
    if value ~= nil and last then into[last] = value end
  end
  merge(found, offered)
  return sealed(found, "the environment")
end

local function compiled(code, name)
  if byte(code, 1) == 27 then return nil, "attempt to load a binary chunk" end
  return loadstring(code, name)
end

local function compile(code, name, mode, environment)
  local f, text
  if mode == "value" then
    f = compiled("return " .. code, name)
  end
  if not f then
    f, text = compiled(code, name)
    if not f then return nil, text end
  end
  if mode == "function" then return guard.lasting(f, environment), "" end
  return guard.fresh(f, environment), ""
end

return { environment = environment, compile = compile }

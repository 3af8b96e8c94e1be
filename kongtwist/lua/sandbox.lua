-- What chunks find: the environment, and how code becomes a function.

local guard, library, limits, cache = ...
local loadstring, type, pairs, ipairs, next, error, rawget = loadstring, type, pairs, ipairs, next, error, rawget
local setmetatable, getmetatable = setmetatable, getmetatable
local byte, gmatch, sub, concat, tostring = string.byte, string.gmatch, string.sub, table.concat, tostring
local read_only = guard.read_only
local globals = _G
local load_module = require

-- Nothing of Python: lupa has put it there.
globals.python = nil
package.loaded.python = nil
package.path, package.cpath = limits.path, ""

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

-- kong.ctx and ngx.ctx: tables of the request. What kong.ctx.shared holds of plain values is where the gateway's own plugins have it;
-- tables and functions stay in Lua.
local plain = { ["nil"] = true, boolean = true, number = true, string = true }

local function contexts(request)
  local tables, get, set = guard.offer(request.tables, 1), guard.offer(request.get, 1), guard.offer(request.set, 1)
  local function shared_of(all)
    if not all.shared then
      local kept = {}
      all.shared = guard.kept_whole(setmetatable({}, {
        __index = function(_, key)
          local value = kept[key]
          if value == nil and type(key) == "string" then return get(key) end
          return value
        end,
        __newindex = function(_, key, value)
          local told = type(key) == "string"
          if told and plain[type(value)] then
            kept[key] = nil
            set(key, value)
          else
            kept[key] = value
            if told then set(key, nil) end
          end
        end,
        __metatable = false,
      }))
    end
    return all.shared
  end
  local function own(all, name)
    if not all[name] then all[name] = {} end
    return all[name]
  end
  local kong = guard.kept_whole(setmetatable({}, {
    __index = function(_, key)
      local all, plugin = tables()
      if key == "shared" then return shared_of(all) end
      if key == "plugin" then return own(all, "plugin " .. plugin) end
    end,
    __newindex = function() error("cannot change kong.ctx", 2) end,
    __metatable = false,
  }))
  local function ngx() return own((tables()), "ngx") end
  local request_table = guard.kept_whole(setmetatable({}, {
    __index = function(_, key) return ngx()[key] end,
    __newindex = function(_, key, value) ngx()[key] = value end,
    __metatable = false,
  }))
  return kong, request_table
end

local null = newproxy(true)
local of_null = debug.getmetatable(null)
of_null.__tostring = function() return "userdata: NULL" end
of_null.__metatable = false

-- kong.table works on tables of Lua, so it is not Python's.
local tables = {
  new = function() return {} end,
  clear = function(table)
    guard.safe.check(table)
    for key in next, table do table[key] = nil end
  end,
  merge = function(first, second)
    local merged = {}
    for _, each in ipairs { first or {}, second or {} } do
      for key, value in pairs(each) do merged[key] = value end
    end
    return merged
  end,
}

-- ngx.re, of what the gateway matches with.
local function expressions(re)
  local function place(ctx) return type(ctx) == "table" and ctx.pos or 1 end

  local function match(subject, pattern, options, ctx, into)
    local found, from, to, fault = re.match(subject, pattern, options, place(ctx))
    if not found then return nil, fault end
    if type(ctx) == "table" then ctx.pos = to + 1 end
    if type(into) == "table" then
      guard.safe.check(into)
      for key, value in pairs(found) do into[key] = value end
      return into
    end
    return found
  end

  local function gmatch(subject, pattern, options)
    local at, over = 1, false
    return function()
      if over then return nil end
      local found, from, to, fault = re.match(subject, pattern, options, at)
      if not found or at > #subject + 1 then
        over = true
        return nil, fault
      end
      at = to >= from and to + 1 or to + 2
      if at > #subject + 1 then over = true end
      return found
    end
  end

  local function replaced(subject, pattern, value, options, once)
    if type(value) ~= "function" then return re.replace(subject, pattern, value, options, once) end
    local all, fault = re.all(subject, pattern, options, once)
    if not all then return nil, nil, fault end
    local parts, at = {}, 1
    for _, each in ipairs(all) do
      parts[#parts + 1] = sub(subject, at, each.from - 1)
      parts[#parts + 1] = tostring(value(each.captures))
      at = each.to + 1
    end
    parts[#parts + 1] = sub(subject, at)
    return concat(parts), #all
  end

  return {
    match = match, gmatch = gmatch,
    find = function(subject, pattern, options, ctx, nth)
      local from, to, fault = re.group(subject, pattern, options, place(ctx), nth or 0)
      if from and type(ctx) == "table" then ctx.pos = to + 1 end
      return from, to, fault
    end,
    sub = function(subject, pattern, value, options) return replaced(subject, pattern, value, options, true) end,
    gsub = function(subject, pattern, value, options) return replaced(subject, pattern, value, options, false) end,
  }
end

-- cjson and cjson.safe, for whom the operator lets require them.
local function json_modules(json)
  if not json then return end
  local function safe(f)
    return function(value)
      local ok, result = json[f](value)
      if ok then return result end
      return nil, result
    end
  end
  local function strict(f)
    return function(value)
      local ok, result = json[f](value)
      if ok then return result end
      error(result, 2)
    end
  end
  for name, kind in pairs { cjson = strict, ["cjson.safe"] = safe } do
    local module = guard.read_only({ encode = kind "encode", decode = kind "decode", null = null }, name)
    package.preload[name] = function() return module end
  end
end

local function environment(trust, offered, request, requires, names)
  local found = {}
  offered.kong, offered.ngx = offered.kong or {}, offered.ngx or {}
  offered.kong.ctx, offered.ngx.ctx = contexts(request)
  offered.kong.table, offered.kong.cache, offered.ngx.null = tables, cache, null
  json_modules(offered["@json"])
  offered["@json"] = nil
  local re = offered["@re"]
  if re then offered["@re"], offered.ngx.re = nil, expressions(re) end
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
    for name in gmatch(value ~= nil and path or "", "[^.]+") do
      if last then
        if type(rawget(into, last)) ~= "table" then into[last] = {} end
        into = into[last]
      end
      last = name
    end
    if last then into[last] = value end
  end
  merge(found, offered)
  local all = sealed(found, "the environment")
  globals.kong, globals.ngx = all.kong, all.ngx -- for modules
  return all
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

-- kong.cache: values of scripts, kept from one run to the next (Kong 3.9, kong/cache, of which this is what scripts use).
-- It is the worker's own, and bounded: when it is full all is forgotten.

local guard = ...
local safe, time, type, tostring, error = guard.safe, os.time, type, tostring, error

local most = 1000
local entries, size = {}, 0

local function checked(key)
  if type(key) ~= "string" then error("key must be a string", 3) end
  return key
end

local function seconds(options, name)
  local value = type(options) == "table" and options[name]
  return type(value) == "number" and value > 0 and value or nil
end

local function found(key)
  local entry = entries[key]
  if entry and entry.ends and entry.ends <= time() then
    entries[key], size, entry = nil, size - 1, nil
  end
  return entry
end

local function forget(_, key)
  if entries[checked(key)] then entries[key], size = nil, size - 1 end
end

local function keep(key, value, options)
  local ttl
  if value == nil then ttl = seconds(options, "neg_ttl") else ttl = seconds(options, "ttl") end
  if not entries[key] then
    if size >= most then entries, size = {}, 0 end
    size = size + 1
  end
  entries[key] = { value = value, ends = ttl and time() + ttl }
end

local function get(_, key, options, callback, ...)
  local entry = found(checked(key))
  if entry then return entry.value, nil, 1 end
  if callback == nil then return nil, nil, -1 end
  if type(callback) ~= "function" then error("callback must be a function", 2) end
  local ok, value, err = safe.pcall(callback, ...)
  if not ok then return nil, "callback threw an error: " .. tostring(value) end
  if err ~= nil then return nil, err end
  keep(key, value, options)
  return value, nil, 3
end

local function probe(_, key)
  local entry = found(checked(key))
  if not entry then return nil end
  return entry.ends and entry.ends - time() or 0, nil, entry.value
end

return { get = get, probe = probe, invalidate = forget, invalidate_local = forget }

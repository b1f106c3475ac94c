-- What is known of a user: the inbox without its entries, and where the user is connected.
-- It is loaded once, and written once, at the end: see `flush`.

-- The epoch of inboxes that begin now: another one than that of any that was forgotten, also
-- when the server has lost everything.
local function new_epoch()
  local found = call("HMGET", prefix .. STORE, "run", "epoch")
  local epoch = tonumber(found[2])
  if found[1] ~= run or not epoch then
    epoch = fresh
    call("HSET", prefix .. STORE, "run", run, "epoch", text(epoch))
  end
  return epoch + math.floor(now / IDLE_MS)
end

-- Names of the devices on which a user is connected. With broadcasts nobody knows any.
local function present(h)
  if not h.present then
    local names, is_there = {}, {}
    for _, session in ipairs(is_broadcast and {} or h.sessions) do
      local name = session.device
      if not is_there[name] then
        is_there[name] = true
        names[#names + 1] = name
      end
    end
    table.sort(names)
    h.present, h.is_present = names, is_there
  end
  return h.present, h.is_present
end

local function ring_lost(h, is_news)
  if is_news then ring(h, "lost", "", "") end
end

local function is_untold(device)
  return device.resync and not device.told
end

-- Something never came into an inbox: every device is told, but the one that has it.
local function miss(h, but)
  local is_news = false
  if #h.devices == 0 then h.lost = 1 end
  for _, device in ipairs(h.devices) do
    if device.name ~= but then
      is_news = is_news or not device.resync
      device.resync, device.told = true, nil
    end
  end
  ring_lost(h, is_news)
end

local function read_device(name, value)
  local at, low, offered, resync, told, marks = value:match("^(%d+) (%d+) (%d+) (%d) (%S+) (.*)$")
  local above = {}
  if marks ~= "" then
    for seq in marks:gmatch("%d+") do above[#above + 1] = tonumber(seq) end
  end
  return tonumber(at), {
    name = name, low = tonumber(low), offered = tonumber(offered), resync = resync == "1",
    told = tonumber(told), above = above,
  }
end

local function write_device(at, device)
  return format("%d %.0f %.0f %d %s %s", at, device.low, device.offered, device.resync and 1 or 0,
    device.told and text(device.told) or "-", table.concat(device.above, ","))
end

local function unescape(word)
  if not word:find("%", 1, true) then return word end
  return (word:gsub("%%(%x%x)", function(digits) return string.char(tonumber(digits, 16)) end))
end

local function read_session(name, value)
  local version, node, epoch, since, ordinal, device =
    value:match("^(%d+) (%S+) (%d+) (%d+) (%d+) %d+ (%S+) ")
  check_version(tonumber(version))
  return {
    name = name, node = node, epoch = epoch, since = tonumber(since), ordinal = tonumber(ordinal),
    device = unescape(device),
  }
end

local function read_watcher(node, value)
  local version, epoch = value:match("^(%d+) (%d+)")
  check_version(tonumber(version))
  return { node = node, epoch = epoch }
end

local heads, loaded = {}, {}

-- Words: the version, the life of the server, and what is counted.
local function read_state(h, state)
  local version, of_run, dropped, lost, entries, bytes, notices, forgot, touched, aged =
    state:match("^(%d+) (%S+) (%d+) (%d) (%d+) (%d+) (%d+) (%d) (%d+) (%d+)$")
  check_version(tonumber(version or state:match("^%d+")))
  h.run, h.dropped, h.lost, h.entries = of_run, tonumber(dropped), tonumber(lost), tonumber(entries)
  h.bytes, h.notices, h.forgot = tonumber(bytes), tonumber(notices), tonumber(forgot)
  h.touched, h.aged = tonumber(touched), tonumber(aged)
end

local function write_state(h)
  return format("%d %s %.0f %d %d %.0f %d %d %.0f %.0f", FORMAT, run, h.dropped, h.lost, h.entries,
    h.bytes, h.notices, h.forgot, h.touched, h.aged)
end

-- What begins with a letter and a colon is one of many: a session, a watcher, a device, the name
-- of a device that was forgotten.
local function read_head(h, flat)
  for i = 1, #flat, 2 do
    local field, value = flat[i], flat[i + 1]
    local letter, colon = field:byte(1, 2)
    if colon ~= COLON then
      h.was[field] = value
    else
      local name = field:sub(3)
      if letter == DEVICE then
        local at, device = read_device(name, value)
        h.many[field], h.devices[at] = value, device
      elseif letter == SESSION then
        h.sessions[#h.sessions + 1] = read_session(name, value)
      elseif letter == WATCHER then
        h.watchers[#h.watchers + 1] = read_watcher(name, value)
      else
        h.many[field], h.forgotten[tonumber(value)] = value, name
      end
    end
  end
  local state = h.was.state
  if not state then return end
  read_state(h, state)
  h.begun, h.was_begun = true, true
  h.epoch, h.seq = tonumber(h.was.epoch), tonumber(h.was.seq)
  h.was_epoch, h.was_seq = h.epoch, h.seq
end

-- Nothing, and why, if the head cannot be read.
local function try_head(uid)
  if heads[uid] then return heads[uid] end
  local h = {
    uid = uid, key = key(CLIENT, uid), log = key(INBOX, uid), was = {}, many = {},
    devices = {}, forgotten = {}, sessions = {}, watchers = {},
  }
  local is_read, why = pcall(read_head, h, call("HGETALL", h.key))
  if not is_read then return nil, why end
  if h.begun and h.run ~= run then
    -- Another server than the one that was asked before: it may have lost something.
    h.epoch = fresh
    miss(h)
  end
  heads[uid], loaded[#loaded + 1] = h, h
  return h
end

local function head_of(uid)
  local h, why = try_head(uid)
  return h or error(uid .. ": " .. why, 0)
end

local function begin(h)
  h.epoch, h.seq, h.dropped, h.lost, h.entries, h.bytes = new_epoch(), 0, 0, 0, 0, 0
  h.notices, h.forgot, h.touched, h.aged, h.begun = 0, 0, 0, 0, true
end

local function find(devices, name)
  for at, device in ipairs(devices) do
    if device.name == name then return device, at end
  end
end

-- A device as the inbox knows it from now on.
local function know(h, name)
  local device = find(h.devices, name)
  if device then return device end
  device = { name = name, low = h.dropped, offered = 0, above = {} }
  -- Or places are empty, because a notice too many went from between.
  device.resync = h.forgot == 1 or h.lost == 1 or h.entries + h.notices < h.seq - h.dropped
  for at, known in ipairs(h.forgotten) do
    if known == name then
      table.remove(h.forgotten, at)
      device.resync, device.offered = true, h.seq
      break
    end
  end
  h.lost = 0
  h.devices[#h.devices + 1] = device
  return device
end

-- The inbox of a user, begun if it is not there.
local function open(uid)
  local h = head_of(uid)
  if not h.begun then
    begin(h)
    for _, name in ipairs(present(h)) do know(h, name) end
  end
  return h
end

-- Writes what has changed.
local function save(h)
  local set, gone, names = {}, {}, {}
  local function put(field, value)
    set[#set + 1] = field
    set[#set + 1] = value
  end
  local function put_one(field, value)
    if h.many[field] ~= value then put(field, value) end
    gone[field] = nil
  end
  for field in pairs(h.many) do gone[field] = true end
  if h.epoch ~= h.was_epoch then put("epoch", text(h.epoch)) end
  if h.seq ~= h.was_seq then put("seq", text(h.seq)) end
  for at, device in ipairs(h.devices) do put_one("d:" .. device.name, write_device(at, device)) end
  for at, name in ipairs(h.forgotten) do put_one("f:" .. name, tostring(at)) end
  for field in pairs(gone) do names[#names + 1] = field end
  local has_changed = h.must_save or #set + #names > 0
  if not has_changed and write_state(h) == h.was.state then return end
  h.touched = now
  put("state", write_state(h))
  call("HSET", h.key, unpack(set))
  if #names > 0 then call("HDEL", h.key, unpack(names)) end
  if not h.was_begun then call("ZADD", prefix .. DUE_INBOXES, "NX", text(now), h.uid) end
end

-- Writes the heads that have changed, and answers.
local function flush(reply)
  for _, h in ipairs(loaded) do
    if h.begun and not h.removed then save(h) end
  end
  return answer(reply)
end

-- The entries of an inbox, and how it is kept within its limits.
local function each_entry(h, after, last, look)
  local from = after + 1
  while from <= last do
    local rows = call("XRANGE", h.log, text(from), text(last), "COUNT", 64)
    for _, row in ipairs(rows) do
      local seq = tonumber(row[1]:match("^%d+"))
      if look(seq, row[2][1], row[2][2]) == false then return end
      from = seq + 1
    end
    if #rows < 64 then return end
  end
end

local function discount(h, kind, row)
  if kind == NOTICE then
    h.notices = math.max(h.notices - 1, 0)
  else
    h.entries = math.max(h.entries - 1, 0)
    h.bytes = math.max(h.bytes - #row, 0)
  end
end

-- What every known device has passed.
local function passed_by_all(h)
  local low
  for _, device in ipairs(h.devices) do
    if not low or device.low < low then low = device.low end
  end
  return math.max(low or h.dropped, h.dropped)
end

local function drop_until(h, last)
  if last == h.seq then
    -- An empty stream would take room.
    call("DEL", h.log)
  else
    call("XTRIM", h.log, "MINID", text(last + 1))
  end
  h.dropped = last
end

local function drop_passed(h)
  local last = passed_by_all(h)
  if last <= h.dropped then return end
  if last == h.seq then
    h.entries, h.bytes, h.notices = 0, 0, 0
  else
    each_entry(h, h.dropped, last, function(_, kind, row) discount(h, kind, row) end)
  end
  drop_until(h, last)
end

local function has_passed(device, seq)
  if seq <= device.low then return true end
  for _, above in ipairs(device.above) do
    if above == seq then return true end
  end
  return false
end

-- An entry goes that some have not passed. The caller takes it out of the log.
local function lose(h, seq, kind, row)
  local is_news = false
  if #h.devices == 0 then h.lost = 1 end
  for _, device in ipairs(h.devices) do
    if not has_passed(device, seq) then
      is_news = is_news or not device.resync
      device.resync = true
      if device.told then device.told = seq <= device.offered and h.seq or nil end
    end
  end
  ring_lost(h, is_news)
  discount(h, kind, row)
end

-- Rings where a connected device has not been told yet that it misses something.
local function ring_untold(h)
  local _, is_present = present(h)
  for _, device in ipairs(h.devices) do
    local may_hear = is_broadcast or is_present[device.name]
    if may_hear and is_untold(device) then return ring_lost(h, true) end
  end
end

-- Forgets one device that is not connected, the furthest behind first.
local function forget_one(h)
  if #h.devices < 2 then return false end
  local _, is_present = present(h)
  local furthest
  for at, device in ipairs(h.devices) do
    if not is_present[device.name] and (not furthest or device.low < h.devices[furthest].low) then
      furthest = at
    end
  end
  if not furthest then return false end
  h.forgotten[#h.forgotten + 1] = table.remove(h.devices, furthest).name
  if #h.forgotten > rules.devices then
    table.remove(h.forgotten, 1)
    h.forgot = 1
  end
  return true
end

-- A device too many: one that is not here is forgotten, but not the newest, `name`.
local function keep_few(h, name)
  while #h.devices > rules.devices do
    local newest, at = find(h.devices, name)
    table.remove(h.devices, at)
    local is_forgotten = forget_one(h)
    h.devices[#h.devices + 1] = newest
    if not is_forgotten then return end
  end
end

local function has_room(h, bytes)
  return h.entries < rules.entries and h.bytes + bytes <= rules.bytes
end

-- Drops notices that alone hold up messages which all devices have passed, if that is enough.
-- Whoever had not passed them is told.
local function lose_notices_in_the_way(h, bytes)
  local rows, count = {}, 0
  each_entry(h, h.dropped, h.seq, function(seq, kind, row)
    if kind ~= NOTICE then
      local is_passed = #h.devices > 0
      for _, device in ipairs(h.devices) do is_passed = is_passed and has_passed(device, seq) end
      if not is_passed then return false end
      count = #rows + 1
    end
    rows[#rows + 1] = { seq, kind, row }
  end)
  local without = { entries = h.entries, bytes = h.bytes, notices = h.notices }
  for at = 1, count do discount(without, rows[at][2], rows[at][3]) end
  if not has_room(without, bytes) then return false end
  for at = 1, count do lose(h, unpack(rows[at])) end
  drop_until(h, rows[count][1])
  return true
end

-- Forgets devices that are gone where the inbox is full, but only where that helps.
local function make_room(h, bytes)
  if has_room(h, bytes) then return true end
  local without = { sessions = h.sessions, devices = { unpack(h.devices) },
    forgotten = { unpack(h.forgotten) }, forgot = h.forgot, dropped = h.dropped,
    entries = h.entries, bytes = h.bytes, notices = h.notices }
  local freed = h.dropped
  while forget_one(without) do
    local last = passed_by_all(without)
    each_entry(h, freed, last, function(_, kind, row) discount(without, kind, row) end)
    freed = math.max(freed, last)
    if has_room(without, bytes) then
      h.devices, h.forgotten, h.forgot = without.devices, without.forgotten, without.forgot
      drop_passed(h)
      return true
    end
  end
  return lose_notices_in_the_way(h, bytes)
end

-- Puts an entry at the end of a log, and rings.
local function append(h, kind, row, but)
  h.seq = h.seq + 1
  if kind == NOTICE then
    h.notices = h.notices + 1
  else
    h.entries = h.entries + 1
    h.bytes = h.bytes + #row
  end
  for _, name in ipairs(present(h)) do know(h, name) end
  local _, is_present = present(h)
  for _, device in ipairs(h.devices) do
    local may_hear = is_broadcast or is_present[device.name]
    local is_behind = math.max(device.offered, device.low, h.dropped) + 1 < h.seq
    if may_hear and not is_behind then device.offered = h.seq end
  end
  ring_untold(h)
  call("XADD", h.log, text(h.seq) .. "-0", kind, row)
  h.must_save = true
  ring(h, "entry", " " .. text(h.epoch) .. " " .. text(h.seq) .. " " .. (but or "-"), row)
  return h.seq
end

-- A row begins with its version, the id, and the time in groups of seven bits.
local function time_of(row)
  local ms, unit, at = 0, 1, ID_AT + 16
  while true do
    local byte = row:byte(at)
    ms = ms + byte % 128 * unit
    if byte < 128 then return ms, at end
    unit, at = unit * 128, at + 1
  end
end

local function varint(number)
  local bytes = {}
  while number >= 128 do
    bytes[#bytes + 1] = string.char(number % 128 + 128)
    number = math.floor(number / 128)
  end
  return table.concat(bytes) .. string.char(number)
end

local function id_of(row)
  return row:sub(ID_AT, ID_AT + 15)
end

local function at_time(row, ms)
  local _, last = time_of(row)
  return row:sub(1, ID_AT + 15) .. varint(ms) .. row:sub(last + 1)
end

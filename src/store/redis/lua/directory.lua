-- Who is where in truth. The entry of a session counts while the lease of its node lives and
-- names the same life of it. Rings do not ask for leases: who is gone does not hear them.
local leases = {}

local function is_live(place)
  if place.node == own_node then return place.epoch == own_epoch end
  if leases[place.node] == nil then
    local lease = call("GET", prefix .. LEASE .. place.node)
    leases[place.node] = lease and lease:match("^%d+ (%d+)") or false
  end
  return leases[place.node] == place.epoch
end

local function is_anybody_there(h)
  for _, session in ipairs(h.sessions) do
    if is_live(session) then return true end
  end
  return false
end

-- Tells those who watch a user of the first coming, or of the last going.
local function tell_watchers(h, is_online)
  for _, watcher in ipairs(h.watchers) do
    local words = " " .. (is_online and 1 or 0) .. " " .. text(now)
    tell(watcher.node, watcher.epoch, line("presence", watcher.epoch, h.uid, words))
  end
end

-- A node that has no session of the user any more does not name him.
local function leave_node(h, node)
  for _, session in ipairs(h.sessions) do
    if session.node == node then return end
  end
  call("SREM", prefix .. SERVER_CLIENTS .. node, h.uid)
end

local function take_out(h, gone)
  if #gone == 0 then return end
  local fields, is_gone, rest = {}, {}, {}
  for _, session in ipairs(gone) do
    fields[#fields + 1] = "s:" .. session.name
    is_gone[session] = true
  end
  call("HDEL", h.key, unpack(fields))
  for _, session in ipairs(h.sessions) do
    if not is_gone[session] then rest[#rest + 1] = session end
  end
  h.sessions, h.present = rest, nil
  for _, session in ipairs(gone) do leave_node(h, session.node) end
end

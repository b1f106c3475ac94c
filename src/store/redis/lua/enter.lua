-- A session enters the directory, and others go for it.

-- The youngest first; a newcomer that `is_newest` counts as younger than all.
local function by_age(sessions, newest)
  table.sort(sessions, function(a, b)
    if a == newest or b == newest then return a == newest and b ~= newest end
    if a.since ~= b.since then return a.since > b.since end
    if a.ordinal ~= b.ordinal then return a.ordinal > b.ordinal end
    return a.name > b.name
  end)
end

-- Of the sessions on the newcomer's device only the youngest stays, and of all the youngest `most`.
local function choose(sessions, device, most)
  local staying, going, is_taken = {}, {}, false
  for _, session in ipairs(sessions) do
    local is_twin = device ~= ANONYMOUS and session.device == device
    local goes = #staying >= most or (is_twin and is_taken)
    is_taken = is_taken or is_twin
    local list = goes and going or staying
    list[#list + 1] = session
  end
  return going
end

-- Says whether the newcomer stays, and which sessions of this node go.
local function enter(h, name, value, most, is_newest)
  local newcomer = read_session(name, value)
  local gone, sessions, was_there = {}, { newcomer }, false
  for _, session in ipairs(h.sessions) do
    local is_there = is_live(session)
    was_there = was_there or is_there
    local list = is_there and session.name ~= name and sessions or gone
    list[#list + 1] = session
  end
  by_age(sessions, is_newest and newcomer or nil)
  local stays, replaced = true, {}
  for _, session in ipairs(choose(sessions, newcomer.device, most)) do
    if session == newcomer then
      stays = false
    else
      gone[#gone + 1] = session
      if session.node == own_node then
        replaced[#replaced + 1] = session.name
      else
        local words = " " .. escape(session.name) .. " " .. REPLACED
        tell(session.node, session.epoch, line("close", session.epoch, h.uid, words))
      end
    end
  end
  take_out(h, gone)
  if stays then
    call("HSET", h.key, "s:" .. name, value)
    call("SADD", prefix .. SERVER_CLIENTS .. newcomer.node, h.uid)
    h.sessions[#h.sessions + 1], h.present = newcomer, nil
    if not was_there then tell_watchers(h, true) end
  end
  return stays, replaced
end

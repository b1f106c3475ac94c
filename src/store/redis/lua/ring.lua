-- Doorbells. A line of words, and behind it the row of the entry: see doorbell.rs.
local from = own_node == "" and "-" or own_node

local function line(kind, epoch, uid, words)
  return FORMAT .. " " .. kind .. " " .. epoch .. " " .. from .. " " .. escape(uid) .. words .. "\n"
end

-- Tells one life of a node.
local function tell(node, epoch, payload)
  if node == own_node and epoch == own_epoch then
    rings[#rings + 1] = payload
  else
    call("PUBLISH", prefix .. NODE .. node, payload)
  end
end

-- Rings at every node where the user is.
local function ring(h, kind, words, row)
  if is_broadcast then
    local payload = line(kind, 0, h.uid, words) .. row
    rings[#rings + 1] = payload
    call("PUBLISH", prefix .. ALL, payload)
    return
  end
  local is_rung = {}
  for _, session in ipairs(h.sessions) do
    local place = session.node .. " " .. session.epoch
    if not is_rung[place] then
      is_rung[place] = true
      tell(session.node, session.epoch, line(kind, session.epoch, h.uid, words) .. row)
    end
  end
end

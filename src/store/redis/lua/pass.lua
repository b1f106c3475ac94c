-- Devices pass entries, and the senders of single chats hear of it.
local function has_got(device, seq)
  if device.told and seq > device.told then device.resync, device.told = false, nil end
end

-- Moves the mark of a device over all that it has passed, and where nothing is kept, nothing
-- holds it up. `got` is the last one that it has just named: notices before it are passed with it.
local function advance(h, device, got)
  local above, from = device.above, math.max(device.low, h.dropped)
  if #above == 0 then return end
  if above[1] == from + 1 and above[#above] == from + #above then
    -- There is nothing between.
    device.low, device.above = above[#above], {}
    return
  end
  local is_above, to = {}, device.low
  for _, seq in ipairs(above) do
    is_above[seq] = true
    if seq <= h.dropped then to = math.max(to, seq) end
  end
  local is_whole, marks = true, { unpack(above) }
  each_entry(h, from, above[#above], function(seq, kind)
    local is_passed = is_above[seq]
    if not is_passed and kind == NOTICE and seq < got then
      is_passed = true
      marks[#marks + 1] = seq
    end
    is_whole = is_whole and is_passed == true
    if is_whole then to = seq end
    return is_whole or seq < got
  end)
  table.sort(marks)
  device.low, device.above = to, {}
  for _, seq in ipairs(marks) do
    if seq > to then device.above[#device.above + 1] = seq end
  end
end

local function lose_oldest_notice(h)
  each_entry(h, h.dropped, h.seq, function(seq, kind, row)
    if kind ~= NOTICE then return true end
    lose(h, seq, kind, row)
    call("XDEL", h.log, text(seq) .. "-0")
    return false
  end)
end

local function append_notice(h, id, row)
  local seq = append(h, NOTICE, row)
  local book = book_of(h.uid)
  hold(book, id, { seq = seq, sender = "system" })
  if h.notices > rules.notices then lose_oldest_notice(h) end
  trim_inbox(book, h)
end

local function with_length(value)
  return varint(#value) .. value
end

-- Tells the sender of a single chat, once, that it was got; written as the gateway itself would.
local function notify(h, book, id, held)
  if not held.owes then return end
  local sender = open(held.sender)
  held.owes = false
  call("HSET", book.seen, "i" .. id, write_held(held))
  local last = id:byte(16)
  local notice_id = id:sub(1, 15) .. string.char(last < 128 and last + 128 or last - 128)
  local row = string.char(RECORD) .. notice_id .. varint(now) .. with_length("system") .. "\0\0\3"
    .. (held.msgid and "\1" .. with_length(held.msgid) or "\0") .. id .. with_length(h.uid)
  append_notice(sender, notice_id, row)
end

-- Its place; none if the inbox never held this message.
local function pass_message(h, book, device, id)
  local held = held_in(book, id)
  if not held or held.seq == 0 then return nil end
  has_got(device, held.seq)
  if not has_passed(device, held.seq) then
    local at = 1
    while device.above[at] and device.above[at] < held.seq do at = at + 1 end
    table.insert(device.above, at, held.seq)
  end
  notify(h, book, id, held)
  return held.seq
end

local function pass_up_to(h, device, seq, begets)
  has_got(device, seq)
  local low = device.low
  if seq <= low then return end
  if begets then
    local book = book_of(h.uid)
    each_entry(h, math.max(low, h.dropped), seq, function(_, kind, row)
      if kind == CHAT then
        local id = id_of(row)
        local held = held_in(book, id)
        if held then notify(h, book, id, held) end
      end
    end)
  end
  device.low = seq
  local rest = {}
  for _, above in ipairs(device.above) do
    if above > seq then rest[#rest + 1] = above end
  end
  device.above = rest
  advance(h, device, seq)
end

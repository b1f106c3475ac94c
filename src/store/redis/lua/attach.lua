-- A connection begins: it enters the directory; its device is known from now on, goes to its
-- cursor, and gets a page. Answers: epoch, head, mark, whether the device is known, the page, and
-- which sessions of this node have to go.
local uid, name, limit = own(1), own(2), tonumber(own(3))
local epoch, seq = tonumber(own(4)), tonumber(own(5))
local session, value, most = own(6), own(7), tonumber(own(8))
local h, replaced = head_of(uid), {}
if value ~= "" and not is_broadcast then
  local _
  _, replaced = enter(h, session, value, most, true)
end
if not h.begun then
  local begins = new_epoch()
  local says_nothing = name == ANONYMOUS and (not epoch or (epoch == begins and seq == 0))
  -- With broadcasts it has to stand somewhere that the device was here.
  if says_nothing and not is_broadcast then
    return flush({ begins, 0, 0, 0, nothing(begins), replaced })
  end
  begin(h)
  h.must_save = true
end
local was_known = find(h.devices, name) ~= nil
local device = know(h, name)
keep_few(h, name)
if epoch then
  local fits = epoch == h.epoch and seq <= h.seq
  if fits and (was_known or seq >= h.dropped) then
    pass_up_to(h, device, seq, true)
  else
    device.resync = true
  end
end
local page = page_of(h, device, 0, limit)
drop_passed(h)
if h.touched + DAY_MS <= now then h.must_save = true end
return flush({ h.epoch, h.seq, device.low, 1, page, replaced })

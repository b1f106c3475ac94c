-- A device has got entries. Answers: which messages are unknown, whether the cursor fits, the mark.
local uid, name, how = own(1), own(2), own(3)
local h = head_of(uid)
local unknown, fits = {}, 1
if not h.begun then
  for at = 1, how == "messages" and #ARGV - HEADER - 3 or 0 do unknown[at] = own(3 + at) end
  return flush({ unknown, how == "cursor" and 0 or 1, 0, {} })
end
local dropped, device = h.dropped, know(h, name)
if how == "messages" then
  local book = book_of(uid)
  local got = 0
  for at = 4, #ARGV - HEADER do
    local seq = pass_message(h, book, device, own(at))
    if seq then got = math.max(got, seq) else unknown[#unknown + 1] = own(at) end
  end
  advance(h, device, got)
elseif how == "cursor" then
  local epoch, seq = tonumber(own(4)), tonumber(own(5))
  if epoch == h.epoch and seq <= h.seq then
    pass_up_to(h, device, seq, true)
  else
    fits = 0
  end
else
  pass_up_to(h, device, math.min(tonumber(own(4)), h.seq), false)
end
drop_passed(h)
if h.dropped > dropped then ring_untold(h) end
return flush({ unknown, fits, device.low, device.above })

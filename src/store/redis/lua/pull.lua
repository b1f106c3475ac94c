-- What a device has not passed behind a number.
local h = head_of(own(1))
if not h.begun then return flush(nothing(new_epoch())) end
return flush(page_of(h, know(h, own(2)), tonumber(own(3)), tonumber(own(4))))

-- Entries behind a number, whoever has passed them.
local h = head_of(own(1))
if not h.begun then return flush(nothing(new_epoch())) end
return flush(read(h, tonumber(own(2)), tonumber(own(3))))

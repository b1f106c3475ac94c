-- A device was here, and found no inbox.
local h, name = head_of(own(1)), own(2)
if not h.begun then begin(h) end
if not find(h.devices, name) then
  know(h, name)
  keep_few(h, name)
  h.must_save = true
end
return flush(1)

-- An inbox is read.
local function nothing(epoch)
  return { 0, 0, epoch, 0, 0, 0, false, {}, {} }
end

-- Entries behind `after` without those that a device has passed: up to where, head, epoch, the
-- device's low mark, what was offered, resync, told, the numbers of passed ones between, rows.
local function read(h, after, limit, device)
  local limit = math.min(limit, PAGE_ENTRIES)
  local bytes_left, is_whole, till, passed, rows = PAGE_BYTES, true, after, {}, {}
  each_entry(h, after, h.seq, function(seq, kind, row)
    local has_place = #rows / 2 + #passed < limit
    if not (device and has_passed(device, seq)) then
      is_whole = has_place and (#row <= bytes_left or #rows == 0)
      if not is_whole then return false end
      bytes_left = math.max(bytes_left - #row, 0)
      rows[#rows + 1] = seq
      rows[#rows + 1] = row
    elseif kind ~= NOTICE then
      is_whole = has_place
      if not is_whole then return false end
      passed[#passed + 1] = seq
    end
    till = seq
  end)
  if is_whole then till = math.max(till, h.seq) end
  return { till, h.seq, h.epoch, 0, 0, 0, false, passed, rows }
end

local function page_of(h, device, after, limit)
  local page = read(h, math.max(after, device.low, h.dropped), limit, device)
  page[4], page[5], page[6] = device.low, device.offered, device.resync and 1 or 0
  page[7] = device.told or false
  if is_untold(device) then device.told = math.max(device.offered, device.low) end
  device.offered = math.max(device.offered, math.min(page[1], h.seq))
  return page
end

-- A group is made, changed, ended or looked at. Answers: what came of it, then who is in it, or
-- was, or the user who is in too many.
local group, by, change = own(1), optional(own(2)), own(3)
local per_user, most, is_open = tonumber(own(4)), tonumber(own(5)), own(6) == "1"
local members = key(GROUP, group)
local present_members = call("ZRANGE", members, 0, -1, "WITHSCORES")
local names, is_member = {}, {}
for at = 1, #present_members, 2 do
  names[#names + 1] = present_members[at]
  is_member[present_members[at]] = true
end
local exists = #names > 0

local function refuse(code)
  return { code, {} }
end

local function named()
  local all = {}
  for at = 7, #ARGV - HEADER do all[#all + 1] = own(at) end
  return all
end

-- All of them, or nobody.
local function enter(newcomers)
  local last, entered = tonumber(present_members[#present_members]) or 0, {}
  for _, uid in ipairs(newcomers) do
    if not is_member[uid] then
      if #names >= most then return refuse(CROWDED) end
      if call("ZCARD", key(GROUPS_OF, uid)) >= per_user then return { TOO_MANY, { uid } } end
      names[#names + 1], is_member[uid], entered[#entered + 1] = uid, true, uid
    end
  end
  if #names == 0 then return refuse(BAD_ID) end
  for at, uid in ipairs(entered) do
    call("ZADD", members, text(last + at), uid)
    call("ZADD", key(GROUPS_OF, uid), 0, group)
  end
  if not exists then
    call("ZADD", prefix .. GROUPS, 0, group)
    call("ZADD", prefix .. DUE_GROUPS, text(now), group)
  end
  return { DONE, names }
end

-- Another group may have its id, and takes over nothing.
local function finish()
  local book = group_book(group)
  call("DEL", members, key(GROUP_LOG, group), key(GROUP_MARK, group), book.seen, book.ages)
  call("ZREM", prefix .. WORK, group)
  call("ZREM", prefix .. GROUPS, group)
  call("ZREM", prefix .. DUE_GROUPS, group)
end

-- What was accepted for its members is theirs: some of them get it now, and the others by the
-- work of a group with a name that nobody can give to one.
local function hand_out_all()
  local has_more, left, count = true, END_MAX, nil
  while has_more and left > 0 do
    has_more, count = hand_out(group, left)
    left = left - count
  end
  if not has_more then return end
  local first = call("XRANGE", key(GROUP_LOG, group), "-", "+", "COUNT", 1)[1]
  local remainder = group .. " " .. text(fresh) .. " " .. first[1]
  for _, kind in ipairs({ GROUP, GROUP_LOG, GROUP_MARK }) do
    if call("EXISTS", key(kind, group)) == 1 then
      call("RENAME", key(kind, group), key(kind, remainder))
    end
  end
  call("ZADD", prefix .. WORK, 0, remainder)
end

local function leave(uid)
  if not is_member[uid] or (by and by ~= uid) then return refuse(NOT_MEMBER) end
  call("ZREM", members, uid)
  call("ZREM", key(GROUPS_OF, uid), group)
  local rest = {}
  for _, name in ipairs(names) do
    if name ~= uid then rest[#rest + 1] = name end
  end
  if #rest == 0 then finish() end
  return { DONE, rest }
end

local function join()
  local all = named()
  local may = not by or is_member[by]
  if not may and is_open then
    may = true
    for _, uid in ipairs(all) do may = may and uid == by end
  end
  if not may then return refuse(NOT_MEMBER) end
  if by and #all == 0 then all = { by } end
  return enter(all)
end

local function change_it()
  if change == "create" then
    if exists then return refuse(EXISTS) end
    local all = named()
    if by then table.insert(all, 1, by) end
    return enter(all)
  end
  if not exists then return refuse(NOT_FOUND) end
  if change == "join" then return join() end
  if change == "leave" then return leave(own(7)) end
  if by and not is_member[by] then return refuse(NOT_MEMBER) end
  if change == "delete" then
    hand_out_all()
    for _, uid in ipairs(names) do call("ZREM", key(GROUPS_OF, uid), group) end
    finish()
  end
  return { DONE, names }
end

return flush(change_it())

-- Groups whose work nobody has taken up for a while: whoever asks takes it up.
local work = prefix .. WORK
local groups = call("ZRANGEBYSCORE", work, "-inf", text(now - tonumber(own(1))), "LIMIT", 0, tonumber(own(2)))
for _, group in ipairs(groups) do call("ZADD", work, text(now), group) end
return answer(groups)

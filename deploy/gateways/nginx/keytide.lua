-- Refuses the keys of Keytide's deny list. For nginx with http-lua (LuaJIT), see README.md beside it.
local ffi = require("ffi")
ffi.cdef("unsigned char *SHA256(const unsigned char *text, size_t length, unsigned char *digest);")
local denied, read, digest = {}, nil, ffi.new("unsigned char[32]")

local function reload(path)
    local file, problem = io.open(path, "rb")
    -- Keys that are denied stay so while there is no list to read.
    if not file then return ngx.log(ngx.ERR, "keytide: ", problem) end
    local text, list = file:read("*a"), {}
    file:close()
    if not text or text == read then return end
    for id in text:gmatch("([^\n]+) %l+\n") do list[id] = true end
    denied, read = list, text
end

local function check(key)
    ffi.C.SHA256(key, #key, digest)
    local id = ffi.string(digest, 16):gsub(".", function(byte) return ("%02x"):format(byte:byte()) end)
    if denied[id] then ngx.exit(ngx.HTTP_FORBIDDEN) end
end

local function check_header(name)
    -- Of a header that comes more than once nobody knows which the service reads.
    local keys = ngx.req.get_headers(0)[name] or {}
    for _, key in ipairs(type(keys) == "table" and keys or { keys }) do check(key) end
end

local function watch(path) reload(path); ngx.timer.every(1, function() reload(path) end) end
return { watch = watch, check = check, check_header = check_header }

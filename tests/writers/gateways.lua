-- Records as Apache APISIX (log-util.lua, get_full_log) and Kong (kong.log.serialize) compose them: the same functions of
-- lua-nginx-module, the same lua-cjson, without the gateways around them.
local cjson = require "cjson"
cjson.encode_sparse_array(true)

local gateways = {}
local files = {}
local batches = { apisix = {}, kong = {} }
local BATCH = 7

local function append(name, line)
    if not files[name] then
        files[name] = assert(io.open(DIR .. "/" .. name .. ".log", "ab"))
    end
    files[name]:write(line, "\n")
    files[name]:flush()
end

-- key-auth: a known key has a consumer and a credential; whatever the caller said of them is replaced.
function gateways.access()
    local key = ngx.req.get_headers()["apikey"]
    if type(key) == "table" then
        key = key[1]
    end
    ngx.req.read_body()
    if key and key:find("^kt_demo_") then
        ngx.ctx.consumer = "consumer-" .. ngx.md5(key):sub(1, 12)
        ngx.req.set_header("X-Consumer-Username", ngx.ctx.consumer)
        ngx.req.set_header("X-Credential-Identifier", "cred-" .. ngx.md5(key):sub(1, 12))
    end
end

local function apisix(with_body)
    local var = ngx.var
    local latency = (ngx.now() - ngx.req.start_time()) * 1000
    local upstream_latency = tonumber(var.upstream_response_time)
    upstream_latency = upstream_latency and upstream_latency * 1000
    local log = {
        request = {
            url = var.scheme .. "://" .. (var.host or "") .. ":" .. var.server_port .. (var.request_uri or ""),
            uri = var.request_uri,
            method = ngx.req.get_method(),
            headers = ngx.req.get_headers(),
            querystring = ngx.req.get_uri_args(),
            size = tonumber(var.request_length),
        },
        response = { status = ngx.status, headers = ngx.resp.get_headers(), size = tonumber(var.bytes_sent) },
        server = { hostname = "gw-1", version = "3.9.0" },
        upstream = var.upstream_addr,
        service_id = "shop",
        route_id = "1",
        consumer = ngx.ctx.consumer and { username = ngx.ctx.consumer } or nil,
        client_ip = var.remote_addr,
        start_time = ngx.req.start_time() * 1000,
        latency = latency,
        upstream_latency = upstream_latency,
        apisix_latency = latency - (upstream_latency or 0),
    }
    if with_body then
        log.request.body = ngx.req.get_body_data()
    end
    return log
end

local function kong()
    local var = ngx.var
    local consumer = ngx.ctx.consumer
    local headers = ngx.req.get_headers()
    if headers["authorization"] then
        headers["authorization"] = "REDACTED"
    end
    local latency = math.floor((ngx.now() - ngx.req.start_time()) * 1000 + 0.5)
    local upstream = tonumber(var.upstream_response_time)
    return {
        request = {
            id = var.request_id,
            uri = var.request_uri,
            url = var.scheme .. "://" .. (var.host or "") .. ":" .. var.server_port .. (var.request_uri or ""),
            querystring = ngx.req.get_uri_args(),
            method = ngx.req.get_method(),
            headers = headers,
            size = tonumber(var.request_length),
        },
        upstream_uri = var.upstream_uri or "",
        upstream_status = var.upstream_status or ngx.ctx.upstream_status or "",
        response = { status = ngx.status, headers = ngx.resp.get_headers(), size = tonumber(var.bytes_sent) },
        latencies = { request = latency, proxy = upstream and upstream * 1000 or -1, kong = 1 },
        tries = {},
        authenticated_entity = consumer and { id = "entity-" .. consumer } or nil,
        route = { id = "6a4d4a2e-5f6b-4d0c-9c83-1f3f2e1b7a11", name = "orders" },
        service = { id = "0d6e8f40-6f1b-4b0e-8a5e-95a2b1f3c9d2", name = "shop" },
        consumer = consumer and { id = "id-" .. consumer, username = consumer } or nil,
        client_ip = var.remote_addr,
        started_at = math.floor(ngx.req.start_time() * 1000),
        workspace_name = "default",
    }
end

local function batch(name, record)
    local held = batches[name]
    held[#held + 1] = record
    if #held == BATCH then
        gateways.flush(name)
    end
end

function gateways.flush(only)
    for name, held in pairs(batches) do
        if #held > 0 and (not only or only == name) then
            append(name .. "-batch", cjson.encode(held))
            batches[name] = {}
        end
    end
end

function gateways.log()
    local record = apisix(false)
    append("apisix", cjson.encode(record))
    append("apisix-body", cjson.encode(apisix(true)))
    batch("apisix", record)
    record = kong()
    append("kong", cjson.encode(record))
    batch("kong", record)
end

return gateways

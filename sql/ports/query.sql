SELECT
    r.direction,
    r.protocol,
    r.service_port,
    any_value(s.name) AS service,
    count(*) AS records,
    count(DISTINCT r.endpoint_ip) AS endpoints,
    count(DISTINCT r.peer_pid) AS hosts,
    count(*) FILTER (r.endpoint_sent AND r.peer_sent) AS two_way,
    try_cast(sum(r.endpoint_bytes_est) AS BIGINT) AS endpoint_bytes,
    try_cast(sum(r.peer_bytes_est) AS BIGINT) AS peer_bytes
FROM records AS r
LEFT JOIN services AS s ON s.protocol = r.protocol AND s.port = r.service_port
WHERE r.service_port IS NOT NULL
GROUP BY r.direction, r.protocol, r.service_port
ORDER BY records DESC, r.direction, r.protocol, r.service_port

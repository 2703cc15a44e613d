SELECT
    time_bucket(INTERVAL 1 HOUR, first_seen) AS hour,
    count(*) AS records,
    count(*) FILTER (direction = 'out_in') AS records_out_in,
    count(*) FILTER (direction = 'in_out') AS records_in_out,
    count(*) FILTER (direction = 'out_out') AS records_out_out,
    count(DISTINCT endpoint_ip) AS endpoints,
    count(DISTINCT peer_pid) AS hosts,
    try_cast(sum(endpoint_packets_est) AS BIGINT) AS endpoint_packets,
    try_cast(sum(peer_packets_est) AS BIGINT) AS peer_packets,
    try_cast(sum(endpoint_bytes_est) AS BIGINT) AS endpoint_bytes,
    try_cast(sum(peer_bytes_est) AS BIGINT) AS peer_bytes
FROM records
GROUP BY hour
ORDER BY hour

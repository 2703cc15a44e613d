SELECT
    time_bucket(INTERVAL 1 HOUR, first_seen) AS hour,
    count(*) AS records,
    count(*) FILTER (direction = 'out_in') AS records_out_in,
    count(*) FILTER (direction = 'in_out') AS records_in_out,
    count(*) FILTER (direction = 'out_out') AS records_out_out,
    count(DISTINCT endpoint_ip) AS endpoints,
    count(DISTINCT peer_pid) AS hosts,
    sum(endpoint_packets)::BIGINT AS endpoint_packets,
    sum(peer_packets)::BIGINT AS peer_packets,
    sum(endpoint_bytes)::BIGINT AS endpoint_bytes,
    sum(peer_bytes)::BIGINT AS peer_bytes
FROM records
GROUP BY hour
ORDER BY hour

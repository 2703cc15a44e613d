-- OCSF 1.x, class Network Activity (4001). The originator is the source. Attributes of
-- objects are flattened with underscores (src_endpoint.ip is src_endpoint_ip). Domestic
-- hosts have no ip, only the uid that is their pseudonym.
SELECT
    4 AS category_uid,
    4001 AS class_uid,
    6 AS activity_id,
    400106 AS type_uid,
    1 AS severity_id,
    '1.4.0' AS metadata_version,
    'Sekisho' AS metadata_product_name,
    epoch_ms(first_seen) AS "time",
    epoch_ms(first_seen) AS start_time,
    epoch_ms(last_seen) AS end_time,
    (duration_s * 1000)::BIGINT AS duration,
    if(originator = 'endpoint', endpoint_ip, peer_ip) AS src_endpoint_ip,
    if(originator = 'endpoint', NULL, peer_pid) AS src_endpoint_uid,
    if(originator = 'endpoint', endpoint_port, peer_port) AS src_endpoint_port,
    if(originator = 'endpoint', peer_ip, endpoint_ip) AS dst_endpoint_ip,
    if(originator = 'endpoint', peer_pid, NULL) AS dst_endpoint_uid,
    if(originator = 'endpoint', peer_port, endpoint_port) AS dst_endpoint_port,
    protocol AS connection_info_protocol_num,
    if(endpoint_addr[1:12] = '\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xFF\xFF'::BLOB, 4, 6)
        AS connection_info_protocol_ver_id,
    CASE direction WHEN 'out_in' THEN 1 WHEN 'in_out' THEN 2 ELSE 99 END
        AS connection_info_direction_id,
    try_cast(if(originator = 'endpoint', endpoint_packets_est, peer_packets_est) AS BIGINT)
        AS traffic_packets_out,
    try_cast(if(originator = 'endpoint', peer_packets_est, endpoint_packets_est) AS BIGINT)
        AS traffic_packets_in,
    try_cast(if(originator = 'endpoint', endpoint_bytes_est, peer_bytes_est) AS BIGINT)
        AS traffic_bytes_out,
    try_cast(if(originator = 'endpoint', peer_bytes_est, endpoint_bytes_est) AS BIGINT)
        AS traffic_bytes_in,
    try_cast(endpoint_packets_est + peer_packets_est AS BIGINT) AS traffic_packets,
    try_cast(endpoint_bytes_est + peer_bytes_est AS BIGINT) AS traffic_bytes,
    conn_state AS status_detail,
    sensor AS device_name
FROM records

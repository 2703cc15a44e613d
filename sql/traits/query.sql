SELECT
    endpoint_ip,
    s.talk_protocol AS protocol,
    s.talk_port AS service_port,
    ceil(log2(p.days + 1))::UTINYINT AS days,
    ceil(log2(p.hosts + 1))::UTINYINT AS hosts,
    ceil(log2(p.tried_hosts + 1))::UTINYINT AS tried_hosts,
    ceil(log2(p.tried_ports + 1))::UTINYINT AS tried_ports,
    ceil(log2(p.one_way_packets + 1))::UTINYINT AS one_way_packets,
    ceil(log2(s.retry_failed + 1))::UTINYINT AS failed,
    ceil(log2(s.rhythm_connections + 1))::UTINYINT AS connections,
    floor(10 * s.rhythm_regularity)::UTINYINT AS regularity,
    ceil(log2(floor(s.talk_longest_s) + 1))::UTINYINT AS longest_s,
    ceil(log2(s.talk_pauses + 1))::UTINYINT AS pauses,
    ceil(log2(coalesce(s.talk_endpoint_bytes, 0) + 1))::UTINYINT AS endpoint_bytes,
    ceil(log2(coalesce(s.talk_peer_bytes, 0) + 1))::UTINYINT AS peer_bytes,
    ceil(log2(s.upload_bytes + 1))::UTINYINT AS upload_bytes
FROM endpoints AS p
JOIN standouts AS s USING (endpoint_ip)

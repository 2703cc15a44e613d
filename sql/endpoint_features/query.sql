WITH population AS (
    SELECT
        count(*) FILTER (peer_is_domestic AND is_active) AS all_hosts,
        -- By chance one series in 2^b is as regular as b bits. Up to a hundred series that is
        -- allowed for; beyond them half of what their number asks for is taken off, so that the
        -- false ones grow with the root of the number only.
        0.5 * log2(greatest(sum(series), 100) / 100) AS chance_bits
    FROM hosts
),
onset AS (
    SELECT
        endpoint_ip,
        coalesce(max(crowd) FILTER (kind = 'syn'), 0) AS crowd_syn,
        coalesce(max(crowd) FILTER (kind = 'reflected'), 0) AS crowd_reflected,
        coalesce(max(to_system_ports) FILTER (kind = 'reflected'), 0) AS reflected_to_system_ports,
        coalesce(max(crowd) FILTER (kind = 'tcp'), 0) AS crowd_tcp,
        coalesce(max(crowd) FILTER (kind IN ('amplified', 'answers')), 0) AS crowd_amplified,
        coalesce(max(crowd) FILTER (kind = 'udp'), 0) AS crowd_udp,
        coalesce(max(net_crowd), 0) AS crowd_net,
        coalesce(sum(packets) FILTER (kind IN ('amplified', 'answers')), 0)::BIGINT AS amplified_packets,
        coalesce(sum(bytes) FILTER (kind IN ('amplified', 'answers')), 0)::BIGINT AS amplified_bytes
    FROM onsets
    GROUP BY endpoint_ip
)
SELECT
    p.*,
    c.* EXCLUDE (endpoint_ip, rhythm_peer, retry_peer, talk_peer, rhythm_bits, rhythm_regularity),
    c.rhythm_regularity * coalesce(
        least(1, greatest(0, (c.rhythm_bits - population.chance_bits - 6) / 14))
            / nullif(least(1, greatest(0, (c.rhythm_bits - 6) / 14)), 0),
        0
    ) AS rhythm_regularity,
    population.all_hosts,
    coalesce(d.bytes, 0) AS download_bytes,
    coalesce(d.service_port, 0) AS download_port,
    coalesce(d.before_s, 0) AS download_before_s,
    coalesce(d.fetches, 0) AS download_fetches,
    coalesce(d.regularity, 0) AS download_regularity,
    coalesce(d.beat_median_s, 0) AS download_median_s,
    d.beat_kind AS download_kind,
    coalesce(r.calls, 0) AS relay_calls,
    coalesce(r.passed_on, 0) AS relay_passed_on,
    coalesce(r.sources, 0) AS relay_sources,
    coalesce(r.targets, 0) AS relay_targets,
    coalesce(o.crowd_syn, 0) AS crowd_syn,
    coalesce(o.crowd_reflected, 0) AS crowd_reflected,
    coalesce(o.reflected_to_system_ports, 0) AS reflected_to_system_ports,
    coalesce(o.crowd_tcp, 0) AS crowd_tcp,
    coalesce(o.crowd_amplified, 0) AS crowd_amplified,
    coalesce(o.crowd_udp, 0) AS crowd_udp,
    coalesce(o.crowd_net, 0) AS crowd_net,
    coalesce(o.amplified_packets, 0) AS amplified_packets,
    coalesce(o.amplified_bytes, 0) AS amplified_bytes,
    rhythm_host.unusual_endpoints AS rhythm_host_unusual_endpoints,
    coalesce(kin.endpoints, 0) AS kin_endpoints,
    coalesce(kin.regularity, 0) AS kin_regularity,
    coalesce(kin.median_s, 0) AS kin_median_s,
    coalesce(kin.service_port, 0) AS kin_port,
    kin.service_kind AS kin_kind,
    coalesce(kin.request_bytes, 0) AS kin_request_bytes,
    retry_host.failed_endpoints AS retry_host_failed_endpoints,
    talk_host.unusual_endpoints AS talk_host_unusual_endpoints,
    coalesce(covert.names_exchanges, 0) AS names_exchanges,
    coalesce(covert.names_long_exchanges, 0) AS names_long_exchanges,
    covert.names_long_bytes,
    coalesce(covert.names_long_slots, 0) AS names_long_slots,
    coalesce(covert.pings_exchanges, 0) AS pings_exchanges,
    covert.pings_request_bytes,
    covert.pings_longest_request_bytes,
    covert.pings_reply_bytes,
    covert.pings_longest_reply_bytes,
    coalesce(names_host.name_exchanges, 0) AS names_host_exchanges,
    unlike.novelty,
    unlike.novelty_in
FROM endpoints AS p
CROSS JOIN population
JOIN standouts AS c ON c.endpoint_ip = p.endpoint_ip
JOIN hosts AS rhythm_host ON rhythm_host.peer = c.rhythm_peer
JOIN hosts AS retry_host ON retry_host.peer = c.retry_peer
JOIN hosts AS talk_host ON talk_host.peer = c.talk_peer
LEFT JOIN downloads AS d ON d.endpoint_ip = p.endpoint_ip
LEFT JOIN relays AS r ON r.endpoint_ip = p.endpoint_ip
LEFT JOIN onset AS o ON o.endpoint_ip = p.endpoint_ip
LEFT JOIN kin ON kin.endpoint_ip = p.endpoint_ip
LEFT JOIN covert ON covert.endpoint_ip = p.endpoint_ip
LEFT JOIN hosts AS names_host ON names_host.peer = covert.names_peer
LEFT JOIN (
    SELECT endpoint_ip, novelty, novelty_in FROM traits NATURAL JOIN novelty
) AS unlike ON unlike.endpoint_ip = p.endpoint_ip
ORDER BY p.endpoint_ip

-- What a sample left out may have been sent: of one record made from samples nobody knows
-- whether it was answered. Of many that began together it shows, as answers are sampled too.
SELECT
    peer,
    protocol,
    time_bucket(INTERVAL 10 SECONDS, first_seen) AS begun,
    -- A host that knows of no call resets what comes in answer to it.
    count(*) FILTER (peer_sent AND (protocol <> 6 OR coalesce(peer_tcp_flags & 4 = 0, true)))
        AS from_peer,
    count(*) FILTER (peer_sent AND sampling_rate > 1) AS sampled_from_peer,
    count(*) FILTER (
        protocol = 6 AND endpoint_sent
        AND (endpoint_spoke OR coalesce(endpoint_tcp_flags & 22 = 16, true))
    ) AS endpoint_went_on
FROM contacts
WHERE protocol IN (6, 17) AND (SELECT bool_or(sampled > 0) FROM sensors)
GROUP BY ALL

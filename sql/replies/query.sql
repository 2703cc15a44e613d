-- Of one record made from samples nobody knows whether more of the conversation followed. Of many
-- that began together it shows, as what follows is sampled too.
SELECT
    peer,
    time_bucket(INTERVAL 10 SECONDS, first_seen) AS begun,
    count(DISTINCT endpoint_ip) FILTER (
        -- A host that knows of no call resets what comes in answer to it (RFC 9293, 3.5.2).
        (peer_sent AND coalesce(peer_tcp_flags & 23 <> 4, true))
        OR (endpoint_sent AND (endpoint_spoke OR coalesce(endpoint_tcp_flags & 22 = 16, true)))
    ) AS conversing
FROM contacts
WHERE is_recent AND protocol = 6 AND (SELECT bool_or(sampled > 0) FROM sensors)
GROUP BY ALL

-- What a sample left out may have been sent: of one record made from samples nobody knows
-- whether it was answered. Of many that began together it shows, as answers are sampled too.
SELECT
    peer,
    protocol,
    time_bucket(INTERVAL 10 SECONDS, first_seen) AS begun,
    -- A host that knows of no call resets what comes in answer to it.
    count(*) FILTER (peer_sent AND (protocol <> 6 OR coalesce(peer_tcp_flags & 4 = 0, true)))
        AS from_peer,
    count(*) FILTER (
        endpoint_sent AND (endpoint_spoke OR coalesce(endpoint_tcp_flags & 22 = 16, true))
    ) AS went_on
FROM contacts
WHERE sampling_rate > 1
GROUP BY ALL

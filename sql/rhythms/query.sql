-- When each channel was heard, in three ways:
--   start     a connection opened by the inside host
--   beat      a stretch of talk, either side, parted from the one before by a second or more;
--             only where both sides spoke, as an unanswered SYN repeats by itself
--   start_in  a connection opened by the endpoint
WITH busy AS (
    -- A series needs four moments, and most channels have fewer.
    SELECT
        channel,
        any_value(endpoint_ip) AS endpoint_ip,
        any_value(peer) AS peer,
        any_value(protocol) AS protocol,
        any_value(service_port) AS service_port
    FROM contacts
    WHERE is_recent
    GROUP BY channel
    HAVING sum(coalesce(len(endpoint_burst_starts), 1) + coalesce(len(peer_burst_starts), 1)) >= 4
),
heard AS MATERIALIZED (
    SELECT
        channel, protocol, endpoint_port, peer_port, opened_at, first_seen, opens, from_endpoint,
        endpoint_sent, endpoint_first, endpoint_last, endpoint_burst_starts, endpoint_burst_ends,
        peer_sent, peer_first, peer_last, peer_burst_starts, peer_burst_ends,
        endpoint_spoke, was_answered, conn_state, sure_pause_s, sampling_rate,
        coalesce(endpoint_packets, 0) + coalesce(peer_packets, 0) AS packets
    FROM contacts
    WHERE is_recent AND channel IN (SELECT channel FROM busy)
),
talked AS (
    SELECT
        *,
        -- Sides that spoke once each, within a second, were one stretch: no need to sort both.
        endpoint_burst_starts IS NULL AND peer_burst_starts IS NULL
            AND epoch_us(greatest(endpoint_first, peer_first) - least(endpoint_last, peer_last))
                < 1000000 AS is_one
    FROM heard
    -- Samples of a steady stream are steady themselves; and a call that is refused repeats.
    WHERE was_answered AND conn_state <> 'REJ' AND sampling_rate = 1
),
talk AS (
    SELECT
        channel, endpoint_port, peer_port, opened_at, sure_pause_s,
        least(endpoint_first, peer_first) AS begun,
        greatest(endpoint_last, peer_last) AS ended
    FROM talked
    WHERE is_one
    UNION ALL
    SELECT
        channel, endpoint_port, peer_port, opened_at, sure_pause_s,
        unnest(coalesce(endpoint_burst_starts, [endpoint_first])),
        unnest(coalesce(endpoint_burst_ends, [endpoint_last]))
    FROM talked
    WHERE is_one IS NOT true AND endpoint_first IS NOT NULL
    UNION ALL
    SELECT
        channel, endpoint_port, peer_port, opened_at, sure_pause_s,
        unnest(coalesce(peer_burst_starts, [peer_first])),
        unnest(coalesce(peer_burst_ends, [peer_last]))
    FROM talked
    WHERE is_one IS NOT true AND peer_first IS NOT NULL
),
several AS (
    SELECT hash(channel, endpoint_port, peer_port, opened_at) AS connection
    FROM talk
    GROUP BY connection
    HAVING count(*) > 1
),
-- What is parted from what came before in its connection; most connections are one stretch.
parted AS (
    SELECT
        *,
        -- An exporter cuts a connection that goes on at its active timeout, and the next
        -- packet begins a new record: a silence shorter than its timeouts ask for is such a
        -- cut. Where they are not told, one shorter than the stretch before it may be.
        max(epoch_us(ended) + coalesce(sure_pause_s * 1000000, epoch_us(ended - begun))) OVER (
            PARTITION BY channel, endpoint_port, peer_port, opened_at
            ORDER BY begun, ended
            ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
        ) AS cut_until
    FROM talk
    WHERE hash(channel, endpoint_port, peer_port, opened_at) IN (FROM several)
    UNION ALL
    SELECT *, NULL
    FROM talk
    WHERE hash(channel, endpoint_port, peer_port, opened_at) NOT IN (FROM several)
),
stretches AS (
    SELECT
        channel,
        begun,
        cut_until,
        max(ended) OVER (
            PARTITION BY channel
            ORDER BY begun, ended
            ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
        ) AS silent_since
    FROM parted
),
moments AS (
    SELECT channel, 'beat' AS series, begun AS moment
    FROM stretches
    WHERE silent_since IS NULL
        OR (
            epoch_us(begun - silent_since) >= 1000000
            AND (cut_until IS NULL OR epoch_us(begun) >= cut_until)
        )
    UNION ALL
    SELECT channel, if(from_endpoint, 'start_in', 'start'), first_seen
    FROM heard
    -- Answers to calls that the host never made are the echo of forged packets.
    WHERE opens AND (from_endpoint OR peer_sent OR endpoint_spoke)
        -- A single sample may come from the midst of anything; several make a beginning. Of TCP, one
        -- is enough: a connection is one beginning, however long it is silent.
        AND (sampling_rate = 1 OR protocol = 6 OR packets >= 4)
),
spaced AS (
    SELECT
        *,
        epoch_us(moment - lag(moment) OVER (
            PARTITION BY channel, series ORDER BY moment
        )) / 1e6 AS gap_s
    FROM moments
),
gathered AS (
    SELECT
        channel,
        series,
        -- Connections opened together are one moment.
        list(gap_s ORDER BY gap_s) FILTER (gap_s >= 1) AS gaps,
        epoch_us(max(moment) - min(moment)) / 1e6 AS span_s,
        -- Readers put an answer of unknown time a microsecond after the call.
        if(bool_and(epoch_us(moment) % 1000000 <= 1), 1, 0) AS resolution_s
    FROM spaced
    GROUP BY ALL
    HAVING count(*) FILTER (gap_s >= 1) >= 3
),
measured AS (
    SELECT
        *,
        len(gaps) AS n,
        list_aggregate(gaps, 'median') AS median_s,
        list_aggregate(gaps, 'mad') AS mad_s,
        list_aggregate(gaps, 'quantile_cont', 0.25) AS q1,
        list_aggregate(gaps, 'quantile_cont', 0.75) AS q3,
        list_aggregate(gaps, 'stddev_pop') / nullif(list_aggregate(gaps, 'avg'), 0) AS variation
    FROM gathered
),
judged AS (
    SELECT
        *,
        -- As for the bits, chance begins at a second: of its gaps a third are near.
        len(list_filter(gaps, lambda g: 2 * abs(g - median_s) <= median_s - 1)) / n AS near_share,
        -- How surprising is it that so many gaps are so alike? Gaps of unhurried chance
        -- (exponential) have a MAD of 0.69 of their median; each gap that keeps to a
        -- narrower band adds the logarithm of how much narrower. Clocks are not believed
        -- below one in a hundred, nor below what rounding to seconds hides: the difference of
        -- two rounded times has a MAD of 0.29 of the unit.
        -- Gaps below a second were left out, and what is left of chance begins there.
        (n - 1) * greatest(0, log2(
            0.69 / greatest(
                greatest(mad_s, 0.29 * resolution_s) / greatest(median_s - 1, 0.001), 0.01
            )
        )) AS bits
    FROM measured
)
SELECT
    channel,
    endpoint_ip,
    peer,
    protocol,
    service_port,
    series,
    n AS gaps,
    median_s,
    mad_s,
    mad_s / nullif(median_s, 0) AS dispersion,
    coalesce((q1 + q3 - 2 * median_s) / nullif(q3 - q1, 0), 0) AS skew,
    variation,
    resolution_s,
    near_share,
    span_s,
    bits,
    -- Six bits happen by chance among a hundred channels, twenty in a million.
    -- Missed beats and nights are allowed for: one gap in four may lie far from the median.
    least(1, greatest(0, (bits - 6) / 14)) * least(1, greatest(0, (near_share - 0.5) / 0.25))
        AS regularity
FROM judged
JOIN busy USING (channel)

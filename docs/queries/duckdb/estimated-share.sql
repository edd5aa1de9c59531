-- How much of the money rests on anything but what Azure reported.
SELECT coalesce(usage_source, 'unknown')                         AS usage_source,
       count(*)                                                  AS records,
       sum(cost_nano_usd)::BIGINT                                AS cost_nano_usd,
       (sum(cost_nano_usd) * 1000000 // nullif(sum(sum(cost_nano_usd)) OVER (), 0))::BIGINT AS share_ppm
FROM read_parquet('usage.parquet')
WHERE kind IN ('request', 'update', 'write_off')
GROUP BY usage_source
ORDER BY cost_nano_usd DESC NULLS LAST, usage_source;

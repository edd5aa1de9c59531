-- What each meter of each product cost, of FOCUS rows. DECIMAL(18,9) is exact:
-- sums are DECIMAL(38,9).
SELECT SubAccountId, SubAccountName, SkuMeter, PricingUnit,
       sum(PricingQuantity)                                      AS quantity,
       sum(ListCost)                                             AS list_usd,
       sum(EffectiveCost)                                        AS effective_usd,
       sum(x_CostNanoUsd)::BIGINT                                AS cost_nano_usd
FROM read_parquet('focus.parquet')
GROUP BY ALL
ORDER BY SubAccountId, SkuMeter, PricingUnit;

-- Where our books and Azure's bill drift apart, by day and region.
-- Reads: focus.parquet, of `gateway lake export -format focus -to focus.parquet`,
-- and azure-focus.parquet: the export "Cost and usage details (FOCUS)" of Azure
-- Cost Management, any version from 1.0 on. Its columns that count here:
-- ChargePeriodStart (a day), ServiceName, RegionId, ChargeCategory, BilledCost,
-- EffectiveCost, ListCost, BillingCurrency.
--
-- ListCost is compared: it has neither our markups nor Azure's discounts. Azure
-- rounds by meter and day and bills some hours late, so that a day is only final
-- after about three days. What is billed by the hour (provisioned throughput)
-- is in Azure's column alone. The names in the list are those under which Azure
-- has sold these models; look into your export for others.
SET TimeZone = 'UTC';
WITH ours AS (
    SELECT CAST(ChargePeriodStart AS DATE)                       AS day, RegionId,
           sum(ListCost)::DECIMAL(38, 9)                         AS list_usd
    FROM read_parquet('focus.parquet')
    WHERE ChargeCategory = 'Usage'
    GROUP BY ALL
), azure AS (
    SELECT CAST(ChargePeriodStart AS DATE)                       AS day, RegionId,
           sum(CAST(ListCost AS DECIMAL(38, 18)))::DECIMAL(38, 9) AS list_usd
    FROM read_parquet('azure-focus.parquet')
    WHERE ChargeCategory = 'Usage' AND BillingCurrency = 'USD'
      AND ServiceName IN ('Azure OpenAI', 'Azure OpenAI Service', 'Cognitive Services', 'Azure AI services', 'Foundry Models')
    GROUP BY ALL
)
SELECT strftime(coalesce(ours.day, azure.day), '%Y-%m-%d')       AS day,
       coalesce(ours.RegionId, azure.RegionId)                   AS region,
       coalesce(ours.list_usd, 0)::DECIMAL(38, 9)                AS ours_usd,
       coalesce(azure.list_usd, 0)::DECIMAL(38, 9)               AS azure_usd,
       (coalesce(ours.list_usd, 0) - coalesce(azure.list_usd, 0))::DECIMAL(38, 9) AS drift_usd
FROM ours FULL JOIN azure ON ours.day = azure.day AND ours.RegionId IS NOT DISTINCT FROM azure.RegionId
ORDER BY day, region;

// Premium, and every setting that can be given, given.
using '../main.bicep'

param environmentName = 'premium'
param tags = {
  team: 'platform'
}
param hostingPlan = 'premium'
param premiumSku = 'EP2'
param premiumMinimumInstances = 2
param premiumMaximumInstances = 10
param packageUploaderPrincipalId = '00000000-0000-0000-0000-0000000000b0'
param openAiLocation = 'swedencentral'
param deployments = [
  {
    name: 'gpt-5'
    model: 'gpt-5'
    version: '2025-08-07'
    sku: 'DataZoneStandard'
    capacity: 100
  }
  {
    name: 'gpt-4.1-mini'
    model: 'gpt-4.1-mini'
    version: '2025-04-14'
    sku: 'GlobalStandard'
  }
]
param prices = {
  version: 'agreement-1'
  prices: [
    {
      model: 'gpt-5'
      sku: 'DataZoneStandard'
      region: 'eu'
      mode: 'chat'
      from: '2026-01-01'
      pico_usd: {
        in: 1300000
        out: 10000000
      }
    }
  ]
}
param unmeteredPaths = ['v1/files', 'v1/files/*']
param services = {
  billing: {
    url: 'https://billing.example.com/v1'
    pricePerCall: '0.001'
  }
}
param keyVaultSettings = {
  NOTIFY_WEBHOOK_URL: 'https://kv-costgate.vault.azure.net/secrets/notify-url'
  NOTIFY_WEBHOOK_SECRET: 'https://kv-costgate.vault.azure.net/secrets/notify-secret'
}
param recordRetentionDays = 0
param streamMax = '20m'
param streamKeepAlive = '30s'
param logContent = true
param logLevel = 'debug'
param storageReplication = 'Standard_GZRS'
param eventHubCapacity = 2
param eventHubCapacityMax = 8
param eventHubPartitions = 8
param thisMonth = '2026-11-01'

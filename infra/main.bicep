// Costgate on Azure: the function app, its storage, the quota tables, the hub
// and the lake, Azure OpenAI, and who may do what. No keys anywhere.
//
//   az deployment group create -g <resource group> -p infra/main.bicepparam
//
// or azd up. Then the package: see README.md.
targetScope = 'resourceGroup'

import { deployment } from 'modules/deployment.bicep'
import { roles } from 'modules/roles.bicep'

// Place and names ------------------------------------------------------------

@description('Name of the environment. Two in one resource group do not meet.')
@minLength(1)
@maxLength(64)
param environmentName string = 'costgate'

@description('Azure region of everything but Azure OpenAI.')
param location string = resourceGroup().location

@description('Tags on every resource.')
param tags object = {}

// Hosting --------------------------------------------------------------------

@description('flex: Flex Consumption, paid by use. premium: Elastic Premium, instances that always run.')
@allowed(['flex', 'premium'])
param hostingPlan string = 'flex'

@description('Flex: memory of an instance, in MB. CPU goes along with it.')
@allowed([512, 2048, 4096])
param instanceMemoryMB int = 2048

@description('Flex: instances kept warm for requests, and paid for all the time. 0: none; the first request after a pause waits for a start.')
@minValue(0)
@maxValue(40)
param alwaysReadyInstances int = 1

@description('Flex: most instances.')
@minValue(40)
@maxValue(1000)
param maximumInstanceCount int = 40

@description('Flex: requests that an instance serves at a time, streams included. Fewer if prompts are large: each is held in memory.')
@minValue(1)
@maxValue(1000)
param perInstanceConcurrency int = 200

@description('Premium: size of an instance.')
@allowed(['EP1', 'EP2', 'EP3'])
param premiumSku string = 'EP1'

@description('Premium: instances that always run.')
@minValue(1)
@maxValue(20)
param premiumMinimumInstances int = 1

@description('Premium: most instances.')
@minValue(1)
@maxValue(100)
param premiumMaximumInstances int = 20

@description('Premium: object id of who uploads the package; empty: nobody gets a role for it.')
param packageUploaderPrincipalId string = ''

@description('Premium: what that is.')
@allowed(['User', 'Group', 'ServicePrincipal'])
param packageUploaderPrincipalType string = 'User'

@description('True: storage, Event Hubs and a new Azure OpenAI account are reached by private endpoints only. The gateway itself stays public.')
param privateNetworking bool = false

@description('Address space of the virtual network: IPv4, /25 or larger.')
param vnetAddressPrefix string = '10.60.0.0/24'

// Azure OpenAI ---------------------------------------------------------------

@description('Resource id of an Azure OpenAI (or AI Services) account that exists. The deployer must be allowed to assign roles on it. Empty: a new one is made.')
param existingOpenAiResourceId string = ''

@description('Azure OpenAI\'s endpoint, if it is neither new nor of that account: https://host[/base]. The gateway\'s identity must get its role there by other means.')
param openAiEndpoint string = ''

@description('Region of a new account, or of the one behind openAiEndpoint; empty: as location. It is part of the price of some deployments.')
param openAiLocation string = ''

@description('Deployments: made in a new account, and in any case told to the gateway, which prices by them. Of an existing account, describe those that are there.')
@maxLength(100)
param deployments deployment[] = [
  {
    name: 'gpt-5-mini'
    model: 'gpt-5-mini'
    version: '2025-08-07'
    sku: 'GlobalStandard'
    capacity: 50
  }
]

// Records --------------------------------------------------------------------

@description('Replication of the quota tables and of the lake.')
@allowed(['Standard_LRS', 'Standard_ZRS', 'Standard_GRS', 'Standard_GZRS'])
param storageReplication string = 'Standard_ZRS'

@description('Prefix of the gateway\'s tables: letters and digits, a letter first.')
@minLength(3)
@maxLength(40)
param quotaTableName string = 'Costgate'

@description('Days for which records stay in the tables behind the end of their period; 0: for ever.')
@minValue(0)
@maxValue(36500)
param recordRetentionDays int = 400

@description('Name of the event hub.')
@minLength(1)
@maxLength(50)
param eventHubName string = 'usage'

@description('Partitions of the hub. In the Standard tier the number is for ever.')
@minValue(1)
@maxValue(32)
param eventHubPartitions int = 4

@description('Throughput units of the namespace: 1 MB/s or 1,000 records/s, each. Capture is paid by the unit too.')
@minValue(1)
@maxValue(40)
param eventHubCapacity int = 1

@description('Up to how many units the namespace grows by itself. 1: it does not.')
@minValue(1)
@maxValue(40)
param eventHubCapacityMax int = 1

@description('Hours for which records stay in the hub.')
@minValue(1)
@maxValue(168)
param eventHubRetentionHours int = 168

@description('Seconds after which Capture closes a file in the lake.')
@minValue(60)
@maxValue(900)
param captureSeconds int = 300

@description('Days after which files of the lake go to the cool tier; 0: never.')
@minValue(0)
@maxValue(36500)
param lakeCoolAfterDays int = 90

// The gateway ----------------------------------------------------------------

@description('Prices to add to the gateway\'s book or to replace in it: PRICES_FILE as an object.')
param prices object = {}

@description('Paths below openai/ that are forwarded without charge, for example v1/files.')
param unmeteredPaths string[] = []

@description('HTTP services behind services/: SERVICES as an object, see docs/SERVICES.md.')
param services object = {}

@description('Settings that hold secrets, each with the URI of its Key Vault secret: NOTIFY_WEBHOOK_URL, NOTIFY_WEBHOOK_SECRET, the secretSetting of services. The gateway\'s identity has to be a Key Vault Secrets User of that vault.')
param keyVaultSettings object = {}

@description('How long an answer may take, for example 25m. Less than the functionTimeout of host.json.')
param streamMax string = '25m'

@description('Silence after which a stream gets a comment line, so that nobody on the way cuts it: below 230s. 0: never.')
param streamKeepAlive string = '60s'

@description('True: the beginning of every prompt and answer goes to the log.')
param logContent bool = false

@description('What the gateway logs.')
@allowed(['debug', 'info', 'warn', 'error'])
param logLevel string = 'info'

// Logs -----------------------------------------------------------------------

@description('Days for which logs are kept.')
@minValue(30)
@maxValue(730)
param logRetentionDays int = 30

@description('GB of logs a day after which no more are taken in until the next day; -1: no limit.')
@minValue(-1)
@maxValue(1000)
param logDailyCapGB int = 1

// Budget alerts: the second step ---------------------------------------------

@description('True: make the action group that calls BudgetAlert, and the budget. The package must have been deployed before: the function is asked for its key.')
param alertsEnabled bool = false

@description('Monthly budget for the Azure OpenAI account, in the currency that Azure bills; 0: none.')
@minValue(0)
param budgetAmount int = 0

@description('Name of the budget: products with this budgetName are stopped by it.')
@minLength(1)
@maxLength(63)
param budgetName string = take(environmentName, 63)

@description('First day of the budget\'s first month, yyyy-MM-01. Keep it when you deploy again: Azure does not move it. Empty: this month.')
param budgetStartDate string = ''

@description('Percentages of the budget at which BudgetAlert is called.')
@minLength(1)
@maxLength(4)
param budgetThresholds int[] = [50, 80, 100]

@description('Not to be given: the month of the deployment.')
param thisMonth string = utcNow('yyyy-MM-01')

// ----------------------------------------------------------------------------

var token = uniqueString(resourceGroup().id, environmentName)
var suffix = 'costgate-${token}'
var allTags = union(tags, {
  'azd-env-name': environmentName
})
var flex = hostingPlan == 'flex'
var packageContainer = 'package'
var packageName = 'costgate.zip'
var lakeContainer = 'usage'

var useExistingOpenAi = !empty(existingOpenAiResourceId)
var makeOpenAi = !useExistingOpenAi && empty(openAiEndpoint)
var openAiPlace = empty(openAiLocation) ? location : openAiLocation
// /subscriptions/{2}/resourceGroups/{4}/providers/Microsoft.CognitiveServices/accounts/{8}
var openAiIdParts = split(
  useExistingOpenAi
    ? existingOpenAiResourceId
    : '${resourceGroup().id}/providers/Microsoft.CognitiveServices/accounts/-',
  '/'
)

module identity 'modules/identity.bicep' = {
  params: {
    name: 'id-${suffix}'
    location: location
    tags: allTags
  }
}

// Capture writes under an identity of its own: the gateway cannot touch the lake.
module captureIdentity 'modules/identity.bicep' = {
  params: {
    name: 'id-capture-${token}'
    location: location
    tags: allTags
  }
}

module monitoring 'modules/monitoring.bicep' = {
  params: {
    suffix: suffix
    location: location
    tags: allTags
    retentionDays: logRetentionDays
    dailyCapGB: logDailyCapGB
    publisherPrincipalId: identity.outputs.principalId
  }
}

// The host's own: keys of functions, leases of timers, the package. The roles
// are those that the host documents for storage by identity.
module hostStorage 'modules/storage.bicep' = {
  params: {
    name: 'sthost${token}'
    location: location
    tags: allTags
    sku: 'Standard_LRS'
    // A Premium package is uploaded to it from outside.
    openNetwork: !privateNetworking || !flex
    containers: [packageContainer]
    grants: [
      {
        principalId: identity.outputs.principalId
        roleId: roles.storageBlobDataOwner
      }
      {
        principalId: identity.outputs.principalId
        roleId: roles.storageQueueDataContributor
      }
      {
        principalId: identity.outputs.principalId
        roleId: roles.storageTableDataContributor
      }
    ]
  }
}

module uploader 'modules/container-role.bicep' = if (!flex && !empty(packageUploaderPrincipalId)) {
  params: {
    accountName: hostStorage.outputs.name
    containerName: packageContainer
    principalId: packageUploaderPrincipalId
    principalType: packageUploaderPrincipalType
    roleId: roles.storageBlobDataContributor
  }
}

// The books. Apart from the host's, so that what the host needs opens no money.
// The gateway makes its tables itself.
module quotaStorage 'modules/storage.bicep' = {
  params: {
    name: 'stquota${token}'
    location: location
    tags: allTags
    sku: storageReplication
    openNetwork: !privateNetworking
    grants: [
      {
        principalId: identity.outputs.principalId
        roleId: roles.storageTableDataContributor
      }
    ]
  }
}

module lake 'modules/storage.bicep' = {
  params: {
    name: 'stlake${token}'
    location: location
    tags: allTags
    sku: storageReplication
    hierarchicalNamespace: true
    openNetwork: !privateNetworking
    containers: [lakeContainer]
    coolAfterDays: lakeCoolAfterDays
  }
}

module captureRole 'modules/container-role.bicep' = {
  params: {
    accountName: lake.outputs.name
    containerName: lakeContainer
    principalId: captureIdentity.outputs.principalId
    roleId: roles.storageBlobDataContributor
  }
}

module eventHubs 'modules/eventhubs.bicep' = {
  // Event Hubs tries to write before it accepts a hub with Capture.
  dependsOn: [captureRole]
  params: {
    name: 'evhns-${suffix}'
    location: location
    tags: allTags
    hubName: eventHubName
    partitions: eventHubPartitions
    capacity: eventHubCapacity
    capacityMax: eventHubCapacityMax
    retentionHours: eventHubRetentionHours
    lakeAccountId: lake.outputs.id
    lakeContainer: lakeContainer
    captureSeconds: captureSeconds
    captureIdentityId: captureIdentity.outputs.id
    senderPrincipalId: identity.outputs.principalId
    openNetwork: !privateNetworking
    workspaceId: monitoring.outputs.workspaceId
  }
}

module openAi 'modules/openai.bicep' = if (makeOpenAi) {
  params: {
    name: 'oai-${suffix}'
    location: openAiPlace
    tags: allTags
    deployments: deployments
    userPrincipalId: identity.outputs.principalId
    openNetwork: !privateNetworking
    workspaceId: monitoring.outputs.workspaceId
  }
}

module existingOpenAi 'modules/openai-existing.bicep' = if (useExistingOpenAi) {
  scope: resourceGroup(openAiIdParts[2], openAiIdParts[4])
  params: {
    name: openAiIdParts[8]
    userPrincipalId: identity.outputs.principalId
  }
}

var hostZones = privateNetworking
  ? {
      blob: 'privatelink.blob.${environment().suffixes.storage}'
      queue: 'privatelink.queue.${environment().suffixes.storage}'
      table: 'privatelink.table.${environment().suffixes.storage}'
    }
  : {}
var hubZone = 'privatelink.servicebus.windows.net'
var openAiZone = 'privatelink.openai.azure.com'

module network 'modules/network.bicep' = if (privateNetworking) {
  params: {
    suffix: suffix
    location: location
    tags: allTags
    addressPrefix: vnetAddressPrefix
    delegation: flex ? 'Microsoft.App/environments' : 'Microsoft.Web/serverFarms'
    zones: concat(map(items(hostZones), zone => zone.value), [hubZone], makeOpenAi ? [openAiZone] : [])
  }
}

module hostEndpoints 'modules/private-endpoint.bicep' = [
  for zone in items(hostZones): {
    params: {
      name: 'pe-host-${zone.key}-${token}'
      location: location
      tags: allTags
      targetId: hostStorage.outputs.id
      group: zone.key
      subnetId: network!.outputs.endpointSubnetId
      zoneName: zone.value
    }
  }
]

module quotaEndpoint 'modules/private-endpoint.bicep' = if (privateNetworking) {
  params: {
    name: 'pe-quota-${token}'
    location: location
    tags: allTags
    targetId: quotaStorage.outputs.id
    group: 'table'
    subnetId: network!.outputs.endpointSubnetId
    zoneName: hostZones.?table ?? ''
  }
}

module hubEndpoint 'modules/private-endpoint.bicep' = if (privateNetworking) {
  params: {
    name: 'pe-hub-${token}'
    location: location
    tags: allTags
    targetId: eventHubs.outputs.id
    group: 'namespace'
    subnetId: network!.outputs.endpointSubnetId
    zoneName: hubZone
  }
}

module openAiEndpoints 'modules/private-endpoint.bicep' = if (privateNetworking && makeOpenAi) {
  params: {
    name: 'pe-openai-${token}'
    location: location
    tags: allTags
    targetId: openAi!.outputs.id
    group: 'account'
    subnetId: network!.outputs.endpointSubnetId
    zoneName: openAiZone
  }
}

// One line for each setting. Those that hold secrets are not among them: keys
// and connection strings are what identities are for.
var gatewaySettings = {
  AZURE_OPENAI_ENDPOINT: !empty(openAiEndpoint)
    ? openAiEndpoint
    : makeOpenAi ? openAi!.outputs.endpoint : existingOpenAi!.outputs.endpoint
  QuotaStorage__tableServiceUri: quotaStorage.outputs.tableEndpoint
  QuotaStorage__credential: 'managedidentity'
  QuotaStorage__clientId: identity.outputs.clientId
  QuotaTableName: quotaTableName
  UsageEventHub__fullyQualifiedNamespace: eventHubs.outputs.fullyQualifiedNamespace
  UsageEventHub__credential: 'managedidentity'
  UsageEventHub__clientId: identity.outputs.clientId
  UsageEventHubName: eventHubs.outputs.hubName
  // The app's own folder is read-only, and nothing on this disk lasts.
  DATA_DIR: '/tmp/costgate'
  STREAM_MAX: streamMax
  STREAM_KEEPALIVE: streamKeepAlive
  RETENTION_DAYS: string(recordRetentionDays)
  LOG_CONTENT: logContent ? 'on' : 'off'
  LOG_LEVEL: logLevel
}

// The same, but left out if empty.
var optionalSettings = {
  PRICES_FILE: empty(prices) ? '' : string(prices)
  UNMETERED_PATHS: join(unmeteredPaths, ',')
  SERVICES: empty(services) ? '' : string(services)
}
var givenSettings = filter(items(optionalSettings), item => !empty(item.value))

// References, no secrets: the platform reads what they name.
var secretSettings = toObject(
  items(keyVaultSettings),
  item => item.key,
  item => '@Microsoft.KeyVault(SecretUri=${item.value})'
)

module app 'modules/functionapp.bicep' = {
  // The host reads its storage, and the gateway its tables, as soon as they run.
  dependsOn: [hostEndpoints, quotaEndpoint, hubEndpoint, openAiEndpoints]
  params: {
    name: 'func-${suffix}'
    planName: 'plan-${suffix}'
    location: location
    tags: allTags
    hostingPlan: hostingPlan
    instanceMemoryMB: instanceMemoryMB
    maximumInstances: flex ? maximumInstanceCount : premiumMaximumInstances
    readyInstances: flex ? alwaysReadyInstances : premiumMinimumInstances
    concurrency: perInstanceConcurrency
    premiumSku: premiumSku
    packageContainerUrl: '${hostStorage.outputs.blobEndpoint}${packageContainer}'
    packageName: packageName
    identityId: identity.outputs.id
    clientId: identity.outputs.clientId
    hostBlobEndpoint: hostStorage.outputs.blobEndpoint
    hostQueueEndpoint: hostStorage.outputs.queueEndpoint
    hostTableEndpoint: hostStorage.outputs.tableEndpoint
    insightsConnectionString: monitoring.outputs.connectionString
    gatewaySettings: union(
      gatewaySettings,
      toObject(givenSettings, item => item.key, item => item.value),
      secretSettings
    )
    deployments: deployments
    openAiLocation: useExistingOpenAi ? existingOpenAi!.outputs.location : openAiPlace
    subnetId: privateNetworking ? network!.outputs.appSubnetId : ''
  }
}

module alerts 'modules/alerts.bicep' = if (alertsEnabled) {
  params: {
    name: 'ag-${suffix}'
    tags: allTags
    appName: app.outputs.name
    appUrl: app.outputs.url
  }
}

module budget 'modules/budget.bicep' = if (alertsEnabled && budgetAmount > 0 && (makeOpenAi || useExistingOpenAi)) {
  scope: resourceGroup(openAiIdParts[2], openAiIdParts[4])
  params: {
    name: budgetName
    amount: budgetAmount
    startDate: empty(budgetStartDate) ? thisMonth : budgetStartDate
    openAiId: makeOpenAi ? openAi!.outputs.id : existingOpenAiResourceId
    thresholds: budgetThresholds
    actionGroupId: alerts!.outputs.id
  }
}

// ----------------------------------------------------------------------------

@description('The gateway: what clients of Azure OpenAI\'s SDK set as their endpoint.')
output AZURE_OPENAI_ENDPOINT string = app.outputs.url

@description('What clients of the plain OpenAI SDK set as their base URL.')
output OPENAI_BASE_URL string = '${app.outputs.url}/openai/v1'

@description('Where products are made and looked at, with a function key.')
output COSTGATE_ADMIN_URL string = '${app.outputs.url}/api/Quota'

@description('Answers 200 when the gateway runs.')
output COSTGATE_HEALTH_URL string = '${app.outputs.url}/health'

@description('Name of the function app: what the package is published to.')
output AZURE_FUNCTION_NAME string = app.outputs.name

@description('Resource group of the function app.')
output AZURE_RESOURCE_GROUP string = resourceGroup().name

@description('The plan: flex or premium.')
output COSTGATE_PLAN string = hostingPlan

@description('Premium: storage account, container and name that the package is uploaded to.')
output COSTGATE_PACKAGE_ACCOUNT string = hostStorage.outputs.name

@description('The package\'s container.')
output COSTGATE_PACKAGE_CONTAINER string = packageContainer

@description('The package\'s name in it.')
output COSTGATE_PACKAGE_NAME string = packageName

@description('Where Capture lays the records.')
output COSTGATE_LAKE_URL string = '${lake.outputs.blobEndpoint}${lakeContainer}'

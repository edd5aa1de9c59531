// The hub that the records go to, and Capture, which lays them into the lake.

import { roles } from 'roles.bicep'

@description('Name of the namespace.')
@minLength(6)
@maxLength(50)
param name string

@description('Azure region.')
param location string

@description('Tags.')
param tags object

@description('Name of the event hub.')
param hubName string

@description('Partitions. They cannot be made fewer, and in the Standard tier not more.')
@minValue(1)
@maxValue(32)
param partitions int

@description('Throughput units: 1 MB/s or 1,000 records/s in, each.')
@minValue(1)
@maxValue(40)
param capacity int

@description('Up to how many throughput units the namespace grows by itself. It never shrinks by itself. Not above capacity: it does not grow.')
@minValue(1)
@maxValue(40)
param capacityMax int

@description('Hours for which records stay in the hub: what Capture makes up for after an outage of the lake.')
@minValue(1)
@maxValue(168)
param retentionHours int

@description('Resource id of the storage account that Capture writes to.')
param lakeAccountId string

@description('Container that Capture writes to.')
param lakeContainer string

@description('Seconds after which Capture closes a file.')
@minValue(60)
@maxValue(900)
param captureSeconds int

@description('Resource id of the identity that Capture writes with.')
param captureIdentityId string

@description('Object id of the identity that sends records.')
param senderPrincipalId string

@description('True: open to any network, for those who have a role. False: only to private endpoints.')
param openNetwork bool

@description('Resource id of the Log Analytics workspace.')
param workspaceId string

resource namespace 'Microsoft.EventHub/namespaces@2024-01-01' = {
  name: name
  location: location
  tags: tags
  sku: {
    name: 'Standard'
    tier: 'Standard'
    capacity: capacity
  }
  identity: {
    type: 'UserAssigned'
    userAssignedIdentities: {
      '${captureIdentityId}': {}
    }
  }
  properties: {
    disableLocalAuth: true
    isAutoInflateEnabled: capacityMax > capacity
    maximumThroughputUnits: capacityMax > capacity ? capacityMax : 0
    minimumTlsVersion: '1.2'
    publicNetworkAccess: openNetwork ? 'Enabled' : 'Disabled'
  }
}

resource hub 'Microsoft.EventHub/namespaces/eventhubs@2024-01-01' = {
  parent: namespace
  name: hubName
  properties: {
    partitionCount: partitions
    retentionDescription: {
      cleanupPolicy: 'Delete'
      retentionTimeInHours: retentionHours
    }
    captureDescription: {
      enabled: true
      encoding: 'Avro'
      intervalInSeconds: captureSeconds
      sizeLimitInBytes: 314572800
      skipEmptyArchives: true
      destination: {
        name: 'EventHubArchive.AzureBlockBlob'
        identity: {
          type: 'UserAssigned'
          userAssignedIdentity: captureIdentityId
        }
        properties: {
          storageAccountResourceId: lakeAccountId
          blobContainer: lakeContainer
          archiveNameFormat: '{Namespace}/{EventHub}/{PartitionId}/{Year}/{Month}/{Day}/{Hour}/{Minute}/{Second}'
        }
      }
    }
  }
}

resource sender 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(hub.id, senderPrincipalId, roles.eventHubsDataSender)
  scope: hub
  properties: {
    principalId: senderPrincipalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', roles.eventHubsDataSender)
  }
}

// Nothing else tells that Capture has failed to write.
resource failures 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  name: 'failures'
  scope: namespace
  properties: {
    workspaceId: workspaceId
    logs: [
      {
        category: 'ArchiveLogs'
        enabled: true
      }
      {
        category: 'OperationalLogs'
        enabled: true
      }
    ]
  }
}

output id string = namespace.id
output fullyQualifiedNamespace string = split(split(namespace.properties.serviceBusEndpoint, '/')[2], ':')[0]
output hubName string = hub.name

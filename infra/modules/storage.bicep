// A storage account without keys: only identities with a role get in.

import { grant } from 'roles.bicep'

@description('Name of the account.')
@minLength(3)
@maxLength(24)
param name string

@description('Azure region.')
param location string

@description('Tags.')
param tags object

@description('How often, and where, the data is kept.')
@allowed(['Standard_LRS', 'Standard_ZRS', 'Standard_GRS', 'Standard_GZRS'])
param sku string

@description('True: a Data Lake Gen2 account, with real folders. It cannot be changed later.')
param hierarchicalNamespace bool = false

@description('True: open to any network, for those who have a role. False: only to private endpoints, and to the Azure services that Azure itself trusts (Event Hubs Capture is one).')
param openNetwork bool

@description('Containers to make.')
param containers string[] = []

@description('Roles on the whole account.')
param grants grant[] = []

@description('Days after which blobs go to the cool tier; 0: never.')
@minValue(0)
param coolAfterDays int = 0

resource account 'Microsoft.Storage/storageAccounts@2025-01-01' = {
  name: name
  location: location
  tags: tags
  sku: {
    name: sku
  }
  kind: 'StorageV2'
  properties: {
    accessTier: 'Hot'
    allowBlobPublicAccess: false
    allowCrossTenantReplication: false
    allowSharedKeyAccess: false
    defaultToOAuthAuthentication: true
    isHnsEnabled: hierarchicalNamespace
    minimumTlsVersion: 'TLS1_2'
    // Not Disabled when closed: that would shut out the trusted services too.
    publicNetworkAccess: 'Enabled'
    supportsHttpsTrafficOnly: true
    networkAcls: {
      bypass: 'AzureServices'
      defaultAction: openNetwork ? 'Allow' : 'Deny'
    }
  }

  resource blobs 'blobServices' = if (!empty(containers)) {
    name: 'default'

    resource container 'containers' = [
      for container in containers: {
        name: container
        properties: {
          publicAccess: 'None'
        }
      }
    ]
  }
}

resource cooling 'Microsoft.Storage/storageAccounts/managementPolicies@2025-01-01' = if (coolAfterDays > 0) {
  parent: account
  name: 'default'
  properties: {
    policy: {
      rules: [
        {
          name: 'cool'
          type: 'Lifecycle'
          definition: {
            filters: {
              blobTypes: ['blockBlob']
            }
            actions: {
              baseBlob: {
                tierToCool: {
                  daysAfterModificationGreaterThan: coolAfterDays
                }
              }
            }
          }
        }
      ]
    }
  }
}

resource assignments 'Microsoft.Authorization/roleAssignments@2022-04-01' = [
  for item in grants: {
    name: guid(account.id, item.principalId, item.roleId)
    scope: account
    properties: {
      principalId: item.principalId
      principalType: 'ServicePrincipal'
      roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', item.roleId)
    }
  }
]

output id string = account.id
output name string = account.name
output blobEndpoint string = account.properties.primaryEndpoints.blob
output queueEndpoint string = account.properties.primaryEndpoints.queue
output tableEndpoint string = account.properties.primaryEndpoints.table

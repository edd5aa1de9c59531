// A new Azure OpenAI account with its deployments. Keys are off: only identities
// with a role get in.

import { roles } from 'roles.bicep'
import { deployment } from 'deployment.bicep'

@description('Name of the account, and first label of its host name.')
@minLength(2)
@maxLength(64)
param name string

@description('Azure region.')
param location string

@description('Tags.')
param tags object

@description('Models to deploy.')
param deployments deployment[]

@description('Object id of the identity that calls the models.')
param userPrincipalId string

@description('True: open to any network, for those who have a role. False: only to private endpoints.')
param openNetwork bool

@description('Resource id of the Log Analytics workspace.')
param workspaceId string

resource account 'Microsoft.CognitiveServices/accounts@2025-06-01' = {
  name: name
  location: location
  tags: tags
  kind: 'OpenAI'
  sku: {
    name: 'S0'
  }
  properties: {
    // Tokens are only accepted under a host name of its own.
    customSubDomainName: name
    disableLocalAuth: true
    publicNetworkAccess: openNetwork ? 'Enabled' : 'Disabled'
    networkAcls: {
      defaultAction: openNetwork ? 'Allow' : 'Deny'
    }
  }
}

// An account takes one change of its deployments at a time.
@batchSize(1)
resource models 'Microsoft.CognitiveServices/accounts/deployments@2025-06-01' = [
  for item in deployments: {
    parent: account
    name: item.name
    sku: {
      name: item.sku
      capacity: item.?capacity ?? 10
    }
    properties: {
      model: {
        format: 'OpenAI'
        name: item.model
        version: item.version
      }
      // DEPLOYMENTS tells the gateway the version, and so the price. A version
      // that Azure puts in its place would be charged at the price of this one.
      versionUpgradeOption: 'NoAutoUpgrade'
    }
  }
]

resource user 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(account.id, userPrincipalId, roles.cognitiveServicesOpenAiUser)
  scope: account
  properties: {
    principalId: userPrincipalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId(
      'Microsoft.Authorization/roleDefinitions',
      roles.cognitiveServicesOpenAiUser
    )
  }
}

// Who changed what on the account. Requests are in the gateway's records.
resource audit 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  name: 'audit'
  scope: account
  properties: {
    workspaceId: workspaceId
    logs: [
      {
        category: 'Audit'
        enabled: true
      }
    ]
  }
}

output id string = account.id
output endpoint string = account.properties.endpoint
output location string = account.location

// The role on an Azure OpenAI account that exists already. Deployed into that
// account's resource group, which may be in another subscription.

import { roles } from 'roles.bicep'

@description('Name of the account.')
param name string

@description('Object id of the identity that calls the models.')
param userPrincipalId string

resource account 'Microsoft.CognitiveServices/accounts@2025-06-01' existing = {
  name: name
}

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

output id string = account.id
output endpoint string = account.properties.endpoint
output location string = account.location

// The action group that calls BudgetAlert. The function must have been deployed
// before: it is asked for its key here.

@description('Name of the action group.')
@minLength(1)
@maxLength(260)
param name string

@description('Tags.')
param tags object

@description('Name of the function app.')
param appName string

@description('URL of the function app.')
param appUrl string

resource app 'Microsoft.Web/sites@2025-03-01' existing = {
  name: appName

  resource budgetAlert 'functions' existing = {
    name: 'BudgetAlert'
  }
}

resource group 'Microsoft.Insights/actionGroups@2023-01-01' = {
  name: name
  location: 'Global'
  tags: tags
  properties: {
    enabled: true
    groupShortName: 'costgate'
    azureFunctionReceivers: [
      {
        name: 'BudgetAlert'
        functionAppResourceId: app.id
        functionName: 'BudgetAlert'
        // An action group can send no header, so the key is in the URL. It is
        // the key of this one function: it creates and changes no product.
        httpTriggerUrl: '${appUrl}/api/Quota/Budget?code=${app::budgetAlert.listKeys().default}'
        useCommonAlertSchema: true
      }
    ]
  }
}

output id string = group.id

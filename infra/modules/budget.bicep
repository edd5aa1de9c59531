// A monthly budget on what one Azure OpenAI account costs. Deployed into the
// account's resource group: only budgets of resource groups and subscriptions
// call action groups.

@description('Name of the budget. A product stops at its alerts if its budgetName is this.')
@minLength(1)
@maxLength(63)
param name string

@description('Amount a month, in the currency that Azure bills.')
@minValue(0)
param amount int

@description('First day of the first month, yyyy-MM-01. Azure keeps the first one: leave it as it was when the budget exists.')
@minLength(10)
@maxLength(10)
param startDate string

@description('Resource id of the Azure OpenAI account.')
param openAiId string

@description('Percentages of the amount at which the action group is called.')
@minLength(1)
@maxLength(4)
param thresholds int[]

@description('Resource id of the action group.')
param actionGroupId string

var actual = toObject(thresholds, percent => 'actual${percent}', percent => {
  enabled: true
  operator: 'GreaterThan'
  threshold: percent
  thresholdType: 'Actual'
  contactEmails: []
  contactGroups: [actionGroupId]
})

resource budget 'Microsoft.Consumption/budgets@2024-08-01' = {
  name: name
  properties: {
    category: 'Cost'
    amount: amount
    timeGrain: 'Monthly'
    timePeriod: {
      startDate: startDate
    }
    filter: {
      dimensions: {
        name: 'ResourceId'
        operator: 'In'
        values: [openAiId]
      }
    }
    // Five notifications are the most that a budget can have.
    notifications: union(actual, {
      forecast100: {
        enabled: true
        operator: 'GreaterThan'
        threshold: 100
        thresholdType: 'Forecasted'
        contactEmails: []
        contactGroups: [actionGroupId]
      }
    })
  }
}

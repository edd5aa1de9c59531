// What the parameter deployments is made of.

@export()
@description('A deployment of a model.')
type deployment = {
  @description('Name of the deployment: what clients name in the URL, or as model.')
  @minLength(1)
  @maxLength(64)
  name: string

  @description('Name of the model, for example gpt-5-mini.')
  @minLength(1)
  model: string

  @description('Version of the model, for example 2025-08-07. It decides the price.')
  @minLength(1)
  version: string

  @description('Type of the deployment. It decides the price.')
  sku:
    | 'GlobalStandard'
    | 'DataZoneStandard'
    | 'Standard'
    | 'GlobalProvisionedManaged'
    | 'DataZoneProvisionedManaged'
    | 'ProvisionedManaged'

  @description('Thousands of tokens a minute; of the Provisioned types: provisioned throughput units, paid by the hour. Of a new account only; 10 if left out.')
  @minValue(1)
  capacity: int?
}

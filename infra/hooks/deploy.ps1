# deploy.sh for Windows; the comments are there.
param([Parameter(Mandatory)][ValidateSet('check', 'deploy')][string]$Step)
$ErrorActionPreference = 'Stop'
$PSNativeCommandUseErrorActionPreference = $true
$of = if ($env:AZURE_SUBSCRIPTION_ID) { @('--subscription', $env:AZURE_SUBSCRIPTION_ID) } else { @() }

if ($Step -eq 'check') {
  $tools = @('go', 'make', 'az')
  if ($env:COSTGATE_PLAN -ne 'premium') { $tools += 'func' }
  $missing = $tools | Where-Object { -not (Get-Command $_ -ErrorAction SilentlyContinue) }
  if ($missing) { throw "Not installed, and needed to publish the gateway: $missing" }
  az account show --output none @of
  if ($env:COSTGATE_PRIVATE -eq 'true' -and $env:COSTGATE_PLAN -ne 'premium') { az provider register --namespace Microsoft.App --wait @of }
  return
}

if ($env:COSTGATE_PLAN -ne 'premium') {
  make publish APP=$env:AZURE_FUNCTION_NAME
}
else {
  make zip
  az storage blob upload --auth-mode login --overwrite --only-show-errors --output none `
    --account-name $env:COSTGATE_PACKAGE_ACCOUNT --container-name $env:COSTGATE_PACKAGE_CONTAINER `
    --name $env:COSTGATE_PACKAGE_NAME --file bin/costgate.zip @of
  az functionapp restart --resource-group $env:AZURE_RESOURCE_GROUP --name $env:AZURE_FUNCTION_NAME @of
  az resource invoke-action --action syncfunctiontriggers --resource-type Microsoft.Web/sites --output none `
    --resource-group $env:AZURE_RESOURCE_GROUP --name $env:AZURE_FUNCTION_NAME @of
}

if ($env:COSTGATE_BUDGET -and $env:COSTGATE_BUDGET -ne '0' -and $env:COSTGATE_ALERTS -ne 'true') {
  $env:COSTGATE_ALERTS = 'true'
  if (-not $env:COSTGATE_BUDGET_START) { $env:COSTGATE_BUDGET_START = [DateTime]::UtcNow.ToString('yyyy-MM-01') }
  az deployment group create --resource-group $env:AZURE_RESOURCE_GROUP --name costgate-alerts `
    --parameters infra/main.bicepparam --output none @of
  azd env set COSTGATE_ALERTS $env:COSTGATE_ALERTS
  azd env set COSTGATE_BUDGET_START $env:COSTGATE_BUDGET_START
}
Write-Host "The gateway is at $env:AZURE_OPENAI_ENDPOINT"

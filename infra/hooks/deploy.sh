#!/bin/sh
# What azd runs: deploy.sh check, before it makes resources; deploy.sh deploy,
# when they are there. The names come from azd's environment, which has the
# outputs of main.bicep.
set -eu

# az has a default subscription of its own; azd's is what counts.
az() { command az "$@" ${AZURE_SUBSCRIPTION_ID:+--subscription "$AZURE_SUBSCRIPTION_ID"}; }

check() {
  missing=
  tools="go make az"
  [ "${COSTGATE_PLAN:-flex}" = premium ] || tools="$tools func"
  for tool in $tools; do
    command -v "$tool" >/dev/null 2>&1 || missing="$missing $tool"
  done
  [ -z "$missing" ] || { echo "Not installed, and needed to publish the gateway:$missing" >&2; exit 1; }
  az account show --output none || { echo "Log in first: az login" >&2; exit 1; }
  # Nothing in the template is of this provider, but the subnet is delegated to it.
  if [ "${COSTGATE_PRIVATE:-false}" = true ] && [ "${COSTGATE_PLAN:-flex}" != premium ]; then
    az provider register --namespace Microsoft.App --wait
  fi
}

# Flex Consumption: the Functions CLI. Premium: the package that the app's
# setting WEBSITE_RUN_FROM_PACKAGE names.
publish() {
  if [ "$COSTGATE_PLAN" != premium ]; then
    make publish APP="$AZURE_FUNCTION_NAME"
    return
  fi
  make zip
  az storage blob upload --auth-mode login --overwrite --only-show-errors --output none \
    --account-name "$COSTGATE_PACKAGE_ACCOUNT" --container-name "$COSTGATE_PACKAGE_CONTAINER" \
    --name "$COSTGATE_PACKAGE_NAME" --file bin/costgate.zip
  az functionapp restart --resource-group "$AZURE_RESOURCE_GROUP" --name "$AZURE_FUNCTION_NAME"
  # Only publishing tools tell the platform of the functions in a package by themselves.
  az resource invoke-action --action syncfunctiontriggers --resource-type Microsoft.Web/sites --output none \
    --resource-group "$AZURE_RESOURCE_GROUP" --name "$AZURE_FUNCTION_NAME"
}

# The second step of main.bicep, once: now BudgetAlert exists and has a key.
alerts() {
  [ "${COSTGATE_BUDGET:-0}" != 0 ] && [ "${COSTGATE_ALERTS:-false}" != true ] || return 0
  export COSTGATE_ALERTS=true
  export COSTGATE_BUDGET_START="${COSTGATE_BUDGET_START:-$(date -u +%Y-%m-01)}"
  az deployment group create --resource-group "$AZURE_RESOURCE_GROUP" --name costgate-alerts \
    --parameters infra/main.bicepparam --output none
  azd env set COSTGATE_ALERTS "$COSTGATE_ALERTS"
  azd env set COSTGATE_BUDGET_START "$COSTGATE_BUDGET_START"
}

case "${1:-}" in
check)
  check
  ;;
deploy)
  publish
  alerts
  echo "The gateway is at $AZURE_OPENAI_ENDPOINT"
  ;;
*)
  echo "usage: deploy.sh check|deploy" >&2
  exit 2
  ;;
esac

package budget_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/costgate/costgate/handler/internal/budget"
	"github.com/costgate/costgate/handler/internal/testkit/memstore"
)

// Bodies in the forms that Azure sends.
const (
	actualBody = `{"schemaId":"azureMonitorCommonAlertSchema","data":{"essentials":{"monitoringService":"CostAlerts","firedDateTime":"2026-11-24T08:00:00.5Z",
		"alertId":"/subscriptions/s1/providers/Microsoft.CostManagement/alerts/a","alertRule":null,"severity":null,"alertTargetIDs":null,"configurationItems":["budgets"]},
		"alertContext":{"AlertCategory":"budgets","AlertData":{"Scope":"/subscriptions/s1/","ThresholdType":"Actual","BudgetType":"Cost","BudgetThreshold":"$1,000.00",
		"NotificationThresholdAmount":"$800.00","BudgetName":"team-a","BudgetId":"/subscriptions/s1/providers/Microsoft.Consumption/budgets/team-a",
		"BudgetStartDate":"2026-11-01","BudgetCreator":"who@example.test","Unit":"USD","SpentAmount":"$812.34"}}}}`
	forecastBody = `{"schemaId":"azureMonitorCommonAlertSchema","data":{"essentials":{"monitoringService":"CostAlerts","firedDateTime":"2026-11-24T09:00:00Z"},
		"alertContext":{"AlertCategory":"budgets","AlertData":{"Scope":"/subscriptions/s1/","ThresholdType":"Forecasted","BudgetThreshold":"$1,000.00",
		"NotificationThresholdAmount":"$1,000.00","BudgetName":"team-a","Unit":"USD","SpentAmount":"$812.34","ForecastedTotalForPeriod":"$1204.5"}}}}`
	partialBody = `{"schemaId":"azureMonitorCommonAlertSchema","data":{"essentials":{"monitoringService":"CostAlerts","firedDateTime":"2026-11-24T10:00:00Z"},
		"alertContext":{"AlertData":{"BudgetName":"team-a","BudgetThreshold":"$2.00","NotificationThresholdAmount":"$1.60","SpentAmount":"$4.00"}}}}`
	legacyBody = `{"schemaId":"AIP Budget Notification","data":{"SubscriptionName":"s","SubscriptionId":"s1","ResourceGroup":"rg","SpendingAmount":"1111.325",
		"BudgetStartDate":"11/1/2026","Budget":"10000","Unit":"USD","BudgetName":"team-a","BudgetType":"Cost","NotificationThresholdAmount":"8000.0"}}`
	legacyShareBody = `{"schemaId":"AIP Budget Notification","data":{"SubscriptionId":"<GUID>","SpendingAmount":"100","BudgetStartDate":"6/1/2018","Budget":"50",
		"Unit":"USD","BudgetName":"team-a","ResourceGroup":"","NotificationThresholdAmount":"0.8"}}`
	otherBody = `{"schemaId":"azureMonitorCommonAlertSchema","data":{"essentials":{"monitoringService":"Platform","firedDateTime":"2026-11-24T10:00:00Z","signalType":"Metric",
		"alertTargetIDs":["/subscriptions/s1"]},"alertContext":{"properties":null,"conditionType":"SingleResourceMultipleMetricCriteria","condition":{"allOf":[]}}}}`
)

// told is what was read of an alert.
func told(a budget.Alert) string {
	show := func(amount budget.Amount) string {
		if !amount.Known {
			return "?"
		}
		return amount.Nano.String()
	}
	fired := "-"
	if !a.FiredAt.IsZero() {
		fired = a.FiredAt.Format(time.RFC3339Nano)
	}
	return fmt.Sprintf("%s %s at %q: %s of %s, forecast %s, passed %s %s, %s",
		a.Kind, a.BudgetName, a.Scope, show(a.Spent), show(a.Budget), show(a.Forecast), show(a.Threshold), a.Unit, fired)
}

func TestParse(t *testing.T) {
	f := func(body, want string) {
		t.Helper()
		a, err := budget.Parse([]byte(body))
		if err != nil {
			t.Errorf("%s: %v", body, err)
		} else if got := told(a); got != want {
			t.Errorf("%s:\n got %s\nwant %s", body, got, want)
		}
	}
	f(actualBody, `actual team-a at "/subscriptions/s1/": 812.34 of 1000, forecast ?, passed 800 USD, 2026-11-24T08:00:00.5Z`)
	f(forecastBody, `forecasted team-a at "/subscriptions/s1/": 812.34 of 1000, forecast 1204.5, passed 1000 USD, 2026-11-24T09:00:00Z`)
	f(partialBody, `actual team-a at "": 4 of 2, forecast ?, passed 1.6 , 2026-11-24T10:00:00Z`)
	f(legacyBody, `actual team-a at "/subscriptions/s1/resourceGroups/rg": 1111.325 of 10000, forecast ?, passed 8000 USD, -`)
	f(legacyShareBody, `actual team-a at "/subscriptions/<GUID>": 100 of 50, forecast ?, passed 40 USD, -`)
	f("\xef\xbb\xbf \r\n"+legacyShareBody+"\n", `actual team-a at "/subscriptions/<GUID>": 100 of 50, forecast ?, passed 40 USD, -`)

	data := func(members string) string { return `{"data":{"alertContext":{"AlertData":{` + members + `}}}}` }
	f(data(`"BudgetName":"b","BudgetThreshold":50,"SpentAmount":12.345,"NotificationThresholdAmount":1e1,"news":{"a":[{}]}`),
		`actual b at "": 12.345 of 50, forecast ?, passed 10 , -`)
	f(data(`"budgetname":"b","BudgetThreshold":null,"SpentAmount":null,"Scope":null,"ThresholdType":null`), `actual b at "": ? of ?, forecast ?, passed ? , -`)
	f(data(`"BudgetName":"b","BudgetThreshold":"lots","SpentAmount":1e99,"ThresholdType":" FORECASTED "`), `forecasted b at "": ? of ?, forecast ?, passed ? , -`)
	f(data(`"BudgetName":"b","ThresholdType":"Predicted"`), `predicted b at "": ? of ?, forecast ?, passed ? , -`)
	f(data(`"BudgetId":"/subscriptions/s1/resourceGroups/g/providers/Microsoft.Consumption/BUDGETS/b/"`),
		`actual b at "/subscriptions/s1/resourceGroups/g": ? of ?, forecast ?, passed ? , -`)
	f(`{"data":{"essentials":{"firedDateTime":"2026-11-24T10:00:00+02:00"},"alertContext":{"AlertData":{"BudgetName":"b"}}}}`,
		`actual b at "": ? of ?, forecast ?, passed ? , 2026-11-24T08:00:00Z`)
	f(`{"data":{"essentials":{"firedDateTime":"2026-11-24T10:00:00"},"alertContext":{"AlertData":{"BudgetName":"b"}}}}`,
		`actual b at "": ? of ?, forecast ?, passed ? , 2026-11-24T10:00:00Z`)
	f(`{"data":{"essentials":{"firedDateTime":"yesterday"},"alertContext":{"AlertData":{"BudgetName":"b"}}}}`, `actual b at "": ? of ?, forecast ?, passed ? , -`)
	// A legacy threshold of at most 10 that cannot be a share that was passed is an amount.
	f(`{"data":{"BudgetName":"b","Budget":"5","SpendingAmount":"4.5","NotificationThresholdAmount":"4.0"}}`, `actual b at "": 4.5 of 5, forecast ?, passed 4 , -`)
	f(`{"data":{"BudgetName":"b","Budget":"5","SpendingAmount":"1","NotificationThresholdAmount":"4.0"}}`, `actual b at "": 1 of 5, forecast ?, passed ? , -`)
	f(`{"data":{"BudgetName":"b","Budget":"1.000,00 €","SpendingAmount":"1 234,5"}}`, `actual b at "": 1234.5 of 1000, forecast ?, passed ? , -`)
}

func TestParseRefuses(t *testing.T) {
	f := func(body, reason string) {
		t.Helper()
		a, err := budget.Parse([]byte(body))
		if !errors.Is(err, budget.ErrMalformed) || !strings.Contains(err.Error(), reason) {
			t.Errorf("%.80s: %v, %v; want %q", body, a, err, reason)
		}
	}
	f(``, "the body is not a JSON object")
	f(`{`, "the body is not a JSON object")
	f(`[]`, "the body is not a JSON object")
	f(`"x"`, "the body is not a JSON object")
	f(`null`, "the body is not a JSON object")
	f(legacyBody+`x`, "the body is not a JSON object")
	f("{\"data\":{\"BudgetName\":\"\xff\"}}", "the body is not a JSON object")
	f(`{}`, "data is missing")
	f(`{"data":null}`, "data is missing")
	f(`{"data":[]}`, "data must be an object")
	f(`{"data":{}}`, "data.BudgetName is missing")
	f(`{"schemaId":5,"data":{}}`, "schemaId must be a string")
	f(`{"data":{"BudgetName":" "}}`, "data.BudgetName is missing or empty")
	f(`{"data":{"BudgetName":5}}`, "data.BudgetName must be a string")
	f(`{"data":{"BudgetName":"b","Budget":{}}}`, "data.Budget must be a string or a number")
	f(`{"data":{"BudgetName":"b","SpendingAmount":true}}`, "data.SpendingAmount must be a string or a number")
	f(`{"data":{"BudgetName":"b","budgetName":"c"}}`, "data.BudgetName is there twice")
	f(`{"data":{"BudgetName":"b"},"Data":{"BudgetName":"c"}}`, "data is there twice")
	f(`{"data":{"BudgetName":"`+strings.Repeat("b", budget.TextBytesMax+1)+`"}}`, "2049 bytes; 2048 are allowed")
	f(`{"data":{"alertContext":{"AlertData":{}}}}`, "AlertData.BudgetName is missing")
	f(`{"data":{"alertContext":{"AlertData":[]}}}`, "data.alertContext.AlertData must be an object")
	f(`{"data":{"alertContext":"x"}}`, "data.alertContext must be an object")
	f(`{"data":{"essentials":[],"alertContext":{}}}`, "data.essentials must be an object")
	f(`{"data":{"essentials":{"firedDateTime":5},"alertContext":{"AlertData":{"BudgetName":"b"}}}}`, "firedDateTime must be a string")
	f(`{"data":{"alertContext":{"AlertData":{"BudgetName":"b","SpentAmount":[1]}}}}`, "AlertData.SpentAmount must be a string or a number")
	f(`{"schemaId":"azureMonitorCommonAlertSchema","data":{"BudgetName":"b"}}`, "neither essentials nor alertContext")
	f(strings.Replace(actualBody, "azureMonitorCommonAlertSchema", "AIP Budget Notification", 1), "members of the common schema")
	f(strings.Replace(actualBody, "azureMonitorCommonAlertSchema", "else", 1), `schemaId is "else"`)
	f(strings.Replace(legacyBody, "AIP Budget Notification", "else", 1), `schemaId is "else"`)
	f(`{"schemaId":"azureMonitorCommonAlertSchema","data":{"essentials":{"monitoringService":"CostAlerts"},"alertContext":{"AlertData":null}}}`, "BudgetName is missing")
	f(`{"data":`+strings.Repeat(`{"data":`, 600)+`1`+strings.Repeat(`}`, 601), "not a JSON object")
	if _, err := budget.Parse([]byte(`{"data":{"BudgetName":"` + strings.Repeat("b", budget.TextBytesMax) + `"}}`)); err != nil {
		t.Errorf("a name at the limit: %v", err)
	}
}

func TestOtherAlerts(t *testing.T) {
	x := newFixture(t, stopAtFull)
	f := func(body string) {
		t.Helper()
		if _, err := budget.Parse([]byte(body)); !errors.Is(err, budget.ErrOtherAlert) {
			t.Errorf("%s: %v", body, err)
		}
		if status, answer := x.post(body); status != 200 || answer != "true" {
			t.Errorf("%s: %d %s", body, status, answer)
		}
	}
	f(otherBody)
	f(`{"schemaId":"Microsoft.Insights/activityLogs","data":{"status":"Activated","context":{"activityLog":{}}}}`)
	f(`{"schemaId":"AzureMonitorMetricAlert","data":{"version":"2.0","properties":null,"status":"Activated","context":{}}}`)
	f(`{"schemaId":"azureMonitorCommonAlertSchema","data":{"essentials":{"monitoringService":"CostAlerts"},"alertContext":{"AlertCategory":"credits","AlertData":{}}}}`)
	f(`{"schemaId":"azureMonitorCommonAlertSchema","data":{"essentials":{"monitoringService":"Log Alerts V2"},"alertContext":[1]}}`)
	if x.stop(t) != "" {
		t.Error("it stops")
	}
}

func TestAnswers(t *testing.T) {
	x := newFixture(t, stopAtFull)
	for _, body := range []string{``, `{`, `[]`, `{}`, `{"data":{}}`, `{"data":{"BudgetName":""}}`, alert("Actual", "Team-Budget", "$50.00", "2027-11-26T12:00:00Z")} {
		if status, answer := x.post(body); status != 400 || !strings.Contains(answer, "detail") {
			t.Errorf("%q: %d %s", body, status, answer)
		}
	}
	body := alert("Actual", "Team-Budget", "$49.00", now)
	if status, _ := x.post(body + strings.Repeat(" ", budget.BodyBytesMax-len(body))); status != 200 {
		t.Errorf("a body at the limit: %d", status)
	}
	if status, _ := x.post(body + strings.Repeat(" ", budget.BodyBytesMax-len(body)+1)); status != 413 {
		t.Errorf("a body past the limit: %d", status)
	}
	x.store.SetFaults(memstore.Faults{Down: true})
	if status, _ := x.post(alert("Actual", "Team-Budget", "$50.00", now)); status != 503 {
		t.Errorf("store down: %d", status)
	}
}

// TestSamples reads Microsoft's samples. The reference data is not part of the
// repository; COSTGATE_TESTDATA says where it is.
func TestSamples(t *testing.T) {
	dir := os.Getenv("COSTGATE_TESTDATA")
	if dir == "" {
		t.Skip("COSTGATE_TESTDATA is not set: the sample alerts are not here")
	}
	x := newFixture(t, stopAtFull)
	f := func(file, want string) {
		t.Helper()
		data, err := os.ReadFile(filepath.Join(dir, "host-and-budget", file))
		if err != nil {
			t.Fatal(err)
		}
		a, err := budget.Parse(data)
		if got := told(a); err != nil || got != want {
			t.Errorf("%s: %v\n got %s\nwant %s", file, err, got, want)
		}
		if status, answer := x.post(string(data)); status != 200 || answer != "true" { // the Test button
			t.Errorf("%s: %d %s", file, status, answer)
		}
	}
	const subscription = "/subscriptions/11111111-1111-1111-1111-111111111111"
	f("budget-common-actual.json", `actual Test_actual_cost_budget at "`+subscription+`/": 11111 of 50, forecast ?, passed 25 USD, 2022-12-07T21:13:20.645Z`)
	f("budget-common-forecasted.json", `forecasted Test_forcasted_budget at "`+subscription+`/": 999.99 of 50, forecast 1111.11, passed 50 USD, 2022-12-07T21:13:29.576Z`)
	f("budget-common-partial-field.json", `actual prodbilling at "": 4 of 2, forecast ?, passed 1.6 , 2026-04-24T15:44:27Z`)
	f("budget-legacy-aip.json", `actual test-budgetName at "`+subscription+`/resourceGroups/test-RG": 1111.32 of 10000, forecast ?, passed 8000 USD, -`)
	f("budget-legacy-aip-2018.json", `actual BudgetName at "/subscriptions/<GUID>": 100 of 50, forecast ?, passed 40 USD, -`)
}

package budget

import (
	"strings"

	"github.com/costgate/costgate/handler/internal/quota"
)

// TagBudget is the tag of a product whose value lists further Azure budgets,
// names or scopes, separated by commas.
const TagBudget = "budget"

// concerns tells whether an alert names a product's budget: by the product's
// budgetName or one of those in its tag.
func (a *Alert) concerns(p *quota.Product) bool {
	if a.named(p.BudgetName) {
		return true
	}
	for tag, list := range p.Tags {
		if !strings.EqualFold(strings.TrimSpace(tag), TagBudget) {
			continue
		}
		for name := range strings.SplitSeq(list, ",") {
			if a.named(name) {
				return true
			}
		}
	}
	return false
}

// named tells whether the alert's budget has a name; one that begins with / is a
// scope, all budgets of which it means, or the id of a budget. Letter case does
// not matter, nor do blanks around it.
func (a *Alert) named(name string) bool {
	name = strings.TrimSpace(name)
	switch {
	case name == "":
		return false
	case strings.HasPrefix(name, "/"):
		return same(name, a.Scope) || (isBudgetID(a.BudgetID) && same(name, a.BudgetID))
	}
	return strings.EqualFold(name, strings.TrimSpace(a.BudgetName))
}

func isBudgetID(id string) bool { return strings.Contains(strings.ToLower(id), budgetsPath) }

// same compares two resource ids.
func same(a, b string) bool {
	a, b = strings.TrimRight(strings.TrimSpace(a), "/"), strings.TrimRight(strings.TrimSpace(b), "/")
	return a != "" && strings.EqualFold(a, b)
}

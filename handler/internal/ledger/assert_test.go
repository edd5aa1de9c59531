package ledger

import "testing"

// TestCheckMoney breaks each invariant by one, in transactions that keep the others.
func TestCheckMoney(t *testing.T) {
	account := func(committed, closed, budget int64) Entity {
		return Entity{Row: accountRow("2026-11"), Ints: map[string]int64{"Committed": committed, "Closed": closed, "Budget": budget}}
	}
	lease := func(granted, settled, held, slack int64) Entity {
		return Entity{Row: leaseRow("2026-11", "l"), Ints: map[string]int64{"Granted": granted, "Settled": settled, "Held": held, "Slack": slack}}
	}
	record := func(charge, rev int64) Entity {
		return Entity{Row: "U.1.r", Ints: map[string]int64{"Charge": charge, "Rev": rev}, Texts: map[string]string{"Kind": "request", "Period": "2026-11"}}
	}
	list := func(rest int64) Entity {
		return Entity{Row: writeOffRow("2026-11", "l"), Ints: map[string]int64{"Rest": rest}}
	}
	f := func(name string, sound bool, forced int64, before []Entity, ops ...Op) {
		t.Helper()
		if err := checkMoney(before, ops, forced, false); (err == nil) != sound {
			t.Errorf("%s: %v", name, err)
		}
	}
	replace := func(e Entity) Op { return Op{Kind: Replace, Entity: e} }
	insert := func(e Entity) Op { return Op{Kind: Insert, Entity: e} }
	f("grant", true, 0, []Entity{account(10, 10, 100)}, replace(account(60, 10, 100)), insert(lease(50, 0, 50, 0)))
	f("grant not committed", false, 0, []Entity{account(10, 10, 100)}, replace(account(59, 10, 100)), insert(lease(50, 0, 49, 0)))
	f("grant above the budget", false, 0, []Entity{account(10, 10, 59)}, replace(account(60, 10, 59)), insert(lease(50, 0, 50, 0)))
	f("forced grant above the budget", true, 1, []Entity{account(10, 10, 59)}, replace(account(60, 10, 59)), insert(lease(50, 0, 50, 0)))
	f("lease with less than it holds", false, 0, []Entity{account(10, 10, 100)}, replace(account(60, 10, 100)), insert(lease(50, 0, 49, 2)))
	f("settle", true, 0, []Entity{lease(50, 0, 50, 0)}, replace(lease(50, 20, 0, 0)), insert(record(20, 1)))
	f("settle without its record", false, 0, []Entity{lease(50, 0, 50, 0)}, replace(lease(50, 20, 0, 0)))
	f("settle for less", false, 0, []Entity{lease(50, 0, 50, 0)}, replace(lease(50, 20, 0, 0)), insert(record(19, 1)))
	f("record that replaces nothing", false, 0, []Entity{lease(50, 0, 50, 0)}, replace(lease(50, 20, 0, 0)), insert(record(20, 2)))
	f("close", true, 0, []Entity{account(60, 10, 100), lease(50, 20, 0, 0)}, replace(account(30, 30, 100)), Op{Kind: Delete, Entity: lease(0, 0, 0, 0)})
	f("close that keeps a grant", false, 0, []Entity{account(60, 10, 100), lease(50, 20, 0, 0)}, replace(account(31, 30, 100)), Op{Kind: Delete, Entity: lease(0, 0, 0, 0)})
	f("reclaim", true, 0, []Entity{account(60, 10, 100), lease(50, 20, 25, 0)},
		replace(account(55, 55, 100)), Op{Kind: Delete, Entity: lease(0, 0, 0, 0)}, insert(record(15, 1)), insert(list(10)))
	f("reclaim that forgets a hold", false, 0, []Entity{account(60, 10, 100), lease(50, 20, 25, 0)},
		replace(account(55, 55, 100)), Op{Kind: Delete, Entity: lease(0, 0, 0, 0)}, insert(record(15, 1)))
	f("row that was not read", false, 0, nil, replace(account(55, 55, 100)))
	f("less committed than closed", false, 0, []Entity{account(60, 10, 100), lease(50, 0, 0, 0)}, replace(account(9, 10, 100)), replace(lease(-1, 0, 0, 0)))
}

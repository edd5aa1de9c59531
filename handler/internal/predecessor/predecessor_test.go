package predecessor

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/costgate/costgate/handler/internal/quota"
)

const key = "0123456789abcdef0123456789abcdef"

// at is a moment that many minutes after noon.
func at(minute int) time.Time { return time.Date(2024, 5, 1, 12, minute, 0, 0, time.UTC) }

func object(key, row string, minute int, more string) []byte {
	return fmt.Appendf(nil, `{"odata.etag":"W/\"1\"","PartitionKey":%q,"RowKey":%q,"Timestamp":%q,%s}`, key, row, at(minute).Format(time.RFC3339Nano), more)
}

func create(minute int, amount string) []byte {
	return object(key, "c", minute, `"Operation":"Create","ProductName":"Search","Amount":`+amount)
}

func update(minute int, more string) []byte {
	return object(key, "u", minute, `"Operation":"Update","Model":"gpt-4",`+more)
}

func TestWhatIsLeft(t *testing.T) {
	f := func(want Quota, rows ...[]byte) {
		t.Helper()
		for _, backwards := range []bool{false, true} { // rows come in the order of GUIDs
			var r Reader
			for i := range rows {
				if backwards {
					i = len(rows) - 1 - i
				}
				if err := r.Add("", rows[i]); err != nil {
					t.Fatal(err)
				}
			}
			want.Key, want.Rows, want.Name = key, len(rows), "Search"
			if want.Unit == "" {
				want.Unit = quota.UnitUSD
			}
			if problems, _ := r.Problems(); len(problems) > 0 {
				t.Errorf("problems %v", problems)
			}
			if diff := cmp.Diff([]Quota{want}, r.Quotas(nil), cmpopts.EquateErrors()); diff != "" {
				t.Error(diff)
			}
		}
	}
	const usd = 1_000_000_000
	f(Quota{Granted: 100 * usd, Left: 100 * usd, By: "Create", At: at(0)}, create(0, "100.0"))
	f(Quota{Granted: 100 * usd, Left: 99_500_000_000, By: "Update", At: at(2)},
		create(0, "100"), update(1, `"Amount":0.0,"TransCost":"0.25","Balance":"99.75"`), update(2, `"Amount":0.0,"TransCost":"0.25","Balance":"99.50"`))
	// A Deposit replaces what was left; it does not add to it.
	f(Quota{Granted: 50 * usd, Left: 50 * usd, By: "Deposit", At: at(2)},
		create(0, "100"), update(1, `"Amount":0.0,"Balance":"99.75"`), object(key, "d", 2, `"Operation":"Deposit","ProductName":"Search","Amount":50.0`))
	f(Quota{Granted: 50 * usd, Left: 49 * usd, By: "Update", At: at(3)},
		create(0, "100"), object(key, "d", 2, `"Operation":"Deposit","ProductName":"Search","Amount":50`), update(3, `"Amount":0,"Balance":"49"`))
	f(Quota{Granted: 100 * usd, By: "BudgetStop", At: at(3)},
		create(0, "100"), update(1, `"Amount":0.0,"Balance":"99.75"`), object(key, "b", 3, `"Operation":"BudgetStop","ProductName":"Search","Amount":0.0`))
	// An answer after the stop was charged to nothing: clamped at 0.
	f(Quota{Granted: 100 * usd, By: "Update", At: at(4)},
		create(0, "100"), object(key, "b", 3, `"Operation":"BudgetStop","ProductName":"Search","Amount":0`), update(4, `"Amount":0,"Balance":"0"`))
	// Early rows have no Balance: Amount is what was left.
	f(Quota{Granted: 5000 * usd, Left: 4900 * usd, By: "Update", At: at(1)}, create(0, "5000"), update(1, `"Amount":4900`))
	f(Quota{Granted: 5000 * usd, Left: 4900 * usd, By: "Update", At: at(1)}, create(0, "5000"), update(1, `"Amount":4900,"Balance":null`))
	f(Quota{Unit: quota.UnitTokens, Granted: 5000, Left: 4900, By: "Update", At: at(1)},
		object(key, "c", 0, `"Operation":"Create","ProductName":"Search","Amount":5000.0,"RateLimitOnCost":false`), update(1, `"Amount":0.0,"Balance":"4900.00"`))
	// Two rows of one moment: the higher row key, in whichever order they come.
	f(Quota{Granted: 100 * usd, Left: 3 * usd, By: "Update", At: at(1)}, create(0, "100"),
		object(key, "2", 1, `"Operation":"Update","Balance":"3"`), object(key, "1", 1, `"Operation":"Update","Balance":"4"`))
}

// TestUnreadable: a row that cannot be read is named, and its key is taken over
// only if the row cannot matter.
func TestUnreadable(t *testing.T) {
	f := func(problem, keyErr string, rows ...[]byte) {
		t.Helper()
		var r Reader
		for _, row := range rows {
			if err := r.Add("", row); err != nil {
				t.Fatal(err)
			}
		}
		problems, more := r.Problems()
		if len(problems) != 1 || more != 0 || !strings.Contains(problems[0].What, problem) || strings.Contains(problems[0].Where, key) {
			t.Errorf("problems %v, want %q", problems, problem)
		}
		got := r.Quotas(nil)[0]
		if (got.Err == nil) != (keyErr == "") || got.Err != nil && !strings.Contains(got.Err.Error(), keyErr) {
			t.Errorf("%q: key: %v, want %q", problem, got.Err, keyErr)
		}
	}
	const newest, grant = "its newest row cannot be read", "its newest Create or Deposit cannot be read"
	f("its Balance is not a decimal number", newest, create(0, "100"), update(1, `"Balance":"99,75"`))
	f("its Balance is not a decimal number", newest, create(0, "100"), update(1, `"Balance":"1E-05"`))
	f("its Balance is not a decimal number", newest, create(0, "100"), update(1, `"Balance":true`))
	f("its Balance is negative", newest, create(0, "100"), update(1, `"Balance":"-1"`))
	f("its Balance is not there", newest, create(0, "100"), update(1, `"TransCost":"1"`))
	f("its Balance is not a decimal number", "", create(0, "100"), update(1, `"Balance":"?"`), update(2, `"Balance":"98"`))
	f("its Timestamp is not an RFC 3339 time", newest, create(0, "100"),
		[]byte(`{"PartitionKey":"`+key+`","RowKey":"x","Timestamp":"5/1/2024 12:00:00 PM","Operation":"Update","Balance":"1"}`))
	f("its Amount is not a decimal number", grant, create(0, `"NaN"`))
	f("its Amount is not a decimal number", grant, create(0, `"Infinity"`))
	f("its Amount is not a decimal number", grant, create(0, `"0x10"`))
	f("its Amount is not a decimal number", grant, create(0, `[1]`))
	f("its Amount is negative", grant, create(0, "-1"))
	f("its Amount is not there", grant, create(0, "null"))
	f("its Amount is not there", grant, create(0, "100"), object(key, "d", 1, `"Operation":"Deposit"`), update(2, `"Balance":"5"`))
	f("its RateLimitOnCost is neither", grant, create(0, `1,"RateLimitOnCost":"maybe"`))
	f(`its Operation "MonthlyReset" is not known`, grant, create(0, "100"), object(key, "m", 1, `"Operation":"MonthlyReset","Amount":100`))
	f(`its Operation "" is not known`, "", object(key, "m", 0, `"Amount":100`), create(1, "100"))

	var r Reader
	_ = r.Add("element 3", []byte(`[]`))
	_ = r.Add("element 4", []byte(`{"RowKey":"r"}`))
	problems, _ := r.Problems()
	want := []Problem{{"element 3", "it is not a JSON object"}, {"element 4, row r", "it has no PartitionKey"}}
	if diff := cmp.Diff(want, problems); diff != "" || r.Rows() != 2 {
		t.Error(diff)
	}
}

func TestKeysThatCannotBeTaken(t *testing.T) {
	f := func(key, name, want string) {
		t.Helper()
		var r Reader
		_ = r.Add("", object(key, "c", 0, fmt.Sprintf(`"Operation":"Create","ProductName":%q,"Amount":1`, name)))
		got := r.Quotas(nil)[0]
		if got.Err == nil && want != "" || got.Err != nil && (want == "" || !strings.Contains(got.Err.Error(), want)) {
			t.Errorf("%q %q: %v, want %q", key, name, got.Err, want)
		}
		if got.Name == "" {
			t.Errorf("%q has no name", key)
		}
	}
	f(strings.Repeat("k", KeyBytesMin), "n", "")
	f(strings.Repeat("k", KeyBytesMax), "n", "")
	f(strings.Repeat("k", KeyBytesMin-1), "n", "has 15 characters")
	f(strings.Repeat("k", KeyBytesMax+1), "n", "has 257 characters")
	f("p_0123456789abcdef", "n", "product ids")
	f("0123456789abcdef key", "n", "letters, digits")
	f(key, "", "")
	f(key, strings.Repeat("ä", NameRunesMax), "")
	f(key, strings.Repeat("ä", NameRunesMax+1), "more than 128")
	f(key, "a\tb", "control character")
	f(key+"!", strings.Repeat("n", NameRunesMax+1), "letters, digits")

	var r Reader
	_ = r.Add("", update(1, `"Balance":"0"`))
	if got := r.Quotas(nil)[0]; !errors.Is(got.Err, ErrNeverCreated) {
		t.Errorf("only charged: %v", got.Err)
	}
	r = Reader{}
	_ = r.Add("", update(1, `"Balance":"0.50"`))
	if got := r.Quotas(nil)[0]; got.Err == nil || errors.Is(got.Err, ErrNeverCreated) {
		t.Errorf("something left of what nobody made: %v", got.Err)
	}
	r = Reader{}
	_ = r.Add("", object(key, "c", 0, `"Operation":"Create","Amount":1.5,"RateLimitOnCost":false`))
	if got := r.Quotas(nil)[0]; got.Err == nil || !strings.Contains(got.Err.Error(), "1.5 is not a whole number of tokens") {
		t.Errorf("half a token: %v", got.Err)
	}
}

func TestAmounts(t *testing.T) {
	f := func(text, unit string, want int64, wantErr bool) {
		t.Helper()
		n, err := amountIn(text, quota.Unit(unit))
		if n != want || (err != nil) != wantErr {
			t.Errorf("%s %s: %d, %v", text, unit, n, err)
		}
	}
	f("0", "usd", 0, false)
	f("12.5", "usd", 12_500_000_000, false)
	f("0.0000000004", "usd", 0, false)
	f("0.0000000005", "usd", 1, false)
	f("99.9986230000000000000000000", "usd", 99_998_623_000, false)
	f("0.9999999999", "usd", 1_000_000_000, false)
	f("9223372036.854775807", "usd", math.MaxInt64, false)
	f("9223372036.8547758074", "usd", math.MaxInt64, false)
	f("9223372036.8547758075", "usd", 0, true)
	f("9223372036.854775808", "usd", 0, true)
	f("9223372036854775807.000", "tokens", math.MaxInt64, false)
	f("9223372036854775808", "tokens", 0, true)
	f("1.5", "tokens", 0, true)

	g := func(value any, want string) {
		t.Helper()
		if got, err := floating(value); got != want || (err != nil) != (want == "") {
			t.Errorf("%v: %q, %v", value, got, err)
		}
	}
	g("100", "100")
	g("0.1", "0.1")
	g("0.10000000000000001", "0.1") // as .NET wrote doubles once
	g("12345678.900000000", "12345678.9")
	g("1E-05", "0.00001")
	g("1e3", "1000")
	g("-0", "0")
	g("1e400", "")
	g("Inf", "")
	g("1_0", "")
	g("", "")
}

func TestFiles(t *testing.T) {
	rows := func(data string) (Quota, []Problem, error) {
		t.Helper()
		var r Reader
		err := r.AddFile([]byte(data))
		problems, _ := r.Problems()
		if quotas := r.Quotas(nil); len(quotas) == 1 {
			return quotas[0], problems, err
		}
		return Quota{}, problems, err
	}
	good := func(data string) {
		t.Helper()
		got, problems, err := rows(data)
		want := Quota{Key: key, Name: "Search, EU", Unit: quota.UnitUSD, Granted: 1e11, Left: 99_750_000_000, By: "Update", At: at(1), Rows: 2}
		if diff := cmp.Diff(want, got); diff != "" || len(problems) > 0 || err != nil {
			t.Errorf("%.40s: %v %v %s", data, problems, err, diff)
		}
	}
	one := string(object(key, "c", 0, `"Operation":"Create","ProductName":"Search, EU","Amount":100.0`))
	two := string(update(1, `"Amount":0.0,"TransCost":"0.25","Balance":"99.75"`))
	good("[" + one + "," + two + "]")
	good(`{"items":[` + one + "," + two + `],"nextMarker":{}}`)
	good("\ufeff" + `{"odata.metadata":"x","value":[` + one + "," + two + `]}`)
	good(one + "\n" + two + "\n")
	const header = "PartitionKey,RowKey,Timestamp,Amount,Amount@type,Balance,Balance@type,Model,Operation,Operation@type,ProductName,TransCost\r\n"
	csvRows := key + `,c,2024-05-01T12:00:00.0000000Z,100,Edm.Double,,,,Create,Edm.String,"Search, EU",` + "\r\n" +
		key + ",u,2024-05-01T12:01:00Z,0,Edm.Double,99.75,Edm.String,gpt-4,Update,Edm.String,,0.25\r\n"
	good(header + csvRows)
	good("\ufeff" + strings.ToLower(header) + csvRows)

	bad := func(data, want string) {
		t.Helper()
		if _, _, err := rows(data); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: %v, want %q", data, err, want)
		}
	}
	bad("", "empty")
	bad(" \n", "empty")
	bad("\xff\xfe[", "UTF-8")
	bad("["+one, "not JSON")
	bad(one+"\nx", "not JSON")
	bad("PartitionKey,RowKey,Timestamp,Operation\n", "no column Amount")
	bad(header+`"`, "not CSV")
	_, problems, err := rows(header + key + ",u,yesterday,0,,5,,,Update,,,\n")
	if err != nil || len(problems) != 1 || !strings.HasPrefix(problems[0].Where, "line 2, "+Label(key)+", row u") {
		t.Errorf("%v %v", problems, err)
	}
}

func TestBalances(t *testing.T) {
	var r Reader
	_ = r.Add("", create(0, "100"))
	_ = r.Add("", update(1, `"Balance":"?"`)) // what the cache says replaces what cannot be read
	balances, err := r.Balances([]byte("key,balance\n" + key + ", 12.3456789012\n" + key + ",1\nother-key-0123456789,5\n" + key + "\n" + key + ",x\n"))
	if err != nil {
		t.Fatal(err)
	}
	got := r.Quotas(balances)[0]
	want := Quota{Key: key, Name: "Search", Unit: quota.UnitUSD, Granted: 1e11, Left: 12_345_678_901, By: "balances", Rows: 2}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	var what []string
	problems, _ := r.Problems()
	for _, p := range problems[1:] {
		what = append(what, p.What)
		if strings.Contains(p.Where, key) {
			t.Errorf("shows the key: %s", p.Where)
		}
	}
	if diff := cmp.Diff([]string{
		"the key is there twice", "the table has no such key", "it is not of the form key,balance", "its balance is not a decimal number such as 12.5",
	}, what); diff != "" {
		t.Error(diff)
	}
	if _, err := r.Balances([]byte(`"`)); err == nil {
		t.Error("no CSV")
	}
}

func TestLimits(t *testing.T) {
	var r Reader
	for range ProblemsMax + 1 {
		_ = r.Add("", []byte("x"))
	}
	if problems, more := r.Problems(); len(problems) != ProblemsMax || more != 1 {
		t.Errorf("%d problems, %d more", len(problems), more)
	}
	r = Reader{keys: make(map[string]*log, KeysMax)}
	for i := range KeysMax {
		r.keys[fmt.Sprint(i)] = &log{}
	}
	if err := r.Add("", []byte(`{"PartitionKey":"0"}`)); err != nil {
		t.Errorf("a key that is there: %v", err)
	}
	if err := r.Add("", []byte(`{"PartitionKey":"x"}`)); err == nil {
		t.Error("one key too many")
	}
}

func TestLabel(t *testing.T) {
	if got := Label(key); got != "k_"+quota.HashKey(key)[:12]+" (...cdef)" {
		t.Error(got)
	}
	if got := Label("short"); strings.Contains(got, "hort") {
		t.Error(got)
	}
}

// FuzzFile: whatever a file holds is read to an end, and no key in full is told.
func FuzzFile(f *testing.F) {
	f.Add([]byte("["+string(create(0, "1"))+"]"), []byte(key+",1\n"))
	f.Add([]byte("PartitionKey,RowKey,Timestamp,Operation,Amount\n"+key+",1,x,Create,1\n"), []byte("key,balance\n"))
	f.Fuzz(func(t *testing.T, file, balances []byte) {
		var r Reader
		if r.AddFile(file) != nil {
			return
		}
		left, err := r.Balances(balances)
		if err != nil {
			return
		}
		for _, q := range r.Quotas(left) {
			if q.Err == nil && (q.Left < 0 || q.Granted < 0 || CheckKey(q.Key) != nil || q.Name == "") {
				t.Fatalf("%+v", q)
			}
		}
		problems, _ := r.Problems()
		for _, p := range problems {
			if strings.Contains(p.Where, key) {
				t.Fatalf("%+v shows a key", p)
			}
		}
	})
}

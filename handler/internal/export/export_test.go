package export

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hamba/avro/v2/ocf"

	"github.com/costgate/costgate/handler/internal/usage"
)

func TestCSVGolden(t *testing.T) {
	bare := usage.Record{Schema: 1, ID: id(2), Rev: 1, Kind: usage.KindDeposit, Time: noon.Add(time.Millisecond), ProductID: "p1", Unit: "tokens", Charge: usage.Of(-5)}
	full := sold(1)
	full.Items = []usage.Item{{Meter: "web_search_call", Quantity: 2}}
	full.UsageExtra = usage.Extra(`{"x":1}`)
	out := new(strings.Builder)
	dir := lakeOf(t, map[string]string{"usage.jsonl": lines(t, full, bare)})
	if _, err := Run(t.Context(), Options{From: dir, To: Stdout, Format: CSV}, out); err != nil {
		t.Fatal(err)
	}
	want := "schema,id,rev,kind,time,period,product_id,product,key_id,request_id,upstream_request_id,response_id,operation,deployment,model,sku," +
		"service_tier,region,stream,status,outcome,usage_source,prompt_tokens,cached_tokens,cache_write_tokens,completion_tokens,reasoning_tokens," +
		"audio_input_tokens,audio_output_tokens,image_input_tokens,images,items,usage_extra,unit,charge,cost_nano_usd,list_cost_nano_usd,hold_nano_usd," +
		"price_key,price_book,latency_ms,first_byte_ms,attempts,user,tags,charge_usd,cost_usd,list_cost_usd,hold_usd\r\n" +
		"1," + id(2) + ",1,deposit,2026-11-24T12:00:00.001Z,,p1,,,,,,,,,,,,,,,,,,,,,,,,,,,tokens,-5,,,,,,,,,,,,,,\r\n" +
		"1," + id(1) + `,1,request,2026-11-24T12:00:01.000Z,2026-11,p1,"Search, ""new""",k1,r,u,c,chat,gpt4o,gpt-4o,GlobalStandard,` +
		`default,eastus,true,200,completed,provider,1000,400,,100,,,,,,"[{""meter"":""web_search_call"",""quantity"":2}]","{""x"":1}",` +
		`usd,3000001,3000001,3000001,9000000,,,900,,1,anna,"{""env"":""x"",""team"":""a""}",0.003000001,0.003000001,0.003000001,0.009` + "\r\n"
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Error(diff)
	}
}

// The columns are the fields of a record, all of them, in its order.
func TestColumnsAreTheRecord(t *testing.T) {
	text := string(line(t, sold(1)))
	var names []string
	for i := range recordColumns {
		names = append(names, recordColumns[i].name)
	}
	at := 0
	for _, name := range names {
		next := strings.Index(text[at:], `"`+name+`":`)
		if next < 0 {
			t.Fatalf("%s is not in the record, or in another place", name)
		}
		at += next
	}
	if strings.Count(text, `":`)-len(sold(1).Tags) != len(names) {
		t.Errorf("the record has other fields than %v", names)
	}
}

func TestHighestRevisionCounts(t *testing.T) {
	revised := func(n, rev int, cost int64) usage.Record {
		r := sold(n)
		r.Rev, r.CostNanoUSD = rev, usage.Of(cost)
		return r
	}
	dir := lakeOf(t, map[string]string{
		"ns/hub/0/2026/11/24/12/00/00.avro": string(captureFile(t, ocf.Null, line(t, revised(1, 1, 10)), line(t, revised(2, 3, 23)), line(t, revised(1, 1, 10)))),
		"ns/hub/1/2026/11/25/00/00/00.avro": string(captureFile(t, ocf.Deflate, line(t, revised(1, 2, 12)), line(t, revised(2, 2, 22)), line(t, revised(3, 1, 31)))),
		"ns/hub/1/2026/11/25/00/05/00.avro": string(captureFile(t, ocf.Deflate)),
		"ns/hub/1/2026/11/25/00/10/00.avro": "",
		"usage-2026-11-24T12-a.jsonl":       lines(t, revised(4, 1, 41), revised(3, 1, 31)),
		"usage-2026-11-24T12-b.jsonl":       lines(t, revised(4, 2, 42)) + string(line(t, revised(5, 1, 51))),
		"notes.txt":                         "not of the lake",
	})
	rows, report := run(t, Options{From: dir})
	if got := pick(rows, "id", "rev", "cost_nano_usd"); got != id(1)+" 2 12; "+id(2)+" 3 23; "+id(3)+" 1 31; "+id(4)+" 2 42" {
		t.Error(got)
	}
	want := &Report{Files: 6, Read: 9, Doubles: 2, Superseded: 3, Unfinished: 1, Records: 4, Rows: 4, Cost: 108, BadLines: []LineError{}, Outputs: []string{}}
	if diff := cmp.Diff(want, report); diff != "" {
		t.Error(diff)
	}
}

func TestAlteredDoublesAreTold(t *testing.T) {
	a, b := sold(1), sold(1)
	b.CostNanoUSD = usage.Of(1)
	rows, report := run(t, Options{From: lakeOf(t, map[string]string{"1.jsonl": lines(t, a), "2.jsonl": lines(t, b)})})
	if pick(rows, "cost_nano_usd") != "3000001" || report.Altered != 1 || report.Clean() {
		t.Errorf("%v %+v", rows, report)
	}
}

func TestBadLines(t *testing.T) {
	f := func(bad, reason string) {
		t.Helper()
		dir := lakeOf(t, map[string]string{"a.jsonl": lines(t, sold(1)) + bad + "\n" + lines(t, sold(2))})
		rows, report := run(t, Options{From: dir})
		if pick(rows, "id") != id(1)+"; "+id(2) || report.Bad != 1 || report.Clean() {
			t.Fatalf("%.50s: %+v", bad, report)
		}
		if got := report.BadLines[0]; got.File != filepath.Join(dir, "a.jsonl") || got.Line != 2 || !strings.Contains(got.Reason, reason) {
			t.Errorf("%.50s: %v", bad, got)
		}
		to := filepath.Join(t.TempDir(), "out.csv")
		_, err := Run(t.Context(), Options{From: dir, To: to, Format: CSV, Strict: true}, nil)
		if line := (LineError{}); !errors.As(err, &line) || line.Line != 2 {
			t.Errorf("%.50s, strict: %v", bad, err)
		}
		if left, _ := os.ReadDir(filepath.Dir(to)); len(left) != 0 {
			t.Errorf("%.50s, strict: %v was left", bad, left)
		}
	}
	broken := func(change func(*usage.Record)) string {
		r := sold(3)
		change(&r)
		return string(line(t, r))
	}
	sized := func(n int) string {
		r := sold(2)
		r.User = usage.Text(strings.Repeat("x", n-len(line(t, sold(2)))+len("anna")))
		return string(line(t, r))
	}
	f("", "empty")
	f("   ", "empty")
	f("text", "no record")
	f(`{"id":"x`, "no record")
	f(`[]`, "no record")
	f("\x00\x00\x00", "no record")
	f(`{}`, "schema 0")
	f(broken(func(r *usage.Record) { r.Schema = 2 }), "schema 2")
	f(broken(func(r *usage.Record) { r.ID = "7" }), "no UUID")
	f(broken(func(r *usage.Record) { r.ID = "{" + r.ID + "}" }), "no UUID")
	f(broken(func(r *usage.Record) { r.Rev = 0 }), "rev is 0")
	f(broken(func(r *usage.Record) { r.Rev = 1 << 31 }), "rev is")
	f(broken(func(r *usage.Record) { r.Kind = "" }), "no kind")
	f(broken(func(r *usage.Record) { r.Time = time.Time{} }), "no time")
	f(sized(RecordBytesMax+1), "more than 200000 bytes")
	f(sized(RecordBytesMax+2), "more than 200000 bytes")
	f(strings.Repeat("x", 3*RecordBytesMax), "more than 200000 bytes")
	rows, report := run(t, Options{From: lakeOf(t, map[string]string{"a.jsonl": sized(RecordBytesMax) + "\n"})})
	if len(rows) != 1 || !report.Clean() {
		t.Errorf("at the limit: %+v", report)
	}
}

func TestBadLinesMax(t *testing.T) {
	for n, named := range map[int]int{BadLinesMax: BadLinesMax, BadLinesMax + 1: BadLinesMax} {
		_, report := run(t, Options{From: lakeOf(t, map[string]string{"a.jsonl": strings.Repeat("x\n", n)})})
		if report.Bad != int64(n) || len(report.BadLines) != named {
			t.Errorf("%d: %d counted, %d named", n, report.Bad, len(report.BadLines))
		}
	}
}

func TestFilters(t *testing.T) {
	other := sold(2)
	other.ProductID = "p2"
	dir := lakeOf(t, map[string]string{"a.jsonl": lines(t, sold(1), other, sold(3))})
	f := func(o Options, want string) {
		t.Helper()
		o.From = dir
		rows, report := run(t, o)
		if got := pick(rows, "id"); got != want || int(report.Excluded) != 3-len(rows) {
			t.Errorf("%q, %+v", got, report)
		}
	}
	f(Options{Since: noon.Add(2 * time.Second)}, id(2)+"; "+id(3))
	f(Options{Until: noon.Add(2 * time.Second)}, id(1))
	f(Options{Since: noon.Add(2 * time.Second), Until: noon.Add(3 * time.Second)}, id(2))
	f(Options{Product: "p2"}, id(2))
	f(Options{Product: "none"}, "")
	f(Options{From: filepath.Join(dir, "a.jsonl")}, id(1)+"; "+id(2)+"; "+id(3))
}

func TestRefusedOptions(t *testing.T) {
	f := func(o Options, want string) {
		t.Helper()
		if _, err := Run(t.Context(), o, nil); !errors.Is(err, ErrOptions) || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v", o, err)
		}
	}
	f(Options{To: "x", Format: CSV}, "where the lake is")
	f(Options{From: "x", Format: CSV}, "where to write")
	f(Options{From: "x", To: "y", Format: "xml"}, `"xml"`)
	f(Options{From: "x", To: "y", Format: CSV, Partition: "hour"}, `"hour"`)
	f(Options{From: "x", To: Stdout, Format: Parquet}, "standard output")
	f(Options{From: "x", To: Stdout, Format: CSV, Partition: "day"}, "standard output")
	f(Options{From: "x", To: "y", Format: FOCUS}, "billing account")
	f(Options{From: "x", To: "y", Format: CSV, Since: noon, Until: noon}, "nothing is between")
	if _, err := Run(t.Context(), Options{From: filepath.Join(t.TempDir(), "none"), To: Stdout, Format: CSV}, nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no lake: %v", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Run(ended, Options{From: lakeOf(t, map[string]string{"a.jsonl": "\n"}), To: Stdout, Format: CSV}, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("ended context: %v", err)
	}
}

func TestPartitions(t *testing.T) {
	late := sold(2)
	late.Time = noon.Add(12 * time.Hour)
	dir, to := lakeOf(t, map[string]string{"a.jsonl": lines(t, late, sold(1))}), filepath.Join(t.TempDir(), "out")
	report, err := Run(t.Context(), Options{From: dir, To: to, Format: CSV, Partition: PartitionDay}, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{filepath.Join(to, "day=2026-11-24", "usage.csv"), filepath.Join(to, "day=2026-11-25", "usage.csv")}
	if diff := cmp.Diff(want, report.Outputs); diff != "" {
		t.Error(diff)
	}
	for i, name := range want {
		data, err := os.ReadFile(name)
		if rows := parseCSV(t, string(data)); err != nil || pick(rows, "id") != id(i+1) {
			t.Errorf("%s: %v %v", name, err, rows)
		}
		if entries, _ := os.ReadDir(filepath.Dir(name)); len(entries) != 1 {
			t.Errorf("left behind: %v", entries)
		}
	}
}

func TestOutputFile(t *testing.T) {
	dir, to := lakeOf(t, map[string]string{"a.jsonl": lines(t, sold(1))}), t.TempDir()
	for name, want := range map[string]string{to: filepath.Join(to, "usage.csv"), filepath.Join(to, "x", "y.csv"): filepath.Join(to, "x", "y.csv")} {
		report, err := Run(t.Context(), Options{From: dir, To: name, Format: CSV}, nil)
		if err != nil || len(report.Outputs) != 1 || report.Outputs[0] != want {
			t.Errorf("%s: %+v, %v", name, report, err)
		}
		if info, err := os.Stat(want); err != nil || info.Mode().Perm() != fileMode {
			t.Errorf("%v %v", info.Mode(), err)
		}
	}
	if entries, _ := os.ReadDir(to); len(entries) != 2 {
		t.Errorf("left behind: %v", entries)
	}
}

// Whatever the files are called and however the records lie in them, the same
// bytes come out.
func TestSameLakeSameBytes(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var first string
	for range 5 {
		files := map[string]string{}
		for _, n := range random.Perm(200) {
			r := sold(n)
			r.Time = noon.Add(time.Duration(n/10) * time.Second) // ties are broken by id
			name := fmt.Sprintf("%d.jsonl", random.IntN(4))
			files[name] += lines(t, r)
			if random.IntN(3) == 0 {
				files["again.jsonl"] += lines(t, r)
			}
		}
		out := new(strings.Builder)
		if _, err := Run(t.Context(), Options{From: lakeOf(t, files), To: Stdout, Format: CSV}, out); err != nil {
			t.Fatal(err)
		}
		if first == "" {
			first = out.String()
		}
		if out.String() != first {
			t.Fatal("other bytes")
		}
	}
}

func TestDecimal(t *testing.T) {
	f := func(n int64, scale int, want string) {
		t.Helper()
		if got := decimal(n, scale); got != want {
			t.Errorf("%d, %d: %s", n, scale, got)
		}
	}
	f(0, 9, "0")
	f(1, 9, "0.000000001")
	f(-1, 9, "-0.000000001")
	f(1_500_000_000, 9, "1.5")
	f(12_000, 3, "12")
	f(-9223372036854775808, 9, "-9223372036.854775808")
	f(9223372036854775807, 12, "9223372.036854775807")
}

func TestRead(t *testing.T) {
	dir := lakeOf(t, map[string]string{
		"a.avro":  string(captureFile(t, ocf.Deflate, line(t, sold(1)), nil)),
		"b.jsonl": lines(t, sold(2), sold(2)) + "x\n" + strings.Repeat("y", RecordBytesMax+1) + "\n" + strings.Repeat("\n", BadLinesMax) + "unfinished",
		"c.avro":  "broken",
	})
	var got, places []string
	var bad []LineError
	read, err := Read(t.Context(), dir, func(file string, n int64, record []byte) error {
		if len(record) < 2 {
			return errors.New("no record")
		}
		if len(record) > RecordBytesMax {
			t.Error("a line that is too long")
		}
		got, places = append(got, string(record)), append(places, fmt.Sprintf("%s:%d", filepath.Base(file), n))
		return nil
	}, func(e LineError) { bad = append(bad, e) })
	if err != nil || strings.Join(got, "\n")+"\n" != lines(t, sold(1), sold(2), sold(2)) || read != (Reading{Files: 3, Unfinished: 1}) {
		t.Errorf("%.2000q %+v %v", got, read, err)
	}
	if diff := cmp.Diff([]string{"a.avro:1", "b.jsonl:1", "b.jsonl:2"}, places); diff != "" {
		t.Error(diff)
	}
	if len(bad) != 4+BadLinesMax || bad[0].Error() != filepath.Join(dir, "a.avro")+":2: an event without a body" || bad[1].Line != 3 || bad[2].Line != 4 ||
		bad[3+BadLinesMax].File != filepath.Join(dir, "c.avro") {
		t.Errorf("%d: %v", len(bad), bad[:min(len(bad), 4)])
	}
}

// A lake may be a link, and its files may be links to some that lie elsewhere.
func TestLinks(t *testing.T) {
	elsewhere := lakeOf(t, map[string]string{"x": lines(t, sold(2)), "deep/y.jsonl": lines(t, sold(3))})
	dir := lakeOf(t, map[string]string{"a.jsonl": lines(t, sold(1)), "more/b.jsonl": lines(t, sold(4)), "notes.txt": "not of the lake"})
	to := filepath.Join(lakeOf(t, nil), "lake")
	link := func(target, name string) {
		t.Helper()
		if err := os.Symlink(target, name); err != nil {
			t.Fatal(err)
		}
	}
	link(dir, to)
	link(filepath.Join(elsewhere, "x"), filepath.Join(dir, "linked.jsonl"))
	for _, from := range []string{dir, to, to + "/"} {
		rows, report := run(t, Options{From: from})
		if pick(rows, "id") != id(1)+"; "+id(2)+"; "+id(4) || report.Files != 3 {
			t.Errorf("%s: %+v", from, report)
		}
	}
	if rows, _ := run(t, Options{From: filepath.Join(to, "linked.jsonl")}); pick(rows, "id") != id(2) {
		t.Errorf("a link to a file: %v", rows)
	}
	refused := func(name, target string, want error) {
		t.Helper()
		name = filepath.Join(dir, name)
		link(target, name)
		if _, err := Run(t.Context(), Options{From: to, To: Stdout, Format: CSV}, io.Discard); !errors.Is(err, want) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
	refused("folder", filepath.Join(elsewhere, "deep"), ErrFolderLink)
	refused("loop", dir, ErrFolderLink)
	refused("gone.jsonl", filepath.Join(dir, "none"), os.ErrNotExist)
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe.jsonl"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Run(t.Context(), Options{From: dir, To: Stdout, Format: CSV}, io.Discard); err == nil || !strings.Contains(err.Error(), "pipe.jsonl: is no regular file") {
		t.Errorf("a pipe: %v", err)
	}
}

// A folder that has nothing of a lake is a wrong folder.
func TestNoFiles(t *testing.T) {
	to := filepath.Join(t.TempDir(), "out.csv")
	for _, files := range []map[string]string{nil, {"notes.txt": "x", "day=2026-11-24/usage.csv": "x"}} {
		dir := lakeOf(t, files)
		if _, err := Run(t.Context(), Options{From: dir, To: to, Format: CSV}, nil); !errors.Is(err, ErrNoFiles) || !strings.Contains(err.Error(), dir) {
			t.Errorf("%v: %v", files, err)
		}
		if left, _ := os.ReadDir(filepath.Dir(to)); len(left) != 0 {
			t.Errorf("%v was left", left)
		}
	}
}

// Cells are as they were recorded, whatever line breaks are in them.
func TestCSVCells(t *testing.T) {
	f := func(cell, want string) {
		t.Helper()
		var out strings.Builder
		table, err := newCSV(&out, []field{{name: "a"}, {name: "b,c"}})
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(table.row([]value{str(cell), str("x")}), table.close()); err != nil {
			t.Fatal(err)
		}
		if got := out.String(); got != "a,\"b,c\"\r\n"+want+",x\r\n" {
			t.Errorf("%q: %q", cell, got)
		}
	}
	f("", "")
	f("plain text", "plain text")
	f("a,b", `"a,b"`)
	f(`say "a"`, `"say ""a"""`)
	f("a\nb\rc\r\nd", "\"a\nb\rc\r\nd\"")
	f("a\rb", "\"a\rb\"")
	f("\r", "\"\r\"")
	f("\n\r", "\"\n\r\"")
	f(" a", `" a"`)
	f("a\t", "\"a\t\"")
	f("é\u2028\x00", "é\u2028\x00")
	r := sold(1)
	r.User = "a\nb\rc"
	out := new(strings.Builder)
	if _, err := Run(t.Context(), Options{From: lakeOf(t, map[string]string{"a.jsonl": lines(t, r)}), To: Stdout, Format: CSV}, out); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), ",\"a\nb\rc\",") {
		t.Errorf("%q", out.String())
	}
}

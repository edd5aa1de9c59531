package retail

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

const emptyPage = `{"BillingCurrency":"USD","Items":[],"NextPageLink":null,"Count":0}`

// pageOf is a page of items of these names, and a link to the next.
func pageOf(next string, names ...string) string {
	var items []string
	for _, name := range names {
		items = append(items, fmt.Sprintf(`{"currencyCode":"USD","meterName":%q,"retailPrice":1e-05,"tierMinimumUnits":0.0}`, name))
	}
	link := "null"
	if next != "" {
		link = fmt.Sprintf("%q", next)
	}
	return fmt.Sprintf(`{"BillingCurrency":"USD","Items":[%s],"NextPageLink":%s}`, strings.Join(items, ","), link)
}

// api is a server of prices whose pages of the first service are numbered by ?page; the second service has none.
type api struct {
	*httptest.Server
	asked []string
	slept []time.Duration
}

func serve(t *testing.T, answer func(a *api, page string, w http.ResponseWriter)) *api {
	a := &api{}
	a.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		a.asked = append(a.asked, r.URL.Path+"?"+q.Encode())
		if strings.Contains(q.Get("$filter"), "Cognitive Services") {
			fmt.Fprint(w, emptyPage)
			return
		}
		answer(a, q.Get("page"), w)
	}))
	t.Cleanup(a.Close)
	return a
}

func (a *api) client() *Client {
	return &Client{
		Endpoint: a.URL,
		Now:      func() time.Time { return time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC) },
		Sleep: func(_ context.Context, d time.Duration) error {
			a.slept = append(a.slept, d)
			return nil
		},
	}
}

func TestFetchFollowsPages(t *testing.T) {
	a := serve(t, func(a *api, page string, w http.ResponseWriter) {
		switch page {
		case "":
			fmt.Fprint(w, pageOf(a.URL+"/api/retail/prices?page=2", "one", "two"))
		case "2":
			fmt.Fprint(w, pageOf(strings.Replace(a.URL, "127.0.0.1", "127.0.0.1", 1)+"/api/retail/prices?page=3", "three"))
		default:
			fmt.Fprint(w, pageOf("", "four"))
		}
	})
	items, err := a.client().Fetch(t.Context(), []string{"eastus", "it's"})
	if err != nil || len(items) != 4 || items[3].MeterName != "four" || items[0].RetailPrice != "1e-05" {
		t.Fatalf("%v, %v", items, err)
	}
	if len(a.asked) != 4 {
		t.Fatalf("asked %q", a.asked)
	}
	first := httptest.NewRequest(http.MethodGet, a.asked[0], nil).URL
	q := first.Query()
	want := "serviceName eq 'Foundry Models' and priceType eq 'Consumption' and contains(productName, 'Azure OpenAI')" +
		" and (armRegionName eq 'eastus' or armRegionName eq 'it''s')"
	if first.Path != "/api/retail/prices" || q.Get("api-version") != apiVersion || q.Get("currencyCode") != "'USD'" || q.Get("$filter") != want {
		t.Errorf("asked %s with %v", first.Path, q)
	}
}

func TestParsePageWithMark(t *testing.T) {
	p, err := parsePage([]byte("\ufeff" + `{"BillingCurrency":"USD","Items":[]}`))
	if err != nil || p.Items == nil {
		t.Error(err)
	}
}

func TestFetchRetries(t *testing.T) {
	f := func(retryAfter string, status, times int, want ...time.Duration) {
		t.Helper()
		failed := 0
		a := serve(t, func(_ *api, _ string, w http.ResponseWriter) {
			if failed++; failed <= times {
				w.Header().Set("Retry-After", retryAfter)
				w.WriteHeader(status)
				return
			}
			fmt.Fprint(w, pageOf("", "one"))
		})
		items, err := a.client().Fetch(t.Context(), nil)
		if err != nil || len(items) != 1 {
			t.Errorf("%s: %v, %v", retryAfter, items, err)
		}
		if fmt.Sprint(a.slept) != fmt.Sprint(want) {
			t.Errorf("%s: slept %v, want %v", retryAfter, a.slept, want)
		}
	}
	f("7", 429, 1, 7*time.Second)
	f("120", 429, 2, WaitMax, WaitMax)
	f("Sun, 01 Nov 2026 12:00:30 GMT", 503, 1, 30*time.Second)
	f("Sun, 01 Nov 2026 11:00:00 GMT", 429, 1, time.Second)
	f("", 500, AttemptsMax-1, 1*time.Second, 2*time.Second, 4*time.Second, 8*time.Second, 16*time.Second)
	f("-3", 429, 2, 1*time.Second, 2*time.Second)
	f("soon", 502, 1, time.Second)
}

func TestFetchFails(t *testing.T) {
	f := func(name string, want string, answer func(a *api, page string, w http.ResponseWriter)) {
		t.Run(name, func(t *testing.T) {
			a := serve(t, answer)
			items, err := a.client().Fetch(t.Context(), nil)
			if err == nil || !strings.Contains(err.Error(), want) || items != nil {
				t.Fatalf("%d items, %v; want %q", len(items), err, want)
			}
		})
	}
	text := func(s string) func(*api, string, http.ResponseWriter) {
		return func(_ *api, _ string, w http.ResponseWriter) { fmt.Fprint(w, s) }
	}
	status := func(code int) func(*api, string, http.ResponseWriter) {
		return func(_ *api, _ string, w http.ResponseWriter) { w.WriteHeader(code) }
	}
	link := func(format string) func(*api, string, http.ResponseWriter) {
		return func(a *api, _ string, w http.ResponseWriter) {
			fmt.Fprint(w, pageOf(strings.ReplaceAll(format, "HOST", strings.TrimPrefix(a.URL, "http://")), "one"))
		}
	}
	f("loop", "circle", link("http://HOST/api/retail/prices?page=2"))
	f("foreign host", "next page", link("http://evil.example/api/retail/prices?page=2"))
	f("foreign port", "next page", link("http://127.0.0.1:1/api/retail/prices"))
	f("other scheme", "next page", link("https://HOST/api/retail/prices"))
	f("host in user", "next page", link("http://HOST@evil.example/"))
	f("user", "next page", link("http://me:you@HOST/api/retail/prices"))
	f("relative", "next page", link("/api/retail/prices?page=2"))
	f("no address", "next page", link("http://%zz"))
	f("truncated", "not an answer", text(`{"BillingCurrency":"USD","Items":[{"currencyCode":"USD","meterName":"on`))
	f("other JSON", "Items is missing", text(`{"error":"x"}`))
	f("html", "not an answer", text(`<html>`))
	f("price is a word", "not an answer", text(`{"BillingCurrency":"USD","Items":[{"currencyCode":"USD","retailPrice":"x"}]}`))
	f("CAD", "not in USD", text(`{"BillingCurrency":"CAD","Items":[]}`))
	f("one item in CAD", "not in USD", text(`{"BillingCurrency":"USD","Items":[{"currencyCode":"CAD","meterName":"m"}]}`))
	f("not found", "404", status(404))
	f("redirect", "302", status(302))
	f("always busy", "429", status(429))
	f("always broken", "500", status(500))
	f("asks for too long", "too long", func(_ *api, _ string, w http.ResponseWriter) {
		w.Header().Set("Retry-After", "121")
		w.WriteHeader(429)
	})
	f("breaks off", "broke off", func(_ *api, _ string, w http.ResponseWriter) {
		w.Header().Set("Content-Length", "100")
		fmt.Fprint(w, `{"Items":[`)
	})
	f("second page is missing", "500", func(a *api, page string, w http.ResponseWriter) {
		if page != "" {
			w.WriteHeader(500)
			return
		}
		fmt.Fprint(w, pageOf(a.URL+"/?page=2", "one"))
	})
	f("too large", "bytes", func(_ *api, _ string, w http.ResponseWriter) {
		fmt.Fprint(w, emptyPage, strings.Repeat(" ", PageBytesMax-len(emptyPage)+1))
	})
	f("too many prices", "prices; name regions", func(a *api, page string, w http.ResponseWriter) {
		fmt.Fprint(w, `{"BillingCurrency":"USD","Items":[`, strings.Repeat(`{"currencyCode":"USD"},`, ItemsMax/4),
			`{"currencyCode":"USD"}],"NextPageLink":"`, a.URL, "/?page=1", page, `"}`)
	})
	many := 0
	f("too many pages", "pages", func(a *api, _ string, w http.ResponseWriter) {
		many++
		fmt.Fprint(w, pageOf(fmt.Sprintf("%s/?page=%d", a.URL, many), "one"))
	})
	if many != PagesMax {
		t.Errorf("%d pages were read", many)
	}
}

func TestFetchLimits(t *testing.T) {
	n := 0
	a := serve(t, func(a *api, _ string, w http.ResponseWriter) {
		if n++; n == PagesMax {
			fmt.Fprint(w, emptyPage, strings.Repeat(" ", PageBytesMax-len(emptyPage)))
			return
		}
		fmt.Fprint(w, pageOf(fmt.Sprintf("%s/?page=%d", a.URL, n), "one"))
	})
	if items, err := a.client().Fetch(t.Context(), make([]string, RegionsMax)); err != nil || len(items) != PagesMax-1 {
		t.Errorf("%d items, %v", len(items), err)
	}
	if _, err := a.client().Fetch(t.Context(), make([]string, RegionsMax+1)); err == nil {
		t.Error("too many regions were asked for")
	}
	for _, endpoint := range []string{"", "prices.azure.com", "ftp://prices.azure.com", "http://"} {
		if _, err := (&Client{Endpoint: endpoint}).Fetch(t.Context(), nil); err == nil {
			t.Errorf("%q was asked", endpoint)
		}
	}
}

func TestFetchEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	a := serve(t, func(_ *api, _ string, w http.ResponseWriter) {
		w.WriteHeader(503)
		cancel()
	})
	c := a.client()
	c.Sleep = nil
	if _, err := c.Fetch(ctx, nil); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestSameHost(t *testing.T) {
	f := func(a, b string, want bool) {
		t.Helper()
		first, second := httptest.NewRequest("GET", a, nil).URL, httptest.NewRequest("GET", b, nil).URL
		if got := sameHost(first, second); got != want {
			t.Errorf("%s and %s: %v", a, b, got)
		}
	}
	f("https://prices.azure.com", "https://prices.azure.com:443/api", true)
	f("https://prices.azure.com", "https://PRICES.azure.com/api", true)
	f("https://prices.azure.com", "https://prices.azure.com:444/api", false)
	f("https://prices.azure.com", "https://prices.azure.com.evil.example/api", false)
}

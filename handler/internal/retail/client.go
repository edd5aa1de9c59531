package retail

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

const (
	// DefaultEndpoint is the public price list of Azure's commercial clouds.
	DefaultEndpoint = "https://prices.azure.com"
	// PagesMax is how many pages of one query are read.
	PagesMax = 500
	// PageBytesMax is the size of the largest page read.
	PageBytesMax = 16 << 20
	// ItemsMax is how many prices are read in all.
	ItemsMax = 200_000
	// RegionsMax is how many regions can be asked for by name.
	RegionsMax = 80
	// AttemptsMax is how often a page is asked for before giving up.
	AttemptsMax = 6
	// WaitMax is the longest wait for the API to let us in again.
	WaitMax = 2 * time.Minute

	apiVersion     = "2023-01-01-preview"
	requestTimeout = time.Minute
)

// services are the names that Azure OpenAI is sold under: the second until 2025.
// The API answers a name that it does not know with an empty list.
var services = []string{"Foundry Models", "Cognitive Services"}

// Client reads the Azure Retail Prices API. Only Endpoint is required.
type Client struct {
	Endpoint string // "https://prices.azure.com"
	HTTP     *http.Client
	// Sleep waits for d or until ctx ends; nil: by the clock.
	Sleep func(ctx context.Context, d time.Duration) error
	// Now is what a date in Retry-After is compared with; nil: the clock.
	Now func() time.Time
}

// retryError is a failure that may pass.
type retryError struct {
	error
	after time.Duration // 0: not said
}

// Fetch reads all prices of Azure OpenAI paid by use, in some regions or, if
// there are none, in all. It is all or nothing: an error comes without items.
func (c *Client) Fetch(ctx context.Context, regions []string) ([]Item, error) {
	if len(regions) > RegionsMax {
		return nil, fmt.Errorf("%d regions; at most %d can be named", len(regions), RegionsMax)
	}
	base, err := url.Parse(c.Endpoint)
	if err != nil || base.Host == "" || (base.Scheme != "https" && base.Scheme != "http") {
		return nil, fmt.Errorf("endpoint %q is no http(s) address", c.Endpoint)
	}
	var items []Item
	for _, service := range services {
		query := url.Values{}
		query.Set("api-version", apiVersion)
		query.Set("currencyCode", "'USD'")
		query.Set("$filter", filter(service, regions))
		first := *base
		first.Path = strings.TrimSuffix(base.Path, "/") + "/api/retail/prices"
		first.RawQuery = query.Encode()
		if items, err = c.pages(ctx, &first, items); err != nil {
			return nil, fmt.Errorf("prices of %q: %w", service, err)
		}
	}
	return items, nil
}

// filter is an OData filter. Its values are case-sensitive in this version of the API.
func filter(service string, regions []string) string {
	quote := func(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }
	f := "serviceName eq " + quote(service) + " and priceType eq 'Consumption' and contains(productName, 'Azure OpenAI')"
	names := make([]string, 0, len(regions))
	for _, region := range regions {
		names = append(names, "armRegionName eq "+quote(region))
	}
	if len(names) > 0 {
		f += " and (" + strings.Join(names, " or ") + ")"
	}
	return f
}

// pages follows the links from the first page to the last.
func (c *Client) pages(ctx context.Context, first *url.URL, items []Item) ([]Item, error) {
	seen := map[string]bool{}
	for at := first; ; {
		if seen[at.String()] {
			return nil, errors.New("the pages go round in a circle")
		}
		if len(seen) == PagesMax {
			return nil, fmt.Errorf("more than %d pages; name regions to get fewer", PagesMax)
		}
		seen[at.String()] = true
		p, err := c.page(ctx, at)
		if err != nil {
			return nil, err
		}
		if items = append(items, p.Items...); len(items) > ItemsMax {
			return nil, fmt.Errorf("more than %d prices; name regions to get fewer", ItemsMax)
		}
		if p.NextPageLink == "" {
			return items, nil
		}
		next, err := url.Parse(p.NextPageLink)
		if err != nil || !sameHost(first, next) {
			return nil, fmt.Errorf("the next page is at %.200q, which is not %s", p.NextPageLink, first.Host)
		}
		at = next
	}
}

// sameHost compares the hosts of two addresses. The API's links name the port 443.
func sameHost(a, b *url.URL) bool {
	port := func(u *url.URL) string {
		if p := u.Port(); p != "" {
			return p
		}
		return map[string]string{"https": "443", "http": "80"}[u.Scheme]
	}
	return a.Scheme == b.Scheme && strings.EqualFold(a.Hostname(), b.Hostname()) && port(a) == port(b) && b.User == nil
}

// page reads a page, several times if need be.
func (c *Client) page(ctx context.Context, at *url.URL) (page, error) {
	pause := time.Second
	for attempt := 1; ; attempt++ {
		body, err := c.get(ctx, at.String())
		if err == nil {
			return parsePage(body)
		}
		var retry *retryError
		if !errors.As(err, &retry) || attempt == AttemptsMax {
			return page{}, err
		}
		wait := pause
		if pause *= 2; retry.after > 0 {
			wait = retry.after
		}
		if wait > WaitMax {
			return page{}, fmt.Errorf("%w; it asks to wait for %v, which is too long", err, wait)
		}
		if err := c.sleep(ctx, wait); err != nil {
			return page{}, err
		}
	}
}

func (c *Client) get(ctx context.Context, address string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Accept", "application/json")
	client := http.Client{Transport: http.DefaultTransport}
	if c.HTTP != nil {
		client = *c.HTTP
	}
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	response, err := client.Do(request)
	if err != nil {
		return nil, &retryError{error: err}
	}
	defer response.Body.Close()
	switch {
	case response.StatusCode == http.StatusTooManyRequests || response.StatusCode >= http.StatusInternalServerError:
		return nil, &retryError{fmt.Errorf("the price API answered %s", response.Status), c.after(response.Header.Get("Retry-After"))}
	case response.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("the price API answered %s", response.Status)
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, PageBytesMax+1))
	if err != nil {
		return nil, &retryError{error: fmt.Errorf("a page broke off: %w", err)}
	}
	if len(body) > PageBytesMax {
		return nil, fmt.Errorf("a page has more than %d bytes", PageBytesMax)
	}
	return body, nil
}

// after reads Retry-After: seconds, or a date (RFC 9110, 10.2.3). 0: neither.
func (c *Client) after(text string) time.Duration {
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		return time.Duration(min(max(n, 0), int64(24*time.Hour/time.Second))) * time.Second
	}
	at, err := http.ParseTime(text)
	if err != nil {
		return 0
	}
	now := time.Now
	if c.Now != nil {
		now = c.Now
	}
	return max(at.Sub(now()), 0)
}

func (c *Client) sleep(ctx context.Context, d time.Duration) error {
	if c.Sleep != nil {
		return c.Sleep(ctx, d)
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

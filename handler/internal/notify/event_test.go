package notify

import (
	"net/http"
	"strings"
	"testing"
)

// TestSignature is the example of Standard Webhooks' own libraries.
func TestSignature(t *testing.T) {
	key, err := ParseSecret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	if err != nil {
		t.Fatal(err)
	}
	got := sign(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, []byte(`{"test": 2432232314}`))
	if want := "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="; got != want {
		t.Errorf("signature %s, want %s", got, want)
	}
}

func TestParseSecret(t *testing.T) {
	f := func(text string, want int) {
		t.Helper()
		key, err := ParseSecret(text)
		if len(key) != want || (err != nil) != (want == 0) {
			t.Errorf("%q: %d bytes, %v", text, len(key), err)
		}
		if err != nil && len(text) > len(secretPrefix) && strings.Contains(err.Error(), text) {
			t.Errorf("%q is in the error", text)
		}
	}
	f("", 0)
	f("s", 1)
	f(strings.Repeat("s", 24), 24)
	f(strings.Repeat("s", 256), 256)
	f(strings.Repeat("s", 257), 0)
	f("whsec_", 0)
	f("whsec_"+strings.Repeat("A", 28)+"AA==", 0) // 22 bytes
	f("whsec_"+strings.Repeat("A", 32), 24)
	f("whsec_"+strings.Repeat("A", 84)+"AA==", 64)
	f("whsec_"+strings.Repeat("A", 84)+"AAA=", 0) // 65 bytes
	f("whsec_no base64, but long enough to be a key", 0)
}

func TestParseURL(t *testing.T) {
	f := func(text string, good bool) {
		t.Helper()
		if _, err := ParseURL(text); (err == nil) != good {
			t.Errorf("%q: %v", text, err)
		} else if err != nil && text != "" && strings.Contains(err.Error(), text) {
			t.Errorf("%q is in the error", text)
		}
	}
	f("https://hooks.example/a?b=c", true)
	f("http://127.0.0.1:8080", true)
	f("https://[::1]/x", true)
	f("", false)
	f("hooks.example/a", false)
	f("ftp://hooks.example/a", false)
	f("https://", false)
	f("https://:443/x", false)
	f("https://user:password@hooks.example/", false)
	f("https://hooks.example/#part", false)
	f("https://hooks.example/%zz", false)
	f("https://h/"+strings.Repeat("a", urlBytesMax-10), true)
	f("https://h/"+strings.Repeat("a", urlBytesMax-9), false)
}

// FuzzSettings: nothing that is accepted panics later, or names its secret.
func FuzzSettings(f *testing.F) {
	f.Add("https://hooks.example/a?b=c", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	f.Add("http://[::1%25en0]:1/%2f", strings.Repeat("s", 24))
	f.Fuzz(func(t *testing.T, address, secret string) {
		if u, err := ParseURL(address); err == nil {
			if _, err := http.NewRequestWithContext(t.Context(), http.MethodPost, u.String(), http.NoBody); err != nil {
				t.Errorf("%q is accepted and cannot be used: %v", address, err)
			}
		}
		if key, err := ParseSecret(secret); err == nil && len(key) < 1 {
			t.Errorf("a key of %d bytes", len(key))
		}
	})
}
